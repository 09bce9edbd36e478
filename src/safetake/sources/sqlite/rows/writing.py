"""Writing kept rows into the live table, and naming those that it does not take.

Statements go over as many rows as possible and are halved when a constraint says no, until the
single row is found. `OR ABORT` throughout: a table's own `ON CONFLICT REPLACE` would delete live
rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from safetake.errors import RefusedError
from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.schema import NONE
from safetake.sources.sqlite.rows.sql import run
from safetake.sources.sqlite.rows.undo import Rows

_Done = TypeVar("_Done")

SKIP = "temp.safetake_skip"


def create_skip(connection: apsw.Connection) -> None:
    """The list of rows that are left out: t (table), kind (ins or upd), n, reason; empty."""
    run(
        connection,
        f"CREATE TABLE IF NOT EXISTS {SKIP} (t INTEGER, kind TEXT, n INTEGER, reason TEXT,"
        " PRIMARY KEY (t, kind, n)) WITHOUT ROWID",
    )
    run(connection, f"DELETE FROM {SKIP}")


def kept(rows: Rows, kind: str, alias: str = "u") -> str:
    """SQL: the row under the alias is not left out."""
    return (
        f"NOT EXISTS (SELECT 1 FROM {SKIP} AS s WHERE s.t = {rows.number} AND s.kind = '{kind}'"
        f" AND s.n = {alias}.n)"
    )


def skip(connection: apsw.Connection, rows: Rows, kind: str, reason: str, rest: str) -> int:
    """Leave out the rows `u` of a query (`rest` begins after FROM); how many. `reason` is SQL."""
    before = connection.total_changes()
    run(
        connection,
        f"INSERT OR IGNORE INTO {SKIP} SELECT {rows.number}, '{kind}', u.n, {reason} FROM {rest}",
    )
    return connection.total_changes() - before


def until_known(
    connection: apsw.Connection, kind: str, attempt: Callable[[], tuple[_Done, bool]]
) -> _Done:
    """Do it; when rows of `kind` had to be left out which it did not know of, undo it, and do it
    again knowing that. `attempt` tells what was done, and whether it was without knowing.
    """
    while True:
        run(connection, "SAVEPOINT safetake_attempt")
        done, unknowing = attempt()
        left_out: list[tuple[Any, ...]] = []
        if unknowing:
            # a reason may hold text of a row that is no UTF-8
            sql = f"SELECT t, kind, n, CAST(reason AS BLOB) FROM {SKIP} WHERE kind = ?"
            left_out = list(connection.execute(sql, (kind,)))
            run(connection, "ROLLBACK TO safetake_attempt")
        run(connection, "RELEASE safetake_attempt")
        if not unknowing:
            return done
        connection.executemany(
            f"INSERT OR IGNORE INTO {SKIP} VALUES (?, ?, ?, CAST(? AS TEXT))", left_out
        )


def insert(connection: apsw.Connection, rows: Rows) -> int:
    """Insert what is kept of `ins`; returns how many."""
    names = [quoted(name) for name in rows.table.names]
    values = [f"u.{c}" for c in rows.columns("c")]
    if rows.table.kind == NONE:
        names.insert(0, rows.table.rowid)
        values.insert(0, "u.r")
    return _write(
        connection,
        rows,
        "ins",
        rows.ins,
        f"INSERT OR ABORT INTO {rows.table.place} ({', '.join(names)})"
        f" SELECT {', '.join(values)} FROM {rows.ins} AS u WHERE ",
        "",
        " ORDER BY u.n",
    )


def update(connection: apsw.Connection, rows: Rows, to: str) -> int:
    """Set what is kept of `upd` to its values before (`b`) or after (`a`); returns how many."""
    sets = ", ".join(
        f"{quoted(name)} = u.{to}{n}"
        for n, name in enumerate(rows.table.names)
        if name not in rows.table.exact
    )
    if not sets:
        return 0
    return _write(
        connection,
        rows,
        "upd",
        rows.upd,
        f"UPDATE OR ABORT {rows.table.place} AS l SET {sets} FROM {rows.upd} AS u"
        f" WHERE {rows.found('l', 'u', 'a')} AND ",
        "",
        "",
    )


def delete(connection: apsw.Connection, rows: Rows) -> int:
    """Delete the live rows of what is kept of `ins`; returns how many."""
    return _write(
        connection,
        rows,
        "ins",
        rows.ins,
        _delete(rows),
        ")",
        "",
    )


def _delete(rows: Rows) -> str:
    if rows.table.rowid:
        row = rows.table.rowid
        return (
            f"DELETE FROM {rows.table.place} WHERE {row} IN (SELECT l.{row} FROM {rows.ins} AS u"
            f" CROSS JOIN {rows.table.place} AS l ON {rows.found('l', 'u', 'c')} WHERE "
        )
    keys = ", ".join(map(quoted, rows.table.key))
    mine = ", ".join(f"l.{quoted(name)}" for name in rows.table.key)
    return (
        f"DELETE FROM {rows.table.place} WHERE ({keys}) IN (SELECT {mine} FROM {rows.ins} AS u"
        f" CROSS JOIN {rows.table.place} AS l ON {rows.found('l', 'u', 'c')} WHERE "
    )


def _write(
    connection: apsw.Connection,
    rows: Rows,
    kind: str,
    table: str,
    begin: str,
    close: str,
    order: str,
) -> int:
    last: int = connection.execute(f"SELECT coalesce(max(n), 0) FROM {table}").get
    span = f"u.n BETWEEN ? AND ? AND {kept(rows, kind)}"
    statement = f"{begin}{span}{close}{order}"
    count = f"SELECT count(*) FROM {table} AS u WHERE {span}"

    def write(first: int, end: int) -> int:
        expected: int = connection.execute(count, (first, end)).get
        if expected == 0:
            return 0
        reason = _try(connection, lambda: _changes(connection, statement, (first, end)), expected)
        if reason is None:
            return expected
        if first == end:
            failed.append(first)
            run(
                connection,
                f"INSERT INTO {SKIP} VALUES (?, ?, ?, ?)",
                (rows.number, kind, first, reason),
            )
            return 0
        middle = (first + end) // 2
        return write(first, middle) + write(middle + 1, end)

    failed: list[int] = []
    done = write(1, last) if last else 0
    backwards = True
    while kind == "upd" and failed:
        # a changed row may have waited for a value that another one has given up since
        waiting, failed = sorted(failed, reverse=backwards), []
        backwards = not backwards
        before = done
        for n in waiting:
            run(
                connection,
                f"DELETE FROM {SKIP} WHERE t = ? AND kind = ? AND n = ?",
                (rows.number, kind, n),
            )
            done += write(n, n)
        if done == before:
            break
    return done


def _changes(connection: apsw.Connection, statement: str, span: tuple[int, int]) -> int:
    run(connection, statement, span)
    return connection.changes()


def _try(connection: apsw.Connection, act: Callable[[], int], expected: int) -> str | None:
    """Why the rows are not taken; None when they are in."""
    run(connection, "SAVEPOINT safetake_rows")
    try:
        done = act()
        reason = None if done == expected else "a trigger ignores it"
    except (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError) as error:
        if not connection.in_transaction:
            raise RefusedError(
                f"a trigger rolled everything back: {error}", hint="nothing was changed"
            ) from error
        reason = str(error).removeprefix("ConstraintError: ")
    if reason is not None:
        run(connection, "ROLLBACK TO safetake_rows")
    run(connection, "RELEASE safetake_rows")
    return reason
