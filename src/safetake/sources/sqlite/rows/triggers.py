"""Triggers while rows are brought back.

A row that comes back is no new event: a trigger that writes an audit line, a counter or a queue
would do so a second time. So triggers do not fire (SQLITE_DBCONFIG_ENABLE_TRIGGER, which concerns
this connection only; the schema is not touched), except those that keep a virtual table, a
full-text index say, in step with its table: without them the index would miss the rows. Where a
table has both kinds, or one trigger does both, nothing is right for all: it is refused, unless the
user lets all of them fire.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import apsw

from safetake.errors import RefusedError
from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.schema import Table
from safetake.sources.sqlite.rows.sql import run

_WRITING = (apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE)


@dataclass(slots=True)
class Firing:
    """What the triggers of one table do at one kind of statement."""

    fire: bool = False
    """They keep a virtual table, and must fire."""
    silent: list[str] = field(default_factory=list)
    """Triggers that do not fire."""


def firing(
    connection: apsw.Connection, table: Table, event: str, virtual: set[str], fire_all: bool
) -> Firing:
    """Decide for `INSERT`, `UPDATE` or `DELETE` on a table. Raises RefusedError."""
    touched = _touched(connection, table, event)
    if fire_all:
        return Firing(bool(touched))
    index = {name for name, tables in touched.items() if tables & virtual}
    both = {name for name in index if touched[name] - virtual}
    others = touched.keys() - index
    if both or (index and others):
        names = ", ".join(sorted(both or others))
        raise RefusedError(
            f"table {table.name}: the triggers on {event} keep a virtual table in step"
            f" ({', '.join(sorted(index))}) and do something else ({names}); the first must fire,"
            " and the second would do again what was done once",
            hint="--fire-triggers lets all of them fire; look at what they write before",
        )
    return Firing(bool(index), sorted(others))


def _touched(connection: apsw.Connection, table: Table, event: str) -> dict[str, set[str]]:
    """What each trigger that would fire writes, as SQLite compiles it (and not as we read it).

    A trigger fired by a trigger counts for itself.
    """
    columns = ", ".join(map(quoted, table.names))
    nulls = ", ".join("NULL" for _ in table.names)
    sets = ", ".join(f"{quoted(name)} = NULL" for name in table.names)
    statement = {
        "INSERT": f"INSERT INTO {table.place} ({columns}) SELECT {nulls} WHERE 0",
        "UPDATE": f"UPDATE {table.place} SET {sets} WHERE 0",
        "DELETE": f"DELETE FROM {table.place} WHERE 0",
    }[event]
    found: dict[str, set[str]] = {}
    names = {
        str(row[0])
        for row in connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'trigger'")
    }

    def note(
        action: int, first: str | None, _two: str | None, _schema: str | None, trigger: str | None
    ) -> int:
        if trigger in names:  # or it is a view that a trigger reads
            written = found.setdefault(trigger, set())
            if action in _WRITING and first is not None:
                written.add(first)
        return apsw.SQLITE_OK

    set_enabled(connection, True)
    connection.authorizer = note
    try:
        run(connection, f"EXPLAIN {statement}")
    except apsw.SQLError as error:
        raise RefusedError(
            f"the triggers of table {table.name} cannot be compiled: {error}",
            hint="a function that only the application has? bring the rows back with its own tools",
        ) from error
    finally:
        connection.authorizer = None
    return found


def set_enabled(connection: apsw.Connection, enabled: bool) -> None:
    """Let the triggers of this connection fire, or not."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, int(enabled))


def virtual_names(kinds: Iterable[tuple[str, str]]) -> set[str]:
    """Names of the virtual tables and their shadows, of (name, kind)."""
    return {name for name, kind in kinds if kind in ("virtual", "shadow")}
