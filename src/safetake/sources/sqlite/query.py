"""One read-only SQL statement put to a database inside a snapshot.

Fetches the blobs that the statement needs and no more. A mistake in the SQL is a UsageError that
lists the tables there are; damage names the blob.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType

import apsw

from safetake.errors import DamagedError, UsageError
from safetake.model import Node, Reader
from safetake.sources.sqlite import facts
from safetake.sources.sqlite.vfs import BlobFile, SnapshotConnection, open_snapshot

_NOTHING_MORE = re.compile(r"(?:\s|;|--[^\n]*|/\*.*?(?:\*/|$))*", re.DOTALL)
_TABLES_SHOWN = 20

Value = None | int | float | str | bytes


class Answer:
    """Column names, and rows as they are found. Iterate it once; close it, or use `with`.

    `truncated` says, once the rows have ended, whether `limit` cut more off. `source.fetched` and
    `source.fetched_bytes` count the blobs that were needed so far, `source.size` is the database.
    """

    def __init__(
        self,
        connection: SnapshotConnection,
        cursor: apsw.Cursor,
        columns: tuple[str, ...],
        limit: int | None,
    ) -> None:
        self.columns = columns
        self.truncated = False
        self.source: BlobFile = connection.source
        self._connection = connection
        self._cursor = cursor
        self._limit = limit

    def __iter__(self) -> Iterator[tuple[Value, ...]]:
        """Raises UsageError, DamagedError."""
        count = 0
        with _plain(self._connection):
            for row in self._cursor:
                if count == self._limit:
                    self.truncated = True
                    return
                count += 1
                yield row

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the statement and drop the connection. Idempotent."""
        self._connection.close(force=True)


def query(
    reader: Reader,
    node: Node,
    sql: str,
    params: Sequence[Value] | Mapping[str, Value] = (),
    limit: int | None = None,
) -> Answer:
    """Run one statement on the database of `node` (see `open_snapshot`), at most `limit` rows.

    Raises UsageError for bad SQL, more than one statement, or anything but reading; DamagedError
    when a blob is missing or damaged, or the stored file is no intact database.
    """
    connection = open_snapshot(reader, node)
    columns: list[tuple[str, ...]] = []
    several: list[str] = []

    def trace(cursor: apsw.Cursor, statement: str, _bindings: object) -> bool:
        if not columns:
            columns.append(tuple(column[0] for column in cursor.get_description()))
            if sql.startswith(statement):
                rest = sql[len(statement) :]
                if not _NOTHING_MORE.fullmatch(rest):
                    several.append(rest)
        return not several

    cursor = connection.cursor()
    cursor.exec_trace = trace
    try:
        if _NOTHING_MORE.fullmatch(sql):
            raise UsageError("the query is empty", hint=_tables_hint(connection))
        with _plain(connection):
            try:
                cursor.execute(sql, params)
            except apsw.ExecTraceAbort:
                raise UsageError(
                    "the query has more than one statement", hint="ask one statement at a time"
                ) from None
    except BaseException:
        connection.close(force=True)
        raise
    return Answer(connection, cursor, columns[0] if columns else (), limit)


@contextmanager
def _plain(connection: SnapshotConnection) -> Iterator[None]:
    """Turn what SQLite raises while reading a snapshot into this project's errors."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.IOError, apsw.FullError) as error:
        raise DamagedError(
            f"the database in the snapshot cannot be read: {error}",
            hint="run `safetake verify` on the snapshot, and ask an older one",
        ) from error
    except (apsw.ReadOnlyError, apsw.AuthError) as error:
        raise UsageError(
            f"a snapshot is read-only: {error}",
            hint="use SELECT; restore the source beside the live data to change it",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the answer has text that is no UTF-8: {error.reason}",
            hint="select it as bytes: hex(column) or CAST(column AS BLOB)",
        ) from error
    except (apsw.Error, TypeError) as error:
        raise UsageError(f"the query fails: {error}", hint=_tables_hint(connection)) from error


def _tables_hint(connection: SnapshotConnection) -> str:
    try:
        names = [*facts.tables(connection), *facts.virtual_tables(connection)]
    except (apsw.Error, UnicodeDecodeError, DamagedError):
        return "the tables of the snapshot cannot be listed either: run `safetake verify`"
    shown = ", ".join(sorted(names)[:_TABLES_SHOWN])
    more = f" and {len(names) - _TABLES_SHOWN} more" if len(names) > _TABLES_SHOWN else ""
    return f"tables of the snapshot: {shown or 'none'}{more}"
