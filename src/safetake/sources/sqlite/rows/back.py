"""Taking an application of rows back: what it inserted goes, what it changed is as before.

A row that was written since is left as it is and named; so is one that newer rows refer to.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import apsw

from safetake.errors import RefusedError
from safetake.sources.sqlite.rows import references
from safetake.sources.sqlite.rows.apply import Result, name_skipped
from safetake.sources.sqlite.rows.connect import Pair
from safetake.sources.sqlite.rows.keys import groups
from safetake.sources.sqlite.rows.prepare import Schema
from safetake.sources.sqlite.rows.schema import NONE, Table
from safetake.sources.sqlite.rows.sql import number, run
from safetake.sources.sqlite.rows.triggers import firing, set_enabled
from safetake.sources.sqlite.rows.undo import Rows
from safetake.sources.sqlite.rows.writing import SKIP, create_skip, delete, skip, update


def recorded_rows(record: dict[str, Any], tables: dict[str, Table]) -> list[Rows]:
    """The tables of an application, as they are now. Raises RefusedError when they changed."""
    found = []
    for entry in record["tables"]:
        table = tables.get(entry["name"])
        if table is None or table.names != entry["columns"] or table.kind != entry["kind"]:
            raise RefusedError(
                f"table {entry['name']} has other columns or another key than when its rows were"
                " brought back",
                hint="the rows are in the undo folder's rows.sqlite; take them back by hand",
            )
        found.append(Rows(int(entry["number"]), table))
    return found


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
    by_name = {rows.table.name: rows for rows in written}
    noted: list[dict[str, Any]] = record.get("references", [])
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
        links = [(key.child, key.parent) for key in schema.references]
        for circle in reversed(groups([rows.table.name for rows in written], links)):
            members = {name: by_name[name] for name in circle}
            _unreferred_only(connection, members, schema, noted)
            for rows in members.values():
                set_enabled(connection, deleting[rows.number].fire)
                result.inserted[rows.table.name] = delete(connection, rows)
        for rows in written:
            for key in schema.references:
                if key.parent == rows.table.name:
                    references.skip_deserted(connection, key, rows, schema.tables[key.child], "b")
            set_enabled(connection, updating[rows.number].fire)
            result.updated[rows.table.name] = update(connection, rows, "b")
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


def _unreferred_only(
    connection: apsw.Connection,
    members: dict[str, Rows],
    schema: Schema,
    noted: list[dict[str, Any]],
) -> None:
    while True:
        found = 0
        for key in schema.references:
            parent = members.get(key.parent)
            if parent is not None:
                same = [each["number"] for each in noted if asdict(key).items() <= each.items()]
                found += references.skip_referred(
                    connection,
                    key,
                    parent,
                    schema.tables[key.child],
                    members.get(key.child),
                    same[0] if same else None,
                )
        if not found:
            return
