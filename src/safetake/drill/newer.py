"""Rows that are newer than the snapshot, written to a drill's copy of a SQLite database.

Each table gets one row that is like its last, with new values of the same kind where no two rows
may be alike, and foreign keys that point to a row. Where a table takes no such row, why is told.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.errors import SafetakeError

if TYPE_CHECKING:
    import apsw

NEWER = "safetake-drill-newer"
"""Name of what is newer than the snapshot, where a name can be chosen freely."""
_TRIES = 20
"""Values that are tried for a column, one after the other; and choices of columns."""
_GREATEST = 2**63 - 1
_TOLD = 10
"""Tables that are named."""

Columns = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Old:
    """Which rows of a table were there before anything newer was."""

    order: Columns
    """What they are ordered by, quoted."""
    where: str
    values: tuple[Any, ...]


def connect(path: Path) -> apsw.Connection:
    """A connection without the application's triggers: what a drill does is no act of its, and
    to this database only."""
    import apsw

    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(10_000)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
    return connection


def add_rows(path: Path) -> tuple[dict[str, Old], str]:
    """(what is old in each table that holds something, where nothing newer was written and why).

    Raises SafetakeError.
    """
    import apsw

    from safetake.sources.sqlite.facts import quoted
    from safetake.sources.sqlite.rows.schema import table_kinds

    old: dict[str, Old] = {}
    connection = connect(path)
    try:
        kinds = table_kinds(connection, "main")
        waiting = [name for name, (kind, _) in kinds.items() if kind == "table"]
        for name in waiting:
            order = _newest(connection, kinds, name)
            if kinds[name][1]:
                old[name] = Old(order, "true", ())
                continue
            last = _one(connection, f"SELECT max(rowid) FROM {quoted(name)}")
            if last is not None:
                old[name] = Old(order, "rowid <= ?", (last,))
        refused: dict[str, str] = {}
        while waiting:  # a row may only fit once there is a newer one that it points to
            before = len(waiting)
            for name in list(waiting):
                added = _add(connection, kinds, name)
                if isinstance(added, str):
                    refused[name] = added
                    continue
                waiting.remove(name)
                refused.pop(name, None)
                if kinds[name][1]:  # where it sorts among them nobody knows
                    order = old[name].order
                    marks = ", ".join("?" for _ in order)
                    old[name] = Old(order, f"({', '.join(order)}) != ({marks})", added)
            if len(waiting) == before:
                break
    except apsw.Error as error:
        raise SafetakeError(f"{path.name} takes no newer row: {error}") from error
    finally:
        connection.close()
    told = [f"{name} ({why})" for name, why in refused.items()]
    more = f" and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return old, ", ".join(told[:_TOLD]) + more


def _one(connection: apsw.Connection, sql: str, values: tuple[Any, ...] = ()) -> Any:
    return connection.execute(sql, values).get


def _newest(connection: apsw.Connection, kinds: dict[str, Any], table: str) -> Columns:
    """What the rows of a table are ordered by: its row numbers, or its key."""
    from safetake.sources.sqlite.facts import quoted

    if not any(without for name, (_, without) in kinds.items() if name.lower() == table.lower()):
        return ("rowid",)
    return tuple(quoted(key) for key in _keys(connection, table))


def _keys(connection: apsw.Connection, table: str) -> list[str]:
    from safetake.sources.sqlite.facts import quoted

    info = connection.execute(f"PRAGMA table_info({quoted(table)})")
    return [row[1] for row in sorted(info, key=lambda row: row[5]) if row[5]]


def _add(connection: apsw.Connection, kinds: dict[str, Any], table: str) -> tuple[Any, ...] | str:
    """Add a row that is like the last one: its row number or key, or why there is none."""
    import apsw

    from safetake.sources.sqlite.facts import quoted

    name = quoted(table)
    why = "no other row may be like its last"
    try:
        order = _newest(connection, kinds, table)
        by = ", ".join(f"{one} DESC" for one in order)
        these = ", ".join(order)
        last = f"({these}) = (SELECT {these} FROM {name} ORDER BY {by} LIMIT 1)"
        if not _one(connection, f"SELECT count(*) FROM {name} WHERE {last}"):
            return "it is empty"
        info = list(connection.execute(f"PRAGMA table_info({name})"))  # no generated columns
        indexes = list(connection.execute(f"PRAGMA index_list({name})"))
        numbered = order == ("rowid",) and all(row[3] != "pk" for row in indexes)
        columns = [row[1] for row in info if not (numbered and row[5])]  # SQLite gives the number
        foreign = _foreign(connection, table)
        for group in _groups(connection, columns, indexes, list(foreign)):
            values = [
                _parents(connection, kinds, *foreign[one])
                if one in foreign
                else ((value,) for value in _fresh(connection, name, one[0], last))
                for one in group
            ]
            for row in zip(*values, strict=False) if group else [()]:
                fresh: dict[str, Any] = {}
                for names, new in zip(group, row, strict=True):
                    fresh.update(zip(names, new, strict=True))
                try:
                    return _insert(connection, name, columns, fresh, last, these)
                except apsw.ConstraintError as error:
                    why = str(error)
    except (apsw.SQLError, UnicodeDecodeError) as error:  # such as a function of the application
        return str(error)
    return why


def _insert(
    connection: apsw.Connection,
    name: str,
    columns: list[str],
    fresh: dict[str, Any],
    last: str,
    these: str,
) -> tuple[Any, ...]:
    from safetake.sources.sqlite.facts import quoted

    into = ", ".join(map(quoted, columns))
    chosen = ", ".join("?" if one in fresh else quoted(one) for one in columns)
    values = tuple(fresh[one] for one in columns if one in fresh)
    if columns:
        row = f"({into}) SELECT {chosen} FROM {name} WHERE {last}"
    else:
        row = "DEFAULT VALUES"
    sql = f"INSERT INTO {name} {row} RETURNING {these}"
    (made,) = connection.execute(sql, values).fetchall()
    return tuple(made)


def _foreign(
    connection: apsw.Connection, table: str
) -> dict[Columns, tuple[str, tuple[str | None, ...]]]:
    """(table, columns) that columns of `table` point to."""
    from safetake.sources.sqlite.facts import quoted

    found: dict[int, list[Any]] = {}
    for row in connection.execute(f"PRAGMA foreign_key_list({quoted(table)})"):
        found.setdefault(row[0], []).append(row)
    return {
        tuple(row[3] for row in rows): (rows[0][2], tuple(row[4] for row in rows))
        for rows in found.values()
    }


def _groups(
    connection: apsw.Connection, columns: list[str], indexes: list[Any], foreign: list[Columns]
) -> Iterator[tuple[Columns, ...]]:
    """Choices of columns that need new values, so that no index forbids the row."""
    from safetake.sources.sqlite.facts import quoted

    pointing = {column for one in foreign for column in one}
    own = [column for column in columns if column not in pointing]
    choices: list[list[tuple[Columns, ...]]] = []
    for index in indexes:
        if not index[2]:
            continue
        names = [row[2] for row in connection.execute(f"PRAGMA index_info({quoted(index[1])})")]
        if not set(names) <= set(columns):  # an expression, or a generated column
            choices.append([tuple((column,) for column in own)])
        elif mine := [column for column in names if column in own]:
            choices.append([((mine[-1],),)])
        else:
            choices.append([(one,) for one in foreign if set(one) & set(names)])
    for chosen in itertools.islice(itertools.product(*choices), _TRIES):
        yield tuple(dict.fromkeys(itertools.chain(*chosen)))


def _parents(
    connection: apsw.Connection, kinds: dict[str, Any], table: str, columns: tuple[str | None, ...]
) -> Iterator[tuple[Any, ...]]:
    """What could be pointed to, the newest first."""
    from safetake.sources.sqlite.facts import quoted

    known = [column for column in columns if column is not None]
    named = ", ".join(quoted(column) for column in known or _keys(connection, table))
    order = ", ".join(f"{one} DESC" for one in _newest(connection, kinds, table))
    sql = f"SELECT {named} FROM {quoted(table)} ORDER BY {order} LIMIT {_TRIES}"
    yield from list(connection.execute(sql))


def _fresh(connection: apsw.Connection, name: str, column: str, last: str) -> Iterator[Any]:
    """Values of the kind of the last one that no row should have yet."""
    from safetake.sources.sqlite.facts import quoted

    it = quoted(column)
    value = _one(connection, f"SELECT {it} FROM {name} WHERE {last}")
    if isinstance(value, (int, float)):
        kind = "integer" if isinstance(value, int) else "real"
        most = _one(connection, f"SELECT max({it}) FROM {name} WHERE typeof({it}) = ?", (kind,))
        for step in range(1, _TRIES + 1):
            if isinstance(most, float) or most + step <= _GREATEST:
                yield most + step
    elif isinstance(value, str):
        text = value
        for _ in range(_TRIES - 1):
            text = following(text)
            yield text
        yield f"{value} {NEWER}"
    elif isinstance(value, bytes):
        size = max(1, len(value))
        for step in range(1, _TRIES + 1):
            number = (int.from_bytes(value, "big") + step) % 256**size
            yield number.to_bytes(size, "big")
    else:
        yield from [None] * _TRIES  # NULL is like no other


def following(text: str) -> str:
    """The next text of the same form: digits stay digits, letters stay letters of their case.

    Where there is none, it gets longer.
    """
    letters = {char for char in text.lower() if char in string.ascii_lowercase}
    small = "abcdef" if letters <= set("abcdef") else string.ascii_lowercase
    done = list(text)
    for at in range(len(done) - 1, -1, -1):
        for digits in (string.digits, small, small.upper()):
            place = digits.find(done[at])
            if place >= 0:
                done[at] = digits[(place + 1) % len(digits)]
                if place + 1 < len(digits):
                    return "".join(done)
    return f"{text} {NEWER}"
