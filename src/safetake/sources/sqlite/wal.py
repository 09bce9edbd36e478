"""Which pages of a write-ahead log belong to a cut, and where they are.

`read_index` walks the frames 1..mxFrame of a WAL once and keeps the last one of each page. It
checks the log's header (with its checksum), the salts of every frame and that the cut ends in a
commit; page contents are not checked here, as SQLite itself does not check them again on reading.
Format: https://sqlite.org/fileformat2.html#the_write_ahead_log.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetake.errors import SourceError
from safetake.sources.sqlite import rawfile

WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
_HEADER = struct.Struct(">8I")
_MAGIC_LITTLE, _MAGIC_BIG = 0x377F0682, 0x377F0683
_VERSION = 3007000
_READ_BYTES = 1 << 20
_TABLE_IN_MEMORY = 4 << 20
"""Entries of the page table (4 bytes each) kept in memory; a larger table is a sparse file."""

_HINT = "run the backup again; if it stays, check the live database with `PRAGMA integrity_check`"


@dataclass(frozen=True, slots=True)
class WalHeader:
    """The start of a log. A restarted log has other salts."""

    page_size: int
    salt1: int
    salt2: int

    @property
    def salts(self) -> str:
        """Both salts in hex."""
        return f"{self.salt1:08x}{self.salt2:08x}"


def parse_wal_header(head: bytes, where: str) -> WalHeader:
    """Decode the first 32 bytes of a WAL. Raises SourceError when they are no valid header."""
    if len(head) < WAL_HEADER_BYTES:
        raise SourceError(f"{where} is cut short inside its header", hint=_HINT)
    magic, version, page_size, _, salt1, salt2, sum1, sum2 = _HEADER.unpack_from(head)
    if magic not in (_MAGIC_LITTLE, _MAGIC_BIG) or version != _VERSION:
        raise SourceError(f"{where} is no write-ahead log (magic {magic:08x})", hint=_HINT)
    if checksum(head[:24], magic == _MAGIC_BIG) != (sum1, sum2):
        raise SourceError(f"{where} is corrupt: its header does not match its checksum", hint=_HINT)
    if not 512 <= page_size <= 65536 or page_size & (page_size - 1):
        raise SourceError(f"{where} is corrupt: it claims pages of {page_size} bytes", hint=_HINT)
    return WalHeader(page_size, salt1, salt2)


def checksum(data: bytes, big: bool, start: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """The log's checksum of `data` (a multiple of 8 bytes), continued from `start`."""
    s0, s1 = start
    words = struct.unpack(f"{'>' if big else '<'}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        s0 = (s0 + even + s1) & 0xFFFFFFFF
        s1 = (s1 + odd + s0) & 0xFFFFFFFF
    return s0, s1


class PageTable:
    """Last frame of each page: 4 bytes a page of the database, zero for "not in the log".

    Bounded by the database's page count, not by the log's length. Above 16 MiB it is a sparse,
    unlinked file in `scratch` that the kernel may write out, so that neither a log of many GB nor a
    database of many TB grows this process.
    """

    def __init__(self, page_count: int, scratch: Path) -> None:
        self.pages = 0
        """How many different pages the log holds."""
        self._file: mmap.mmap | None = None
        if page_count <= _TABLE_IN_MEMORY:
            self.frames = memoryview(bytearray(4 * (page_count + 1))).cast("I")
        else:
            with tempfile.TemporaryFile(dir=scratch) as file:
                file.truncate(4 * (page_count + 1))
                self._file = mmap.mmap(file.fileno(), 0)
            self.frames = memoryview(self._file).cast("I")

    def close(self) -> None:
        """Drop the table."""
        self.frames.release()
        if self._file is not None:
            self._file.close()


def read_index(
    raw: rawfile.RawFile, header: WalHeader, mx_frame: int, page_count: int, scratch: Path
) -> PageTable:
    """Index frames 1..`mx_frame` of the log for a database of `page_count` pages.

    Pages beyond `page_count` (cut off by a later commit) are left out. Raises SourceError when the
    log is shorter, a frame has other salts, or the last one is not the commit of `page_count`.
    """
    where = str(raw.path)
    frame_bytes = FRAME_HEADER_BYTES + header.page_size
    batch = max(1, _READ_BYTES // frame_bytes)
    frame_layout = struct.Struct(f">4I{frame_bytes - 16}x")
    salts = (header.salt1, header.salt2)
    table = PageTable(page_count, scratch)
    frames = table.frames
    commit = 0
    pages = 0
    with memoryview(bytearray(batch * frame_bytes)) as buffer:
        for first in range(1, mx_frame + 1, batch):
            count = min(batch, mx_frame + 1 - first)
            with buffer[: count * frame_bytes] as view:
                offset = WAL_HEADER_BYTES + (first - 1) * frame_bytes
                if rawfile.read_into(raw, view, offset) < len(view):
                    raise SourceError(f"{where} is cut short before frame {mx_frame}", hint=_HINT)
                number = first
                for page, _, salt1, salt2 in frame_layout.iter_unpack(view):
                    if (salt1, salt2) != salts or page == 0:
                        raise SourceError(
                            f"{where} is corrupt: frame {number} is not of this log", hint=_HINT
                        )
                    if page <= page_count:
                        if not frames[page]:
                            pages += 1
                        frames[page] = number
                    number += 1
                commit = frame_layout.unpack_from(view, len(view) - frame_bytes)[1]
    if mx_frame and commit != page_count:
        raise SourceError(
            f"{where} is corrupt: frame {mx_frame} should commit {page_count} pages,"
            f" but says {commit}",
            hint=_HINT,
        )
    table.pages = pages
    return table


def frame_offset(frame: int, page_size: int) -> int:
    """Where the page of `frame` (from 1) starts in the log."""
    return WAL_HEADER_BYTES + (frame - 1) * (FRAME_HEADER_BYTES + page_size) + FRAME_HEADER_BYTES
