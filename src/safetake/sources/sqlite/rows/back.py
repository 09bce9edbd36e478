"""Taking an application of rows back: what it inserted goes, what it changed is as before.

A row that was written since is left as it is and named; so is one that newer rows refer to.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import apsw

from safetake.errors import RefusedError
from safetake.sources.sqlite.rows import references
from safetake.sources.sqlite.rows.apply import Result, name_skipped
from safetake.sources.sqlite.rows.connect import Pair
from safetake.sources.sqlite.rows.keys import ForeignKey, groups
from safetake.sources.sqlite.rows.prepare import Schema
from safetake.sources.sqlite.rows.schema import KEY, NONE, Table
from safetake.sources.sqlite.rows.sql import number, run
from safetake.sources.sqlite.rows.triggers import Firing, firing, set_enabled
from safetake.sources.sqlite.rows.undo import Rows
from safetake.sources.sqlite.rows.writing import (
    SKIP,
    create_skip,
    delete,
    skip,
    until_known,
    update,
)


def recorded_rows(record: dict[str, Any], tables: dict[str, Table]) -> list[Rows]:
    """The tables of an application, as they are now. Raises RefusedError when they changed."""
    found = []
    for entry in record["tables"]:
        now = tables.get(entry["name"])
        table = _as_recorded(now, entry) if now is not None else None
        if table is None:
            raise RefusedError(
                f"table {entry['name']} has other columns or another key than when its rows were"
                " brought back",
                hint="the rows are in the undo folder's rows.sqlite; take them back by hand",
            )
        found.append(Rows(int(entry["number"]), table))
    return found


def _as_recorded(table: Table, entry: dict[str, Any]) -> Table | None:
    """The table with the key by which its rows were told apart; None when that is not possible.

    That may be another one than it would have by itself: none, since the snapshot's was another; or
    a PRIMARY KEY that a row with NULL came into since.
    """
    if table.names != entry["columns"]:
        return None
    if table.kind == entry["kind"]:
        return table
    if entry["kind"] == NONE and table.kind == KEY and table.rowid:
        return replace(table, kind=NONE, key=[], collations=[])
    if entry["kind"] == KEY and table.kind == NONE and set(entry["key"]) == set(table.primary):
        own = [column.collation for name in entry["key"] if (column := table.find(name))]
        return replace(table, kind=KEY, key=entry["key"], collations=entry.get("collations") or own)
    return None


def take_back(
    pair: Pair,
    written: list[Rows],
    schema: Schema,
    record: dict[str, Any],
    left_out: list[tuple[int, str, int]],
    *,
    fire_triggers: bool,
    rehearse: bool,
) -> Result:
    """Undo in one transaction. `inserted` of the result counts rows that went away again.

    Raises RefusedError, BarrierTimeoutError, apsw.Error; nothing is written then.
    """
    connection = pair.connection
    result = Result()
    create_skip(connection)
    connection.executemany(f"INSERT INTO {SKIP} VALUES (?, ?, ?, NULL)", iter(left_out))
    deleting = {
        r.number: firing(connection, r.table, "DELETE", schema.virtual, fire_triggers)
        for r in written
    }
    updating = {
        r.number: firing(connection, r.table, "UPDATE", schema.virtual, fire_triggers)
        for r in written
    }
    pair.lock()
    locked = time.perf_counter()
    try:
        connection.set_busy_timeout(int(pair.busy_timeout * 1000))
        for rows in written:
            _unchanged_only(connection, rows)
        result.inserted, result.updated = _back(
            connection, written, schema, record, deleting, updating
        )
        result.skipped = number(connection, f"SELECT count(*) FROM {SKIP} WHERE reason NOT NULL")
        run(connection, f"DELETE FROM {SKIP} WHERE reason IS NULL")
        result.reasons = name_skipped(connection, written)
        for rows in written:
            silent = {*deleting[rows.number].silent, *updating[rows.number].silent}
            if silent:
                result.silent[rows.table.name] = sorted(silent)
        result.inserted = {name: count for name, count in result.inserted.items() if count}
        result.updated = {name: count for name, count in result.updated.items() if count}
        run(connection, "ROLLBACK" if rehearse else "COMMIT")
    except BaseException:
        if connection.in_transaction:
            run(connection, "ROLLBACK")
        raise
    finally:
        set_enabled(connection, True)
    result.locked_ms = round(1000 * (time.perf_counter() - locked), 1)
    return result


def _unchanged_only(connection: apsw.Connection, rows: Rows) -> None:
    for kind, prefix, table in (("ins", "c", rows.ins), ("upd", "a", rows.upd)):
        if kind == "upd" and rows.table.kind == NONE:
            continue
        live = f"SELECT 1 FROM {rows.table.place} AS l WHERE {rows.found('l', 'u', prefix)}"
        skip(
            connection,
            rows,
            kind,
            "'it is gone already'",
            f"{table} AS u WHERE NOT EXISTS ({live})",
        )
        skip(
            connection,
            rows,
            kind,
            "'it was written since'",
            f"{table} AS u WHERE EXISTS ({live} AND {rows.differs('l', 'u', prefix)})",
        )


def _back(
    connection: apsw.Connection,
    written: list[Rows],
    schema: Schema,
    record: dict[str, Any],
    deleting: Mapping[int, Firing],
    updating: Mapping[int, Firing],
) -> tuple[dict[str, int], dict[str, int]]:
    """What was done, in the reverse order: how many rows went, and how many are as before.

    A row may go when the changes of those that refer to it are taken back, too. Where one of them
    is not, which shows only then, it begins again, knowing that.
    """
    by_name = {rows.table.name: rows for rows in written}
    links = [(key.child, key.parent) for key in schema.references]
    changes = f"SELECT count(*) FROM {SKIP} WHERE kind = 'upd'"

    def attempt() -> tuple[tuple[dict[str, int], dict[str, int]], bool]:
        before = number(connection, changes)
        removed, put = {}, {}
        for circle in reversed(groups(list(by_name), links)):
            _unreferred_only(connection, circle, by_name, schema, record.get("references", []))
            for rows in map(by_name.__getitem__, circle):
                set_enabled(connection, deleting[rows.number].fire)
                removed[rows.table.name] = delete(connection, rows)
        for rows in reversed(written):
            _possible_only(connection, rows, schema, record.get("orphans", []))
            set_enabled(connection, updating[rows.number].fire)
            put[rows.table.name] = update(connection, rows, "b")
        return (removed, put), number(connection, changes) > before

    return until_known(connection, "upd", attempt)


def _unreferred_only(
    connection: apsw.Connection,
    circle: list[str],
    by_name: dict[str, Rows],
    schema: Schema,
    noted: list[dict[str, Any]],
) -> None:
    while True:
        found = 0
        for key in schema.references:
            if key.parent in circle:
                child = by_name.get(key.child)
                found += references.skip_referred(
                    connection,
                    key,
                    by_name[key.parent],
                    schema.tables[key.child],
                    going=child if key.child in circle else None,
                    changing=child,
                    noted=_noted(noted, key),
                )
        if not found:
            return


def _possible_only(
    connection: apsw.Connection, rows: Rows, schema: Schema, noted: list[dict[str, Any]]
) -> None:
    """Leave out changes that cannot be taken back without breaking a reference."""
    for key in schema.references:
        if key.parent == rows.table.name:
            references.skip_deserted(connection, key, rows, schema.tables[key.child], "b")
        if key.child == rows.table.name:
            broken = _noted(noted, key)
            references.skip_orphans(
                connection,
                key,
                rows,
                "b",
                schema.tables[key.parent],
                noted=broken["number"] if broken else None,
            )


def _noted(noted: list[dict[str, Any]], key: ForeignKey) -> dict[str, Any] | None:
    """What was noted about a reference when the rows were brought back."""
    return next((each for each in noted if asdict(key).items() <= each.items()), None)
