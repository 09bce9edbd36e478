"""Comparing: which rows are missing, changed, extra. SQLite does it; Python sees no row.

The keys of what differs go into temporary tables (SQLite spills them to an unlinked file when they
are many). The caller holds a read transaction, so that all tables are compared at one moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import apsw

from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.plan import TablePlan
from safetake.sources.sqlite.rows.schema import KEY, NONE, ROWID
from safetake.sources.sqlite.rows.sql import number, run


@dataclass(slots=True)
class Counts:
    """Rows of one table."""

    missing: int = 0
    """In the snapshot and not live."""
    changed: int = 0
    """In both under one key, and different; with the recycled ones."""
    recycled: int = 0
    """Of the changed: perhaps another row under an id that was used again."""
    extra: int = 0
    """Live only: newer than the snapshot."""
    parents: int = 0
    """Missing rows that were not asked for, and that the missing ones refer to."""


@dataclass(slots=True)
class Conditions:
    """The rows that are asked about, in SQL over bare column names; empty for all."""

    old: str = ""
    live: str = ""


def compare(
    connection: apsw.Connection,
    plan: TablePlan,
    conditions: Conditions,
    known_rows: Mapping[str, int | None],
) -> Counts:
    """Fill `plan.diff`. `known_rows` is what the snapshot's facts say of its tables."""
    create(connection, plan)
    if plan.live.kind == NONE:
        return _without_key(connection, plan, conditions)
    found = _found(connection, plan)
    if conditions.old or conditions.live:
        _some(connection, plan, conditions, found)
    elif plan.live.kind == KEY and plan.live.rowid and plan.old.rowid:
        _by_rowid_first(connection, plan, found)
    else:
        _all(connection, plan, found)
    counts = Counts()
    for kind, recycled, rows in connection.execute(
        f"SELECT kind, recycled, count(*) FROM {plan.diff} GROUP BY 1, 2"
    ):
        if kind == "m":
            counts.missing += rows
        else:
            counts.changed += rows
            counts.recycled += rows if recycled else 0
    counts.extra = _extra(connection, plan, conditions, known_rows, counts.missing)
    return counts


def create(connection: apsw.Connection, plan: TablePlan) -> None:
    """Make the empty `plan.diff`."""
    if plan.live.kind == KEY:
        keys = ", ".join(plan.keys)
        shape = f"({keys}, {plan.shape}, PRIMARY KEY ({keys})) WITHOUT ROWID"
    else:
        shape = f"(k0 INTEGER PRIMARY KEY, {plan.shape})"
    run(connection, f"CREATE TABLE IF NOT EXISTS {plan.diff} {shape}")
    run(connection, f"DELETE FROM {plan.diff}")


def _found(connection: apsw.Connection, plan: TablePlan) -> str:
    """SQL of a row of `diff`, for a row `o` and its live one `l`, or none."""
    keys = ", ".join(f"o.{quoted(name)}" for name in plan.old.key)
    recycled = "0"
    if plan.live.kind == ROWID and not plan.live.autoincrement:
        test = plan.recycled("o", "l", highest_unchanged(connection, plan))
        recycled = f"CASE WHEN {plan.absent('l')} THEN 0 ELSE {test} END"
    missing = plan.absent("l")
    return (
        f"{keys}, CASE WHEN {missing} THEN 'm' ELSE 'c' END, {recycled}{plan.values('o', missing)}"
    )


def _all(connection: apsw.Connection, plan: TablePlan, found: str) -> None:
    run(
        connection,
        f"INSERT INTO {plan.diff} SELECT {found} FROM {plan.old.place} AS o NOT INDEXED"
        f" LEFT JOIN {plan.live.place} AS l ON {plan.is_row('o', 'l')}"
        f" WHERE {plan.absent('l')} OR {plan.differs('o', 'l')}",
    )


def _by_rowid_first(connection: apsw.Connection, plan: TablePlan, found: str) -> None:
    """Most rows still have their rowid: side by side, instead of a search for each key."""
    _rest(connection, plan, "")
    run(
        connection,
        f"INSERT INTO {plan.diff} SELECT {found} FROM temp.safetake_rest AS r"
        f" CROSS JOIN {plan.old.place} AS o ON o.{plan.old.rowid} = r.r"
        f" LEFT JOIN {plan.live.place} AS l ON {plan.is_row('o', 'l')}"
        f" WHERE {plan.absent('l')} OR {plan.differs('o', 'l')}",
    )


def _rest(connection: apsw.Connection, plan: TablePlan, condition: str) -> None:
    """Rowids of the snapshot whose row is not the same under the same rowid of the live table."""
    _fresh(connection, "safetake_rest")
    where = f" WHERE {condition}" if condition else ""
    rows = f"(SELECT {plan.old.rowid} AS r FROM {plan.old.place}{where}) AS f CROSS JOIN"
    run(
        connection,
        f"INSERT INTO temp.safetake_rest SELECT o.{plan.old.rowid}"
        f" FROM {rows if condition else ''} {plan.old.place} AS o NOT INDEXED"
        f" {f'ON o.{plan.old.rowid} = f.r' if condition else ''}"
        f" LEFT JOIN {plan.live.place} AS l ON l.{plan.live.rowid} = o.{plan.old.rowid}"
        f" WHERE l.{plan.live.rowid} IS NULL OR {plan.differs('o', 'l')}",
    )


def _fresh(connection: apsw.Connection, name: str) -> None:
    run(connection, f"CREATE TABLE IF NOT EXISTS temp.{name} (r INTEGER PRIMARY KEY)")
    run(connection, f"DELETE FROM temp.{name}")


def _some(connection: apsw.Connection, plan: TablePlan, conditions: Conditions, found: str) -> None:
    """Rows whose old or whose live version meets the condition; an index may find them."""
    old_keys = ", ".join(f"{quoted(name)} AS f{n}" for n, name in enumerate(plan.old.key))
    live_keys = ", ".join(f"{quoted(name)} AS f{n}" for n, name in enumerate(plan.live.key))
    chosen = [f"f.f{n}" for n in range(len(plan.live.key))]
    run(
        connection,
        f"INSERT INTO {plan.diff} SELECT {found}"
        f" FROM (SELECT {old_keys} FROM {plan.old.place} WHERE {conditions.old}) AS f"
        f" CROSS JOIN {plan.old.place} AS o ON {plan.old.key_is('o', chosen)}"
        f" LEFT JOIN {plan.live.place} AS l ON {plan.is_row('o', 'l')}"
        f" WHERE {plan.absent('l')} OR {plan.differs('o', 'l')}",
    )
    run(
        connection,
        f"INSERT OR IGNORE INTO {plan.diff} SELECT {found}"
        f" FROM (SELECT {live_keys} FROM {plan.live.place} WHERE {conditions.live}) AS f"
        f" CROSS JOIN {plan.live.place} AS l ON {plan.live.key_is('l', chosen)}"
        f" CROSS JOIN {plan.old.place} AS o"
        f" ON {plan.old.key_is('o', [f'l.{quoted(name)}' for name in plan.live.key])}"
        f" WHERE {plan.differs('o', 'l')}",
    )


def extra_rows(plan: TablePlan, condition: str) -> str:
    """SQL after FROM: the live rows (alias `l`) that the snapshot does not have."""
    if plan.live.kind == NONE:
        return (
            f"temp.safetake_extra_{plan.number} AS e"
            f" CROSS JOIN {plan.live.place} AS l ON l.{plan.live.rowid} = e.r"
        )
    old_is = plan.old.key_is("o", [f"l.{quoted(name)}" for name in plan.live.key])
    none = f"NOT EXISTS (SELECT 1 FROM {plan.old.place} AS o WHERE {old_is})"
    if not condition:
        return f"{plan.live.place} AS l WHERE {none}"
    keys = ", ".join(f"{quoted(name)} AS f{n}" for n, name in enumerate(plan.live.key))
    found = [f"f.f{n}" for n in range(len(plan.live.key))]
    return (
        f"(SELECT {keys} FROM {plan.live.place} WHERE {condition}) AS f"
        f" CROSS JOIN {plan.live.place} AS l ON {plan.live.key_is('l', found)} WHERE {none}"
    )


def _extra(
    connection: apsw.Connection,
    plan: TablePlan,
    conditions: Conditions,
    known_rows: Mapping[str, int | None],
    missing: int,
) -> int:
    if conditions.live or conditions.old:
        return number(connection, f"SELECT count(*) FROM {extra_rows(plan, conditions.live)}")
    # every row of the snapshot that is not missing has exactly one live row
    before = known_rows.get(plan.old.name)
    if before is None:
        before = number(connection, f"SELECT count(*) FROM {plan.old.place}")
    now = number(connection, f"SELECT count(*) FROM {plan.live.place}")
    return now - (before - missing)


def _without_key(connection: apsw.Connection, plan: TablePlan, conditions: Conditions) -> Counts:
    """Equal rows are set against each other one by one; what is left over differs."""
    _rest(connection, plan, conditions.old)
    _fresh(connection, "safetake_more")
    where = f" WHERE {conditions.live}" if conditions.live else ""
    run(
        connection,
        f"INSERT INTO temp.safetake_more SELECT l.{plan.live.rowid}"
        f" FROM (SELECT {plan.live.rowid} AS r FROM {plan.live.place}{where}) AS f"
        f" CROSS JOIN {plan.live.place} AS l ON l.{plan.live.rowid} = f.r"
        f" LEFT JOIN {plan.old.place} AS o ON o.{plan.old.rowid} = l.{plan.live.rowid}"
        f" WHERE o.{plan.old.rowid} IS NULL OR {plan.differs('o', 'l')}",
    )
    extra = f"safetake_extra_{plan.number}"
    _fresh(connection, extra)
    names = [f"c{n}" for n in range(len(plan.common))]
    groups = ", ".join(f"{name} COLLATE BINARY, typeof({name})" for name in names)

    def side(which: int, place: str, rowid: str, columns: list[str], rest: str) -> str:
        values = ", ".join(f"t.{quoted(c)} AS {n}" for c, n in zip(columns, names, strict=True))
        return (
            f"SELECT {which} AS side, r.r AS r, {values} FROM temp.{rest} AS r"
            f" CROSS JOIN {place} AS t ON t.{rowid} = r.r"
        )

    both = " UNION ALL ".join(
        (
            side(0, plan.old.place, plan.old.rowid, [o.name for _, o in plan.common],
                 "safetake_rest"),
            side(1, plan.live.place, plan.live.rowid, [c.name for c, _ in plan.common],
                 "safetake_more"),
        )
    )  # fmt: skip
    run(connection, "DROP TABLE IF EXISTS temp.safetake_copies")
    run(
        connection,
        "CREATE TEMP TABLE safetake_copies AS SELECT side, r,"
        f" row_number() OVER (PARTITION BY {groups}, side ORDER BY r) AS copy,"
        f" sum(1 - side) OVER (PARTITION BY {groups}) AS olds,"
        f" sum(side) OVER (PARTITION BY {groups}) AS lives FROM ({both})",
    )
    run(
        connection,
        f"INSERT INTO {plan.diff} SELECT r, 'm', 0{plan.values('o')}"
        f" FROM temp.safetake_copies AS c CROSS JOIN {plan.old.place} AS o"
        f" ON o.{plan.old.rowid} = c.r WHERE side = 0 AND copy > lives",
    )
    run(
        connection,
        f"INSERT INTO temp.{extra} SELECT r FROM temp.safetake_copies"
        " WHERE side = 1 AND copy > olds",
    )
    run(connection, "DROP TABLE temp.safetake_copies")
    return Counts(
        missing=number(connection, f"SELECT count(*) FROM {plan.diff}"),
        extra=number(connection, f"SELECT count(*) FROM temp.{extra}"),
    )


def highest_unchanged(connection: apsw.Connection, plan: TablePlan) -> int | None:
    """The highest id whose row is as it was; the search begins at the highest."""
    key = quoted(plan.old.key[0])
    row = connection.execute(
        f"SELECT o.{key} FROM {plan.old.place} AS o NOT INDEXED CROSS JOIN {plan.live.place} AS l"
        f" ON {plan.is_row('o', 'l')} WHERE NOT ({plan.differs('o', 'l')})"
        f" ORDER BY o.{key} DESC LIMIT 1"
    ).fetchone()
    return None if row is None else int(row[0])
