"""`safetake snapshots`: what there is, newest last, with the proof rung of each."""

from __future__ import annotations

import click

from safetake.cli.common import Command, Settings, pass_settings


@click.command(cls=Command)
@pass_settings
def command(settings: Settings) -> int:
    """List the snapshots and how far each is proven.

    Newest last. `proof` is the highest rung that was reached: stored, read back, opened (`safetake
    verify`), restored, app-checked (`safetake drill`); or failed.
    """
    from safetake.cli import output
    from safetake.snapshots import list_snapshots, read_manifest

    with settings.open(settings.load()) as repository:
        snapshots = list_snapshots(repository)
        if settings.json:
            reader = repository.reader()
            output.document([s.as_dict(read_manifest(reader, s)) for s in snapshots])
            return 0
    rows = [
        [
            snapshot.id[:8],
            local_time(snapshot.time_ns),
            snapshot.rung.name,
            snapshot.job or ("(safety)" if snapshot.safety else "-"),
            ", ".join(snapshot.sources)
            or f"(not safetake's: {', '.join(paths(snapshot.document))})",
        ]
        for snapshot in snapshots
    ]
    if rows:
        output.table(["id", "time", "proof", "job", "sources"], rows)
    elif not settings.quiet:
        output.note("no snapshot yet; `safetake backup` takes one")
    return 0


def paths(document: dict[str, object]) -> list[str]:
    """The paths of a snapshot that stock restic made."""
    found = document.get("paths")
    return [str(path) for path in found] if isinstance(found, list) else []


def local_time(ns: int) -> str:
    """`2026-11-22 21:58:00` in the machine's time zone."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ns // 10**9, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
