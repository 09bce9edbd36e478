"""`safetake backup`: one consistent snapshot of all sources, of a job's, or of those named."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from safetake.cli.common import Command, Settings, choose, complete_work, pass_settings

if TYPE_CHECKING:
    from safetake.config import Config


def select(config: Config, names: tuple[str, ...]) -> tuple[list[str] | None, str | None]:
    """(sources, job) that the words mean: one job, or sources, or everything. Raises UsageError."""
    from safetake.errors import UsageError

    chosen = choose(names, [*config.sources, *config.jobs], "source or job")
    jobs = [name for name in chosen if name in config.jobs]
    if not jobs:
        return chosen or None, None
    if len(chosen) > 1:
        raise UsageError(
            f"{jobs[0]!r} is a job and stands alone", hint="name one job, or sources only"
        )
    return None, jobs[0]


@click.command(cls=Command)
@click.argument("names", metavar="[JOB|SOURCE]...", nargs=-1, shell_complete=complete_work)
@pass_settings
def command(settings: Settings, names: tuple[str, ...]) -> int:
    """Take one consistent snapshot.

    Of all sources, of those of one job, or of the sources named. Exit code 3: the snapshot was
    taken, but something could not be read and is named.
    """
    from safetake.ahead import open_ahead
    from safetake.cli import output
    from safetake.cli.progress import Progress

    config, opened = open_ahead(settings.find(), _import)
    from safetake.backup import chosen_sources, run_backup
    from safetake.operate.history import facts, recorded
    from safetake.recovery.halfway import refuse_half_restored

    sources, job = select(config, names)
    with recorded(config, "backup", job=job or "") as run:
        still = partial(refuse_half_restored, config, chosen_sources(config, sources, job))
        still()
        with Progress(settings.quiet) as progress:
            report = run_backup(
                config,
                sources=sources,
                job=job,
                progress=progress,
                opened=run.opening(opened),
                still=still,
            )
        facts.backup(run, report)
    found = report.as_dict()
    if settings.json:
        output.document(found)
    else:
        if not settings.quiet:
            show(found)
        complain(found)
    return report.exit_code


def _import() -> None:
    import safetake.backup
    import safetake.operate.after
    import safetake.operate.history.facts  # noqa: F401


def show(found: dict[str, Any]) -> None:
    """The report for people."""
    from safetake.cli import output
    from safetake.wording import size

    rows = [
        [
            name,
            source["type"],
            size(source["bytes"] or 0),
            source.get("method") or "",
        ]
        for name, source in found["sources"].items()
    ]
    output.table(["source", "type", "size", "taken by"], rows, right=[2])
    output.line()
    output.line(
        f"snapshot {found['id'][:8]} stored, {size(found['added_bytes'] or 0)} added, "
        f"writers held {found['barrier_ms'] or 0:.1f} ms, skew {found['skew_ms'] or 0:.1f} ms"
    )


def complain(found: dict[str, Any]) -> None:
    """What was not read, is not one moment, or was lost: on stderr, also with --quiet."""
    from safetake.cli import output
    from safetake.counts import LOST
    from safetake.services.elsewhere import UNUSED

    for name, source in found["sources"].items():
        for unread in source.get("unread") or []:
            output.note(output.printable_lines(f"not read: {name}: {unread}"))
        if source.get("one_moment") is False:
            output.note(f"note: {name}: not of one moment ({source.get('method')})")
        for note in source.get("notes") or []:
            if note.startswith((LOST, UNUSED)):
                output.note(output.printable_lines(f"warning: {name}: {note}"))
