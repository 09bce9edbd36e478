"""`safetake query`: read-only SQL straight out of a snapshot; nothing is restored."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from safetake.cli.common import (
    Command,
    Settings,
    complete_snapshots,
    complete_sources,
    pass_settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from safetake.model import Node, Reader
    from safetake.sources.sqlite.query import Answer, Value

CHROMA_DATABASE = "chroma.sqlite3"
PIECE = 1 << 16
"""Characters that are written at once."""
SHOWN = 1000
"""Rows of a table for people: more than anybody reads, and bounded memory."""


@click.command(cls=Command)
@click.argument("snapshot", metavar="ID", shell_complete=complete_snapshots)
@click.argument("source", shell_complete=complete_sources)
@click.argument("sql")
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows as CSV.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N rows.")
@pass_settings
def command(
    settings: Settings, snapshot: str, source: str, sql: str, as_csv: bool, limit: int | None
) -> int:
    """Ask a database in a snapshot, read-only SQL.

    SOURCE is a sqlite source, or a chroma source (its chroma.sqlite3 is asked). Only the parts of
    the database that the answer needs are read. A table for people shows at most 1000 rows.
    """
    from safetake.errors import UsageError
    from safetake.restore.beside import choose
    from safetake.snapshots import find_snapshot
    from safetake.sources.sqlite.query import query

    if as_csv and settings.json:
        raise UsageError("--csv and --json exclude each other")
    if limit is None and not (as_csv or settings.json):
        limit = SHOWN
    with settings.open(settings.load()) as repository:
        found = find_snapshot(repository, snapshot, [source])
        reader = repository.reader()
        node = _database(reader, choose(reader, found, [source])[source], source)
        with query(reader, node, sql, limit=limit) as answer:
            if settings.json:
                _json(settings, answer)
            elif as_csv:
                _csv(answer)
            else:
                _table(answer)
    return 0


def _database(reader: Reader, node: Node, source: str) -> Node:
    """The database's file in the source's folder. Raises UsageError."""
    from safetake.errors import UsageError

    files = [n for n in reader.tree(node.subtree) if n.content is not None] if node.subtree else []
    for file in files:
        if file.name == CHROMA_DATABASE:
            return file
    if len(files) != 1:
        raise UsageError(
            f"source {source!r} is not one database ({len(files)} files)",
            hint="name a sqlite or chroma source",
        )
    return files[0]


def _json(settings: Settings, answer: Answer) -> None:
    """Columns and rows (an object for each row would lose columns of one name), as they come.

    What fails once some of it is out is told on stderr, and the document stays without its end: no
    reader takes it for a whole one.
    """
    import json

    from safetake.cli import output

    encode = json.JSONEncoder().encode  # value by value: a list with an indent is five times slower

    def nested(values: Iterable[Any], depth: int) -> str:
        margin = "\n" + "  " * depth
        return f"[{margin}  " + f",{margin}  ".join(map(encode, values)) + f"{margin}]"

    pieces = [f'{{\n  "columns": {nested(answer.columns, 1)},\n  "rows": [']
    size, last = 0, ""
    for row in answer:
        pieces.append(f"{last}\n    {nested(map(_plain, row), 2)}")
        last = ","
        size += len(pieces[-1])
        if size > PIECE:
            settings.json = False  # an error has no document of its own any more
            output.write("".join(pieces))
            pieces, size = [], 0
    end = "\n  ]" if last else "]"
    pieces.append(f'{end},\n  "truncated": {encode(answer.truncated)}\n}}\n')
    output.write("".join(pieces))


def _plain(value: Value) -> Any:
    """Blobs as hexadecimal text; JSON has no infinity."""
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _csv(answer: Answer) -> None:
    import csv
    import io

    from safetake.cli import output

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(answer.columns)
    for row in answer:
        writer.writerow(["" if value is None else _plain(value) for value in row])
        if text.tell() > PIECE:
            output.write(text.getvalue())
            text.seek(0)
            text.truncate()
    output.write(text.getvalue())


def _table(answer: Answer) -> None:
    from safetake.cli import output

    rows = [["NULL" if value is None else str(_plain(value)) for value in row] for row in answer]
    output.table(answer.columns, rows)
    if answer.truncated:
        output.note(f"note: only the first {len(rows)} rows are shown; --csv prints all")
