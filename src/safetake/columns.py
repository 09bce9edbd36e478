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
_HELD_BYTES = 40 << 20


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


class ColumnWriter:
    """Writes the bytes of columns, in any order, at their places in the one file.

    Rows are gathered in blocks of memory (64 MB at most) and written when all their columns are
    there; a block that has to make room before is written as it is and read back later. `finish`
    tells whether every byte came. Safe to use from several threads.
    """

    def __init__(self, target_fd: int, layout: Layout) -> None:
        self._fd = target_fd
        self._layout = layout
        self._rows = max(1, _BLOCK_BYTES // layout.record)
        self._blocks: dict[int, tuple[NDArray[np.uint8], int]] = {}
        """block number to its rows and how many bytes of it came while it was in memory"""
        self._came: dict[int, int] = {}
        """bytes that came for blocks which had to leave before they were complete"""
        self._left = layout.size
        self._lock = threading.Lock()
        os.ftruncate(target_fd, layout.size)

    def write(self, column_index: int, column_offset: int, data: bytes | memoryview) -> None:
        """Put `data`, which starts `column_offset` bytes into that column, at its places.

        The index after the last column is the tail. Every byte may come once only. Raises
        DamagedError when it does not fit the layout.
        """
        layout = self._layout
        if column_index == len(layout.columns):
            self._write_tail(column_offset, data)
            return
        column = layout.columns[column_index]
        end = column_offset + len(data)
        if column_offset < 0 or end > column.width * layout.records:
            raise DamagedError(f"{column.file}: bytes past the end of the column")
        import numpy as np

        source = np.frombuffer(data, np.uint8)
        span = self._rows * column.width
        with self._lock:
            at = column_offset
            while at < end:
                number = at // span
                stop = min(end, (number + 1) * span)
                piece = source[at - column_offset : stop - column_offset]
                rows = self._block(number)
                _scatter(rows[:, column.offset : column.offset + column.width], at % span, piece)
                self._count(number, len(piece))
                at = stop
            self._left -= len(data)

    def finish(self) -> None:
        """Write what is still in memory. Raises DamagedError when bytes are missing."""
        with self._lock:
            for number in list(self._blocks):
                self._flush(number)
            if self._left:
                raise DamagedError(f"{abs(self._left)} bytes of columns are missing or came twice")

    def _write_tail(self, offset: int, data: bytes | memoryview) -> None:
        if offset < 0 or offset + len(data) > self._layout.tail_bytes:
            raise DamagedError("bytes past the end of the tail")
        start = self._layout.record * self._layout.records + offset
        _pwrite(self._fd, data, start)
        with self._lock:
            self._left -= len(data)

    def _block(self, number: int) -> NDArray[np.uint8]:
        import numpy as np

        if number in self._blocks:
            return self._blocks[number][0]
        if (
            len(self._blocks) + 1
        ) * self._rows * self._layout.record > _HELD_BYTES and self._blocks:
            self._flush(next(iter(self._blocks)))
        count = min(self._rows, self._layout.records - number * self._rows)
        rows = np.zeros((count, self._layout.record), np.uint8)
        if number in self._came:
            view, at = rows.data.cast("B"), number * self._rows * self._layout.record
            while view:
                if not (got := os.preadv(self._fd, [view], at)):
                    raise DamagedError("the file was shortened while it was written")
                view, at = view[got:], at + got
        self._blocks[number] = (rows, self._came.pop(number, 0))
        return rows

    def _count(self, number: int, came: int) -> None:
        rows, before = self._blocks[number]
        self._blocks[number] = (rows, before + came)
        if before + came >= rows.size:
            self._flush(number)

    def _flush(self, number: int) -> None:
        rows, came = self._blocks.pop(number)
        _pwrite(self._fd, rows.data.cast("B"), number * self._rows * self._layout.record)
        if came < rows.size:
            self._came[number] = came


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
