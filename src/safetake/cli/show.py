"""`safetake show`: one snapshot with the facts that were recorded of each source."""

from __future__ import annotations

import json
from typing import Any

import click

from safetake.cli.common import Command, Settings, complete_snapshots, pass_settings


@click.command(cls=Command)
@click.argument("snapshot", metavar="ID", shell_complete=complete_snapshots)
@pass_settings
def command(settings: Settings, snapshot: str) -> int:
    """Show what is in a snapshot.

    ID is the beginning of a snapshot's id, or `latest`. With --json the whole manifest is printed.
    """
    from safetake.cli import output
    from safetake.cli.snapshots import local_time
    from safetake.snapshots import find_snapshot, read_manifest

    with settings.open(settings.load()) as repository:
        found = find_snapshot(repository, snapshot)
        manifest = read_manifest(repository.reader(), found)
    if settings.json:
        output.document({**found.as_dict(manifest), "manifest": manifest})
        return 0
    output.fields(
        [
            ("snapshot", found.id),
            ("time", local_time(found.time_ns)),
            ("host", str(found.document.get("hostname") or "-")),
            ("job", found.job or "-"),
            ("proof", f"{found.rung.name} ({local_time(found.rung.time_ns)})"),
            *(("problem", problem) for problem in found.rung.problems),
        ]
    )
    if manifest is None:
        output.line("\nnot made by safetake: no facts were recorded")
        return 0
    _timings(found.as_dict(manifest))
    for name, entry in manifest["sources"].items():
        output.line()
        output.line(output.style(f"{name} ({entry.get('type')})", "1"))
        _source(entry)
    return 0


def _timings(found: dict[str, Any]) -> None:
    from safetake.cli import output
    from safetake.wording import size

    if found.get("barrier_ms") is not None:
        output.fields(
            [
                ("barrier ", f"{found['barrier_ms']:.1f} ms, skew {found['skew_ms'] or 0:.1f} ms"),
                ("added   ", size(found.get("added_bytes") or 0)),
            ]
        )


def _source(entry: dict[str, Any]) -> None:
    from safetake.cli import output
    from safetake.wording import size

    pairs = [("  size", size(entry.get("bytes") or 0))]
    if entry.get("method"):
        pairs.append(("  taken by", str(entry["method"])))
    if entry.get("hold_ms") is not None:
        pairs.append(("  held", f"{entry['hold_ms']:.1f} ms"))
    if entry.get("one_moment") is False:
        pairs.append(("  one moment", "no"))
    pairs += [("  not read", str(item)) for item in entry.get("unread") or []]
    pairs += [("  note", str(item)) for item in entry.get("notes") or []]
    facts = entry.get("facts") or {}
    room = 76 - max(map(output.width, facts), default=0)
    pairs += [(f"  {name}", brief(value, room)) for name, value in facts.items()]
    output.fields(pairs)


def brief(value: Any, columns: int = 60) -> str:
    """A fact in one short line; the whole is in --json."""
    from safetake.cli.output import cut

    if isinstance(value, str):
        return cut(value, columns)
    if isinstance(value, dict) and len(value) > 4:
        return f"{len(value)} entries: " + cut(", ".join(map(str, value)), columns - 16)
    if isinstance(value, list) and len(value) > 4:
        return f"{len(value)} entries"
    return cut(json.dumps(value, ensure_ascii=False), columns)
