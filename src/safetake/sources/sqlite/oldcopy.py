"""The content of a live database as one file of its own, made while its writers are locked out.

`prepare` copies the bulk before, with nothing held, whatever it gets; `settle` compares under the
lock and writes only what differs, so that writers wait for a comparison (memory speed) and not for
a copy. Where the file system clones files, the clone replaces the copy. After `settle` the file
is durable and is the committed state, pages of the write-ahead log included.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from safetake.errors import RestoreError
from safetake.sources.sqlite import live, rawfile
from safetake.sources.sqlite.chunks import Look, overlay
from safetake.sources.sqlite.header import parse_header, read_header
from safetake.sources.sqlite.wal import WAL_HEADER_BYTES, parse_wal_header, read_index
from safetake.sources.sqlite.walcut import checkpoint_state
from safetake.swap import sync_folder

_FICLONE = 0x40049409
_STEP = 1 << 20


class OldCopy:
    """`place` holds the copy once `settle` has returned; until then `place.part` does."""

    def __init__(self, path: Path, place: Path) -> None:
        self._path = path
        self.place = place
        self._part = place.with_name(place.name + ".part")

    def prepare(self) -> None:
        """Copy the main file as it is now, torn or not. Raises RestoreError."""
        with rawfile.opened(self._path) as raw, self._opened() as fd:
            if not _clone(raw.fd, fd):
                _bring_up(raw, fd, os.fstat(raw.fd).st_size, None)
            with _explained(self._part):
                os.fsync(fd)

    def settle(self, raw: rawfile.RawFile, busy_timeout: float) -> None:
        """With writers locked out: make the copy exact and durable. Raises RestoreError."""
        if self.place.exists():  # of a try that ended before it changed anything
            self.place.rename(self._part)
        with self._opened() as fd:
            size = os.fstat(raw.fd).st_size
            header = parse_header(rawfile.read(raw, 4096, 0), str(self._path), size)
            cloned = _clone(raw.fd, fd)
            if header.wal:
                self._settle_log(raw, fd, busy_timeout)
            elif not cloned:
                _bring_up(raw, fd, size, None)
            with _explained(self._part):
                os.fsync(fd)
        with _explained(self.place):
            self._part.rename(self.place)
            sync_folder(self.place.parent)

    def _settle_log(self, raw: rawfile.RawFile, fd: int, busy_timeout: float) -> None:
        probe = live.connect(self._path, read_header(self._path), busy_timeout)
        try:
            with live.explained(self._path):
                pages, page_size = probe.pragma("page_count"), probe.pragma("page_size")
            total = pages * page_size
            frames, folded = checkpoint_state(self._path, probe)
            if folded == frames:  # the log may be one that the next writer begins anew
                _bring_up(raw, fd, total, None)
                return
            with rawfile.opened(live.wal_path(self._path)) as log:
                head = rawfile.read(log, WAL_HEADER_BYTES, 0)
                found = parse_wal_header(head, str(log.path))
                table = read_index(log, found, frames, pages, self.place.parent)
                try:
                    _bring_up(raw, fd, total, overlay(log, table, page_size), page_size)
                finally:
                    table.close()
        finally:
            probe.close()

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with _explained(self._part):
            fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)


def strip_wal(path: Path) -> None:
    """Make a private database file one with a rollback journal. Raises SourceError."""
    with live.explained(path):
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute("PRAGMA journal_mode = delete").fetchall()
        finally:
            connection.close()


def _bring_up(
    raw: rawfile.RawFile, fd: int, total: int, look: Look | None, page_size: int = 512
) -> None:
    """Make the file `fd` the first `total` bytes of `raw` under `look`; what is equal stays."""
    step = max(_STEP, page_size)
    new, old = bytearray(step), bytearray(step)
    with _explained(raw.path):
        os.ftruncate(fd, total)
    for offset in range(0, total, step):
        length = min(step, total - offset)
        if length < step:
            new, old = bytearray(length), bytearray(length)
        with memoryview(new) as view:
            count = rawfile.read_into(raw, view, offset)
            if count < length:
                view[count:] = bytes(length - count)
            if look is not None:
                look(view, offset)
        with _explained(raw.path):
            if os.preadv(fd, [old], offset) != length or old != new:
                _write(fd, new, offset)


def _write(fd: int, data: bytearray, offset: int) -> None:
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], offset + done)


def _clone(source: int, target: int) -> bool:
    """Share the blocks of a file (btrfs, XFS); False where that is not possible."""
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return True
    return False


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RestoreError(
            f"{path}: the old content could not be kept aside: {error.strerror}",
            hint="free space on the file system of the database; nothing was changed",
        ) from error
