"""`safetake integrity`: is the live data sound? Every bad answer with its offenders."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from safetake.cli.common import (
    Command,
    Settings,
    choose,
    complete_snapshots,
    complete_sources,
    pass_settings,
)

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.findings import Finding
    from safetake.integrity.report import IntegrityReport
    from safetake.repository import Repository

_SHOWN_IDS = 10


@click.command(cls=Command)
@click.argument("names", metavar="[SOURCE]...", nargs=-1, shell_complete=complete_sources)
@click.option(
    "--full/--quick",
    "full",
    default=None,
    help="full: integrity_check of any database, every byte of files. quick: quick_check only. "
    "Default: by size, see [integrity].",
)
@click.option(
    "--no-repository",
    is_flag=True,
    help="Look at the live stores alone: no comparison with snapshots, no password needed.",
)
@click.option(
    "--accept",
    "accepted",
    metavar="SOURCE",
    multiple=True,
    shell_complete=complete_sources,
    help="What it holds now is right: ends alarms of drift about it. Repeatable.",
)
@click.option(
    "--snapshot",
    metavar="ID",
    shell_complete=complete_snapshots,
    help="Instead of live data: do the references hold inside a snapshot?",
)
@pass_settings
def command(
    settings: Settings,
    names: tuple[str, ...],
    full: bool | None,
    no_repository: bool,
    accepted: tuple[str, ...],
    snapshot: str | None,
) -> int:
    """Check the live data: each store, references between them, drift.

    Changes nothing. Of all sources, or of those named. Exit code 1 when something is wrong; a
    warning does not count. What could not be asked is listed with the reason.
    """
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.errors import SafetakeError, UsageError
    from safetake.integrity import run_integrity
    from safetake.operate.history.recorded import recorded

    config = settings.load()
    if snapshot is not None:
        if names or accepted or no_repository or full is not None:
            raise UsageError(
                "--snapshot asks for the references inside a snapshot, and for nothing else",
                hint="leave the other options and the sources out",
            )
        return inside_snapshot(settings, config, snapshot)
    accepted = tuple(choose(accepted, list(config.sources), "source"))
    chosen = choose(names or accepted, list(config.sources), "source") or None
    with contextlib.ExitStack() as stack:
        why = "--no-repository"
        repository = None
        if not no_repository:
            try:
                repository = stack.enter_context(settings.open(config))
            except SafetakeError as error:  # the live stores are asked all the same
                if accepted:
                    raise
                why = f"the repository does not open: {error}"
        run = stack.enter_context(recorded(config, "integrity", repository=repository))
        facts = accept_all(config, repository, accepted)
        with Progress(settings.quiet) as progress:
            report = run_integrity(
                config, chosen, repository, progress, full=full, no_repository=why
            )
        run.facts, run.exit_code = report.brief() | facts, report.exit_code
        run.error = summary(report) if report.exit_code else ""
    if settings.json:
        output.document(report.as_dict())
    else:
        show(report, settings.quiet)
    return report.exit_code


def accept_all(
    config: Config, repository: Repository | None, names: tuple[str, ...]
) -> dict[str, Any]:
    """Accept what the sources hold now; what the history keeps of it. Raises SafetakeError."""
    from safetake.errors import UsageError
    from safetake.integrity.accepted import accept

    if not names:
        return {}
    if repository is None:
        raise UsageError(
            "--accept is about snapshots of a repository", hint="leave --no-repository out"
        )
    return {"accepted": {name: accept(config, repository, name).counts.total for name in names}}


def inside_snapshot(settings: Settings, config: Config, wanted: str) -> int:
    """References between the stores of one snapshot. Prints, returns the exit code."""
    import time

    from safetake.cli import output
    from safetake.errors import UsageError
    from safetake.integrity.references import check_snapshot
    from safetake.integrity.report import IntegrityReport
    from safetake.snapshots import find_snapshot

    if not config.references:
        raise UsageError(
            "the configuration declares no reference", hint="see [references.NAME] in its reference"
        )
    begun = time.perf_counter()
    with settings.open(config) as repository, repository.lock(exclusive=False):
        snapshot = find_snapshot(repository, wanted)
        findings = check_snapshot(config, repository, snapshot, scratch=config.integrity.scratch)
    report = IntegrityReport(findings, snapshot.sources)
    report.seconds = time.perf_counter() - begun
    if settings.json:
        output.document({"snapshot": snapshot.id, **report.as_dict()})
    else:
        show(report, settings.quiet)
    return report.exit_code


def summary(report: IntegrityReport) -> str:
    """One line: how many of what."""
    errors = sum(finding.level == "error" for finding in report.problems)
    warnings = len(report.problems) - errors
    asked = sum(finding.asked for finding in report.findings)
    parts = [f"{asked} questions"]
    if errors:
        parts.append(f"{errors} error{'s' * (errors != 1)}")
    if warnings:
        parts.append(f"{warnings} warning{'s' * (warnings != 1)}")
    if report.unasked:
        parts.append(f"{len(report.unasked)} not asked")
    if not report.problems:
        parts.append("nothing wrong")
    return ", ".join(parts)


def show(report: IntegrityReport, quiet: bool) -> None:
    """For people: a table of the sources, then what is wrong, then what was not asked."""
    from safetake.cli import output

    if not quiet:
        _table(report)
    for finding in report.problems:
        _problem(finding)
    if quiet:
        return
    for (check, why), names in _unasked(report).items():
        where = f"{', '.join(names)}: {check}" if any(names) else check
        output.paragraph(output.printable_lines(f"not asked  {where}"))
        output.paragraph(output.printable_lines(f"             {why}"))
    output.line(f"{summary(report)}, {report.seconds:.1f} s")


def _unasked(report: IntegrityReport) -> dict[tuple[str, str], list[str]]:
    """(question, reason) to the sources of which it was not asked."""
    found: dict[tuple[str, str], list[str]] = {}
    for finding in report.unasked:
        found.setdefault((finding.check, finding.detail), []).append(finding.source)
    return found


def _table(report: IntegrityReport) -> None:
    from safetake.cli import output

    rows = []
    for name in report.sources:
        mine = [finding for finding in report.findings if finding.source == name]
        bad = [finding for finding in mine if not finding.ok]
        word = "ok"
        if bad:
            word = "ERROR" if any(finding.level == "error" for finding in bad) else "warning"
        asked = sum(finding.asked for finding in mine)
        rows.append([name, word, str(asked), _size(report, name)])
    output.table(["source", "state", "asked", "size"], rows, right=[2, 3])
    output.line()


def _size(report: IntegrityReport, name: str) -> str:
    from safetake.wording import size

    facts = report.facts.get(name, {})
    for key in ("bytes", "used_memory"):
        if key in facts:
            return size(facts[key])
    return ""


def _problem(finding: Finding) -> None:
    from safetake.cli import output

    word, colour = ("ERROR", "31") if finding.level == "error" else ("warning", "33")
    text = f"{_where(finding)}: {finding.detail or 'no'}"
    output.paragraph(f"{output.style(f'{word:<7}', colour)}    {output.printable_lines(text)}")
    for one in finding.ids[:_SHOWN_IDS]:
        output.paragraph(f"             {output.printable_lines(one)}")
    if len(finding.ids) > _SHOWN_IDS:
        output.paragraph(f"             … {len(finding.ids) - _SHOWN_IDS} more with --json")
    if finding.hint:
        output.paragraph(f"           hint: {output.printable_lines(finding.hint)}")


def _where(finding: Finding) -> str:
    return f"{finding.source}: {finding.check}" if finding.source else finding.check
