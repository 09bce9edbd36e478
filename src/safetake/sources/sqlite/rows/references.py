"""References between rows that are written: what may come back, and what may go.

SQLite's own enforcement is off (`connect`): it would stop at the first row, say only that *some*
reference is broken, and let actions cascade into rows that nobody asked about. These queries name
each row and its parent.
"""

from __future__ import annotations

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


def skip_orphans(
    connection: apsw.Connection,
    key: ForeignKey,
    child: Rows,
    kind: str,
    parent: Table,
    coming: Rows | None,
) -> int:
    """Leave out rows whose parent is neither live nor among the rows of `coming` (one circle).

    Rows of `upd` count when they would change the reference.
    """
    prefix = "c" if kind == "ins" else "a"
    if any(name not in child.table.names for name in key.columns):
        return 0  # a generated column
    numbers = [child.column(name) for name in key.columns]
    pairs = list(zip(numbers, key.parent_columns, strict=True))
    some = " AND ".join(f"u.{prefix}{n} IS NOT NULL" for n in numbers)
    there = " AND ".join(f"p.{quoted(name)} = u.{prefix}{n}" for n, name in pairs)
    where = f"{some} AND {kept(child, kind)}"
    where += f" AND NOT EXISTS (SELECT 1 FROM {parent.place} AS p WHERE {there})"
    if kind == "upd":
        where += " AND (" + " OR ".join(f"u.a{n} IS NOT u.b{n}" for n in numbers) + ")"
    if coming is not None:
        same = " AND ".join(f"v.c{coming.column(name)} = u.{prefix}{n}" for n, name in pairs)
        where += (
            f" AND NOT EXISTS (SELECT 1 FROM {coming.ins} AS v WHERE {same}"
            f" AND {kept(coming, 'ins', 'v')})"
        )
    reason = f"'its parent ' || {_parent_of(key, child, prefix)} || ' is not there'"
    table = child.ins if kind == "ins" else child.upd
    return skip(connection, child, kind, reason, f"{table} AS u WHERE {where}")


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
        f"'its parent ' || {_parent_of(key, child, prefix)}"
        " || ' is perhaps another row now, under an id that was used again'",
        f"{table} AS u CROSS JOIN {parent.old.place} AS o CROSS JOIN {parent.live.place} AS l"
        f" WHERE {' AND '.join(where)}",
    )


def _identity(table: Table) -> list[str]:
    return [quoted(name) for name in table.key] or [table.rowid]


def note_referring(
    connection: apsw.Connection, number: int, key: ForeignKey, parent: Rows, child: Table
) -> bool:
    """Remember which live rows refer to rows that are still to be inserted: orphans by now.

    An undo may make them orphans again. False when there are none.
    """
    names = [f"k{n}" for n, _ in enumerate(_identity(child))]
    there = " AND ".join(
        f"x.{quoted(name)} = u.c{parent.column(target)}"
        for name, target in zip(key.columns, key.parent_columns, strict=True)
    )
    run(
        connection,
        f"CREATE TABLE {UNDO}.ref_{number} ({', '.join(names)}, PRIMARY KEY ({', '.join(names)}))",
    )
    run(
        connection,
        f"INSERT OR IGNORE INTO {UNDO}.ref_{number}"
        f" SELECT {', '.join(f'x.{name}' for name in _identity(child))}"
        f" FROM {child.place} AS x JOIN {parent.ins} AS u ON {there}",
    )
    return connection.changes() > 0


def skip_referred(
    connection: apsw.Connection,
    key: ForeignKey,
    parent: Rows,
    child: Table,
    going: Rows | None,
    noted: int | None,
) -> int:
    """Leave out rows to be deleted that live rows refer to, other than those of `going`, and than
    those that `note_referring` noted under the number `noted`."""
    numbers = [parent.column(name) for name in key.parent_columns]
    there = " AND ".join(
        f"x.{quoted(name)} = u.c{n}" for n, name in zip(numbers, key.columns, strict=True)
    )
    where = f"{kept(parent, 'ins')}"
    if going is not None:
        where += (
            f" AND NOT EXISTS (SELECT 1 FROM {going.ins} AS v WHERE {going.found('x', 'v', 'c')}"
            f" AND {kept(going, 'ins', 'v')})"
        )
    if noted is not None:
        same = " AND ".join(f"r.k{n} = x.{name}" for n, name in enumerate(_identity(child)))
        where += f" AND NOT EXISTS (SELECT 1 FROM {UNDO}.ref_{noted} AS r WHERE {same})"
    return skip(
        connection,
        parent,
        "ins",
        _text(f"rows of {key.child} refer to it now"),
        f"{child.place} AS x JOIN {parent.ins} AS u ON {there} WHERE {where}",
    )


def skip_deserted(
    connection: apsw.Connection, key: ForeignKey, parent: Rows, child: Table, to: str
) -> None:
    """Leave out changes of a value that live rows refer to (`to`: `a`, or `b` when undone)."""
    columns = [name for name in key.parent_columns if name not in parent.table.key]
    if not columns or parent.table.kind == NONE:
        return
    before = "b" if to == "a" else "a"
    numbers = [parent.column(name) for name in key.parent_columns]
    moved = " OR ".join(f"u.a{n} IS NOT u.b{n}" for n in numbers)
    there = " AND ".join(
        f"x.{quoted(name)} = u.{before}{n}" for n, name in zip(numbers, key.columns, strict=True)
    )
    skip(
        connection,
        parent,
        "upd",
        _text(f"rows of {key.child} refer to its present value"),
        f"{parent.upd} AS u JOIN {child.place} AS x ON {there}"
        f" WHERE ({moved}) AND {kept(parent, 'upd')}",
    )
