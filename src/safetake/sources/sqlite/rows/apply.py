"""Bringing rows back: prepared without a lock, written in one short transaction.

1. `prepare.prepare`, in the read transaction of the comparison: the rows to insert, and the changed
   rows as they are and as they shall be, go into the undo folder, which is then durable.
2. `apply`: BEGIN IMMEDIATE; every row is looked at once more, so that what was written since the
   comparison stays; parents first; what a constraint or a missing parent forbids is left out and
   named. Before the commit it is durable what was left out.

A rehearsal does the same and rolls back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import apsw

from safetake.errors import RefusedError
from safetake.sources.sqlite.rows import references
from safetake.sources.sqlite.rows.connect import Pair
from safetake.sources.sqlite.rows.keys import groups
from safetake.sources.sqlite.rows.prepare import Schema
from safetake.sources.sqlite.rows.schema import NONE
from safetake.sources.sqlite.rows.sql import decoder, number, run
from safetake.sources.sqlite.rows.triggers import Firing, firing, set_enabled
from safetake.sources.sqlite.rows.undo import Rows, UndoFolder
from safetake.sources.sqlite.rows.writing import SKIP, insert, kept, skip, until_known, update

NAMED = 100
"""Rows that are left out are named up to this many."""


@dataclass(slots=True)
class Result:
    """What was written, or would be."""

    inserted: dict[str, int] = field(default_factory=dict)
    updated: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    reasons: list[dict[str, Any]] = field(default_factory=list)
    """{table, key, reason} of the first rows that were left out."""
    silent: dict[str, list[str]] = field(default_factory=dict)
    """Triggers that did not fire, by table."""
    fired: list[str] = field(default_factory=list)
    """Tables whose triggers fired."""
    locked_ms: float = field(default=0.0, compare=False)
    """How long other writers were locked out."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "inserted": self.inserted,
            "updated": self.updated,
            "skipped": self.skipped,
            "skipped_rows": self.reasons,
            "triggers_not_fired": self.silent,
            "triggers_fired": self.fired,
            "locked_ms": self.locked_ms,
        }


def apply(
    pair: Pair,
    written: list[Rows],
    schema: Schema,
    folder: UndoFolder | None,
    *,
    fire_triggers: bool,
) -> Result:
    """Write the prepared rows; a rehearsal when there is no folder. The caller made it durable.

    Raises RefusedError, BarrierTimeoutError, apsw.Error; nothing is written then.
    """
    connection = pair.connection
    result = Result()
    by_name = {rows.table.name: rows for rows in written}
    decided = {
        rows.number: (
            _decide(connection, rows, "ins", "INSERT", schema, fire_triggers),
            _decide(connection, rows, "upd", "UPDATE", schema, fire_triggers),
        )
        for rows in written
    }
    pair.lock()
    locked = time.perf_counter()
    try:
        connection.set_busy_timeout(int(pair.busy_timeout * 1000))
        for rows in written:
            _look_again(connection, rows)
        for key in schema.references:
            if (child := by_name.get(key.child)) and (parent := by_name.get(key.parent)):
                for to in ("c", "a"):
                    references.skip_strangers(connection, key, child, parent, to)
        result.updated, result.inserted = _write(connection, by_name, schema, decided)
        if not any(firing.fire for both in decided.values() for firing in both):
            _prove(connection, written, result)
        _tell(connection, written, decided, result)
        if folder is None:
            connection.execute("ROLLBACK").fetchall()
        else:
            folder.write_skipped(_skipped(connection))
            _commit(connection, folder)
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK").fetchall()
        raise
    finally:
        set_enabled(connection, True)
    result.locked_ms = round(1000 * (time.perf_counter() - locked), 1)
    return result


def _commit(connection: apsw.Connection, folder: UndoFolder) -> None:
    folder.keep = True  # who interrupts, or a disk that fails, leaves nobody to know what is there
    try:
        run(connection, "COMMIT")
    except apsw.BusyError:
        folder.keep = False
        raise


def _decide(
    connection: apsw.Connection,
    rows: Rows,
    kind: str,
    event: str,
    schema: Schema,
    fire_triggers: bool,
) -> Firing:
    table = rows.ins if kind == "ins" else rows.upd
    if not number(connection, f"SELECT EXISTS (SELECT 1 FROM {table})"):
        return Firing()
    return firing(connection, rows.table, event, schema.virtual, fire_triggers)


def _look_again(connection: apsw.Connection, rows: Rows) -> None:
    """Leave out what was written since the comparison."""
    place = rows.table.place
    there = f"EXISTS (SELECT 1 FROM {place} AS l WHERE {rows.found('l', 'u', 'c')})"
    reason = "'a row with its key was written since the comparison'"
    skip(connection, rows, "ins", reason, f"{rows.ins} AS u WHERE {there}")
    if rows.table.kind == NONE:
        return
    same = (
        f"EXISTS (SELECT 1 FROM {place} AS l WHERE {rows.found('l', 'u', 'b')}"
        f" AND NOT ({rows.differs('l', 'u', 'b')}))"
    )
    reason = "'it was written since the comparison'"
    skip(connection, rows, "upd", reason, f"{rows.upd} AS u WHERE NOT {same}")


def _write(
    connection: apsw.Connection,
    by_name: Mapping[str, Rows],
    schema: Schema,
    decided: Mapping[int, tuple[Firing, Firing]],
) -> tuple[dict[str, int], dict[str, int]]:
    """Update, then insert, parents first; again without changed rows whose parents failed."""
    links = [(key.child, key.parent) for key in schema.references]

    def attempt() -> tuple[tuple[dict[str, int], dict[str, int]], bool]:
        updated: dict[str, int] = {}
        inserted: dict[str, int] = {}
        for name, rows in by_name.items():
            _possible_only(connection, rows, by_name, schema)
            set_enabled(connection, decided[rows.number][1].fire)
            updated[name] = update(connection, rows, "a")
        for circle in groups(list(by_name), links):
            members = [by_name[name] for name in circle]
            fire = {rows.number: decided[rows.number][0].fire for rows in members}
            inserted |= _insert_circle(connection, members, schema, fire)
        return (updated, inserted), _updated_orphans(connection, by_name, schema) > 0

    return until_known(connection, "upd", attempt)


def _possible_only(
    connection: apsw.Connection, rows: Rows, by_name: Mapping[str, Rows], schema: Schema
) -> None:
    """Leave out changes that break a reference; missing parents may still come."""
    for key in schema.references:
        if key.parent == rows.table.name:
            references.skip_deserted(connection, key, rows, schema.tables[key.child], "a")
        if key.child == rows.table.name:
            coming = by_name.get(key.parent)
            references.skip_orphans(connection, key, rows, "a", schema.tables[key.parent], coming)


def _updated_orphans(
    connection: apsw.Connection, by_name: Mapping[str, Rows], schema: Schema
) -> int:
    """Changed rows that refer to nothing, since their parents could not come."""
    return sum(
        references.skip_orphans(connection, key, by_name[key.child], "a", schema.tables[key.parent])
        for key in schema.references
        if key.child in by_name
    )


def _insert_circle(
    connection: apsw.Connection, members: list[Rows], schema: Schema, fire: Mapping[int, bool]
) -> dict[str, int]:
    """Insert tables that refer to each other, or one; again without those whose parents failed."""

    def attempt() -> tuple[dict[str, int], bool]:
        _without_orphans(connection, members, schema)
        inserted = {}
        for rows in members:
            set_enabled(connection, fire[rows.number])
            inserted[rows.table.name] = insert(connection, rows)
        # a constraint may have kept their parents out
        return inserted, _without_orphans(connection, members, schema, inserted=True) > 0

    return until_known(connection, "ins", attempt)


def _without_orphans(
    connection: apsw.Connection, members: list[Rows], schema: Schema, inserted: bool = False
) -> int:
    """Leave out rows whose parents are neither there nor coming, until nothing changes."""
    by_name = {rows.table.name: rows for rows in members}
    total = 0
    while True:
        found = 0
        for key in schema.references:
            child = by_name.get(key.child)
            if child is None:
                continue
            coming = None if inserted else by_name.get(key.parent)
            found += references.skip_orphans(
                connection, key, child, "c", schema.tables[key.parent], coming
            )
        total += found
        if not found:
            return total


def _prove(connection: apsw.Connection, written: list[Rows], result: Result) -> None:
    """What was written is there, value for value."""
    for rows in written:
        for kind, prefix, expected in (
            ("ins", "c", result.inserted), ("upd", "a", result.updated),
        ):  # fmt: skip
            if rows.table.kind == NONE and kind == "upd":
                continue
            table = rows.ins if kind == "ins" else rows.upd
            found = number(
                connection,
                f"SELECT count(*) FROM {table} AS u CROSS JOIN {rows.table.place} AS l"
                f" ON {rows.found('l', 'u', prefix)}"
                f" WHERE {kept(rows, kind)} AND NOT ({rows.differs('l', 'u', prefix)})",
            )
            if found != expected[rows.table.name]:
                raise RefusedError(
                    f"table {rows.table.name}: {expected[rows.table.name]} rows were written, and"
                    f" {found} of them are as in the snapshot",
                    hint="nothing was changed; has a column another type now?",
                )


def _tell(
    connection: apsw.Connection,
    written: list[Rows],
    decided: Mapping[int, tuple[Firing, Firing]],
    result: Result,
) -> None:
    result.skipped = number(connection, f"SELECT count(*) FROM {SKIP}")
    result.reasons = name_skipped(connection, written)
    for rows in written:
        silent = sorted({name for each in decided[rows.number] for name in each.silent})
        if silent:
            result.silent[rows.table.name] = silent
        if any(each.fire for each in decided[rows.number]):
            result.fired.append(rows.table.name)
    result.inserted = {name: count for name, count in result.inserted.items() if count}
    result.updated = {name: count for name, count in result.updated.items() if count}


def name_skipped(connection: apsw.Connection, written: list[Rows]) -> list[dict[str, Any]]:
    """{table, key, reason} of the first rows that were left out."""
    found: list[dict[str, Any]] = []
    decoded = decoder(connection)
    for rows in written:
        for kind, prefix, table in (("ins", "c", rows.ins), ("upd", "a", rows.upd)):
            names = rows.table.key
            parts = [f"u.{prefix}{rows.column(name)}" for name in names]
            if not names:
                names, parts = ["rowid"], ["u.r" if kind == "ins" else "u.n"]
            texts = ", ".join(f"CAST(quote({part}) AS BLOB)" for part in parts)
            for row in connection.execute(
                f"SELECT {texts}, CAST(s.reason AS BLOB)"
                f" FROM {SKIP} AS s CROSS JOIN {table} AS u ON u.n = s.n"
                " WHERE s.t = ? AND s.kind = ? ORDER BY s.n LIMIT ?",
                (rows.number, kind, NAMED - len(found)),
            ):
                *values, reason = map(decoded, row)
                key = ", ".join(f"{n} = {v}" for n, v in zip(names, values, strict=True))
                found.append({"table": rows.table.name, "key": key, "reason": reason})
    return found


def _skipped(connection: apsw.Connection) -> list[tuple[int, str, int]]:
    return [
        (int(t), str(kind), int(n))
        for t, kind, n in connection.execute(f"SELECT t, kind, n FROM {SKIP}")
    ]
