"""Where each source stands against what was promised: how old, how proven, how soon back.

Pure arithmetic over the history, the snapshots and the configuration: nothing here looks at a live
store. Spans are seconds, moments are nanoseconds since the epoch, and 0 stands for never. Shared by
`status` and the metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.operate.schedule import Schedule
from safetake.snapshots import FAILED, RUNGS, STORED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from safetake.config import Config
    from safetake.configjobs import JobConfig
    from safetake.operate.history import Record
    from safetake.snapshots import SnapshotInfo

ASSUMED_RATE = 60e6
"""Bytes a second of a restore, until a restore or a proof was measured."""
FIXED_S = 5.0
"""What a restore costs beside its bytes."""
RATES_FROM = 20
"""So many of the newest measurements count."""
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
    """Its last restore took so long."""
    predicted_s: float | None = None

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
        state.measured_s = last_restore_s(name, records)
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


def last_restore_s(name: str, records: Sequence[Record]) -> float | None:
    """How long the last good restore of a source took."""
    for record in reversed(records):
        if is_restore(record):
            sources = _named(record, "sources")
            if name in sources:
                entry = sources[name]
                own = entry.get("seconds") if isinstance(entry, dict) else None
                whole = record.facts.get("seconds", record.seconds)
                return float(own if isinstance(own, int | float) else whole)
    return None


def is_restore(record: Record) -> bool:
    """Whether it is a restore or a drill that ended well, and was not taken back."""
    return (
        record.kind in ("restore", "drill")
        and record.ok
        and not str(record.facts.get("outcome", "")).startswith(("rolled", "failed"))
    )


def restore_rate(records: Sequence[Record]) -> float | None:
    """Bytes a second of the newest restores and proofs by opening; None: none was measured."""
    amount = spent = 0.0
    count = 0
    for record in reversed(records):
        opened = record.kind == "verify" and record.facts.get("rung") == "opened"
        if not record.ok or not (opened or is_restore(record)):
            continue
        size, seconds = record.facts.get("bytes"), record.facts.get("seconds")
        if isinstance(size, int) and size > 0 and isinstance(seconds, int | float) and seconds > 0:
            amount, spent, count = amount + size, spent + seconds, count + 1
            if count == RATES_FROM:
                break
    return amount / spent if spent else None


def predicted_s(size: int, rate: float | None) -> float:
    """How long it should take to bring so many bytes back."""
    return FIXED_S + size / (rate or ASSUMED_RATE)


# --------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True, slots=True)
class Due:
    """When a scheduled job has to run next."""

    at_ns: int
    """The first moment of its schedule after its last run, also when that is past."""
    overdue_ns: int
    """From here on it is overdue: delay at the start and twice its last length are allowed for."""


def due(job: JobConfig, records: Iterable[Record], since_ns: int) -> Due | None:
    """When a job is due, from its own `records`; one that has never run, since `since_ns`.

    None: it has no schedule, or its schedule never comes.
    """
    if job.schedule is None:
        return None
    base, length = since_ns, min(job.timeout, _UNKNOWN_RUN_S)
    for record in records:
        if record.kind == "missed":
            base = max(base, record.ended_ns)
        else:
            base, length = max(base, record.started_ns), record.seconds
    at = Schedule(job.schedule, job.timezone).after(base)
    if at is None:
        return None
    return Due(at, at + round((job.jitter + _GRACE_S + 2 * length) * 1e9))


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
    added = sum(_whole(r, "added_bytes") for r in recent if r.kind == "backup")
    freed = sum(_whole(r, "freed_bytes") for r in recent if r.kind == "prune")
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
