"""References between rows that are written: what may come back, and what may go.

SQLite's own enforcement is off (`connect`): it would stop at the first row, say only that *some*
reference is broken, and let actions cascade into rows that nobody asked about. These queries name
each row and its parent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apsw

from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.connect import UNDO
from safetake.sources.sqlite.rows.keys import ForeignKey
from safetake.sources.sqlite.rows.plan import TablePlan
from safetake.sources.sqlite.rows.schema import NONE, ROWID, Table
from safetake.sources.sqlite.rows.sql import run
from safetake.sources.sqlite.rows.undo import Rows
from safetake.sources.sqlite.rows.writing import kept, skip


def _parent_of(key: ForeignKey, child: Rows, prefix: str) -> str:
    """SQL that names the parent of a kept row: `projects (id = 7)`."""
    parts = " || ', ' || ".join(
        f"{_text(b + ' = ')} || quote(u.{prefix}{child.column(a)})"
        for a, b in zip(key.columns, key.parent_columns, strict=True)
    )
    return f"{_text(key.parent + ' (')} || {parts} || ')'"


def _text(words: str) -> str:
    return "'" + words.replace("'", "''") + "'"


def _same(parent: Table, names: Sequence[str], theirs: Iterable[str], mine: Iterable[str]) -> str:
    """SQL: the values `theirs` of a parent's columns `names` are those of a child, `mine`.

    As SQLite compares them for a foreign key: by the collation of the parent's column.
    """
    columns = [column for name in names if (column := parent.find(name)) is not None]
    return " AND ".join(
        f"{a} = {b} COLLATE {quoted(column.collation)}"
        for column, a, b in zip(columns, theirs, mine, strict=True)
    )


def skip_orphans(
    connection: apsw.Connection,
    key: ForeignKey,
    child: Rows,
    to: str,
    parent: Table,
    coming: Rows | None = None,
    noted: int | None = None,
) -> int:
    """Leave out rows whose parent is neither live nor among the rows of `coming` (one circle).

    `to` is what becomes of them: `c`, they are inserted; `a` or `b`, they are changed, and count
    when that changes the reference. Not those that `note_orphans` noted under the number `noted`.
    """
    kind = "ins" if to == "c" else "upd"
    numbers = [child.column(name) for name in key.columns]
    where = f"{_parentless(key, child, to, parent)} AND {kept(child, kind)}"
    if kind == "upd":
        where += " AND (" + " OR ".join(f"u.a{n} IS NOT u.b{n}" for n in numbers) + ")"
    if coming is not None:
        theirs = [f"v.c{coming.column(name)}" for name in key.parent_columns]
        same = _same(parent, key.parent_columns, theirs, [f"u.{to}{n}" for n in numbers])
        where += (
            f" AND NOT EXISTS (SELECT 1 FROM {coming.ins} AS v WHERE {same}"
            f" AND {kept(coming, 'ins', 'v')})"
        )
    if noted is not None:
        where += f" AND u.n NOT IN (SELECT n FROM {UNDO}.lost_{noted})"
    reason = f"'its parent ' || {_parent_of(key, child, to)} || ' is not there'"
    table = child.ins if kind == "ins" else child.upd
    return skip(connection, child, kind, reason, f"{table} AS u WHERE {where}")


def _parentless(key: ForeignKey, child: Rows, to: str, parent: Table) -> str:
    """SQL: the kept row `u` refers to something, and no such row is live."""
    values = [f"u.{to}{child.column(name)}" for name in key.columns]
    some = " AND ".join(f"{value} IS NOT NULL" for value in values)
    theirs = [f"p.{quoted(name)}" for name in key.parent_columns]
    # without their own affinity, the parent's column lends them its own: as in a foreign key
    there = _same(parent, key.parent_columns, theirs, [f"+{value}" for value in values])
    return f"{some} AND NOT EXISTS (SELECT 1 FROM {parent.place} AS p WHERE {there})"


def note_orphans(
    connection: apsw.Connection, number: int, key: ForeignKey, child: Rows, parent: Table
) -> bool:
    """Remember which changed rows refer to nothing as they are: an undo makes them so again.

    False when there are none.
    """
    run(connection, f"CREATE TABLE {UNDO}.lost_{number} (n INTEGER PRIMARY KEY)")
    run(
        connection,
        f"INSERT INTO {UNDO}.lost_{number} SELECT u.n FROM {child.upd} AS u"
        f" WHERE {_parentless(key, child, 'b', parent)}",
    )
    return connection.changes() > 0


def skip_strangers(
    connection: apsw.Connection, key: ForeignKey, child: Rows, parent: Rows, to: str
) -> None:
    """Leave out rows whose parent was to come back, and whose id somebody gave to another row since
    the comparison. `to` as in `skip_orphans`."""
    table = parent.table
    if table.kind != ROWID or table.autoincrement or key.parent_columns != table.key:
        return
    kind = "ins" if to == "c" else "upd"
    place = child.column(key.columns[0])
    where = (
        f"v.c{parent.column(table.key[0])} = u.{to}{place} AND {parent.found('l', 'v', 'c')}"
        f" AND ({parent.differs('l', 'v', 'c')})"
    )
    if kind == "upd":
        where += f" AND u.a{place} IS NOT u.b{place}"
    skip(
        connection,
        child,
        kind,
        _stranger(key, child, to),
        f"{child.ins if kind == 'ins' else child.upd} AS u CROSS JOIN {parent.ins} AS v"
        f" CROSS JOIN {table.place} AS l WHERE {where}",
    )


def _stranger(key: ForeignKey, child: Rows, prefix: str) -> str:
    """SQL: the reason why a row is left out whose parent may be another row."""
    return (
        f"'its parent ' || {_parent_of(key, child, prefix)}"
        " || ' is perhaps another row now, under an id that was used again'"
    )


def skip_wrong_parents(
    connection: apsw.Connection,
    key: ForeignKey,
    child: Rows,
    kind: str,
    parent: TablePlan,
    restored: Rows | None,
    highest: int | None,
) -> None:
    """Leave out rows whose parent's id belongs to another row now: they would change families.

    `restored` are rows whose parents go back to what they were.
    """
    if parent.live.kind != ROWID or parent.live.autoincrement:
        return
    if key.parent_columns != parent.live.key:
        return
    prefix = "c" if kind == "ins" else "a"
    place = child.column(key.columns[0])
    id_ = f"u.{prefix}{place}"
    where = [
        f"o.{quoted(parent.old.key[0])} = {id_}",
        f"l.{quoted(parent.live.key[0])} = {id_}",
        parent.differs("o", "l"),
        parent.recycled("o", "l", highest),
    ]
    if kind == "upd":
        where.append(f"u.a{place} IS NOT u.b{place}")
    if restored is not None:
        own = restored.column(parent.live.key[0])
        where.append(
            f"NOT EXISTS (SELECT 1 FROM {restored.upd} AS w WHERE w.a{own} = {id_}"
            f" AND {kept(restored, 'upd', 'w')})"
        )
    table = child.ins if kind == "ins" else child.upd
    skip(
        connection,
        child,
        kind,
        _stranger(key, child, prefix),
        f"{table} AS u CROSS JOIN {parent.old.place} AS o CROSS JOIN {parent.live.place} AS l"
        f" WHERE {' AND '.join(where)}",
    )


def identity(table: Table) -> list[str]:
    """SQL names that tell the rows of a table apart."""
    return [quoted(name) for name in table.key] or [table.rowid]


def note_referring(
    connection: apsw.Connection, number: int, key: ForeignKey, parent: Rows, child: Table
) -> bool:
    """Remember which live rows refer to rows that are still to be inserted: orphans by now.

    An undo may make them orphans again. False when there are none.
    """
    names = [f"k{n}" for n, _ in enumerate(identity(child))]
    run(
        connection,
        f"CREATE TABLE {UNDO}.ref_{number} ({', '.join(names)}, PRIMARY KEY ({', '.join(names)}))",
    )
    run(
        connection,
        f"INSERT OR IGNORE INTO {UNDO}.ref_{number}"
        f" SELECT {', '.join(f'x.{name}' for name in identity(child))}"
        f" FROM {child.place} AS x JOIN {parent.ins} AS u ON {_refers(key, parent, 'c')}",
    )
    return connection.changes() > 0


def _refers(key: ForeignKey, parent: Rows, prefix: str) -> str:
    """SQL: the live row `x` refers to the kept parent `u`."""
    theirs = [f"u.{prefix}{parent.column(name)}" for name in key.parent_columns]
    mine = [f"x.{quoted(name)}" for name in key.columns]
    return _same(parent.table, key.parent_columns, mine, theirs)


def skip_referred(
    connection: apsw.Connection,
    key: ForeignKey,
    parent: Rows,
    child: Table,
    *,
    going: Rows | None,
    changing: Rows | None,
    noted: Mapping[str, Any] | None,
) -> int:
    """Leave out rows to be deleted that live rows refer to.

    Other than those of `going`, which are deleted with them; than those of `changing` that will
    refer to another row again, or to none; and than those that `note_referring` noted.
    """
    where = kept(parent, "ins")
    if going is not None:
        where += (
            f" AND NOT EXISTS (SELECT 1 FROM {going.ins} AS v WHERE {going.found('x', 'v', 'c')}"
            f" AND {kept(going, 'ins', 'v')})"
        )
    if changing is not None and changing.table.kind != NONE:
        theirs = [f"u.c{parent.column(name)}" for name in key.parent_columns]
        before = [f"w.b{changing.column(name)}" for name in key.columns]
        same = _same(parent.table, key.parent_columns, theirs, before)
        where += (
            f" AND NOT EXISTS (SELECT 1 FROM {changing.upd} AS w"
            f" WHERE {changing.found('x', 'w', 'a')} AND {kept(changing, 'upd', 'w')}"
            f" AND ({same}) IS NOT TRUE)"
        )
    if noted is not None:
        names = noted.get("identity") or identity(child)
        # without the affinity of the live column the index of `ref` can be searched
        same = " AND ".join(f"r.k{n} = +x.{name}" for n, name in enumerate(names))
        where += f" AND NOT EXISTS (SELECT 1 FROM {UNDO}.ref_{noted['number']} AS r WHERE {same})"
    return skip(
        connection,
        parent,
        "ins",
        _text(f"rows of {key.child} refer to it now"),
        f"{child.place} AS x JOIN {parent.ins} AS u ON {_refers(key, parent, 'c')} WHERE {where}",
    )


def skip_deserted(
    connection: apsw.Connection, key: ForeignKey, parent: Rows, child: Table, to: str
) -> None:
    """Leave out changes of a value that live rows refer to (`to`: `a`, or `b` when undone)."""
    columns = [name for name in key.parent_columns if name not in parent.table.key]
    if not columns or parent.table.kind == NONE:
        return
    numbers = [parent.column(name) for name in key.parent_columns]
    moved = " OR ".join(f"u.a{n} IS NOT u.b{n}" for n in numbers)
    present = _refers(key, parent, "b" if to == "a" else "a")
    skip(
        connection,
        parent,
        "upd",
        _text(f"rows of {key.child} refer to its present value"),
        f"{parent.upd} AS u JOIN {child.place} AS x ON {present}"
        f" WHERE ({moved}) AND {kept(parent, 'upd')}",
    )
