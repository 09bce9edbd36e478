"""How a database is cut into blobs, and the loop that hands it to the writer.

Chunks are whole pages at fixed places: SQLite rewrites pages where they are, so a change costs the
chunks around it and nothing else moves.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from safetake.errors import SourceError
from safetake.model import BATCH_BYTES, BlobId, Pending, Writer
from safetake.sources.sqlite import rawfile
from safetake.sources.sqlite.wal import FRAME_HEADER_BYTES, PageTable, frame_offset

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30

# Small chunks make small increments and long content lists. Scattered changes of 1 % of the rows
# in 601 MB stored 6.6 MB at 16 KiB, 17.8 at 64 KiB, 139 at 1 MiB (facts/performance.md), while each
# chunk costs some 67 bytes of tree in every snapshot that changes: the steps keep a content list at
# or below 131,072 entries (8.8 MB of JSON) up to 128 GiB. What is read to bring scattered rows back
# follows the chunks, too: of 5.2 GB with 2 % of the rows touched, 7.5 % at 256 KiB, 3.5 % at 64 KiB
# (`python -m bench rows --big --damage apart`).
_STEPS = (
    (64 * _MIB, 16 * _KIB),
    (8 * _GIB, 64 * _KIB),
    (16 * _GIB, 256 * _KIB),
)
_LARGEST = 1 * _MIB
_RUN = 512
"""Pages in one scattered read: the kernel takes 1024 parts, and a page has a header before it."""
_AHEAD = 64
"""Submitted batches whose ids are not collected yet."""


def chunk_bytes(database_bytes: int, page_size: int, before: int | None = None) -> int:
    """Length of the chunks of a database, a multiple of its page size.

    `before` is the length in the parent snapshot: it is kept until the database is half below or
    twice above its step, so that one which swings around a limit is not stored anew each time.
    """
    lower = 0
    choice = _LARGEST
    for limit, size in _STEPS:
        if before == size and lower // 2 <= database_bytes < 2 * limit:
            return max(size, page_size)
        lower = limit
    if before == _LARGEST and database_bytes >= lower // 2:
        return _LARGEST
    for limit, size in _STEPS:
        if database_bytes < limit:
            choice = size
            break
    return max(choice, page_size)


def content_digest(ids: Sequence[BlobId]) -> str:
    """SHA-256 over the chunk ids in order: names the exact bytes, given the chunk length."""
    return hashlib.sha256(b"".join(ids)).hexdigest()


def batches(total: int, chunk: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the writer's buffers over `total` bytes, each of whole chunks."""
    step = BATCH_BYTES - BATCH_BYTES % chunk
    for offset in range(0, total, step):
        yield offset, min(step, total - offset)


def cut(length: int, chunk: int) -> list[int]:
    """Chunk lengths of a batch."""
    full, rest = divmod(length, chunk)
    return [chunk] * full + ([rest] if rest else [])


class IdCollector:
    """Gathers ids in order while a bounded number of batches is still being worked on."""

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque()
        self._ids: list[BlobId] = []

    def add(self, pending: Pending) -> None:
        """The next batch; may wait for an older one."""
        self._waiting.append(pending)
        if len(self._waiting) > _AHEAD:
            self._ids.extend(self._waiting.popleft().result())

    def finish(self) -> list[BlobId]:
        """All ids; waits."""
        while self._waiting:
            self._ids.extend(self._waiting.popleft().result())
        return self._ids


Look = Callable[[memoryview, int], None]
"""Called with the bytes of a batch and its offset before the writer gets them."""


def store_file(
    writer: Writer,
    database: rawfile.RawFile,
    total: int,
    chunk: int,
    progress: Callable[[int], None],
    look: Look | None = None,
) -> list[BlobId]:
    """Store the first `total` bytes of the database file; bytes past its end count as zeros.

    `look` sees each batch. Returns the chunk ids. Raises SourceError when the disk does not read.
    """
    collector = IdCollector()
    for offset, length in batches(total, chunk):
        buffer = writer.buffer()
        try:
            with memoryview(buffer) as whole, whole[:length] as view:
                count = rawfile.read_into(database, view, offset)
                if count < length:
                    view[count:] = bytes(length - count)
                if look is not None:
                    look(view, offset)
        except BaseException:
            writer.discard(buffer)
            raise
        collector.add(writer.submit(buffer, cut(length, chunk)))
        progress(offset + length)
    return collector.finish()


def overlay(log: rawfile.RawFile, table: PageTable, page_size: int) -> Look:
    """A `look` for `store_file` that lays the pages of a log over those of the main file."""

    gap = memoryview(bytearray(FRAME_HEADER_BYTES))

    def lay(view: memoryview, offset: int) -> None:
        first = offset // page_size + 1
        frames = table.frames[first : first + len(view) // page_size]
        wanted = sorted((frame, index) for index, frame in enumerate(frames) if frame)
        # The pages of a transaction lie one after the other in the log: a run is one read.
        for run in _runs(wanted):
            parts: list[memoryview] = []
            for _, index in run:
                parts += (gap, view[index * page_size : (index + 1) * page_size])
            if not rawfile.scatter(log, parts[1:], frame_offset(run[0][0], page_size)):
                raise SourceError(  # SQLite never does this under a read transaction
                    f"{log.path} was cut short while it was read",
                    hint="nothing but SQLite may touch the file; run the backup again",
                )

    return lay


def _runs(wanted: Sequence[tuple[int, int]]) -> Iterator[Sequence[tuple[int, int]]]:
    """Parts of the sorted (frame, index) pairs whose frames follow each other."""
    start = 0
    for end in range(1, len(wanted) + 1):
        whole = end - start == _RUN
        if whole or end == len(wanted) or wanted[end][0] != wanted[end - 1][0] + 1:
            yield wanted[start:end]
            start = end
