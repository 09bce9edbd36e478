"""`safetake drill`: rehearse a disaster on isolated copies, and keep the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from safetake.cli.common import Command, Settings, complete_snapshots, pass_settings

if TYPE_CHECKING:
    from safetake.evidence import Evidence


@click.command(cls=Command)
@click.argument("scenario", metavar="SCENARIO")
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("--snapshot", metavar="ID", default="latest", show_default=True,
              shell_complete=complete_snapshots, help="Recover from this one.")  # fmt: skip
@click.option("--unconfined", is_flag=True,
              help="Go on where the kernel can not keep the drill to its folder.")  # fmt: skip
@pass_settings
def command(
    settings: Settings,
    scenario: str,
    sources: tuple[str, ...],
    snapshot: str,
    unconfined: bool,
) -> int:
    """Rehearse a disaster on isolated copies.

    SCENARIO is partial-loss, total-loss, or one of the configuration. Copies of the stores are made
    from the snapshot, spoiled, recovered with the commands that an operator types, and compared
    item by item with what was there. Production is never touched: the kernel sees to it. Exit code
    1 when anything is not as it was, or a target was missed.
    """
    from safetake.cli import output
    from safetake.drill.run import Wanted, drill
    from safetake.operate.history import facts, recorded
    from safetake.password import read_password
    from safetake.snapshots import find_snapshot

    config = settings.load()

    def told(step: str) -> None:
        if not (settings.json or settings.quiet):
            output.note(output.printable_lines(f"  {step}"))

    with recorded(config, "drill") as run, settings.open(config) as repository:
        run.repository = repository
        found = find_snapshot(repository, snapshot, sources)
        document = drill(
            config,
            repository,
            found,
            Wanted(scenario, sources, unconfined),
            read_password(config.repository),
            told,
        )
        facts.drill(run, document)
    if settings.json:
        output.document(document.as_dict())
    else:
        _show(document, settings.quiet)
    return 0 if document.verdict == "passed" else 1


def _show(document: Evidence, quiet: bool) -> None:
    from safetake.cli import output
    from safetake.wording import duration

    if not quiet:
        for check in document.checks:
            mark = output.style("ok  ", "32") if check.ok else output.style("FAIL", "31")
            name = f"{check.source}: {check.name}" if check.source else check.name
            output.line(f"  {mark}  {output.printable_lines(name)}")
    for check in document.checks:
        if not check.ok:
            name = f"{check.source}: {check.name}" if check.source else check.name
            output.note(output.printable_lines(f"problem: {name}: {check.found}"))
    for problem in document.problems:
        output.note(output.printable_lines(f"problem: {problem}"))
    for name in document.missed:
        measured = document.measured.get(name)
        told = "was not measured" if measured is None else f"was {duration(measured)}"
        output.note(f"problem: {name} {told}, promised {duration(document.targets[name])}")
    if quiet:
        return
    for name, value in document.measured.items():
        target = document.targets.get(name)
        promised = f", promised {duration(target)}" if target is not None else ""
        output.line(f"  {name.removesuffix('_seconds')}: {duration(value)}{promised}")
    output.line(
        f"drill {document.name} {document.verdict} in "
        f"{duration((document.ended_ns - document.started_ns) / 1e9)}: evidence {document.id[:8]}"
    )
