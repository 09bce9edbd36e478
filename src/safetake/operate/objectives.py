"""Where each source stands against what was promised: how old, how proven, how soon back.

Pure arithmetic over the history, the snapshots and the configuration: nothing here looks at a live
store. Spans are seconds, moments are nanoseconds since the epoch, and 0 stands for never. Shared by
`status` and the metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.operate.schedule import Schedule
from safetake.operate.timetable import timing
from safetake.snapshots import FAILED, RUNGS, STORED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from safetake.config import Config
    from safetake.configjobs import JobConfig
    from safetake.operate.history import Record
    from safetake.snapshots import SnapshotInfo

PARTS = ("keys", "records", "apply", "parts", "undo keys", "undo records")
"""Actions of restores and drills that bring parts of a source back."""
FIXED_S = 5.0
"""What a restore costs beside its bytes."""
RATES_FROM = 20
"""So many of the newest measurements count."""
PAST = "past"
"""Kind of what stands for the runs of a day (`past.py`): sums of what was added and freed."""
GROWTH_OVER_S = 30 * 86400.0
_GROWTH_NEEDS_S = 86400.0
_GRACE_S = 300.0
_UNKNOWN_RUN_S = 1800.0


# ------------------------------------------------------------------------------------ sources


@dataclass(slots=True)
class SourceState:
    """One source."""

    name: str
    newest_ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RUNGS, 0))
    """By rung: moment of the newest snapshot that is proven at least so far."""
    damaged: bool = False
    """The newest proof of the newest snapshot found damage."""
    bytes: int | None = None
    """In the newest snapshot, as far as the history knows."""
    rpo_s: float | None = None
    rto_s: float | None = None
    partial_rto_s: float | None = None
    measured_s: float | None = None
    """Its last restore or drill in full took so long."""
    measured_ns: int = 0
    partial_measured_s: float | None = None
    """Its last restore of rows, records or keys took so long."""
    predicted_s: float | None = None
    """From its size and measured rates; None: nothing was measured yet."""

    def age_s(self, now_ns: int, rung: str = STORED) -> float | None:
        """How old the newest snapshot is that is proven so far; None: there is none."""
        at = self.newest_ns[rung]
        return max(0, now_ns - at) / 1e9 if at else None

    def rpo_met(self, now_ns: int) -> bool | None:
        """Whether no more than agreed would be lost now; None: nothing was agreed."""
        if self.rpo_s is None:
            return None
        age = self.age_s(now_ns)
        return age is not None and age <= self.rpo_s

    def rto_met(self) -> bool | None:
        """Whether what was measured and what is predicted are within the target; None: there is no
        target, or nothing was measured."""
        known = [each for each in (self.measured_s, self.predicted_s) if each is not None]
        if self.rto_s is None or not known:
            return None
        return max(known) <= self.rto_s

    def partial_rto_met(self) -> bool | None:
        """The same for parts of it."""
        if self.partial_rto_s is None or self.partial_measured_s is None:
            return None
        return self.partial_measured_s <= self.partial_rto_s


def source_states(
    config: Config, records: Sequence[Record], snapshots: Iterable[SnapshotInfo] | None
) -> dict[str, SourceState]:
    """Every configured source. `snapshots` is None while the repository cannot be read: then the
    history says what was stored last, and nothing is known of proofs.
    """
    states = {name: SourceState(name) for name in config.sources}
    if snapshots is None:
        _from_history(states, records)
    else:
        for snapshot in snapshots:  # the newest last
            _from_snapshot(states, snapshot)
    rate = restore_rate(records)
    for name, state in states.items():
        objective = config.objectives.get(name)
        if objective is not None:
            state.rpo_s, state.rto_s = objective.rpo, objective.rto
            state.partial_rto_s = objective.partial_rto
        state.bytes = newest_bytes(name, records)
        measured = last_restore(name, records)
        if measured is not None:
            state.measured_s, state.measured_ns = measured
        parts = last_restore(name, records, parts=True)
        if parts is not None:
            state.partial_measured_s = parts[0]
        if state.bytes is not None:
            state.predicted_s = predicted_s(state.bytes, rate)
    return states


def _from_snapshot(states: dict[str, SourceState], snapshot: SnapshotInfo) -> None:
    if snapshot.safety:
        return
    for name in snapshot.sources:
        state = states.get(name)
        if state is None:
            continue
        state.damaged = snapshot.rung.name == FAILED
        if not state.damaged:
            for rung in RUNGS[: RUNGS.index(snapshot.rung.name) + 1]:
                state.newest_ns[rung] = max(state.newest_ns[rung], snapshot.time_ns)


def _from_history(states: dict[str, SourceState], records: Sequence[Record]) -> None:
    for record in records:
        if record.kind == "backup" and record.facts.get("snapshot"):
            for name in _named(record, "sources"):
                if name in states:
                    newest = states[name].newest_ns
                    newest[STORED] = max(newest[STORED], record.started_ns)


def _named(record: Record, key: str) -> dict[str, Any]:
    found = record.facts.get(key)
    if isinstance(found, list):
        return {str(name): {} for name in found}
    return found if isinstance(found, dict) else {}


def newest_bytes(name: str, records: Sequence[Record]) -> int | None:
    """Size of a source in its newest backup on record."""
    for record in reversed(records):
        if record.kind == "backup":
            entry = _named(record, "sources").get(name)
            if isinstance(entry, dict) and isinstance(entry.get("bytes"), int):
                return int(entry["bytes"])
    return None


def last_restore(
    name: str, records: Sequence[Record], *, parts: bool = False
) -> tuple[float, int] | None:
    """How long the last good restore of a source took, and when: in full, or of `parts` of it."""
    for record in reversed(records):
        if is_restore(record) and parts == is_part(record):
            sources = _named(record, "sources")
            if name in sources:
                entry = sources[name]
                own = entry.get("seconds") if isinstance(entry, dict) else None
                whole = record.facts.get("seconds", record.seconds)
                took = own if isinstance(own, int | float) else whole
                if isinstance(took, int | float) and took >= 0:
                    return float(took), record.ended_ns
    return None


def is_part(record: Record) -> bool:
    """Whether only rows, records or keys were brought back."""
    return record.kind == "rows" or record.facts.get("action") in PARTS


def is_restore(record: Record) -> bool:
    """Whether it is a restore or a drill that ended well, and was not taken back."""
    return (
        record.kind in ("restore", "drill", "rows")
        and record.ok
        and not str(record.facts.get("outcome", "")).startswith(("rolled", "failed"))
    )


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast data comes back here."""

    bytes_per_s: float
    restores: int
    """Restores and drills that it was measured by."""
    proofs: int
    """Proofs by opening that it was measured by."""

    def __str__(self) -> str:
        from safetake.wording import size

        parts = [
            f"{count} {word}{'s' if count != 1 else ''}"
            for count, word in ((self.restores, "restore"), (self.proofs, "opened proof"))
            if count
        ]
        return f"{size(self.bytes_per_s)}/s, measured by {' and '.join(parts)}"


def restore_rate(records: Sequence[Record]) -> Rate | None:
    """Of the newest restores and proofs by opening; None: none was measured."""
    amount = spent = 0.0
    restores = proofs = 0
    for record in reversed(records):
        opened = record.kind == "verify" and record.facts.get("rung") == "opened"
        if not record.ok or is_part(record) or not (opened or is_restore(record)):
            continue
        size, seconds = record.facts.get("bytes"), record.facts.get("seconds")
        if isinstance(size, int) and size > 0 and isinstance(seconds, int | float) and seconds > 0:
            amount, spent = amount + size, spent + seconds
            restores, proofs = restores + (not opened), proofs + opened
            if restores + proofs == RATES_FROM:
                break
    return Rate(amount / spent, restores, proofs) if spent else None


def predicted_s(size: int, rate: Rate | None) -> float | None:
    """How long it should take to bring so many bytes back; None: nothing was measured."""
    return None if rate is None else FIXED_S + size / rate.bytes_per_s


# --------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True, slots=True)
class Due:
    """When a scheduled job has to run next."""

    at_ns: int
    """The first moment of its schedule after its last run, also when that is past."""
    overdue_ns: int
    """From here on it is overdue: delay at the start and twice its last length are allowed for."""


def due(
    name: str, job: JobConfig, records: Sequence[Record], never_ns: int, floor_ns: int = 0
) -> Due | None:
    """When a job is due: after its last run, and not by times that it did not have yet.

    `records` are those of all jobs. What has never run, and no daemon has known, counts from
    `never_ns`; nothing counts from before `floor_ns`. None: it has no schedule, or its schedule
    never comes.
    """
    if job.schedule is None:
        return None
    length = min(job.timeout, _UNKNOWN_RUN_S)
    base = max(floor_ns, known_since(name, job, records))
    for record in records:
        if record.job == name and record.kind == "missed":
            base = max(base, record.ended_ns)
        elif record.job == name:
            base, length = max(base, record.started_ns), record.seconds
    at = Schedule(job.schedule, job.timezone).after(base or never_ns)
    if at is None:
        return None
    return Due(at, at + round((job.jitter + _GRACE_S + 2 * length) * 1e9))


def known_since(name: str, job: JobConfig, records: Iterable[Record]) -> int:
    """Since when the daemons know the job with the times that it has now; 0: they do not."""
    since = 0
    for record in records:
        jobs = record.facts.get("jobs") if record.kind == "daemon" else None
        if isinstance(jobs, dict):
            known = jobs.get(name) == timing(job)
            since = (since or record.ended_ns) if known else 0
    return since


# --------------------------------------------------------------------------------- repository


def growth(records: Sequence[Record], now_ns: int) -> float | None:
    """Bytes a second that backups have added and prunes not freed, of late; None: too early."""
    begin = now_ns - round(GROWTH_OVER_S * 1e9)
    recent = [record for record in records if record.ended_ns >= begin]
    if not recent:
        return None
    span = (now_ns - min(record.started_ns for record in recent)) / 1e9
    if span < _GROWTH_NEEDS_S:
        return None
    added = sum(_whole(r, "added_bytes") for r in recent if r.kind in ("backup", PAST))
    freed = sum(_whole(r, "freed_bytes") for r in recent if r.kind in ("prune", PAST))
    return (added - freed) / span


def _whole(record: Record, fact: str) -> int:
    value = record.facts.get(fact)
    return value if isinstance(value, int) else 0


def full_ns(free_bytes: int, growth_per_s: float | None, now_ns: int) -> int | None:
    """When a file system will be full; None: not at this rate, or not within a century."""
    if growth_per_s is None or growth_per_s <= 0:
        return None
    seconds = free_bytes / growth_per_s
    return now_ns + round(seconds * 1e9) if seconds < 100 * 365 * 86400 else None
