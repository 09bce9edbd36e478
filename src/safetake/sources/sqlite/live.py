"""Connections to a live database: opened without changing it, its errors in plain words.

Nothing here writes. What opening itself does is SQLite's: it recovers a crashed writer's journal
or log, as the application's next start would.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from safetake.errors import BarrierTimeoutError, SourceError
from safetake.sources.sqlite import rawfile
from safetake.sources.sqlite.header import Header

# A saturating writer leaves the lock free for some ten microseconds between two commits; SQLite's
# own busy handler sleeps up to 100 ms between tries and would miss them.
_POLL_SECONDS = 0.0002
_FLOCK = struct.Struct("@hhqqi4x")
_RESERVED_BYTE = 0x40000001
"""Of SQLite's locking protocol (os.h): part of the file format, in the page that is never used."""


_NO_HOLD = "its writers cannot be held"
_GIVE_ACCESS = (
    "give this user write access to the database, its -wal and -shm files and its folder: SQLite"
    " needs it to hold writers, although safetake writes nothing"
)


def wal_path(path: Path) -> Path:
    """The write-ahead log of the database at `path`; SQLite resolves symbolic links first."""
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + "-wal")


def connect(path: Path, header: Header, busy_timeout: float) -> apsw.Connection:
    """Open the live database for its locks. Raises SourceError.

    The connection leaves an existing log as it is when it closes, instead of checkpointing it; a
    log that only this process brought into being is removed again.
    """
    if header.wal:
        _refuse_read_only_folder(path)
    with explained(path):
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        if wal_path(path).exists():
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.set_busy_timeout(int(busy_timeout * 1000))
        connection.execute("PRAGMA temp_store = memory").fetchall()
        if connection.readonly("main"):
            # On a file that cannot be written SQLite makes BEGIN IMMEDIATE a plain read, silently.
            connection.close()
            raise SourceError(f"{path} is read-only for this user: {_NO_HOLD}", hint=_GIVE_ACCESS)
    return connection


def begin_immediate(
    connection: apsw.Connection, path: Path, raw: rawfile.RawFile, deadline: float
) -> None:
    """Take the write lock: when it returns, no writer of the database can commit.

    `deadline` is a `time.monotonic()`. Raises BarrierTimeoutError when it passes, SourceError.
    """
    connection.set_busy_timeout(0)
    started = time.monotonic()
    while True:
        if _reserved_elsewhere(raw) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            continue
        try:
            with explained(path):
                connection.execute("BEGIN IMMEDIATE").fetchall()
            return
        except BarrierTimeoutError as error:
            if time.monotonic() >= deadline:
                raise BarrierTimeoutError(
                    f"{path} stayed locked by a writer for {time.monotonic() - started:.1f} s",
                    hint="look for a long transaction, or a connection with"
                    " `PRAGMA locking_mode=EXCLUSIVE`; raise `timeout` in [barrier] if it is meant",
                ) from error
            time.sleep(_POLL_SECONDS)


def _reserved_elsewhere(raw: rawfile.RawFile) -> bool:
    """Whether another process is in a write transaction with a rollback journal.

    Each try of BEGIN IMMEDIATE takes SQLite's SHARED lock for a moment, at which the COMMIT of a
    writer without a busy timeout fails. Asking the kernel about the RESERVED byte takes nothing. It
    only spares others: BEGIN IMMEDIATE decides. In WAL mode nobody holds that byte.
    """
    if not sys.platform.startswith("linux"):
        return False  # struct flock is laid out differently elsewhere
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _RESERVED_BYTE, 1, 0)
    answer = fcntl.fcntl(raw.fd, fcntl.F_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite raises about the database at `path` into a SourceError with its hint."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise BarrierTimeoutError(
            f"{path} is locked by another connection: {error}",
            hint="look for a long transaction in the application, or raise `busy_timeout`",
        ) from error
    except apsw.NotADBError as error:
        raise SourceError(
            f"{path} is not a readable database: {error}",
            hint="check `path`; an encrypted database cannot be read without its key",
        ) from error
    except apsw.CorruptError as error:
        raise SourceError(
            f"{path} is corrupt: {error}",
            hint="run `PRAGMA integrity_check` on a copy, and restore the last proven snapshot",
        ) from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError, apsw.AuthError) as error:
        raise SourceError(f"{path} cannot be locked or read: {error}", hint=_GIVE_ACCESS) from error
    except (apsw.IOError, apsw.FullError, apsw.NoMemError) as error:
        raise SourceError(
            f"{path} cannot be read: {error}", hint="check the disk and its kernel log"
        ) from error
    except (apsw.Error, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path} cannot be questioned: {error}",
            hint="check the schema with `PRAGMA integrity_check` on a copy of the database",
        ) from error


def _refuse_read_only_folder(path: Path) -> None:
    folder = Path(os.path.realpath(path)).parent
    if not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise SourceError(
            f"{path} is in WAL mode and its folder is read-only for this user: {_NO_HOLD}",
            hint="mount the volume read-write for the backup, or run as the database's owner",
        )
