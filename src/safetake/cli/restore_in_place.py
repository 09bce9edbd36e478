"""`safetake restore --in-place` and what ends, undoes and lists such restores."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safetake.cli import output
from safetake.cli.progress import Progress
from safetake.wording import duration, printable, size

if TYPE_CHECKING:
    from safetake.cli.common import Settings
    from safetake.config import Config
    from safetake.recovery.inplace import Agree, Telling
    from safetake.recovery.journal import Journal
    from safetake.recovery.outcome import Outcome
    from safetake.recovery.plan import PlannedRestore, Wishes
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo


_SHOWN = 5
"""Examples of what will be lost, for each kind."""


def _telling(settings: Settings, progress: Progress) -> Telling:
    from safetake.recovery.inplace import Telling

    def say(step: str, text: str) -> None:
        if not settings.quiet and not settings.json:
            told = output.printable_lines(f"{step:<24} {text}")
            # what services answer is of any length, and said again when it matters
            output.note(output.cut(told, 80) if step.startswith("health:") else told)

    return Telling(say, progress)


def restore(
    settings: Settings,
    repository: Repository,
    config: Config,
    snapshot: SnapshotInfo,
    names: list[str],
    wishes: Wishes,
    *,
    dry_run: bool,
    yes: bool,
    undo_of: Journal | None = None,
) -> int:
    """Plan, ask, do, print."""
    from safetake.cli.restore_records import refuse_cut_off
    from safetake.operate.history import facts, recorded
    from safetake.recovery.inplace import restore_in_place

    with (
        recorded(config, "restore", repository=repository, wanted=not dry_run) as run,
        Progress(settings.quiet) as progress,
    ):
        run.facts |= {"snapshot": snapshot.id, "sources": names or snapshot.sources}
        if not dry_run:
            refuse_cut_off(config)
        plan, outcome = restore_in_place(
            repository,
            config,
            snapshot,
            names,
            wishes,
            _agree(settings, dry_run=dry_run, yes=yes),
            _telling(settings, progress),
            undo_of=undo_of,
        )
        if outcome is None:
            run.wanted = False
        else:
            facts.restored(run, outcome, "undo" if undo_of else "in place", _code(outcome))
            total = sum(source.bytes for source in plan.sources.values())
            run.facts |= {"bytes": total, "undo_of": plan.undo_of}
    if settings.json:
        output.document(plan.as_dict() if outcome is None else outcome.as_dict())
    elif outcome is not None:
        _show(settings, outcome)
    elif not dry_run:
        output.line("nothing was changed")
    if outcome is None:
        return 0 if dry_run else 1
    return _code(outcome)


def _agree(settings: Settings, *, dry_run: bool, yes: bool) -> Agree:
    def agree(plan: PlannedRestore) -> bool:
        if not settings.json and not (settings.quiet and yes):
            show_plan(plan)
        if dry_run:
            return False
        if yes:
            return True
        if not sys.stdin.isatty() or settings.json:
            from safetake.errors import UsageError

            raise UsageError(
                "a restore in place must be agreed to, and there is no terminal to ask on",
                hint="look at it with --dry-run, then add --yes",
            )
        output.line()
        return click.confirm("Replace the live data?", default=False)

    return agree


def show_plan(plan: PlannedRestore) -> None:
    """What will happen, and what will be lost, within 80 columns."""
    from safetake.recovery.plan import free_space

    output.line(
        f"undo of restore {plan.undo_of[:8]}: what was there before, "
        f"snapshot {plan.snapshot.id[:8]}, in place"
        if plan.undo_of
        else f"restore of snapshot {plan.snapshot.id[:8]} in place"
    )
    paths: list[str] = next(iter(plan.sources.values())).options["paths"]  # the same for all
    if paths:
        _say(f"only what is named by {', '.join(paths)}")
    output.line()
    rows = [
        [name, source.outline.mode, size(source.bytes), source.outline.target]
        for name, source in plan.sources.items()
    ]
    output.table(["source", "mode", "size", "live store"], rows, right=[2])
    losses = [
        [name, loss.what, *(
            ["?", "?", "?"] if loss.unknown
            else [str(loss.newer), str(loss.changed), str(loss.missing)]
        )]
        for name, source in plan.sources.items()
        for loss in source.outline.losses
        if loss.unknown or loss.newer or loss.changed or loss.missing
    ]  # fmt: skip
    output.line()
    if losses:
        output.table(
            ["source", "what", "will be lost", "goes back", "comes back"], losses, right=[2, 3, 4]
        )
    else:
        output.line("nothing that is there now will be lost, and nothing comes back")
    for name, source in plan.sources.items():
        if source.outline.absent:
            output.line(f"{name}: there is nothing there now")
        if source.outline.damaged:
            _say(f"{name}: what is there now is saved as raw files: {source.outline.damaged}")
        for loss in source.outline.losses:
            if loss.unknown:
                _say(f"{name}: {loss.what}: not known, {loss.unknown}")
            elif loss.examples:
                more = " …" if loss.newer > _SHOWN else ""
                _say(f"{name}: lost {loss.what}: {', '.join(loss.examples[:_SHOWN])}{more}")
    output.line()
    if plan.stop:
        _say("stops and starts: " + ", ".join(plan.stop))
    if plan.gate:
        _say("waits for the health of: " + ", ".join(plan.gate))
    space: dict[str, int] = {}
    for source in plan.sources.values():
        for folder, need in source.outline.space.items():
            space[str(folder)] = space.get(str(folder), 0) + need
    for place, need in space.items():
        _say(f"needs {size(need)} for a while in {place} ({size(free_space(Path(place)))} free)")
    expected = f"expected to take {duration(plan.seconds)}"
    expected += "" if plan.measured else " (an assumed rate: no restore was measured here yet)"
    _say(expected + (f", objective {duration(plan.rto)}" if plan.rto else ""))
    warnings = [
        *plan.warnings,
        *(f"{name}: {text}" for name, s in plan.sources.items() for text in s.outline.warnings),
    ]
    for text in warnings:
        told = output.wrapped(printable(f"warning: {text}"))
        output.note(told.replace("warning:", output.style("warning:", "33", sys.stderr), 1))


def _say(text: str) -> None:
    output.line(output.wrapped(printable(text), min(80, output.columns())))


def _show(settings: Settings, outcome: Outcome) -> None:
    from safetake.recovery.outcome import told_since

    good = outcome.ended == "committed"
    if not settings.quiet:
        output.line()
        output.table(
            ["step", "seconds"], [[step, f"{s:.2f}"] for step, s in outcome.steps], right=[1]
        )
        output.line()
        _say(
            f"restore {outcome.id[:8]}: "
            + (
                f"snapshot {outcome.snapshot[:8]} is the live data now"
                if good
                else "the data from before is the live data"
            )
            + f", {duration(outcome.seconds)}"
            + (f", services down for {duration(outcome.downtime)}" if outcome.downtime else "")
        )
        saved = sorted({snapshot[:8] for snapshot in outcome.safety.values() if snapshot})
        if good and saved:
            _say(
                f"what was there before is snapshot {', '.join(saved)}: "
                f"`safetake restore --undo {outcome.id[:8]}` brings it back"
            )
            for text in told_since(outcome.saved_since):
                _say(text)
    for problem in outcome.warnings:
        output.note(output.wrapped(output.printable_lines(f"note: {problem}")))
    for problem in outcome.problems:
        output.note(output.wrapped(output.printable_lines(f"does not run: {problem}")))


def _code(outcome: Outcome) -> int:
    if outcome.problems:
        return 1
    return 3 if outcome.ended == "committed" and outcome.warnings else 0


def end(settings: Settings, *, resume: bool) -> int:
    """`--resume` and `--rollback`."""
    from safetake.operate.history import facts, recorded
    from safetake.recovery.inplace import restores_folder, roll_back
    from safetake.recovery.inplace import resume as go_on
    from safetake.recovery.journal import load
    from safetake.recovery.outcome import downtime
    from safetake.snapshots import find_snapshot

    config = settings.load()
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(recorded(config, "restore"))
        action = run.facts["action"] = "resume" if resume else "rollback"
        progress = stack.enter_context(Progress(settings.quiet))
        telling = _telling(settings, progress)

        def opening(snapshot: str) -> tuple[Repository, SnapshotInfo]:
            run.repository = stack.enter_context(settings.open(config))
            return run.repository, find_snapshot(run.repository, snapshot)

        outcome = (
            go_on(config, opening, telling)
            if resume
            else roll_back(config, telling, lambda: stack.enter_context(settings.open(config)))
        )
        # the steps are not all of it: from the crash until now nothing was at work
        outcome.downtime = downtime(load(restores_folder(config) / outcome.id).timeline())
        facts.restored(run, outcome, action, _code(outcome))
    if settings.json:
        output.document(outcome.as_dict())
    else:
        _show(settings, outcome)
    return _code(outcome)


def undo(settings: Settings, wanted: str, *, dry_run: bool, yes: bool) -> int:
    """`--undo`: an in-place restore of the safety snapshot."""
    from safetake.errors import RefusedError, SnapshotNotFoundError
    from safetake.recovery.inplace import undoable
    from safetake.recovery.plan import Wishes
    from safetake.snapshots import find_snapshot

    config = settings.load()
    journal, saved = undoable(config, wanted)
    told = [journal.plan["sources"][name] for name in journal.saved]
    modes = {one["mode"] for one in told}
    mode = "online" if modes <= {"online"} and not journal.plan["stop"] else ""
    mode = "beside" if modes == {"beside"} else mode
    paths = tuple(told[0]["options"].get("paths", []))
    with settings.open(config) as repository:
        try:
            snapshot = find_snapshot(repository, saved)
        except SnapshotNotFoundError as error:
            raise RefusedError(
                f"what restore {journal.id} replaced was saved as snapshot {saved[:8]}, and that "
                "is not in the repository (any more)",
                hint="such snapshots are pruned when they are older than `safety` in [retention]; "
                "`safetake snapshots` lists what is there",
            ) from error
        return restore(
            settings,
            repository,
            config,
            snapshot,
            list(journal.saved),
            Wishes(mode, delete_extra=True, paths=paths),
            dry_run=dry_run,
            yes=yes,
            undo_of=journal,
        )


def show(settings: Settings) -> int:
    """`--list`: restores on record, those of records and keys, too."""
    from safetake.cli.restore_undo import some
    from safetake.cli.snapshots import local_time
    from safetake.clock import go_time, parse_go_time
    from safetake.recovery.inplace import restores_folder
    from safetake.recovery.journal import journals

    config = settings.load()
    ordered = [
        (
            journal.order,
            {
                "restore": journal.id,
                "what": "sources",
                "time": journal.plan["time"],
                "snapshot": journal.plan["snapshot"],
                "sources": list(journal.plan["sources"]),
                "ended": journal.ended or "open",
                "reason": journal.reason,
                "undo_of": journal.plan.get("undo_of", ""),
            },
        )
        for journal in journals(restores_folder(config))
    ]
    ordered += [
        (
            done.order,
            {
                "restore": done.id,
                "what": done.kind,
                "time": go_time(done.time_ns),
                "snapshot": "",
                "sources": [done.id.partition("-")[2]],
                "ended": "committed",
                "reason": "",
                "undo_of": "",
            },
        )
        for done in some(config)
    ]
    found = [one for _, one in sorted(ordered, key=lambda pair: pair[0])]
    if settings.json:
        output.document(found)
        return 0
    rows = [
        [
            one["restore"][: 8 if one["what"] == "sources" else 16],  # the others begin with a time
            local_time(parse_go_time(one["time"])),
            one["snapshot"][:8],
            one["ended"],
            one["undo_of"][:8],
            ", ".join(one["sources"]) + ("" if one["what"] == "sources" else f" ({one['what']})"),
        ]
        for one in found
    ]
    if not rows:
        output.line("no restore in place is on record on this machine")
        return 0
    output.table(["restore", "begun", "snapshot", "ended", "undo of", "sources"], rows)
    return 0
