"""`prune`: decide over every snapshot, then let the repository forget those that go.

It is decided twice: beside running backups, and again when nobody else is at work any more, right
before snapshots are removed. Only what both times agree on goes, so that a proof, a restore or a
backup that came in between is never overtaken.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from safetake import clock
from safetake.errors import RefusedError
from safetake.operate.retention import undofiles
from safetake.operate.retention.calendar import Span
from safetake.operate.retention.survey import has_rules, survey

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.configjobs import RetentionConfig
    from safetake.model import Progress
    from safetake.operate.retention.report import PruneReport
    from safetake.repository import Repository


def run_prune(
    config: Config,
    repository: Repository,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    now_ns: int | None = None,
) -> PruneReport:
    """Remove what [retention] does not keep; with `dry_run` only say what would be.

    Raises RefusedError on an append-only repository, RepositoryLockedError, StorageError,
    DamagedError and RestoreError when something that has to be known cannot be read: nothing was
    removed then.
    """
    from safetake.repository.prune import plan_prune, run

    retention = config.retention
    if retention.append_only and not dry_run:
        raise RefusedError(
            f"the repository at {repository.storage.location} is append-only: nothing is removed",
            hint="prune where it may be written, or set append_only = false in [retention]",
        )
    started = time.perf_counter()

    def look() -> PruneReport:
        now = clock.now_ns() if now_ns is None else now_ns
        return survey(config, repository, now, dry_run=dry_run)

    with repository.lock(exclusive=False):
        repository.reload()  # what was known before the lock may have been pruned since
        report = look()
    if not has_rules(retention):
        report.seconds = time.perf_counter() - started
        return report
    plan = plan_prune(repository, report.forget, max_unused=retention.max_unused, progress=progress)
    old = undofiles.outdated(config.restore.state, _safe_since(report, retention))
    if dry_run:
        report.space = plan.as_dict()
    else:
        seen = [report]

        def confirm() -> Collection[str]:
            repository.reload()  # of snapshots that were taken meanwhile
            seen.append(look())
            return seen[-1].forget

        undofiles.remove(old)  # before: what fails here must not hide what was removed there
        result = run(repository, plan, progress, confirm=confirm)
        report = seen[-1]
        report.settle(result.removed)
        report.space = result.as_dict()
    report.undo_files = [str(path) for path in old]
    report.seconds = time.perf_counter() - started
    return report


def _safe_since(report: PruneReport, retention: RetentionConfig) -> int:
    """What a restore replaced before that is not kept: counted as for safety snapshots."""
    now = clock.now_ns()
    times = [one.snapshot.time_ns for one in report.decisions if one.snapshot.ours]
    newest = max((time for time in times if time <= now), default=0)
    if not newest:
        return 0
    return Span.parse(retention.safety).before(newest, ZoneInfo(retention.timezone))
