"""A live database opened to be asked, without changing a byte of it.

Nothing is recovered, rolled back or checkpointed: where a crashed writer's journal waits, that is
told (`HotJournalError`) and a copy can be taken with it instead. With a rollback journal a reader
keeps every commit waiting, so that questions which take long belong on a copy (`copy_held`): it is
in the way for as long as the copy is compared, or not at all when nobody wrote. In WAL mode nobody
waits, but no checkpoint can start the log afresh while one question is being answered; each
question is therefore a transaction of its own.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import apsw

from safetake.errors import SourceError
from safetake.sources.sqlite import live, rawfile
from safetake.sources.sqlite.fingerprint import RACY_NS
from safetake.sources.sqlite.header import Header, read_header
from safetake.sources.sqlite.reader import ReadingConnection, waits_for_a_writer
from safetake.sources.sqlite.readonly import restrict

PATIENCE_SECONDS = 30.0
"""How long a question waits for a writer, at the least; nobody waits for us meanwhile."""
_POLL_SECONDS = 0.001
_CHUNK = 256 << 10
_COUNTER = slice(24, 28)
_TRIES = 3


class HotJournalError(SourceError):
    """A writer died in the middle of a transaction, and its journal was not rolled back yet."""


class MovedError(SourceError):
    """The database was written to while it was read without locks."""


def journal_path(path: Path) -> Path:
    """The rollback journal of the database at `path`; SQLite resolves symbolic links first."""
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + "-journal")


@contextmanager
def reading(path: Path, header: Header, patience: float) -> Iterator[apsw.Connection]:
    """A connection that only reads, restricted to reading SQL; waits up to `patience` seconds for
    a writer.

    Raises SourceError, HotJournalError, MovedError. The files beside the database are as before
    when it is closed: a log that is not there is not left behind.
    """
    raw = rawfile.acquire(path)  # closed last: closing any descriptor drops the process's locks
    log = live.wal_path(path)
    in_use = log.exists()
    try:
        with live.explained(path):
            connection, unlocked = _open(path, header)
        try:
            before = _key(path)
            deadline = time.monotonic() + max(patience, PATIENCE_SECONDS)
            connection.set_busy_handler(lambda _tries: _wait(deadline))
            connection.execute("PRAGMA query_only = 1").fetchall()
            restrict(connection)
            _look(connection, path)
            yield connection
            if unlocked and (_key(path) != before or log.exists()):
                raise MovedError(
                    f"{path} was written to while it was read: this user may not lock it",
                    hint="give this user write access to the folder, where SQLite keeps its locks",
                )
        finally:
            with suppress(FileNotFoundError):
                if in_use or log.stat().st_size:  # an application's: leave it alone
                    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close(force=True)
    finally:
        rawfile.release(raw)


def _open(path: Path, header: Header) -> tuple[apsw.Connection, bool]:
    """The connection, and whether it reads without any lock."""
    name = os.fspath(path)
    if not header.wal or journal_path(path).exists():
        return ReadingConnection(name), False  # never rolls a journal back
    # A connection that is opened to read only does not even learn of CHECK constraints (measured
    # with 3.54: integrity_check calls them ok), and leaves an empty log behind where it is alone.
    folder = Path(os.path.realpath(path)).parent
    if os.access(path, os.W_OK) and os.access(folder, os.W_OK):
        return apsw.Connection(name, flags=apsw.SQLITE_OPEN_READWRITE), False
    if live.wal_path(path).exists():
        return ReadingConnection(name), False
    uri = f"file:{quote(name)}?immutable=1"  # nobody is connected, and we may leave nothing behind
    return ReadingConnection(uri, apsw.SQLITE_OPEN_URI), True


def _wait(deadline: float) -> bool:
    time.sleep(_POLL_SECONDS)
    return time.monotonic() < deadline


def _look(connection: apsw.Connection, path: Path) -> None:
    """The first read, which finds a journal or a lock. Raises SourceError, HotJournalError."""
    with live.explained(path):
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except apsw.ReadOnlyError as error:
            if not waits_for_a_writer(error):
                raise
            size = journal_path(path).stat().st_size
            raise HotJournalError(
                f"{path} has the journal of a writer that died in a transaction ({size} bytes):"
                " it is rolled back when the application opens it next",
                hint="start the application again",
            ) from error


# ---------------------------------------------------------------------------------- copies


def copy_held(path: Path, connection: apsw.Connection, target: Path) -> float:
    """Copy a database in rollback-journal mode to `target` as it is at one moment.

    First with no lock; then, with readers' lock held, what changed meanwhile. Returns for how many
    seconds no writer could commit. Raises SourceError, OSError.
    """
    with rawfile.opened(path) as raw, target.open("w+b", buffering=0) as copy:
        before = _state(raw)
        _bring_over(raw, copy.fileno())
        started = time.monotonic()
        connection.authorizer = None  # it lets nobody begin a transaction
        with live.explained(path):
            connection.execute("BEGIN").fetchall()
        try:
            _look(connection, path)
            started = time.monotonic()
            after = _state(raw)
            settled = time.time_ns() - after[2] >= RACY_NS
            if before != after or not settled:
                _bring_over(raw, copy.fileno())
        finally:
            held = time.monotonic() - started
            connection.execute("ROLLBACK").fetchall()
            restrict(connection)
    return held


def _state(raw: rawfile.RawFile) -> tuple[int, int, int, bytes]:
    state = os.fstat(raw.fd)
    counter = rawfile.read(raw, 100, 0)[_COUNTER]
    return state.st_ino, state.st_size, state.st_mtime_ns, counter


def _bring_over(raw: rawfile.RawFile, copy: int) -> None:
    """Make the copy equal to the file; what is equal already is not written."""
    # two buffers for all: fresh ones cost more than reading into them
    new, old = bytearray(_CHUNK), bytearray(_CHUNK)
    offset = 0
    with memoryview(new) as into:
        while count := rawfile.read_into(raw, into, offset):
            there = os.preadv(copy, [old], offset)
            if not (there == count == _CHUNK and new == old):
                done = 0
                while done < count:
                    done += os.pwrite(copy, into[done:count], offset + done)
            offset += count
    os.ftruncate(copy, offset)


def copy_crashed(path: Path, folder: Path) -> Path:
    """Copy a database and the journal that waits beside it, for SQLite to roll back in `folder`.

    Raises SourceError when they do not hold still, OSError.
    """
    journal = journal_path(path)
    for _ in range(_TRIES):
        before = _key(path), _key(journal)
        with rawfile.opened(path) as raw, (folder / path.name).open("w+b", buffering=0) as copy:
            _bring_over(raw, copy.fileno())
        with suppress(FileNotFoundError):  # its application came back: look again
            shutil.copyfile(journal, folder / (path.name + "-journal"))
            if before == (_key(path), _key(journal)):
                return folder / path.name
    raise SourceError(
        f"{path} and its journal do not hold still", hint="run the check again: somebody writes"
    )


@contextmanager
def copied(path: Path) -> Iterator[apsw.Connection]:
    """A private copy, opened for reading SQL; a journal beside it is rolled back. SourceError."""
    read_header(path)
    with live.explained(path):
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        with closing(connection):
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            connection.execute("PRAGMA query_only = 1").fetchall()
            restrict(connection)
            yield connection


def _key(path: Path) -> tuple[int, int, int, int] | None:
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
