"""`safetake copy`: snapshots into a second repository."""

from __future__ import annotations

import click

from safetake.cli.common import Command, Settings, complete_snapshots, pass_settings


@click.command(cls=Command)
@click.argument("name")
@click.argument("snapshots", metavar="[SNAPSHOT]...", nargs=-1, shell_complete=complete_snapshots)
@click.option("--init", "make", is_flag=True, help="Make the second repository if there is none.")
@pass_settings
def command(settings: Settings, name: str, snapshots: tuple[str, ...], make: bool) -> int:
    """Copy snapshots into the repository [copies.NAME].

    All, or those given. What is there already is not read again; both repositories have their own
    passwords and keys. Proofs go with their snapshots, and all evidence goes, too.
    """
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.operate.copies import copy_section, run_copy
    from safetake.operate.history import recorded
    from safetake.operate.history.facts import some
    from safetake.wording import size

    config = settings.load()
    copy_section(config, name)
    with recorded(config, "copy") as run:
        with settings.open(config) as repository, Progress(settings.quiet) as progress:
            run.repository = repository
            result = run_copy(config, repository, name, snapshots, progress=progress, make=make)
        run.facts |= result.facts(name)
        run.exit_code = result.exit_code
        run.error = some(result.problems)
    for problem in result.problems:
        output.note(output.printable_lines(f"not copied: {problem}"))
    if settings.json:
        output.document({"to": name, **result.as_dict()})
    elif not settings.quiet:
        for there in result.copied.values():
            output.line(f"snapshot {there[:8]} stored")
        count = len(result.copied)
        more = f"; evidence: {result.evidence} more" if result.evidence else ""
        what = "snapshot" if count == 1 else "snapshots"
        output.line(
            f"{count} {what} copied to {name}, {len(result.skipped)} were there; "
            f"{size(result.bytes)} read, {size(result.stored_bytes)} added{more}"
        )
    return result.exit_code
