"""What a restore would take away: the rows of the live database against those of the snapshot.

Small tables are compared row by row, larger ones by their counts, and it is said which. The live
side is read in slices, so that a writer with a rollback journal never waits for long; what is
committed in between may or may not be counted. The snapshot's side is read through the VFS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw

from safetake.model import Loss, Node, Reader
from safetake.sources.sqlite import facts, live, rawfile
from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.header import read_header
from safetake.sources.sqlite.rows.schema import ROWID, read_table
from safetake.sources.sqlite.vfs import open_snapshot

ROWS_COMPARED = 100_000
"""A table with more rows in the live database or the snapshot is only counted."""
BYTES_COMPARED = 64 << 20
"""Where the live database or the snapshot has more bytes, tables are only counted."""
_SLICE = 5_000
_EXAMPLES = 10
_SHOWN = 80


def losses(
    path: Path,
    busy_timeout: float,
    reader: Reader,
    node: Node,
    known: Mapping[str, Any],
    marked: str,
) -> list[Loss]:
    """One entry for each table that differs, or that could not be compared.

    `known` are the facts of the snapshot; `marked` is a table that does not count. Raises
    SourceError for the live side, DamagedError.
    """
    counts = dict(known.get("rows", {}))
    stored = known["page_size"] * known["page_count"]
    with rawfile.opened(path):
        now = live.connect(path, read_header(path), busy_timeout)
        try:
            old = open_snapshot(reader, node)
            try:
                with live.explained(path):
                    there = now.pragma("page_size") * now.pragma("page_count")
                    row_by_row = max(stored, there) <= BYTES_COMPARED
                    names = _comparable(now, marked)
                    before = _comparable(old, marked)
                    found = [
                        _table(now, old, name, names, before, counts, row_by_row=row_by_row)
                        for name in sorted({*names, *before})
                    ]
            finally:
                old.close(force=True)
        finally:
            now.close()
    return [loss for loss in found if loss.newer or loss.changed or loss.missing or loss.unknown]


def _comparable(connection: apsw.Connection, marked: str) -> list[str]:
    """Ordinary tables of the application: not SQLite's, not those under a virtual table.

    Where SQLite does not have its module, they are taken for tables of their own.
    """
    hidden = {
        str(row[1]) for row in connection.execute("PRAGMA main.table_list") if row[2] == "shadow"
    }
    return [
        name
        for name in facts.tables(connection)
        if not name.startswith("sqlite_") and name != marked and name not in hidden
    ]


def _table(
    now: apsw.Connection,
    old: apsw.Connection,
    name: str,
    names: list[str],
    before: list[str],
    counts: Mapping[str, int | None],
    *,
    row_by_row: bool,
) -> Loss:
    loss = Loss(f"rows of {name}")
    if name not in before:
        loss.newer = facts.count_rows(now, name) or 0
        loss.examples = [f"the whole table {name}"]
        return loss
    if name not in names:
        loss.missing = counts.get(name) or 0
        return loss
    # counted when it was captured: asking the snapshot would read the whole table from there
    count, was = facts.count_rows(now, name), counts.get(name)
    if count is None or was is None:
        loss.unknown = "the table needs a function or collation of the application"
        return loss
    key = _key(now, name)
    if not row_by_row or max(count, was) > ROWS_COMPARED:
        loss.unknown = f"not compared row by row: {count} rows now, {was} in the snapshot"
        newest = _newer(now, old, name, key)
        if newest:
            loss.unknown += f", {newest} of now with a higher number"
    elif key is None or _columns(now, name) != _columns(old, name):
        why = "no row number" if key is None else "its columns changed"
        loss.unknown = f"{why}: {count} rows now, {was} in the snapshot"
    else:
        table = read_table(now, "main", name, without_rowid=False)
        if table.kind == ROWID:
            _compare(now, old, name, key, loss)
        else:
            at = [_columns(now, name).index(column) for column in table.key]
            _compare_by_key(now, old, name, key, at, loss)
    return loss


def _key(connection: apsw.Connection, table: str) -> str | None:
    """A name of the row number that no column hides; None for a table without one."""
    columns = {column.lower() for column in _columns(connection, table)}
    for key in ("rowid", "_rowid_", "oid"):
        if key not in columns:
            try:
                connection.execute(f"SELECT {key} FROM {quoted(table)} LIMIT 0").fetchall()
            except apsw.SQLError:
                return None
            return key
    return None


def _columns(connection: apsw.Connection, table: str) -> list[str]:
    rows = connection.execute(f"PRAGMA table_xinfo({quoted(table)})")
    return [row[1] for row in rows]


def _newer(now: apsw.Connection, old: apsw.Connection, name: str, key: str | None) -> int:
    """Rows whose number is above the highest of the snapshot: a search and a short walk."""
    if key is None:
        return 0
    highest = old.execute(f"SELECT max({key}) FROM {quoted(name)}").get
    asked = f"SELECT count(*) FROM {quoted(name)} WHERE {key} > ?"
    return int(now.execute(asked, (-(1 << 63) if highest is None else highest,)).get)


def _compare(now: apsw.Connection, old: apsw.Connection, name: str, key: str, loss: Loss) -> None:
    mine, theirs = _rows(now, name, key), _rows(old, name, key)
    left, right = next(mine, None), next(theirs, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            loss.newer += 1
            if left is not None and len(loss.examples) < _EXAMPLES:
                loss.examples.append(_shown(left))
            left = next(mine, None)
        elif left is None or right[0] < left[0]:
            loss.missing += 1
            right = next(theirs, None)
        else:
            loss.changed += left != right
            left, right = next(mine, None), next(theirs, None)


def _compare_by_key(
    now: apsw.Connection, old: apsw.Connection, name: str, number: str, at: list[int], loss: Loss
) -> None:
    """Where the row number says nothing (VACUUM gives others, so does bringing a row back): by the
    key, which are the columns `at`, or by whole rows where there is none.
    """
    left: dict[tuple[Any, ...], list[bytes]] = {}
    for row in _rows(old, name, number):
        left.setdefault(_known_by(row, at), []).append(_digest(row))
    for row in _rows(now, name, number):
        same = left.get(_known_by(row, at))
        if same:
            loss.changed += same.pop() != _digest(row)
        else:
            loss.newer += 1
            if len(loss.examples) < _EXAMPLES:
                loss.examples.append(_shown(row))
    loss.missing += sum(map(len, left.values()))


def _known_by(row: tuple[Any, ...], at: list[int]) -> tuple[Any, ...]:
    return tuple(row[1 + column] for column in at) if at else (_digest(row),)


def _digest(row: tuple[Any, ...]) -> bytes:
    return hashlib.blake2b(repr(row[1:]).encode(), digest_size=16).digest()


def _rows(connection: apsw.Connection, name: str, key: str) -> Iterator[tuple[Any, ...]]:
    """(row number, columns …) in the order of the numbers, a slice in each transaction."""
    last = None
    shown = ", ".join(_plain(quoted(column)) for column in _columns(connection, name))
    while True:
        beyond = "" if last is None else f"WHERE {key} > ?"
        rows = connection.execute(
            f"SELECT {key}, {shown} FROM {quoted(name)} {beyond} ORDER BY {key} LIMIT {_SLICE}",
            () if last is None else (last,),
        ).fetchall()
        yield from rows
        if len(rows) < _SLICE:
            return
        last = rows[-1][0]


def _plain(column: str) -> str:
    """Text as bytes: it may be no UTF-8, and equal is equal."""
    return f"CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) ELSE {column} END"


def _shown(row: tuple[Any, ...]) -> str:
    """The number of a row, and its first text, which often is its name."""
    text = next((v for v in row[1:] if isinstance(v, bytes) and v and len(v) < _SHOWN), b"")
    said = text.decode("utf-8", "replace")
    return f"{row[0]}: {said}" if said.isprintable() and said else str(row[0])
