"""Raw snapshot of a database in WAL mode: a read transaction keeps it, plain reads copy it.

While reader R is open no checkpoint writes a page that is newer than R's cut into the main file,
and the log cannot restart: main file + last frame of each page up to mxFrame is the cut, however
long the copy takes and whatever is committed meanwhile. When all frames were in the main file
already, R may hold read mark 0, under which the log *may* restart but the main file may not change:
then the log is not read at all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw

from safetake.errors import SourceError
from safetake.model import BlobId, Writer
from safetake.sources.sqlite import live, rawfile
from safetake.sources.sqlite.chunks import overlay, store_file
from safetake.sources.sqlite.header import Header
from safetake.sources.sqlite.wal import WAL_HEADER_BYTES, WalHeader, parse_wal_header, read_index


def checkpoint_state(path: Path, probe: apsw.Connection) -> tuple[int, int]:
    """(mxFrame, nBackfill) of the log: how many frames are committed, how many are folded in."""
    with live.explained(path):
        mx_frame, backfilled = probe.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_NOOP)
    if mx_frame < 0:
        raise SourceError(
            f"{path}: SQLite does not tell the state of the write-ahead log",
            hint="run the backup again; the journal mode may just have changed",
        )
    return mx_frame, backfilled


def wal_position(path: Path, probe: apsw.Connection) -> tuple[str, int] | None:
    """(salts, mxFrame) of the log while writers are held; None when nothing is in it."""
    mx_frame, _ = checkpoint_state(path, probe)
    if mx_frame == 0:
        return None
    with rawfile.opened(live.wal_path(path)) as log:
        return _wal_header(log).salts, mx_frame


class WalCut:
    """Reader R of one database and the cut that it keeps. `close` is idempotent."""

    def __init__(
        self,
        path: Path,
        raw: rawfile.RawFile,
        header: Header,
        busy_timeout: float,
        scratch: Path,
        chunk: int,
    ) -> None:
        self._path = path
        self._raw = raw
        self._scratch = scratch
        self._chunk = chunk
        self._page_size = header.page_size
        self._pages = 0
        self._frames = 0
        self._log: rawfile.RawFile | None = None
        self.reader = live.connect(path, header, busy_timeout)
        self.probe = live.connect(path, header, busy_timeout)
        with live.explained(path):  # a first read opens the log's index: now, not in the hold
            self.reader.execute("SELECT 1 FROM sqlite_schema").fetchall()
            self.probe.execute("SELECT 1 FROM sqlite_schema").fetchall()

    def begin(self, pages: int, position: tuple[str, int] | None) -> None:
        """In the hold: open R's snapshot, which is the held state, of `pages` pages."""
        self.end()
        with live.explained(self._path):
            self.reader.execute("BEGIN").fetchall()
            self.reader.execute("SELECT 1 FROM sqlite_schema").fetchall()
        mx_frame, backfilled = checkpoint_state(self._path, self.probe)
        if position is not None and mx_frame != position[1]:
            raise SourceError(
                f"{self._path}: the write-ahead log moved although its writers are held",
                hint="POSIX locks do not work on this file system: move the database to another",
            )
        self._pages = pages
        # Frames that were not folded in after R began were not before: R's mark protects them all.
        self._frames = 0 if backfilled == mx_frame else mx_frame
        if self._frames:
            self._log = rawfile.acquire(live.wal_path(self._path))

    def store(self, writer: Writer, progress: Callable[[int], None]) -> list[BlobId]:
        """After the hold: store the cut, return its chunk ids."""
        total = self._pages * self._page_size
        if self._log is None:
            return store_file(writer, self._raw, total, self._chunk, progress)
        header = _wal_header(self._log)
        if header.page_size != self._page_size:
            raise SourceError(
                f"{self._log.path} has pages of {header.page_size} bytes, the database of"
                f" {self._page_size}: it is corrupt",
                hint="check the live database with `PRAGMA integrity_check`",
            )
        table = read_index(self._log, header, self._frames, self._pages, self._scratch)
        try:
            look = overlay(self._log, table, self._page_size)
            return store_file(writer, self._raw, total, self._chunk, progress, look)
        finally:
            table.close()

    def end(self) -> None:
        """Let R's snapshot go, so that checkpoints can pass it."""
        if self.reader.in_transaction:
            with live.explained(self._path):
                self.reader.execute("ROLLBACK").fetchall()
        if self._log is not None:
            rawfile.release(self._log)
            self._log = None

    def close(self) -> None:
        """Drop the connections, and with them the snapshot."""
        self.reader.close()
        self.probe.close()
        if self._log is not None:
            rawfile.release(self._log)
            self._log = None


def _wal_header(log: rawfile.RawFile) -> WalHeader:
    return parse_wal_header(rawfile.read(log, WAL_HEADER_BYTES, 0), str(log.path))
