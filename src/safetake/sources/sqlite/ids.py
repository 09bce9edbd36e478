"""The ids that a SELECT of one column gives: of a live database, a restored copy or a snapshot.

One statement, so one moment. In WAL mode nobody waits for it; with a rollback journal writers wait
to commit until it has ended (about a second for a million ids). The SQL can only read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import apsw

from safetake.config import SqliteConfig
from safetake.errors import DamagedError, UsageError
from safetake.ids import as_text
from safetake.model import Node, Reader
from safetake.sources.sqlite import live
from safetake.sources.sqlite.header import read_header
from safetake.sources.sqlite.reading import reading
from safetake.sources.sqlite.readonly import restrict
from safetake.sources.sqlite.vfs import open_snapshot

Opening = Callable[[], AbstractContextManager[apsw.Connection]]


class SqlIds:
    """`safetake.ids.IdReader` over one SELECT. NULL is no id.

    TEXT that is no UTF-8 is taken as its bytes, as in file names. Raises UsageError for SQL that is
    not one SELECT of one column, and what opening raises.
    """

    def __init__(self, sql: str, opening: Opening) -> None:
        self._sql = sql.strip().rstrip(";")
        self._opening = opening

    def ids(self) -> Iterator[str]:
        with self._opening() as connection, _explained(self._sql):
            yield from self._read(connection)

    def among(self, wanted: Set[str]) -> set[str]:
        return {one for one in self.ids() if one in wanted}

    def _read(self, connection: apsw.Connection) -> Iterator[str]:
        # As a table of one column: more columns, more statements and anything but SELECT fail.
        table = f"WITH safetake(id) AS (SELECT * FROM (\n{self._sql}\n)) "
        rows = connection.execute(table + "SELECT id FROM safetake")
        count = 0
        try:
            for (value,) in rows:
                text = as_text(value)
                count += 1
                if text is not None:
                    yield text
            return
        except UnicodeDecodeError:
            pass
        # Rarely: start again with every text as its bytes. What was given already comes twice.
        encoding = str(connection.pragma("encoding")).replace("UTF-16", "utf-16-")
        for kind, value in connection.execute(
            f"{table}SELECT typeof(id), CASE typeof(id) WHEN 'text' THEN CAST(id AS BLOB)"
            " ELSE id END FROM safetake"
        ):
            if kind == "text":
                value = bytes(value).decode(encoding, "surrogateescape")
            text = as_text(value)
            if text is not None:
                yield text


def live_ids(config: SqliteConfig, sql: str) -> SqlIds:
    """Of the live database."""

    @contextmanager
    def opening() -> Iterator[apsw.Connection]:
        header = read_header(config.path)
        with reading(config.path, header, config.busy_timeout) as connection:
            with live.explained(config.path):
                yield connection

    return SqlIds(sql, opening)


def staged_ids(path: Path, sql: str) -> SqlIds:
    """Of a restored copy that nobody uses; nothing is written beside it."""

    @contextmanager
    def opening() -> Iterator[apsw.Connection]:
        read_header(path)
        uri = f"file:{quote(os.fspath(path))}?immutable=1"
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        with live.explained(path), closing(apsw.Connection(uri, flags=flags)) as connection:
            restrict(connection)
            yield connection

    return SqlIds(sql, opening)


def stored_ids(reader: Reader, node: Node, sql: str) -> SqlIds:
    """Of a snapshot: the blobs that the SELECT needs are read, nothing is restored."""

    @contextmanager
    def opening() -> Iterator[apsw.Connection]:
        try:
            with closing(open_snapshot(reader, node)) as connection:
                yield connection
        except (ValueError, apsw.Error) as error:
            raise DamagedError(
                f"the database of {node.name} in the snapshot cannot be read: {error}",
                hint="run `safetake verify` on the snapshot",
            ) from error

    return SqlIds(sql, opening)


@contextmanager
def _explained(sql: str) -> Iterator[None]:
    """What is wrong with the SQL itself; all else is for whoever opened."""
    try:
        yield
    except (apsw.SQLError, apsw.AuthError, apsw.ReadOnlyError) as error:
        raise UsageError(
            f"the SQL of the reference fails: {error} in {sql[:200]!r}",
            hint="it must be one SELECT of one column",
        ) from error
