"""`safetake restore`: a snapshot's sources beside the live data."""

from __future__ import annotations

from pathlib import Path

import click

from safetake.cli.common import (
    Command,
    Settings,
    complete_snapshots,
    complete_sources,
    pass_settings,
)


@click.command(cls=Command)
@click.argument("snapshot", metavar="ID", shell_complete=complete_snapshots)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1, shell_complete=complete_sources)
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to restore into: DIR/SOURCE/…; must be empty or new.",
)
@click.option("--overwrite", is_flag=True, help="Replace what has the same name in DIR.")
@pass_settings
def command(
    settings: Settings, snapshot: str, sources: tuple[str, ...], target: Path, overwrite: bool
) -> int:
    """Bring a snapshot back beside the live data.

    ID is the beginning of a snapshot's id, or `latest`; without SOURCE all are restored. Nothing
    outside of DIR is touched. Exit code 3: the bytes are right, but an owner or attribute could not
    be set and is named.
    """
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.restore.beside import restore_to
    from safetake.snapshots import find_snapshot
    from safetake.wording import size

    with settings.open(settings.load()) as repository:
        found = find_snapshot(repository, snapshot)
        with Progress(settings.quiet) as progress:
            report = restore_to(
                repository, found, list(sources), target, overwrite=overwrite, progress=progress
            )
    if settings.json:
        output.document(report.as_dict())
        return report.exit_code
    if not settings.quiet:
        rows = [
            [name, str(source["files"]), size(source["bytes"]), source["path"]]
            for name, source in report.sources.items()
        ]
        output.table(["source", "files", "size", "restored to"], rows, right=[1, 2])
        output.line()
        output.line(f"snapshot {found.id[:8]} restored in {report.seconds:.1f} s")
    for problem in report.problems:
        output.note(output.printable_lines(f"not set: {problem}"))
    return report.exit_code
