"""What a job of each kind does: calls the same use case as the command of its name.

Nothing here waits, tries again or watches the time: that is `operate.job`'s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from safetake.errors import SafetakeError, SnapshotNotFoundError

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.configjobs import JobConfig
    from safetake.operate.history import Run
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo

Opener = Callable[[], "Repository"]


def perform(config: Config, name: str, run: Run, opened: Opener) -> None:
    """Do the job once and fill `run`. Raises SafetakeError as the work does."""
    job = config.jobs[name]
    WORK[job.kind](config, name, job, run, run.opening(opened))


def _backup(config: Config, name: str, job: JobConfig, run: Run, opened: Opener) -> None:
    from safetake.backup import run_backup
    from safetake.operate.history import facts
    from safetake.recovery.halfway import refuse_half_restored

    still = partial(refuse_half_restored, config, job.sources or list(config.sources))
    still()
    facts.backup(run, run_backup(config, job=name, opened=opened, still=still))


def _verify(config: Config, name: str, job: JobConfig, run: Run, opened: Opener) -> None:
    from safetake.operate.history import facts
    from safetake.proof.verify import verify

    sources = job.sources or list(config.sources)
    with opened() as repository:
        chosen, without = newest(repository, sources)
        reports = [verify(repository, config, snapshot, job.level) for snapshot in chosen.values()]
    facts.verify(run, reports, [source for source in sources if source not in without])
    if without:
        run.facts["without_snapshot"] = without
        raise SnapshotNotFoundError(
            f"there is no snapshot of {', '.join(without)}"
            + (f"; {run.error}" if run.error else ""),
            hint="make one with `safetake backup`",
        )


def newest(repository: Repository, sources: list[str]) -> tuple[dict[str, SnapshotInfo], list[str]]:
    """The newest snapshot of each source, each snapshot once, by id; sources that have none."""
    from safetake.snapshots import list_snapshots

    wanted = list(sources)
    chosen: dict[str, SnapshotInfo] = {}
    for snapshot in reversed(list_snapshots(repository, proofs=False)):
        mine = [source for source in wanted if source in snapshot.sources]
        if mine and not snapshot.safety:
            chosen[snapshot.id] = snapshot
            wanted = [source for source in wanted if source not in mine]
        if not wanted:
            break
    return chosen, wanted


def _check(config: Config, name: str, job: JobConfig, run: Run, opened: Opener) -> None:
    from safetake.operate.history import facts
    from safetake.repository.check import check

    with opened() as repository:
        facts.check(run, check(repository, job.read_data))


def _integrity(config: Config, name: str, job: JobConfig, run: Run, opened: Opener) -> None:
    from safetake.integrity import run_integrity

    with contextlib.ExitStack() as stack:
        repository, why = None, ""
        try:
            repository = stack.enter_context(opened())
        except SafetakeError as error:  # the live stores are asked all the same
            why = f"the repository does not open: {error}"
        report = run_integrity(config, job.sources or None, repository, no_repository=why)
    run.exit_code = report.exit_code
    run.facts |= report.brief()
    if report.exit_code:
        bad = [finding for finding in report.problems if finding.level == "error"]
        texts = [f"{finding.source}: {finding.check}: {finding.detail}" for finding in bad]
        from safetake.operate.history.facts import some

        run.error = some(texts)


def _prune(config: Config, name: str, job: JobConfig, run: Run, opened: Opener) -> None:
    from safetake.operate.retention import run_prune

    with opened() as repository:
        report = run_prune(config, repository)
    run.exit_code = report.exit_code
    run.facts |= report.facts()
    run.error = "; ".join(report.held)


def _copy(config: Config, name: str, job: JobConfig, run: Run, opened: Opener) -> None:
    from safetake.operate.copies import run_copy
    from safetake.operate.history.facts import some

    assert job.to is not None  # the configuration was checked
    with opened() as repository:
        result = run_copy(config, repository, job.to)
    run.facts |= result.facts(job.to)
    run.exit_code = result.exit_code
    run.error = some(result.problems)


def _drill(config: Config, name: str, job: JobConfig, run: Run, opened: Opener) -> None:
    from safetake.drill.run import Wanted, drill
    from safetake.drill.scenario import needed
    from safetake.operate.history import facts
    from safetake.password import read_password
    from safetake.snapshots import find_snapshot

    with opened() as repository:
        sources = needed(config, job.scenario, job.sources)
        snapshot = find_snapshot(repository, "latest", sources)
        wanted = Wanted(job.scenario, job.sources)
        password = read_password(config.repository)
        facts.drill(run, drill(config, repository, snapshot, wanted, password))


WORK: dict[str, Callable[[Config, str, JobConfig, Run, Opener], Any]] = {
    "backup": _backup,
    "verify": _verify,
    "check": _check,
    "integrity": _integrity,
    "prune": _prune,
    "copy": _copy,
    "drill": _drill,
}
