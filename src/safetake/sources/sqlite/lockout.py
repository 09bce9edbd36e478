"""All writers of one live database kept out, and its content replaced in one transaction.

The backup API's destination is locked by a step of no page (`sqlite3_backup_step(p, 0)` begins its
write transaction), and stays so until the copy is done: between the two nobody can commit. In WAL
mode readers go on with what they see, and see the new content from the commit on; with a rollback
journal they are kept out, too. A killed process leaves the old content.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import apsw

from safetake.errors import BarrierTimeoutError, RestoreError
from safetake.model import Progress
from safetake.sources.sqlite import live, rawfile
from safetake.sources.sqlite.header import read_header

_POLL_SECONDS = 0.0002
"""As in `live`: a busy writer leaves the lock free for some microseconds at a time."""
_STEP_PAGES = 4096
"""Copied between two looks at signals."""
_WAIT_S = 30.0
"""Readers of a rollback-mode database have to end, and crowds of writers to be outrun."""


class Lockout:
    """From construction to `close` nobody else writes to the database at `path`.

    `source` is the database that `replace` copies in: private, whole, in rollback mode or WAL.
    Raises BarrierTimeoutError when the lock is not to be had, SourceError for what is no database.
    """

    def __init__(self, path: Path, source: Path, busy_timeout: float) -> None:
        self.path = path
        header = read_header(path)
        self.wal = header.wal
        self.raw = rawfile.acquire(path)
        self._connections: list[apsw.Connection] = []
        self._backup: apsw.Backup | None = None
        try:
            self._live = live.connect(path, header, busy_timeout)
            self._connections.append(self._live)
            self._live.execute("PRAGMA synchronous = full").fetchall()
            with live.explained(source):
                staged = apsw.Connection(os.fspath(source), flags=apsw.SQLITE_OPEN_READWRITE)
                self._connections.append(staged)
                staged.execute("SELECT 1 FROM sqlite_schema").fetchall()
            with live.explained(path):
                self._live.execute("SELECT 1 FROM sqlite_schema").fetchall()
                self._backup = self._live.backup("main", staged, "main")
            self._lock(self._backup, time.monotonic() + max(busy_timeout, _WAIT_S))
        except BaseException:
            self.close()
            raise
        self.raw.writers_held = True

    def _lock(self, backup: apsw.Backup, deadline: float) -> None:
        def wait(_tries: int) -> bool:
            # SQLite calls this with what it has got so far, the lock that drains readers included.
            time.sleep(_POLL_SECONDS)
            return time.monotonic() < deadline

        self._live.set_busy_handler(wait)
        while True:
            try:
                with live.explained(self.path):
                    backup.step(0)
                return
            except BarrierTimeoutError as error:
                if time.monotonic() >= deadline:
                    raise BarrierTimeoutError(
                        f"{self.path} stayed locked by other connections: they could not be kept"
                        " out for the restore",
                        hint="look for a long transaction; nothing was changed, try again",
                    ) from error

    def replace(self, progress: Progress = lambda what, done, total: None) -> None:
        """Copy the source in and commit, durably; the lock is given up. Raises RestoreError.

        The steps are one transaction: what interrupts between two of them leaves the old content.
        """
        if self._backup is None:
            raise ValueError("the lock was given up")
        backup, done = self._backup, False
        try:
            while not done:
                done = backup.step(_STEP_PAGES)
                progress(self.path.name, backup.page_count - backup.remaining, backup.page_count)
            backup.finish()
        except apsw.Error as error:
            raise RestoreError(
                f"{self.path} could not be written: {error}",
                hint="nothing was changed; free space on its file system, and try again",
            ) from error
        finally:
            self.close()

    def close(self) -> None:
        """Give the lock up; what was not committed is undone. Idempotent, never raises."""
        if self.raw.users == 0:
            return
        self.raw.writers_held = False
        if self._backup is not None:
            self._backup.close(True)
            self._backup = None
        for connection in self._connections:
            connection.close(True)
        self._connections.clear()
        raw, self.raw = self.raw, rawfile.RawFile(self.path, -1, 0)
        rawfile.release(raw)


def fold_log(path: Path, *, shorten: bool = False) -> None:
    """Put a log that a restore made long into the main file, so that no application has to.

    `shorten` also gives its room back, where no reader needs it at this moment. Waits for nobody
    and leaves to the applications what it cannot do. Raises nothing of SQLite's.
    """
    how = apsw.SQLITE_CHECKPOINT_TRUNCATE if shorten else apsw.SQLITE_CHECKPOINT_PASSIVE
    with rawfile.opened(path):
        try:
            connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                connection.wal_checkpoint("main", how)
            finally:
                connection.close()
        except apsw.Error:
            return
