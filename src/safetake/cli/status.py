"""`safetake status`: objectives, jobs, the repository, and what is unsafe, on one page."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from safetake.cli.common import Command, Settings, pass_settings

if TYPE_CHECKING:
    from safetake.operate.objectives import SourceState
    from safetake.operate.status import JobStatus, Status

_NAME = 18


@click.command(cls=Command)
@pass_settings
def command(settings: Settings) -> int:
    """Show whether the objectives are met.

    The age of each source's newest snapshot against its RPO, restores against its RTO, jobs, the
    repository, and what is unsafe. Exit code 1 when an objective is broken. Works without the
    repository, from the history of this machine.
    """
    from safetake.cli import output
    from safetake.errors import SafetakeError
    from safetake.operate.history import History
    from safetake.operate.status import look

    config = settings.load()
    try:
        with settings.open(config) as repository:
            status = look(config, History(config, repository))
    except SafetakeError as error:
        status = look(config, History(config), reachable=str(error))
    if settings.json:
        output.document(status.as_dict())
        return status.exit_code
    if not settings.quiet:
        _show(status)
    for text in status.warnings:
        output.note(output.style("warning:", "33", sys.stderr) + " " + output.printable_lines(text))
    for text in status.broken:
        output.note(
            output.style("broken:", "1;31", sys.stderr) + " " + output.printable_lines(text)
        )
    return status.exit_code


def _show(status: Status) -> None:
    from safetake.cli import output

    if status.reachable:
        output.line("from the history of this machine; the repository cannot be opened:")
        output.line(f"  {output.printable_lines(status.reachable)}")
        output.line()
    states = list(status.sources.values())
    if status.system is not None:
        states.append(status.system)
    if states:
        _ages(status, states)
        output.line()
        _times(status, states)
        output.line()
    if status.jobs:
        _jobs(status)
        output.line()
    _repository(status)


def _ages(status: Status, states: list[SourceState]) -> None:
    """How old the newest snapshot is, by rung, against the RPO."""
    from safetake.cli import output
    from safetake.snapshots import RUNGS

    reached = [rung for rung in RUNGS[1:] if any(state.newest_ns[rung] for state in states)]
    # the highest that there are: all would be wider than a page, and --json has them
    rungs = [RUNGS[0], *(reached if len(reached) > 1 else RUNGS[1:3])[-2:]]
    rows = []
    for state in states:
        ages = [_span(state.age_s(status.now_ns, rung)) for rung in rungs]
        met = state.rpo_met(status.now_ns)
        rows.append([_short(state.name), *ages, _span(state.rpo_s), _mark(met)])
    output.table(["source", *rungs, "RPO", ""], rows, right=[1, 2, 3, 4])


def _times(status: Status, states: list[SourceState]) -> None:
    """How long a restore takes, against the RTO."""
    from safetake.cli import output
    from safetake.wording import size

    rows = [
        [
            _short(state.name),
            "?" if state.bytes is None else size(state.bytes),
            _span(state.measured_s),
            _span(state.predicted_s, "unknown"),
            _span(state.rto_s),
            _mark(state.rto_met()),
        ]
        for state in states
    ]
    heads = ["source", "size", "restored in", "predicted", "RTO", ""]
    output.table(heads, rows, right=[1, 2, 3, 4])
    if status.rate:
        output.paragraph(f"predicted from {status.rate}")
    else:
        output.paragraph(
            "nothing is predicted: no restore and no proof by opening was measured yet"
        )


def _jobs(status: Status) -> None:
    from safetake.cli import output

    rows = [
        [_short(job.name), job.kind, *_last(job), _when(job.next_ns), "overdue" * job.overdue]
        for job in status.jobs
    ]
    output.table(["job", "kind", "last run", "result", "next run", ""], rows)


def _last(job: JobStatus) -> tuple[str, str]:
    if job.last is None:
        return "never", "-"
    result = "ok" if job.last.ok else f"failed {job.last.exit_code}"
    return _when(job.last.ended_ns), result


def _repository(status: Status) -> None:
    from safetake.cli import output
    from safetake.wording import counted, duration, size

    place = status.place
    pairs = []
    if place is not None and place.reachable:
        pairs.append(
            ("repository", f"{size(place.bytes or 0)}, {counted(place.snapshots or 0, 'snapshot')}")
        )
        growth = status.growth_per_day
        room = f"{size(place.free_bytes or 0)} free"
        if growth is None:
            room += ", growth unknown yet"
        else:
            sign = "-" if growth < 0 else ""
            room += f", growing by {sign}{size(abs(growth))} a day"
        if status.full_ns is not None:
            room += f", full in {duration((status.full_ns - status.now_ns) / 1e9)}"
        pairs.append(("file system", room))
    else:
        pairs.append(("repository", "cannot be reached"))
    for name, copy in status.copies.items():
        there = f"{size(copy.bytes or 0)}, {counted(copy.snapshots or 0, 'snapshot')}"
        pairs.append((f"copy {name}", there if copy.reachable else "cannot be reached"))
    if status.heads:
        ends = ", ".join(head[:16] for head in status.heads[:2])
        pairs.append(
            ("history", f"{counted(status.records, 'record')}, the chain ends with {ends}")
        )
    output.fields(pairs)


def _span(seconds: float | None, unknown: str = "-") -> str:
    from safetake.wording import duration

    return unknown if seconds is None else duration(seconds)


def _mark(met: bool | None) -> str:
    return {None: "", True: "ok", False: "BROKEN"}[met]


def _when(ns: int | None) -> str:
    from safetake.cli.snapshots import local_time

    return "-" if ns is None else local_time(ns)[5:16]


def _short(name: str) -> str:
    from safetake.cli import output

    return output.cut(name, _NAME)
