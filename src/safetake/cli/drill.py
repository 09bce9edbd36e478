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
@click.option("--in-place", is_flag=True,
              help="On production: total-loss, by a restore that can be undone.")  # fmt: skip
@click.option("--confirm", metavar="PHRASE",
              help="With --in-place: the words that it asks for.")  # fmt: skip
@click.option("--no-writers", is_flag=True,
              help="With --in-place: you have stopped the writers that it can not.")  # fmt: skip
@pass_settings
def command(
    settings: Settings,
    scenario: str,
    sources: tuple[str, ...],
    snapshot: str,
    unconfined: bool,
    in_place: bool,
    confirm: str | None,
    no_writers: bool,
) -> int:
    """Rehearse a disaster on isolated copies.

    SCENARIO is partial-loss, total-loss, or one of the configuration. Copies of the stores are made
    from the snapshot, spoiled, recovered with the commands that an operator types, and compared
    item by item with what was there. Production is never touched: the kernel sees to it. Exit code
    1 when anything is not as it was, or a target was missed.

    With --in-place the services are stopped and the live stores replaced by a snapshot of
    themselves, after you have typed what it asks for.
    """
    from safetake.cli import output
    from safetake.drill.run import Wanted, drill
    from safetake.drill.scenario import needed
    from safetake.operate.history import facts, recorded
    from safetake.password import read_password
    from safetake.snapshots import find_snapshot

    if in_place or confirm is not None or no_writers:
        return _in_place(
            settings, scenario, sources, confirm, no_writers, in_place=in_place,
            others=unconfined or snapshot != "latest",
        )  # fmt: skip
    config = settings.load()

    def told(step: str) -> None:
        if not (settings.json or settings.quiet):
            output.note(output.printable_lines(f"  {step}"))

    with recorded(config, "drill") as run, settings.open(config) as repository:
        run.repository = repository
        found = find_snapshot(repository, snapshot, needed(config, scenario, sources))
        document = drill(
            config,
            repository,
            found,
            Wanted(scenario, sources, unconfined),
            read_password(config.repository),
            told,
        )
        facts.drill(run, document)
    return _told(settings, document)


def _in_place(
    settings: Settings,
    scenario: str,
    sources: tuple[str, ...],
    confirm: str | None,
    no_writers: bool,
    *,
    in_place: bool,
    others: bool,
) -> int:
    from safetake.cli.drill_in_place import run
    from safetake.errors import UsageError

    if not in_place:
        raise UsageError("--confirm and --no-writers go with --in-place")
    if others:
        raise UsageError(
            "--snapshot and --unconfined do not go with --in-place: it takes a snapshot of its own"
        )
    document = run(settings, scenario, sources, confirm, no_writers=no_writers)
    return _told(settings, document)


def _told(settings: Settings, document: Evidence) -> int:
    from safetake.cli import output

    if settings.json:
        output.document(document.as_dict())
    else:
        _show(document, settings.quiet)
    return 0 if document.verdict == "passed" else 1


def _show(document: Evidence, quiet: bool) -> None:
    from safetake.cli import output
    from safetake.drill.run import ABSENT
    from safetake.wording import duration, size

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
    for note in document.notes:
        if note.startswith(ABSENT):
            output.note(output.printable_lines(note))
    for name, value in document.measured.items():
        target = document.targets.get(name)
        promised = f", promised {duration(target)}" if target is not None else ""
        told = duration(value) if name.endswith("_seconds") else size(value)
        output.line(f"  {name.removesuffix('_seconds')}: {told}{promised}")
    output.line(
        f"drill {document.name} {document.verdict} in "
        f"{duration((document.ended_ns - document.started_ns) / 1e9)}: evidence {document.id[:8]}"
    )
