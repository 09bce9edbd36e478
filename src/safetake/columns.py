"""Files of fixed-size records, stored column by column, and how they become one file again.

A tree holds, in place of a file NAME, a directory NAME.parts with `layout.json`, one file per
column (the bytes of that column of every record, one after the other) and, where the file is
longer than its whole records, the rest as a file of its own. An HNSW index is stored so because
appending vectors changes the links of many old records and the vectors of none: apart, the vectors
deduplicate. `join.py` in the same package is carried in each snapshot and needs no safetake.

layout.json: {"version": 1, "size": bytes of the file, "record": bytes of a record, "records":
whole records, "columns": [{"file", "offset" in the record, "width"}], "tail": name or null, "mode",
"mtime_ns", "uid", "gid", and optionally "sha256" of the file}. The columns cover the record from
its first byte to its last; a layout that says otherwise, or names a path, is refused.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake import join as _join
from safetake.errors import DamagedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARTS_SUFFIX = ".parts"
LAYOUT_NAME = "layout.json"
MAX_RECORD_BYTES = 1 << 20
"""Longer records are not split: Chroma's vectors have at most some 10,000 dimensions."""

JOIN_SCRIPT = Path(_join.__file__).read_text(encoding="utf-8")
"""The text of `join.py`, to be stored beside the parts."""

_BLOCK_BYTES = 4 << 20
HELD_BYTES = 32 << 20
"""What a `ColumnWriter` may keep in memory."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: the file that holds it, and where it lies in a record."""

    file: str
    offset: int
    width: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How the parts make up the file. Build with `make_layout` or `load_layout`: both validate."""

    size: int
    record: int
    records: int
    columns: tuple[Column, ...]
    tail: str | None
    mode: int = 0o600
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0
    sha256: str = ""

    @property
    def tail_bytes(self) -> int:
        """Bytes after the last whole record."""
        return self.size - self.record * self.records

    def part_sizes(self) -> dict[str, int]:
        """Each part's file name and its exact length, in the order of the columns, tail last."""
        sizes = {column.file: column.width * self.records for column in self.columns}
        if self.tail is not None:
            sizes[self.tail] = self.tail_bytes
        return sizes

    def dump(self) -> bytes:
        """The bytes of layout.json."""
        document: dict[str, Any] = {
            "version": 1,
            "size": self.size,
            "record": self.record,
            "records": self.records,
            "columns": [
                {"file": column.file, "offset": column.offset, "width": column.width}
                for column in self.columns
            ],
            "tail": self.tail,
            "mode": self.mode,
            "mtime_ns": self.mtime_ns,
            "uid": self.uid,
            "gid": self.gid,
        }
        if self.sha256:
            document["sha256"] = self.sha256
        return json.dumps(document, indent=1).encode() + b"\n"


def make_layout(
    size: int, record: int, columns: Sequence[tuple[str, int]], stat: os.stat_result | None = None
) -> Layout | None:
    """The layout of a file of `size` bytes whose records have the named columns and widths.

    None where splitting makes no sense: no whole record, or columns that do not fill one.
    """
    if not 0 < record <= MAX_RECORD_BYTES or size < record:
        return None
    if sum(width for _, width in columns) != record or any(width < 1 for _, width in columns):
        return None
    placed, offset = [], 0
    for number, (name, width) in enumerate(columns):
        placed.append(Column(f"{number}-{name}", offset, width))
        offset += width
    records = size // record
    return Layout(
        size=size,
        record=record,
        records=records,
        columns=tuple(placed),
        tail="tail" if size > records * record else None,
        mode=stat.st_mode if stat else 0o100600,
        mtime_ns=stat.st_mtime_ns if stat else 0,
        uid=stat.st_uid if stat else 0,
        gid=stat.st_gid if stat else 0,
    )


def load_layout(data: bytes) -> Layout:
    """Read a layout.json; trusts nothing in it. Raises DamagedError."""
    try:
        document = json.loads(data)
        _join.check(document)
        numbers = [document.get("uid", 0), document.get("gid", 0)]
        digest = document.get("sha256", "")
        if any(type(number) is not int for number in numbers) or not isinstance(digest, str):
            raise ValueError("a value of the layout has the wrong type")
        if document["record"] > MAX_RECORD_BYTES:
            raise ValueError("the records of the layout are too long")
    except (ValueError, RecursionError) as problem:
        raise DamagedError(f"{LAYOUT_NAME}: {problem}") from problem
    return Layout(
        size=document["size"],
        record=document["record"],
        records=document["records"],
        columns=tuple(
            Column(column["file"], column["offset"], column["width"])
            for column in document["columns"]
        ),
        tail=document["tail"] if document.get("tail") is not None else None,
        mode=document["mode"],
        mtime_ns=document["mtime_ns"],
        uid=numbers[0],
        gid=numbers[1],
        sha256=digest,
    )


def join(parts_dir: Path, target: Path) -> None:
    """Write `target` out of a folder of parts, in bounded memory, with mode and time.

    The target appears complete or not at all; the parts stay. Raises DamagedError when layout and
    parts do not agree.
    """
    load_layout((parts_dir / LAYOUT_NAME).read_bytes())
    try:
        _join.join(parts_dir, target)
    except ValueError as problem:
        raise DamagedError(f"{parts_dir}: {problem}") from problem


@dataclass(slots=True)
class _Arrival:
    """One `write` and how many blocks still wait with a part of it: it is memory until the last."""

    size: int
    blocks: int


@dataclass(slots=True)
class _Block:
    """Records that wait for the rest of their columns."""

    pieces: list[tuple[Column, int, memoryview, _Arrival]]
    """(column, byte in the column from the block's first record, bytes)"""
    missing: int
    spilled: bool = False
    """Some of it is in the file already, and must be read back."""


class ColumnWriter:
    """Writes the bytes of columns, in any order, at their places in the one file.

    What is written waits as it came until all columns of a block of records are there; then the
    block is put together and written at once. When more than `held` bytes wait, the block that
    waits longest is laid over what the file holds already. `finish` tells whether every byte came.
    Safe to use from several threads; blocks are put together outside the lock.
    """

    def __init__(self, target_fd: int, layout: Layout, *, held: int = HELD_BYTES) -> None:
        self._fd = target_fd
        self._layout = layout
        self._limit = held
        # A power of two, like the rows of a column's blob: most blobs then lie within one block.
        self._rows = 1 << max(0, (_BLOCK_BYTES // layout.record).bit_length() - 1)
        self._blocks: dict[int, _Block] = {}
        self._left_early: dict[int, int] = {}
        """blocks that had to leave before they were complete: bytes that are missing still"""
        self._held = 0
        self._left = layout.size
        self._lock = threading.Lock()
        self._spare: list[NDArray[np.uint8]] = []
        os.ftruncate(target_fd, layout.size)

    def write(self, column_index: int, column_offset: int, data: bytes | memoryview) -> None:
        """Put `data`, which starts `column_offset` bytes into that column, at its places.

        The index after the last column is the tail. Every byte may come once only, and `data` must
        not change any more. Raises DamagedError when it does not fit the layout.
        """
        layout = self._layout
        if column_index == len(layout.columns):
            self._write_tail(column_offset, data)
            return
        column = layout.columns[column_index]
        end = column_offset + len(data)
        if column_offset < 0 or end > column.width * layout.records:
            raise DamagedError(f"{column.file}: bytes past the end of the column")
        view = memoryview(data)
        span = self._rows * column.width
        complete: list[tuple[int, _Block]] = []
        with self._lock:
            numbers = range(column_offset // span, -(-end // span))
            arrival = _Arrival(len(data), len(numbers))
            self._held += len(data)
            self._left -= len(data)
            for number in numbers:
                first, stop = max(column_offset, number * span), min(end, (number + 1) * span)
                block = self._block(number)
                piece = view[first - column_offset : stop - column_offset]
                block.pieces.append((column, first - number * span, piece, arrival))
                block.missing -= stop - first
                if block.missing <= 0:
                    complete.append((number, self._blocks.pop(number)))
            while self._held > self._limit and self._blocks:
                self._spill(next(iter(self._blocks)))
        for number, block in complete:
            self._store(number, block)
        if complete:
            with self._lock:
                for _, block in complete:
                    self._forget(block)

    def finish(self) -> None:
        """Write what still waits. Raises DamagedError when bytes are missing."""
        with self._lock:
            for number in list(self._blocks):
                self._spill(number)
            if self._left:
                raise DamagedError(f"{abs(self._left)} bytes of columns are missing or came twice")

    def _write_tail(self, offset: int, data: bytes | memoryview) -> None:
        if offset < 0 or offset + len(data) > self._layout.tail_bytes:
            raise DamagedError("bytes past the end of the tail")
        start = self._layout.record * self._layout.records + offset
        _pwrite(self._fd, data, start)
        with self._lock:
            self._left -= len(data)

    def _count(self, number: int) -> int:
        """Records of a block; the last one may be short."""
        return min(self._rows, self._layout.records - number * self._rows)

    def _block(self, number: int) -> _Block:
        block = self._blocks.get(number)
        if block is None:
            missing = self._left_early.pop(number, 0)
            whole = self._count(number) * self._layout.record
            block = self._blocks[number] = _Block([], missing or whole, bool(missing))
        return block

    def _spill(self, number: int) -> None:
        """With the lock held: write a block that is not complete, and let its pieces go."""
        block = self._blocks.pop(number)
        block.spilled = True
        self._store(number, block)
        self._forget(block)
        self._left_early[number] = block.missing

    def _forget(self, block: _Block) -> None:
        for _, _, _, arrival in block.pieces:
            arrival.blocks -= 1
            if not arrival.blocks:
                self._held -= arrival.size

    def _store(self, number: int, block: _Block) -> None:
        """Put a block together and write it. No other thread has pieces of it."""
        import numpy as np

        record = self._layout.record
        try:
            buffer = self._spare.pop()
        except IndexError:
            buffer = np.empty((self._rows, record), np.uint8)
        rows = buffer[: self._count(number)]
        at = number * self._rows * record
        if block.spilled:
            view, place = rows.data.cast("B"), at
            while view:
                if not (got := os.preadv(self._fd, [view], place)):
                    raise DamagedError("the file was shortened while it was written")
                view, place = view[got:], place + got
        for column, first, piece, _ in block.pieces:
            cells = rows[:, column.offset : column.offset + column.width]
            _scatter(cells, first, np.frombuffer(piece, np.uint8))
        _pwrite(self._fd, rows.data.cast("B"), at)
        self._spare.append(buffer)


def _scatter(cells: NDArray[np.uint8], at: int, piece: NDArray[np.uint8]) -> None:
    """Lay `piece` over the rows x width `cells`, `at` bytes after the first cell's first byte."""
    width = cells.shape[1]
    row, within = divmod(at, width)
    if within:
        head = min(width - within, len(piece))
        cells[row, within : within + head] = piece[:head]
        piece, row = piece[head:], row + 1
    whole = len(piece) // width
    cells[row : row + whole] = piece[: whole * width].reshape(whole, width)
    rest = piece[whole * width :]
    if len(rest):
        cells[row + whole, : len(rest)] = rest


def _pwrite(fd: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written
