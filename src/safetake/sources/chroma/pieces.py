"""A copy of one file in pieces, and how a second look at the file takes only what changed.

Every piece keeps the xxh3 of its bytes, so that reading the file again stores just the pieces that
differ: the first look goes to the repository's writer, later ones to a spool. `data_level0.bin` is
cut into columns (see `safetake.columns`), everything else into plain chunks. A copy says nothing
about whether the file held still: the caller compares `StatKey`s around it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from safetake.columns import Layout, make_layout
from safetake.model import BATCH_BYTES, BlobId, Node, Pending, Writer
from safetake.sources.chroma.hnsw import DATA, PICKLE, Header
from safetake.sources.chroma.spool import Spool

COLUMN_BLOB_BYTES = 256 << 10
"""Columns are cut into the largest power of two of records below this."""
PLAIN_CHUNK_BYTES = 64 << 10
_BATCH_BYTES = 1 << 20
PICKLE_CHUNK_BYTES = 256 << 10
"""The pickle is written anew each time: small chunks would deduplicate nothing."""

_SEED = secrets.randbits(64)
"""Nobody can make two pieces that meet in a hash whose seed is not known before."""

StatKey = tuple[int, int, int, int]
"""(inode, size, mtime_ns, ctime_ns)"""

Part = tuple[str, int]
"""(part name, number of the piece in it); plain files have the one part ''."""


class ShortRead(Exception):
    """The file became shorter while it was read: it is being rewritten."""


def stat_key(state: os.stat_result) -> StatKey:
    """What says that a file is still the one that was read."""
    return (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@dataclass(slots=True)
class Piece:
    """Where one piece of a copy is: with the writer (`pending`) or in the spool (`place`)."""

    digest: bytes
    size: int
    pending: Pending | None = None
    index: int = 0
    place: int | None = None


@dataclass(slots=True)
class FileCopy:
    """One file as `key` has it. `reused` are the nodes of the parent snapshot, with no pieces."""

    key: StatKey
    state: os.stat_result
    layout: Layout | None = None
    pieces: dict[Part, Piece] = field(default_factory=dict)
    reused: list[Node] | None = None
    head: bytes = b""
    tail: bytes = b""


class Sink(Protocol):
    """Takes the bytes of a piece before they are overwritten."""

    def put(self, piece: Piece, data: memoryview) -> None:
        """Keep a copy of `data` and note in `piece` where it is."""

    def flush(self) -> None:
        """Hand on what is gathered."""


class WriterSink:
    """To the repository's writer, gathered in its buffers; one thread only, never in a hold."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._buffer: bytearray | None = None
        self._used = 0
        self._pieces: list[Piece] = []

    def put(self, piece: Piece, data: memoryview) -> None:
        if self._used + len(data) > BATCH_BYTES:
            self.flush()
        if self._buffer is None:
            self._buffer = self._writer.buffer()
        self._buffer[self._used : self._used + len(data)] = data
        self._used += len(data)
        self._pieces.append(piece)

    def flush(self) -> None:
        if self._buffer is None:
            return
        buffer, pieces = self._buffer, self._pieces
        self._buffer, self._used, self._pieces = None, 0, []
        pending = self._writer.submit(buffer, [piece.size for piece in pieces])
        for index, piece in enumerate(pieces):
            piece.pending, piece.index = pending, index


class SpoolSink:
    """To a spool; from any thread, also inside a hold."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def put(self, piece: Piece, data: memoryview) -> None:
        piece.place = self._spool.put(data)

    def flush(self) -> None:
        """Nothing waits."""


Tick = Callable[[int], None]


def copy_file(
    path: Path,
    sink: Sink,
    *,
    before: FileCopy | None = None,
    header: Header | None = None,
    threads: int = 1,
    tick: Tick = lambda count: None,
) -> FileCopy:
    """Read a file and hand the pieces that differ from `before` to `sink`.

    Raises OSError (FileNotFoundError when it is gone) and ShortRead.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        state = os.fstat(fd)
        layout = None
        if path.name == DATA and header is not None:
            layout = make_layout(state.st_size, header.record, header.widths, state)
        known: dict[Part, Piece] = {}
        if before is not None and _same_cut(before.layout, layout):
            known = before.pieces
        copy = FileCopy(stat_key(state), state, layout)
        try:
            if layout is None:
                _plain(fd, path.name, copy, known, sink, tick)
            else:
                _columns(fd, layout, copy, known, sink, threads, tick)
        finally:
            sink.flush()
        return copy
    finally:
        os.close(fd)


def ids(copy: FileCopy, part: str, spool: Spool, writer: Writer) -> list[BlobId]:
    """The blob ids of one part, in order; stores what is still in the spool."""
    mine = sorted((key[1], piece) for key, piece in copy.pieces.items() if key[0] == part)
    for _, piece in mine:
        if piece.pending is None and piece.place is not None:
            piece.pending = writer.store(spool.get(piece.place, piece.size))
            piece.index, piece.place = 0, None
    found = []
    for _, piece in mine:
        if piece.pending is None:
            raise AssertionError("a piece that was handed nowhere")
        found.append(piece.pending.result()[piece.index])
    return found


def _same_cut(before: Layout | None, now: Layout | None) -> bool:
    if before is None or now is None:
        return before is now
    return before.columns == now.columns


def _keep(
    part: Part, view: memoryview, copy: FileCopy, known: dict[Part, Piece], sink: Sink
) -> None:
    import xxhash

    digest = xxhash.xxh3_128_digest(view, seed=_SEED)
    piece = known.get(part)
    if piece is None or piece.digest != digest or piece.size != len(view):
        piece = Piece(digest, len(view))
        sink.put(piece, view)
    copy.pieces[part] = piece


def _read(fd: int, view: memoryview, at: int) -> None:
    while view:
        got = os.preadv(fd, [view], at)
        if not got:
            raise ShortRead
        view, at = view[got:], at + got


def _plain(
    fd: int, name: str, copy: FileCopy, known: dict[Part, Piece], sink: Sink, tick: Tick
) -> None:
    size = copy.key[1]
    chunk = PICKLE_CHUNK_BYTES if name == PICKLE else PLAIN_CHUNK_BYTES
    buffer = memoryview(bytearray(chunk))
    for number, at in enumerate(range(0, size, chunk)):
        view = buffer[: min(chunk, size - at)]
        _read(fd, view, at)
        if not number:
            copy.head = bytes(view[:4096])
        _keep(("", number), view, copy, known, sink)
        tick(len(view))
    copy.tail = os.pread(fd, 64, max(0, size - 64))


def blob_rows(width: int) -> int:
    """Records in one blob of a column: a power of two, so that columns meet at common records."""
    return 1 << max(0, (COLUMN_BLOB_BYTES // width).bit_length() - 1)


def _columns(
    fd: int,
    layout: Layout,
    copy: FileCopy,
    known: dict[Part, Piece],
    sink: Sink,
    threads: int,
    tick: Tick,
) -> None:
    # every range starts where a blob of each column starts
    step = max(blob_rows(column.width) for column in layout.columns)
    starts = range(0, layout.records, step)

    def work(first: int) -> None:
        _range(fd, layout, first, min(first + step, layout.records), copy, known, sink, tick)

    if threads > 1 and len(starts) > 1:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(work, starts):
                pass
    else:
        for first in starts:
            work(first)
    if layout.tail is not None:
        rest = memoryview(bytearray(layout.tail_bytes))
        _read(fd, rest, layout.record * layout.records)
        _keep((layout.tail, 0), rest, copy, known, sink)


def _range(
    fd: int,
    layout: Layout,
    first: int,
    stop: int,
    copy: FileCopy,
    known: dict[Part, Piece],
    sink: Sink,
    tick: Tick,
) -> None:
    """Take records `first` to `stop` apart and keep the column pieces that they fill."""
    import numpy as np

    # Records that stay in the core's cache while they are taken apart, and no fewer: every step
    # here gives Python's lock away and has to wait for it again.
    batch = min(1 << max(0, (_BATCH_BYTES // layout.record).bit_length() - 1), stop - first)
    columns = [(column, blob_rows(column.width)) for column in layout.columns]
    raw = np.empty((batch, layout.record), np.uint8)
    gathered = [np.empty((max(rows, batch), column.width), np.uint8) for column, rows in columns]
    for at in range(first, stop, batch):
        count = min(batch, stop - at)
        _read(fd, raw[:count].data.cast("B"), at * layout.record)
        for (column, rows), cells in zip(columns, gathered, strict=True):
            inside = (at - first) % len(cells)
            cells[inside : inside + count] = raw[
                :count, column.offset : column.offset + column.width
            ]
            end = inside + count
            if end < len(cells) and at + count < stop:
                continue
            for start in range(0, end, rows):
                view = cells[start : min(start + rows, end)].data.cast("B")
                number = (at + count - end + start) // rows
                _keep((column.file, number), view, copy, known, sink)
        tick(count * layout.record)
