"""A database restored into the live one, in one transaction, while applications stay connected.

    old copy is prepared → staged copy is marked → lock → old copy is exact and durable
    → the new content is committed → the log is folded in → … → the mark is dropped

Readers never see anything but the old or the new content; writers see busy from the lock to the
commit. What a crash left is told by the mark (`marker`). Going back is the same with the old copy:
what applications wrote after the switch is then lost.
"""

from __future__ import annotations

import time
from pathlib import Path

import apsw

from safetake.config import SqliteConfig
from safetake.errors import RestoreError, SourceError
from safetake.model import Check, RestoreWork, Session
from safetake.sources.sqlite import facts, live, marker, rawfile
from safetake.sources.sqlite.header import read_header
from safetake.sources.sqlite.lockout import Lockout, fold_log
from safetake.sources.sqlite.oldcopy import OldCopy, strip_wal
from safetake.sources.sqlite.session import SqliteSession

_OLD = "old.db"
_MARKED = "marked"
_DROP_S = 120.0


class Online:
    """`model.Restorer` in mode `online`, for one live database at its real path."""

    def __init__(self, path: Path, config: SqliteConfig) -> None:
        self._path = path
        self._timeout = config.busy_timeout
        self._lock: Lockout | None = None

    def prepare(self, work: RestoreWork) -> None:
        """All that can be done before writers are kept out. The staged copy stays as it is, so that
        it can be proven again after a crash."""
        OldCopy(self._path, work.work / _OLD).prepare()

    def take_over(self, work: RestoreWork, session: Session) -> bool:
        """Keep writers out. When one got in since the session's cut, the cut is moved to now.

        Raises BarrierTimeoutError, SourceError.
        """
        if not isinstance(session, SqliteSession):
            raise RestoreError(
                f"{self._path} is to be replaced under its applications, and was not captured",
                hint="stop them and restore without --online",
            )
        self._locked(work)
        if session.moved_on():
            session.hold(self._timeout)
            session.release()
        return True

    def let_go(self) -> None:
        """Give the lock up."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def switch(self, work: RestoreWork) -> None:
        """Commit the staged content into the live database."""
        if self._lock is None and self.touched(work):
            return
        lock = self._locked(work)
        try:
            OldCopy(self._path, work.work / _OLD).settle(lock.raw, self._timeout)
            lock.replace(work.progress)
        finally:
            self.let_go()
        fold_log(self._path)

    def touched(self, work: RestoreWork) -> bool:
        """Whether the new content is in the live database."""
        return marker.found(self._path, work.id, self._timeout)

    def switch_back(self, work: RestoreWork) -> None:
        """The old content again, when the new one is there."""
        self.let_go()
        if not self.touched(work):
            return
        old = work.work / _OLD
        if not old.exists():
            raise RestoreError(
                f"{old} is gone: it is what {self._path} held before the restore",
                hint="keep the new content with `safetake restore --resume`, then `--undo`",
            )
        if not read_header(self._path).wal:
            strip_wal(old)
        lock = Lockout(self._path, old, self._timeout)
        lock.replace(work.progress)
        fold_log(self._path)

    def confirm(self, work: RestoreWork) -> list[Check]:
        """Ask the live database; applications may have written to it already."""
        with rawfile.opened(self._path):
            connection = live.connect(self._path, read_header(self._path), self._timeout)
            try:
                with live.explained(self._path):
                    return list(_ask(connection, work, read_header(self._path).wal))
            finally:
                connection.close()

    def finish(self, work: RestoreWork, *, committed: bool) -> None:
        """Drop the mark, which may wait for writers. Raises SourceError."""
        self.let_go()
        if committed and self.touched(work):
            marker.drop(self._path, work.id, time.monotonic() + _DROP_S)
            fold_log(self._path, shorten=True)

    def _locked(self, work: RestoreWork) -> Lockout:
        if self._lock is None:
            marker.put(staged_file(work), work.id)
            self._lock = Lockout(self._path, staged_file(work), self._timeout)
        return self._lock


def staged_file(work: RestoreWork) -> Path:
    """The staged database. Raises SourceError when its name is no plain name."""
    name = str(work.entry["facts"].get("file", ""))
    if not name or Path(name).name != name:
        raise SourceError(f"the snapshot names its database {name[:40]!r}: that is no file name")
    return work.staged / name


def _ask(connection: apsw.Connection, work: RestoreWork, wal: bool) -> list[Check]:
    known = work.entry["facts"]
    there = marker.is_in(connection, work.id)
    schema = facts.schema_hash(connection, without=marker.TABLE)
    if schema != known["schema_sha256"]:
        # perhaps the snapshot was taken while the mark of an earlier restore was there
        schema = facts.schema_hash(connection)
    checks = [
        Check("restored in one transaction", there, work.id, work.id if there else None),
        Check("schema", schema == known["schema_sha256"], known["schema_sha256"], schema),
    ]
    if wal:  # with a rollback journal the question would keep every writer waiting
        found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(10)")]
        checks.append(Check("quick_check", found == ["ok"], ["ok"], found))
    return checks
