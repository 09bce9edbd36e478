"""`safetake verify`: proves a snapshot, and records how far."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from safetake.cli.common import Command, Settings, complete_snapshots, pass_settings

if TYPE_CHECKING:
    from safetake.proof.verify import VerifyReport


@click.command(cls=Command)
@click.argument("snapshot", metavar="[ID]", default="latest", shell_complete=complete_snapshots)
@click.option(
    "--level",
    type=click.Choice(["read", "open"]),
    default="open",
    show_default=True,
    help="read: decrypt and hash every byte. open: also restore each store to scratch and "
    "question it.",
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Where copies are opened; needs room for the largest source. Default: $TMPDIR.",
)
@pass_settings
def command(
    settings: Settings, snapshot: str, level: Literal["read", "open"], scratch: Path | None
) -> int:
    """Prove a snapshot: read it back, open its stores.

    ID is the beginning of a snapshot's id, or `latest`. The result is recorded in the repository
    and shown by `safetake snapshots`. Exit code 1 when the proof fails.
    """
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.operate.history import facts, recorded
    from safetake.proof.verify import verify
    from safetake.snapshots import find_snapshot

    config = settings.load()
    with recorded(config, "verify") as run, settings.open(config) as repository:
        run.repository = repository
        found = find_snapshot(repository, snapshot)
        with Progress(settings.quiet) as progress:
            report = verify(repository, config, found, level, progress, scratch=scratch)
        facts.verify(run, [report], found.sources)
    if settings.json:
        output.document(report.as_dict())
    else:
        _show(report, settings.quiet)
    return report.exit_code


def _show(report: VerifyReport, quiet: bool) -> None:
    from safetake.cli import output
    from safetake.wording import size

    if not quiet:
        for name, checks in report.checks.items():
            output.line(output.style(name, "1"))
            for check in checks:
                mark = output.style("ok  ", "32") if check.ok else output.style("FAIL", "31")
                output.line(f"  {mark}  {output.printable_lines(check.name)}")
    for problem in report.problems:
        output.note(output.printable_lines(f"problem: {problem}"))
    if report.ok and not quiet:
        output.line(
            f"snapshot {report.snapshot[:8]}: {report.rung}, "
            f"{size(report.bytes)} in {report.seconds:.1f} s"
        )
    elif not report.ok:
        output.note(
            f"snapshot {report.snapshot[:8]} is not proven: {len(report.problems)} problems"
        )
