"""What is to happen to each snapshot of a repository, with everything read that may forbid it.

Whatever cannot be read stops a prune before anything is removed: a proof, a record of a restore, a
snapshot, the newest manifest of a source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from safetake.errors import DamagedError
from safetake.operate.retention import pins
from safetake.operate.retention.decide import decide
from safetake.operate.retention.policy import Rules
from safetake.operate.retention.report import PruneReport
from safetake.snapshots import FAILED, SnapshotInfo, list_snapshots, read_manifest

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.configjobs import RetentionConfig
    from safetake.repository import Repository

_DAY_NS = 86400 * 10**9
_QUIET_DAYS = 30
_MANY_HOSTS = 5


def has_rules(retention: RetentionConfig) -> bool:
    """Whether any rule is given at all."""
    return any(map(Rules.of, (retention, *retention.jobs.values())))


def survey(
    config: Config, repository: Repository, now_ns: int, *, dry_run: bool = False
) -> PruneReport:
    """What is to happen to each snapshot. Raises DamagedError, RestoreError."""
    retention = config.retention
    snapshots = list_snapshots(repository)
    _proofs_are_readable(snapshots)
    sources = pins.by_source(snapshots, now_ns)
    manifests: dict[str, dict[str, Any] | None] = {}
    reader = repository.reader(trust_digests=False)

    def manifest(snapshot: SnapshotInfo) -> dict[str, Any] | None:
        if snapshot.id not in manifests:
            try:
                manifests[snapshot.id] = read_manifest(reader, snapshot)
            except DamagedError as error:
                raise DamagedError(
                    f"snapshot {snapshot.id[:8]} is not readable, and others are not removed "
                    f"while it is the newest: {error}",
                    hint="`safetake check` says what is damaged",
                ) from error
        return manifests[snapshot.id]

    pinned = pins.merged(
        pins.proven(sources),
        pins.complete(sources, manifest),
        pins.needed(config, snapshots),
        pins.tagged(snapshots, retention.keep_tags),
    )
    report = PruneReport(dry_run, retention.timezone)
    report.groups = decide(snapshots, retention, ZoneInfo(retention.timezone), now_ns, pinned)
    report.notes = _notes(config, report, snapshots, now_ns)
    return report


def _proofs_are_readable(snapshots: Sequence[SnapshotInfo]) -> None:
    for snapshot in snapshots:
        if snapshot.rung.problems and snapshot.rung.name != FAILED:
            raise DamagedError(
                "a proof cannot be read, so that it is not known which snapshot was proven last; "
                f"nothing was removed: {snapshot.rung.problems[0]}",
                hint="remove that file, then `safetake verify`",
            )


def _notes(
    config: Config, report: PruneReport, snapshots: Sequence[SnapshotInfo], now_ns: int
) -> list[str]:
    notes = list(report.held)
    if not has_rules(config.retention):
        notes.append("[retention] has no rule: nothing is removed")
    foreign = sum(not snapshot.ours for snapshot in snapshots)
    if foreign:
        notes.append(f"{foreign} snapshots are not safetake's: they are never touched")
    future = [snapshot.id[:8] for snapshot in snapshots if snapshot.time_ns > now_ns]
    if future:
        notes.append(f"{', '.join(future[:5])}: later than now; was a clock wrong?")
    hosts = Counter((g.job, g.sources) for g in report.groups if g.kind == "backup")
    for (job, sources), count in hosts.items():
        if count >= _MANY_HOSTS:
            notes.append(
                f"{job or ', '.join(sources)}: snapshots of {count} hosts, each judged by itself; "
                "containers need one name for all: set SAFETAKE_HOST"
            )
    ordinary = [group for group in report.groups if group.kind == "backup" and group.job]
    newest = max((group.decisions[-1].snapshot.time_ns for group in ordinary), default=0)
    for group in ordinary:
        days = (newest - group.decisions[-1].snapshot.time_ns) // _DAY_NS
        if days >= _QUIET_DAYS and len(group.decisions) > 1:
            notes.append(
                f"{group.job} of {group.host} ({', '.join(group.sources)}) has had no new "
                f"snapshot for {days} days: nothing of it grows older"
            )
    return notes
