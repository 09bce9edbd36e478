"""Copying what an application will write, and what an undo of it needs, into the undo folder.

In the read transaction of the comparison, without a lock: rows that come back, changed rows
as they are and as they shall be, and which live rows wait for a parent that comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import apsw

from safetake.errors import RefusedError
from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows import references
from safetake.sources.sqlite.rows.diff import highest_unchanged
from safetake.sources.sqlite.rows.keys import ForeignKey
from safetake.sources.sqlite.rows.plan import TablePlan
from safetake.sources.sqlite.rows.schema import NONE, ROWID, Table
from safetake.sources.sqlite.rows.sql import number, run
from safetake.sources.sqlite.rows.undo import Rows
from safetake.sources.sqlite.rows.writing import create_skip, skip


@dataclass(slots=True)
class Schema:
    """The live tables as far as references and triggers need them."""

    tables: dict[str, Table]
    """All that can be written, by name."""
    references: list[ForeignKey]
    virtual: set[str]


def prepare(
    connection: apsw.Connection,
    plans: Mapping[str, TablePlan],
    everything: Mapping[str, TablePlan],
    schema: Schema,
    *,
    changed: bool,
    recycled: bool,
) -> list[Rows]:
    """Copy the rows of the comparison into the attached `undo`. Raises RefusedError.

    `changed` also takes the changed rows, `recycled` those that may be other rows by now. The plans
    have kept the old values of these rows.
    """
    create_skip(connection)
    written = []
    for plan in plans.values():
        rows = Rows(plan.number, plan.live)
        rows.create(connection, plan.added)
        missing = number(connection, f"SELECT count(*) FROM {plan.diff} WHERE kind IN ('m', 'p')")
        if missing and plan.no_insert:
            raise RefusedError(
                f"table {plan.name}: {missing} rows cannot be brought back: {plan.no_insert}",
                hint="choose the other tables with --table, or give the column a default",
            )
        _copy_missing(connection, plan, rows)
        if changed and plan.live.kind != NONE:
            _copy_changed(connection, plan, rows, recycled)
        written.append(rows)
    _wrong_parents(connection, everything, schema, written)
    return written


def note_references(
    connection: apsw.Connection, schema: Schema, written: list[Rows]
) -> dict[str, list[dict[str, Any]]]:
    """What an undo has to know about references that are broken before anything is written.

    `references`: live rows that wait for a parent which comes back. `orphans`: changed rows that
    refer to nothing as they are. An undo makes both so again, and no others.
    """
    by_name = {rows.table.name: rows for rows in written}
    waiting, orphans = [], []
    for at, key in enumerate(schema.references):
        child, parent = by_name.get(key.child), by_name.get(key.parent)
        entry = {"number": at, **asdict(key)}
        if parent is not None and _any(connection, parent.ins):
            table = schema.tables[key.child]
            if references.note_referring(connection, at, key, parent, table):
                waiting.append({**entry, "identity": references.identity(table)})
        if child is not None and _any(connection, child.upd):
            table = schema.tables[key.parent]
            if references.note_orphans(connection, at, key, child, table):
                orphans.append(entry)
    return {"references": waiting, "orphans": orphans}


def _any(connection: apsw.Connection, table: str) -> bool:
    return bool(number(connection, f"SELECT EXISTS (SELECT 1 FROM {table})"))


def _copy_missing(connection: apsw.Connection, plan: TablePlan, rows: Rows) -> None:
    old = {c.name: n for n, (c, _) in enumerate(plan.common)}
    both = [name for name in plan.live.names if name in old]  # the others get their default
    values = [f"d.o{old[name]}" for name in both]
    names = [f"c{rows.column(name)}" for name in both]
    if plan.live.kind == NONE:
        names.insert(0, "r")
        free = f"SELECT 1 FROM {plan.live.place} AS x WHERE x.{plan.live.rowid} = d.k0"
        values.insert(0, f"CASE WHEN NOT EXISTS ({free}) THEN d.k0 END")
    order = ", ".join(f"d.{key}" for key in plan.keys)
    run(
        connection,
        f"INSERT INTO {rows.ins} ({', '.join(names)}) SELECT {', '.join(values)}"
        f" FROM {plan.diff} AS d WHERE d.kind IN ('m', 'p') ORDER BY {order}",
    )
    if plan.live.kind == NONE:
        # the rowid that the row had where it is free, else one above all others
        run(
            connection,
            f"UPDATE {rows.ins} SET r = n + max("
            f"(SELECT coalesce(max({plan.live.rowid}), 0) FROM {plan.live.place}),"
            f" (SELECT coalesce(max(r), 0) FROM {rows.ins})) WHERE r IS NULL",
        )


def _copy_changed(connection: apsw.Connection, plan: TablePlan, rows: Rows, recycled: bool) -> None:
    old = {c.name: n for n, (c, _) in enumerate(plan.common)}
    before = [f"l.{quoted(column.name)}" for column in plan.live.columns]
    after = [
        f"d.o{old[column.name]}" if column.name in old else f"l.{quoted(column.name)}"
        for column in plan.live.columns
    ]
    names = ", ".join((*rows.columns("b"), *rows.columns("a")))
    order = ", ".join(f"d.{key}" for key in plan.keys)
    run(
        connection,
        f"INSERT INTO {rows.upd} ({names}) SELECT {', '.join((*before, *after))}"
        f" FROM {plan.diff} AS d CROSS JOIN {plan.live.place} AS l ON {plan.live_is('l')}"
        f" WHERE d.kind = 'c' ORDER BY {order}",
    )
    if not recycled and plan.live.kind == ROWID:
        key = rows.column(plan.live.key[0])
        skip(
            connection,
            rows,
            "upd",
            "'perhaps another row now, under an id that was used again'",
            f"{rows.upd} AS u JOIN {plan.diff} AS d ON d.k0 = u.a{key} WHERE d.recycled",
        )


def _wrong_parents(
    connection: apsw.Connection,
    plans: Mapping[str, TablePlan],
    schema: Schema,
    written: list[Rows],
) -> None:
    by_name = {rows.table.name: rows for rows in written}
    highest: dict[str, int | None] = {}
    for key in schema.references:
        child, parent = by_name.get(key.child), plans.get(key.parent)
        if child is None or parent is None or parent.live.kind != ROWID:
            continue
        if key.parent not in highest:
            highest[key.parent] = highest_unchanged(connection, parent)
        for kind in ("ins", "upd"):
            references.skip_wrong_parents(
                connection, key, child, kind, parent, by_name.get(key.parent), highest[key.parent]
            )
