"""One connection over both databases: the live one as `main`, the snapshot as `snapshot`.

The connection can read the snapshot and nothing else of it; the live database is written by
`apply` and `back` alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from safetake.errors import BarrierTimeoutError, DamagedError, RefusedError, SourceError
from safetake.model import Node, Reader
from safetake.sources.sqlite import live, rawfile
from safetake.sources.sqlite.header import read_header
from safetake.sources.sqlite.rows.ahead import ReadAhead
from safetake.sources.sqlite.rows.local import LocalFirst
from safetake.sources.sqlite.rows.sql import run
from safetake.sources.sqlite.vfs import BlobFile, BlobVFS, blob_vfs, database_node

SNAPSHOT = "snapshot"
UNDO = "undo"
_LIVE_CACHE_KIB = 65536
"""Page cache of the live side: keys that are no rowids are looked up all over the file."""


@dataclass(slots=True)
class Pair:
    """Both databases, open."""

    connection: apsw.Connection
    path: Path
    raw: rawfile.RawFile
    busy_timeout: float
    local: LocalFirst | None = None
    source: BlobFile | None = None
    vfs: BlobVFS | None = None

    def lock(self) -> None:
        """Begin a transaction in which nobody else writes. Raises BarrierTimeoutError."""
        live.begin_immediate(
            self.connection, self.path, self.raw, time.monotonic() + self.busy_timeout
        )


@contextmanager
def opened(path: Path, busy_timeout: float, *, write: bool) -> Iterator[Pair]:
    """The live database alone. Raises SourceError; with `write` also when it is read-only."""
    path = Path(os.path.realpath(path))
    header = read_header(path)
    raw = rawfile.acquire(path)
    try:
        with live.explained(path):
            connection = apsw.Connection(
                os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
            )
        try:
            with live.explained(path):
                _set_up(connection, path, busy_timeout, header.wal)
                if write and connection.readonly("main"):
                    raise SourceError(
                        f"{path} is read-only for this user",
                        hint="run as a user that may write the database and its folder",
                    )
            yield Pair(connection, path, raw, busy_timeout)
        finally:
            connection.close(force=True)
    finally:
        rawfile.release(raw)


def _set_up(connection: apsw.Connection, path: Path, busy_timeout: float, wal: bool) -> None:
    if wal and live.wal_path(path).exists():
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.set_busy_timeout(int(busy_timeout * 1000))
    # safetake says itself which reference is broken, row by row; and no action may cascade
    connection.pragma("foreign_keys", 0)
    connection.pragma("cache_size", -_LIVE_CACHE_KIB)
    connection.set_progress_handler(lambda: False, 100_000)  # so that Ctrl-C ends it


@contextmanager
def paired(
    path: Path, busy_timeout: float, reader: Reader, node: Node, *, write: bool
) -> Iterator[Pair]:
    """The live database with the snapshot's beside it. Raises SourceError, RefusedError."""
    with opened(path, busy_timeout, write=write) as pair:
        try:
            file = database_node(reader, node)
        except ValueError as error:
            raise RefusedError(
                f"the snapshot holds no database to compare with: {error}",
                hint="a safety copy of a damaged database is its raw files; take another snapshot",
            ) from error
        pair.local = LocalFirst(reader, file, pair.raw)
        ahead = ReadAhead(pair.local, file)
        pair.source, pair.vfs = blob_vfs(ahead, file)
        try:
            _attach(pair.connection, path, f"file:snapshot?immutable=1&vfs={pair.vfs.vfs_name}")
            yield pair
        finally:
            ahead.close()


def _attach(connection: apsw.Connection, path: Path, uri: str) -> None:
    try:
        run(connection, f"ATTACH ? AS {SNAPSHOT}", (uri,))
    except apsw.SQLError as error:
        raise RefusedError(
            f"{path} and the snapshot cannot be compared: {error}",
            hint="restore the source beside the live data, and compare with SQL",
        ) from error


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite raises while it reads or writes both databases, in plain words."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise DamagedError(
            f"{path} or its snapshot is damaged: {error}",
            hint="run `safetake verify` on the snapshot, `PRAGMA integrity_check` on a copy",
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise BarrierTimeoutError(
            f"{path} is locked by another connection: {error}",
            hint="look for a long transaction in the application, or raise `busy_timeout`",
        ) from error
    except (apsw.FullError, apsw.IOError, apsw.CantOpenError) as error:
        raise SourceError(
            f"{path} cannot be compared or written: {error}",
            hint="check free space there, where temporary files are kept, and in the state folder",
        ) from error
    except apsw.Error as error:
        raise SourceError(
            f"{path} cannot be compared or written: {error}", hint="nothing was changed"
        ) from error
