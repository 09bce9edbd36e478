"""`safetake drill total-loss --in-place`: the plan, the typed confirmation, the drill."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from safetake.cli import output
from safetake.wording import duration, size

if TYPE_CHECKING:
    from safetake.cli.common import Settings
    from safetake.drill.inplace import Terms
    from safetake.evidence import Evidence


def run(
    settings: Settings,
    scenario: str,
    words: Sequence[str],
    confirm: str | None,
    *,
    no_writers: bool,
) -> Evidence:
    """Plan, have it confirmed, do it. Raises UsageError when it was not confirmed: nothing was
    changed then.
    """
    from safetake.cli.progress import Progress
    from safetake.drill.inplace import chosen, drill_in_place, phrase, terms
    from safetake.errors import UsageError
    from safetake.operate.history import facts, recorded
    from safetake.operate.history.recorded import TRIGGER
    from safetake.recovery.inplace import Telling

    config = settings.load()
    names = chosen(config, scenario, words)
    wanted = phrase(names)
    if os.environ.get(TRIGGER, "hand") != "hand":
        raise UsageError(
            "a drill in place never runs by itself",
            hint="schedule a job of kind `drill`: on isolated copies",
        )
    if confirm is None and (settings.json or not sys.stdin.isatty()):
        raise UsageError(
            "a drill in place must be confirmed, and there is no terminal to ask on",
            hint=f"--confirm {wanted!r}",
        )
    if confirm is not None:
        _same(confirm, wanted)
    with recorded(config, "drill", wanted=False) as record, settings.open(config) as repository:
        record.repository = repository
        agreed = terms(config, repository, names, no_writers=no_writers)
        if not (settings.json or settings.quiet):
            show(agreed)
        if confirm is None:
            output.line()
            _same(click.prompt(f"Type `{wanted}` to begin", default="", show_default=False), wanted)
        record.wanted = True

        def say(step: str, text: str) -> None:
            if not (settings.json or settings.quiet):
                shown = output.printable_lines(f"  {step:<24} {text}")
                # what services answer is of any length
                output.note(output.cut(shown, 80) if step.startswith("health:") else shown)

        with Progress(settings.quiet) as progress:
            document = drill_in_place(config, repository, agreed, Telling(say, progress))
        facts.drill(record, document)
    return document


def _same(typed: str, wanted: str) -> None:
    from safetake.errors import UsageError

    if typed.strip() != wanted:
        raise UsageError(
            "that does not confirm this drill in place: nothing was changed",
            hint=f"the words are: {wanted}",
        )


def show(agreed: Terms) -> None:
    """What will happen, for how long, and what is at risk, within 80 columns."""
    plan = agreed.plan
    output.line("drill in place: each store is replaced by a snapshot of itself")
    output.line()
    rows = [
        [name, size(source.entry.get("bytes", 0)), source.outline.target]
        for name, source in plan.sources.items()
    ]
    output.table(["source", "size", "live store"], rows, right=[1])
    output.line()
    if agreed.stop:
        output.line("stops and starts: " + ", ".join(agreed.stop))
    if agreed.gate:
        output.line("waits for the health of: " + ", ".join(agreed.gate))
    if agreed.unstopped:
        output.line(
            "nobody stops the writers of: " + ", ".join(agreed.unstopped) + " (--no-writers)"
        )
    expected = f"expected to take {duration(plan.seconds)}"
    expected += "" if plan.measured else " (an assumed rate: no restore was measured here yet)"
    output.line(expected + (f", objective {duration(plan.rto)}" if plan.rto else ""))
    space: dict[str, int] = {}
    for source in plan.sources.values():
        for folder, need in source.outline.space.items():
            space[str(folder)] = space.get(str(folder), 0) + need
    for place, need in space.items():
        output.line(f"needs {size(need)} for a while in {place}")
    output.line()
    output.line("at risk: the services are down for that long; what is written meanwhile is")
    output.line("not lost, it makes the drill go back. When this machine or safetake dies in")
    output.line("between, `safetake restore --rollback` puts all back and starts the services.")
