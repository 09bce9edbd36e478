"""The sign that a restore leaves in a live database, by which a crash is judged.

The backup API commits all or nothing, and nothing in the files tells which after a `kill -9`. So
the new content carries one small table with the restore's id, which comes and goes with the
content in the same transaction; it is dropped when the restore ends.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import apsw

from safetake.sources.sqlite import live, rawfile
from safetake.sources.sqlite.header import read_header

TABLE = "_safetake_restore"


def put(path: Path, restore: str) -> None:
    """Mark a private, staged database and give it a rollback journal. Raises SourceError.

    The backup API copies the header's journal mode: a WAL-mode file would turn a live
    rollback-mode database into a WAL-mode one; the other way round it keeps WAL.
    """
    with live.explained(path):
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute("PRAGMA synchronous = full").fetchall()
            connection.execute("PRAGMA journal_mode = delete").fetchall()
            with connection:
                connection.execute(f"DROP TABLE IF EXISTS {TABLE}").fetchall()
                connection.execute(f"CREATE TABLE {TABLE}(id TEXT)").fetchall()
                connection.execute(f"INSERT INTO {TABLE} VALUES (?)", (restore,)).fetchall()
        finally:
            connection.close()


def found(path: Path, restore: str, busy_timeout: float) -> bool:
    """Whether the live database is the content of this restore. Raises SourceError."""
    with rawfile.opened(path):
        connection = live.connect(path, read_header(path), busy_timeout)
        try:
            with live.explained(path):
                return is_in(connection, restore)
        finally:
            connection.close()


def is_in(connection: apsw.Connection, restore: str) -> bool:
    """`found` on a connection. Raises apsw.Error."""
    there = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?"
    if not connection.execute(there, (TABLE,)).get:
        return False
    asked = f"SELECT count(*) FROM {TABLE} WHERE id = ?"
    return bool(connection.execute(asked, (restore,)).get)


def drop(path: Path, restore: str, deadline: float) -> None:
    """Take the mark of this restore off, between the transactions of the applications.

    `deadline` is a `time.monotonic()`. Raises BarrierTimeoutError when it passes, SourceError.
    """
    with rawfile.opened(path) as raw:
        connection = live.connect(path, read_header(path), max(0.1, deadline - time.monotonic()))
        try:
            live.begin_immediate(connection, path, raw, deadline)
            with live.explained(path):
                if is_in(connection, restore):
                    connection.execute(f"DROP TABLE {TABLE}").fetchall()
                # readers of a rollback journal may hold the commit up
                connection.set_busy_timeout(int(max(0.1, deadline - time.monotonic()) * 1000))
                connection.execute("COMMIT").fetchall()
        finally:
            connection.close(True)
