"""Which rows are asked about: tables, a condition in SQL, a span of time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import apsw

from safetake.errors import UsageError
from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.plan import CREATED, TablePlan
from safetake.sources.sqlite.rows.schema import Table, folded
from safetake.wording import nearest, seconds

_UPDATED = ("updated_at", "updated", "updated_on", "modified_at", "modified", "last_modified")
TIMES = (*CREATED, *_UPDATED)
_TRIED = 1000
"""Times at either end of a table."""


@dataclass(slots=True)
class Selection:
    """What the user chose. Times are seconds since the epoch."""

    tables: tuple[str, ...] = ()
    where: str = ""
    since: float | None = None
    until: float | None = None
    time_column: str = ""

    @property
    def filtered(self) -> bool:
        """Whether only some rows of a table are asked about."""
        return bool(self.where) or self.since is not None or self.until is not None

    def choose(self, plans: list[TablePlan], refused: dict[str, str]) -> list[TablePlan]:
        """The plans of the chosen tables. Raises UsageError for a table that is not there."""
        if not self.tables:
            return plans
        by_name = {folded(plan.name): plan for plan in plans}
        reasons = {folded(name): reason for name, reason in refused.items()}
        chosen = []
        for name in dict.fromkeys(folded(name) for name in self.tables):
            if name in reasons:
                raise UsageError(f"table {name!r} cannot be compared: {reasons[name]}")
            if name not in by_name:
                raise UsageError(f"there is no table {name!r}{nearest(name, by_name)}")
            chosen.append(by_name[name])
        return chosen

    def condition(self, connection: apsw.Connection, table: Table, notes: list[str]) -> str:
        """SQL over the bare column names of a table; empty for all rows.

        A note is added when times cannot be read. Raises UsageError when the table does not have
        what is asked.
        """
        terms = []
        if self.where:
            terms.append(f"(\n{self.where}\n)")
        if self.since is not None or self.until is not None:
            column = self._time_column(table)
            time = _seconds(column)
            _try_times(connection, table, column, time, notes)
            if self.since is not None:
                terms.append(f"{time} >= {self.since!r}")
            if self.until is not None:
                terms.append(f"{time} < {self.until!r}")
        condition = " AND ".join(terms)
        if condition:
            _prove(connection, table, condition)
        return condition

    def _time_column(self, table: Table) -> str:
        if self.time_column:
            column = table.find(self.time_column)
            if column is None:
                raise UsageError(f"table {table.name} has no column {self.time_column!r}")
            return column.name
        found = [name for name in table.names if folded(name) in TIMES]
        if len(found) == 1:
            return found[0]
        raise UsageError(
            f"table {table.name} has "
            + (
                f"several times: {', '.join(found)}"
                if found
                else "no column that is known as a time"
            ),
            hint="name it: --time-column COLUMN",
        )


def _try_times(
    connection: apsw.Connection, table: Table, column: str, time: str, notes: list[str]
) -> None:
    """Rows whose time cannot be read are in no span: it is told when some at either end are so."""
    c = quoted(column)
    ends = " UNION ALL ".join(
        f"SELECT * FROM (SELECT {time} AS t FROM {table.place} WHERE {c} IS NOT NULL"
        f" {order} LIMIT {_TRIED})"
        for order in (["", f"ORDER BY {table.rowid} DESC"] if table.rowid else [""])
    )
    read, tried = connection.execute(f"SELECT count(t), count(*) FROM ({ends})").fetchall()[0]
    if read == tried:
        return
    if read == 0:
        raise UsageError(
            f"column {column} of table {table.name} holds no time that SQLite reads",
            hint="choose the rows with --where",
        )
    note = f"not every {column} is a time that SQLite reads: such rows are left out"
    if note not in notes:
        notes.append(note)


def _prove(connection: apsw.Connection, table: Table, condition: str) -> None:
    """The condition is one expression over this table, and reads only."""
    reading = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
    statements: list[str] = []

    def watch(
        action: int, _one: str | None, two: str | None, _db: str | None, _inner: str | None
    ) -> int:
        harmless = action in reading and two != "load_extension"
        return apsw.SQLITE_OK if harmless else apsw.SQLITE_DENY

    def trace(_cursor: apsw.Cursor, statement: str, _bindings: object) -> bool:
        statements.append(statement)
        return len(statements) == 1

    cursor = connection.cursor()
    cursor.exec_trace = trace
    connection.authorizer = watch
    try:
        cursor.execute(
            # in brackets: `1), (2` would be two columns, and is none here
            f"SELECT (SELECT ({condition})) FROM {table.place} LIMIT 0"
        ).fetchall()
    except apsw.ExecTraceAbort:
        raise UsageError("the condition is more than one expression") from None
    except (apsw.Error, UnicodeDecodeError) as error:
        raise UsageError(
            f"the condition does not fit table {table.name}: {error}",
            hint=f"its columns: {', '.join(table.names[:30])}",
        ) from error
    finally:
        connection.authorizer = None


def _seconds(column: str) -> str:
    """SQL: the time in a column, in seconds: text as SQLite reads it, or a count since 1970 in
    seconds, milli-, micro- or nanoseconds; NULL when it is none."""
    c = quoted(column)
    return (
        f"CASE typeof({c}) WHEN 'text' THEN unixepoch({c}, 'subsec')"
        f" WHEN 'null' THEN NULL WHEN 'blob' THEN NULL"
        f" ELSE CASE WHEN {c} BETWEEN -1e11 AND 1e11 THEN {c}"
        f" WHEN {c} BETWEEN -1e14 AND 1e14 THEN {c} / 1e3"
        f" WHEN {c} BETWEEN -1e17 AND 1e17 THEN {c} / 1e6 ELSE {c} / 1e9 END END"
    )


_AGO = re.compile(r"\d+(?:\.\d+)?\s*[smhdw]")


def parse_time(text: str, now: float) -> float:
    """`2026-11-22`, `2026-11-22 21:58`, with a zone or in UTC; or `6h`: that long ago.

    Raises UsageError.
    """
    text = text.strip()
    try:
        if _AGO.fullmatch(text):
            return now - seconds(text)
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text[:60]!r} is no time",
            hint="write 2026-11-22 21:58:00 (UTC), 2026-11-22T21:58:00+09:00, or 6h: 6 hours ago",
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
