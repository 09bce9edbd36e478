"""`safetake diff`: what is different between two snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from safetake.cli.common import Command, Settings, complete_snapshots, pass_settings

if TYPE_CHECKING:
    from safetake.differences import SourceDifference

_SIGNS = {"added": "+", "removed": "-", "modified": "M", "touched": "U"}
_WHAT = 34
"""Columns for what a number is of: the table fits into 80."""


@click.command(cls=Command)
@click.argument("first", metavar="ID", shell_complete=complete_snapshots)
@click.argument("second", metavar="ID", default="latest", shell_complete=complete_snapshots)
@click.option("--paths", is_flag=True, help="Also name files: + added, - removed, M modified.")
@pass_settings
def command(settings: Settings, first: str, second: str, paths: bool) -> int:
    """Show what changed from one snapshot to another (`latest` by default).

    Out of the recorded facts and the trees; no content is read. Rows and records are told by their
    numbers, tables also by the hash of their rows.
    """
    from safetake.cli import output
    from safetake.differences import difference
    from safetake.snapshots import find_snapshot

    with settings.open(settings.load()) as repository:
        snapshots = [find_snapshot(repository, wanted) for wanted in (first, second)]
        found = difference(repository.reader(trust_digests=False), *snapshots)
    if settings.json:
        output.document(
            {
                "first": snapshots[0].id,
                "second": snapshots[1].id,
                "sources": {one.name: one.as_dict() for one in found},
            }
        )
        return 0
    output.table(
        ["source", "what", "before", "after", "change"],
        [row for one in found for row in _rows(one)],
        right=[2, 3, 4],
    )
    for one in found if paths else ():
        _paths(one)
    return 0


def _rows(one: SourceDifference) -> list[list[str]]:
    from safetake.cli.output import cut
    from safetake.wording import size

    name = cut(one.name, 16)
    if one.state == "same":
        return [[name, "nothing changed", size(one.bytes[0]), size(one.bytes[1]), ""]]
    before, after = (size(count) for count in one.bytes)
    said = {"added": "only in the second", "removed": "only in the first"}.get(one.state, "size")
    rows = [[name, said, before, after, _change(one.bytes[0], one.bytes[1], size)]]
    for part in one.parts:
        if part.before == part.after and part.changed is False:
            continue
        what = part.name
        if part.before == part.after and part.changed:
            what += ", changed"
        rows.append(
            [
                "",
                cut(what, _WHAT),
                _number(part.before),
                _number(part.after),
                _change(part.before, part.after, lambda count: f"{count:,.0f}"),
            ]
        )
    for kind, paths in one.files.items():
        if paths.count:
            what = "metadata only" if kind == "touched" else kind
            rows.append(["", f"  {what}, {size(paths.bytes)}", "", "", f"{paths.count:,}"])
    return rows


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _change(before: int | None, after: int | None, word: Any) -> str:
    if before is None or after is None or before == after:
        return ""
    return ("+" if after > before else "-") + str(word(abs(after - before)))


def _paths(one: SourceDifference) -> None:
    from safetake.cli import output
    from safetake.wording import printable

    for kind, paths in one.files.items():
        for path in paths.paths:
            output.line(f"{_SIGNS[kind]} {one.name}/{printable(path)}")
        if paths.count > len(paths.paths):
            output.note(f"… {paths.count - len(paths.paths):,} more {kind}")
