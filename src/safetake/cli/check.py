"""`safetake check`: is the repository whole?"""

from __future__ import annotations

import click

from safetake.cli.common import Command, Settings, pass_settings


@click.command(cls=Command)
@click.option("--read-data", is_flag=True, help="Also read, decrypt and hash every byte.")
@pass_settings
def command(settings: Settings, read_data: bool) -> int:
    """Check the repository itself.

    Keys, indexes, snapshots and trees, and whether every pack is there; with --read-data the
    content of every pack, too. Exit code 1 when something is damaged; each damage names its file.
    """
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.operate.history import facts, recorded
    from safetake.repository.check import check
    from safetake.wording import size

    config = settings.load()
    with recorded(config, "check") as run, settings.open(config) as repository:
        run.repository = repository
        with Progress(settings.quiet) as progress:
            report = check(repository, read_data, progress)
        facts.check(run, report)
    if settings.json:
        output.document(report.as_dict())
        return report.exit_code
    for error in report.errors:
        output.note(output.printable_lines(f"damaged: {error}"))
    if not settings.quiet:
        for text in report.notes:
            output.line(output.printable_lines(f"note: {text}"))
        output.line(
            f"{report.snapshots} snapshots, {report.packs} packs, {report.blobs} blobs"
            + (f", {size(report.bytes_read)} read" if read_data else "")
            + f", {report.seconds:.1f} s: "
            + (f"{len(report.errors)} damaged" if report.errors else "no errors were found")
        )
    return report.exit_code
