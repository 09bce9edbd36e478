"""How things stand: sources against their objectives, jobs, the repository, and what is unsafe.

Put together from the history, the repository and its file system. Where the repository cannot be
opened the history on this machine says what was stored, and the status says so. Nothing is changed
or asked of a live store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.clock import go_time
from safetake.connect import on_the_volume_of
from safetake.operate import objectives
from safetake.operate.history.chain import heads
from safetake.operate.objectives import SourceState
from safetake.snapshots import RUNGS

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history import History, Record
    from safetake.operate.metrics.places import Place
    from safetake.snapshots import SnapshotInfo

SYSTEM = "system"
SOON_FULL_S = 14 * 86400.0
"""A file system that will be full within this is warned about."""


@dataclass(slots=True)
class JobStatus:
    """One job of the configuration."""

    name: str
    kind: str
    last: Record | None = None
    """Its last run that was started."""
    last_good_ns: int = 0
    next_ns: int | None = None
    """The next time of its schedule; None: it has none."""
    overdue: bool = False


@dataclass(slots=True)
class Status:
    """Everything, at one moment."""

    now_ns: int
    reachable: str = ""
    """Empty, or why the repository could not be opened."""
    sources: dict[str, SourceState] = field(default_factory=dict)
    system: SourceState | None = None
    """All sources together, when there is an objective for them."""
    jobs: list[JobStatus] = field(default_factory=list)
    place: Place | None = None
    copies: dict[str, Place] = field(default_factory=dict)
    growth_per_day: float | None = None
    full_ns: int | None = None
    rate: str = ""
    """What predictions are made from; empty: nothing was measured."""
    unpushed: int = 0
    records: int = 0
    heads: list[str] = field(default_factory=list)
    """Where the chain of the history ends: what can be published."""
    broken: list[str] = field(default_factory=list)
    """Objectives that are not met."""
    warnings: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 when an objective is broken."""
        return 1 if self.broken else 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `safetake status`."""
        system = self.system
        return {
            "time": go_time(self.now_ns),
            "ok": not self.broken,
            "repository": {
                "open": not self.reachable,
                "reason": self.reachable,
                **_place(self.place),
                "growth_bytes_per_day": self.growth_per_day,
                "full": _time(self.full_ns),
            },
            "copies": {name: _place(place) for name, place in self.copies.items()},
            "sources": {name: self._source(state) for name, state in self.sources.items()},
            "system": None if system is None else self._source(system),
            "predicted_from": self.rate,
            "jobs": {job.name: _job(job) for job in self.jobs},
            "history": {
                "records": self.records,
                "heads": self.heads,
                "unpushed": self.unpushed,
            },
            "broken": self.broken,
            "warnings": self.warnings,
        }

    def _source(self, state: SourceState) -> dict[str, Any]:
        return {
            "newest": {rung: _time(state.newest_ns[rung] or None) for rung in RUNGS},
            "age_seconds": {rung: state.age_s(self.now_ns, rung) for rung in RUNGS},
            "damaged": state.damaged,
            "bytes": state.bytes,
            "rpo_seconds": state.rpo_s,
            "rpo_met": state.rpo_met(self.now_ns),
            "rto_seconds": state.rto_s,
            "rto_measured_seconds": state.measured_s,
            "rto_predicted_seconds": state.predicted_s,
            "rto_met": state.rto_met(),
            "partial_rto_seconds": state.partial_rto_s,
            "partial_rto_measured_seconds": state.partial_measured_s,
            "partial_rto_met": state.partial_rto_met(),
        }


def look(config: Config, history: History, *, reachable: str = "") -> Status:
    """The status now. `history.repository` is None, and `reachable` says why, while the repository
    cannot be opened. Raises nothing for what cannot be reached."""
    from safetake.operate.metrics import places

    now_ns = history.now_ns()
    records = history.records()
    snapshots = places.read_snapshots(history.repository)
    if snapshots is None and not reachable:
        reachable = "its snapshots cannot be read"
    status = Status(now_ns, reachable)
    status.sources = objectives.source_states(config, records, snapshots)
    if snapshots is None:
        _rungs_of_the_history(status.sources, records)
    rate = objectives.restore_rate(records)
    status.rate = "" if rate is None else str(rate)
    status.system = _system(config, status.sources, records, rate)
    status.jobs = list(_jobs(config, records, now_ns))
    status.place = places.look(config.repository)
    status.copies = {name: places.look(copy) for name, copy in config.copies.items()}
    growth = objectives.growth(records, now_ns)
    if growth is not None:
        status.growth_per_day = growth * 86400
    if status.place.free_bytes is not None:
        status.full_ns = objectives.full_ns(status.place.free_bytes, growth, now_ns)
    status.unpushed = history.unpushed()
    status.records, status.heads = len(records), heads(records)
    status.broken = list(_broken(status))
    status.warnings = list(_warnings(config, status, records, snapshots))
    status.warnings += [f"history: {text}" for text in history.trouble]
    return status


def _rungs_of_the_history(states: Mapping[str, SourceState], records: Sequence[Record]) -> None:
    """How far snapshots were proven by runs on record, for want of the proofs themselves."""
    taken = {
        str(record.facts["snapshot"]): record
        for record in records
        if record.kind == "backup" and record.facts.get("snapshot")
    }
    for record in records:
        rung = record.facts.get("rung")
        if record.kind != "verify" or not record.ok or rung not in RUNGS:
            continue
        proven = record.facts.get("snapshots")
        for one in proven if isinstance(proven, list) else [record.facts.get("snapshot")]:
            backup = taken.get(str(one))
            of = backup.facts.get("sources") if backup is not None else None
            for name in of if backup is not None and isinstance(of, dict) else ():
                if name in states and backup is not None:
                    newest = states[name].newest_ns
                    for lower in RUNGS[: RUNGS.index(rung) + 1]:
                        newest[lower] = max(newest[lower], backup.started_ns)


def _system(
    config: Config,
    sources: Mapping[str, SourceState],
    records: Sequence[Record],
    rate: objectives.Rate | None,
) -> SourceState | None:
    """The whole: as old as its oldest part, and back when all of it is."""
    objective = config.objectives.get(SYSTEM)
    if objective is None or not sources:
        return None
    state = SourceState(SYSTEM)
    state.rpo_s, state.rto_s, state.partial_rto_s = objective.rpo, objective.rto, None
    for rung in RUNGS:
        state.newest_ns[rung] = min(source.newest_ns[rung] for source in sources.values())
    state.damaged = any(source.damaged for source in sources.values())
    sizes = [source.bytes for source in sources.values()]
    if None not in sizes:
        state.bytes = sum(size for size in sizes if size is not None)
        state.predicted_s = objectives.predicted_s(state.bytes, rate)
    for record in reversed(records):
        if objectives.is_restore(record) and not objectives.is_part(record):
            restored = record.facts.get("sources")
            took = record.facts.get("seconds")
            if isinstance(restored, list | dict) and set(sources) <= set(restored):
                state.measured_s = float(took) if isinstance(took, int | float) else record.seconds
                state.measured_ns = record.ended_ns
                break
    return state


def _jobs(config: Config, records: Sequence[Record], now_ns: int) -> Iterator[JobStatus]:
    from safetake.operate.schedule import Schedule

    for name, job in config.jobs.items():
        own = [record for record in records if record.job == name]
        runs = [record for record in own if record.kind != "missed"]
        status = JobStatus(name, job.kind, runs[-1] if runs else None)
        status.last_good_ns = max((record.ended_ns for record in runs if record.ok), default=0)
        if job.schedule is not None:
            status.next_ns = Schedule(job.schedule, job.timezone).after(now_ns)
            due = objectives.due(name, job, records, now_ns)
            status.overdue = due is not None and now_ns > due.overdue_ns
        yield status


# ------------------------------------------------------------------------- what is to be told


def _broken(status: Status) -> Iterator[str]:
    from safetake.wording import duration

    states = dict(status.sources)
    if status.system is not None:
        states[SYSTEM] = status.system
    for name, state in states.items():
        if state.rpo_met(status.now_ns) is False:
            age = state.age_s(status.now_ns)
            had = "there is no snapshot" if age is None else f"{duration(age)} may be lost"
            yield f"{name}: {had}, and the RPO is {duration(state.rpo_s or 0)}"
        if state.rto_met() is False and state.rto_s is not None:
            ways = (("took", state.measured_s), ("is expected to take", state.predicted_s))
            over = [f"{how} {duration(s)}" for how, s in ways if s is not None and s > state.rto_s]
            yield f"{name}: a restore {' and '.join(over)}, and the RTO is {duration(state.rto_s)}"
        if state.partial_rto_met() is False:
            took, target = state.partial_measured_s or 0, state.partial_rto_s or 0
            yield (
                f"{name}: bringing parts back took {duration(took)}, and the partial RTO is "
                f"{duration(target)}"
            )


def _warnings(
    config: Config,
    status: Status,
    records: Sequence[Record],
    snapshots: Sequence[SnapshotInfo] | None,
) -> Iterator[str]:
    from safetake.operate.metrics import places
    from safetake.services.elsewhere import elsewhere
    from safetake.wording import duration

    for name, state in status.sources.items():
        if state.damaged:
            yield f"{name}: its newest snapshot was found damaged: `safetake verify`, then a backup"
    for job in status.jobs:
        if job.overdue:
            yield f"job {job.name} is overdue"
        if job.last is not None and not job.last.ok:
            yield f"job {job.name} failed: {job.last.error or f'exit {job.last.exit_code}'}"
    if places.interrupted_restore(config.restore.state):
        yield "a restore was begun and not ended: `safetake restore --resume` or `--rollback`"
    for one in elsewhere(config, list(config.sources), ask=False):
        yield f"{one}: backups take a file that it does not use: {one.hint}"
    if status.full_ns is not None and (status.full_ns - status.now_ns) / 1e9 < SOON_FULL_S:
        left = duration((status.full_ns - status.now_ns) / 1e9)
        yield f"the file system of the repository will be full in {left}"
    same = on_the_volume_of(config.repository, config)
    if same:
        yield (
            f"the repository is on the same volume as {', '.join(same)}: what destroys that disk "
            "destroys both"
        )
    if not config.copies:
        yield "there is no second copy: add a [copies.NAME] on another disk or machine"
    for name, place in status.copies.items():
        if not place.reachable:
            yield f"copy {name} cannot be reached"
    if status.unpushed and not status.reachable:
        yield f"{status.unpushed} records of the history are not in the repository yet"
    if snapshots is not None:
        yield from _not_on_record(snapshots, records)
    yield from _deliveries(config, status.now_ns)


def _not_on_record(snapshots: Sequence[SnapshotInfo], records: Sequence[Record]) -> Iterator[str]:
    """A backup of this host whose record could be kept nowhere, newer than the last one on record.

    Only while there are records at all: the history may be younger than the repository.
    """
    from safetake.hostname import host_name

    host = host_name()
    known = {record.facts.get("snapshot") for record in records}
    backups = [r for r in records if r.kind == "backup" and r.host == host]
    since = max((record.ended_ns for record in backups), default=0)
    begun = min((record.started_ns for record in records), default=0)
    for snapshot in snapshots:
        mine = snapshot.ours and not snapshot.safety and snapshot.document.get("hostname") == host
        if mine and begun and snapshot.time_ns > max(since, begun) and snapshot.id not in known:
            yield f"snapshot {snapshot.id[:8]} is not in the history: its record could not be kept"


def _deliveries(config: Config, now_ns: int) -> Iterator[str]:
    """What did not reach those who should have it; notifications that wait are tried again."""
    from safetake.operate.metrics import deliveries
    from safetake.operate.notify import delivery
    from safetake.wording import duration

    def ago(ns: int) -> str:
        return f"{duration(max(0, now_ns - ns) / 1e9)} ago"

    published = deliveries.load(config).ways
    wanted = {
        deliveries.TEXTFILE: config.metrics.textfile,
        deliveries.PUSHGATEWAY: config.metrics.pushgateway,
    }
    for name, configured in wanted.items():
        way = published.get(name)
        if configured is not None and way is not None and not way.ok:
            yield f"metrics did not reach the {name} {ago(way.time_ns)}: {way.error}"
    told = delivery(config)
    for name, notified in told.ways.items():
        if not notified.ok:
            yield f"notifying by {name} failed {ago(notified.time_ns)}: {notified.error}"
    if told.pending:
        yield f"{told.pending} notifications have not reached everybody yet"
    if told.dropped:
        yield f"{told.dropped} notifications were given up"


# ------------------------------------------------------------------------------------- JSON


def _time(ns: int | None) -> str | None:
    return None if ns is None else go_time(ns)


def _place(place: Place | None) -> dict[str, Any]:
    return {
        "reachable": place is not None and place.reachable,
        "bytes": None if place is None else place.bytes,
        "snapshots": None if place is None else place.snapshots,
        "free_bytes": None if place is None else place.free_bytes,
    }


def _job(job: JobStatus) -> dict[str, Any]:
    last = job.last
    return {
        "kind": job.kind,
        "last_run": None if last is None else go_time(last.ended_ns),
        "exit_code": None if last is None else last.exit_code,
        "error": "" if last is None else last.error,
        "last_success": _time(job.last_good_ns or None),
        "next": _time(job.next_ns),
        "overdue": job.overdue,
    }
