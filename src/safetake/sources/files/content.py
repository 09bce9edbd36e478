"""The bytes of files, cut into blobs and handed to the writer.

A file up to SMALL_BYTES is one blob, many of them to a buffer; a larger one is cut by its
content, so that an insertion costs its surroundings and not the rest of the file. A dump of Redis
is cut finer: one changed key in a hundred touches each 256 KiB of it. The cut depends on nothing
but the bytes: a proof finds the same blob ids in a restored copy. A file that changes
while it is read is read again; the result always says which state of the file it is.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from safetake.model import BATCH_BYTES, BlobId, Node, Pending, Writer
from safetake.sources.files.cut import coarse_ns, latest_ns
from safetake.sources.files.metadata import equal, kind_of, node_of, same, xattrs_of

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

SMALL_BYTES = 512 << 10
CUT_AVERAGE = 256 << 10
CUT_SHORTEST = 64 << 10
CUT_LONGEST = BATCH_BYTES

DUMP_BEGINS = b"REDIS"
DUMP_AVERAGE = 16 << 10
DUMP_SHORTEST = 4 << 10
DUMP_LONGEST = 64 << 10

CHUNKER = (
    f"fastcdc2020/{CUT_SHORTEST}/{CUT_AVERAGE}/{CUT_LONGEST}/nc2/whole<={SMALL_BYTES}"
    f"/rdb/{DUMP_SHORTEST}/{DUMP_AVERAGE}/{DUMP_LONGEST}"
)
"""Names the cut in manifests: digests of files are comparable only under equal names."""

ATTEMPTS = 3
BATCH_FILES = 1 << 10
"""Of the smallest files: their nodes wait in memory for what their bytes become."""
KEPT_LINKS = 1 << 14
"""Files with several names that are remembered, so that they are read once: about 15 MB."""
IN_FLIGHT = 8
"""Batches that may wait for the writer's threads before we do."""


@cache
def _cutter(dump: bool) -> FastCDC:
    from pyfastcdc import FastCDC

    if dump:
        return FastCDC(
            DUMP_AVERAGE, min_size=DUMP_SHORTEST, max_size=DUMP_LONGEST, normalized_chunking=2
        )
    return FastCDC(CUT_AVERAGE, min_size=CUT_SHORTEST, max_size=CUT_LONGEST, normalized_chunking=2)


def _cuts(view: memoryview, *, dump: bool, final: bool) -> list[int]:
    """Lengths of the chunks of `view`; one that more bytes might lengthen is left off."""
    sizes = [chunk.length for chunk in _cutter(dump).cut_buf(view)]
    if not final and sum(sizes[:-1]) > 0:
        sizes.pop()
    return sizes


def _is_dump(first: memoryview) -> bool:
    """Whether a file that begins so is a dump of Redis."""
    return first[: len(DUMP_BEGINS)] == DUMP_BEGINS


def _fill(descriptor: int, view: memoryview, position: int) -> int:
    """Read until `view` is full or the file ends. Raises OSError."""
    filled = 0
    while filled < len(view):
        count = os.preadv(descriptor, [view[filled:]], position + filled)
        if count == 0:
            break
        filled += count
    return filled


def blob_ids(descriptor: int, size: int) -> Iterator[BlobId]:
    """Ids of the blobs that the first `size` bytes are cut into, found without a writer."""
    buffer = bytearray(min(size, BATCH_BYTES))
    position = carried = 0
    dump = False
    while position < size:
        with memoryview(buffer) as view:
            want = min(len(buffer) - carried, size - position)
            got = _fill(descriptor, view[carried : carried + want], position)
            if not position:
                dump = _is_dump(view[:got])
            position += got
            filled = carried + got
            final = position == size or got < want
            whole = size <= SMALL_BYTES
            sizes = [filled] if whole else _cuts(view[:filled], dump=dump, final=final)
            start = 0
            for length in sizes:
                yield hashlib.sha256(view[start : start + length]).digest()
                start += length
            if final:
                return
            carried = filled - start
            view[:carried] = bytes(view[start:filled])


class Contents:
    """Reads files into a writer, in order. Not safe for several threads."""

    def __init__(self, writer: Writer, advance: Callable[[int], None]) -> None:
        self._writer = writer
        self._advance = advance
        self._buffer: bytearray | None = None
        self._filled = 0
        self._sizes: list[int] = []
        self._owners: list[list[BlobId]] = []
        self._flying: deque[tuple[Pending, list[list[BlobId]]]] = deque()
        self._linked: OrderedDict[tuple[int, int], tuple[Node, bool, bool]] = OrderedDict()
        self.submitted = 0
        self.resolved = 0
        self.files_read = 0

    @property
    def mark(self) -> int:
        """`resolved` has to reach this for every file read so far to have its content."""
        return self.submitted + bool(self._sizes)

    def new_pass(self) -> None:
        """Forget which hard links were read: a later look may find them changed."""
        self._linked.clear()

    def read(self, descriptor: int, name: str, status: os.stat_result) -> tuple[Node, bool, bool]:
        """Read an open file that was listed with `status`.

        Returns its node (the content is filled in until `resolved` reaches `mark`), whether the
        state is settled (nothing was written meanwhile, and a later write would have another
        stamp), and whether it is torn (no two readings agreed). What is neither was written to
        while it was read, by appending most likely. Raises OSError.
        """
        linked = self._linked.get((status.st_dev, status.st_ino))
        if linked is not None and same(status, linked[0]):
            return replace(linked[0], name=name), linked[1], linked[2]
        found = self._read_stable(descriptor, name, status)
        if status.st_nlink > 1:
            self._linked[status.st_dev, status.st_ino] = found
            if len(self._linked) > KEPT_LINKS:
                self._linked.popitem(last=False)
        return found

    def _read_stable(
        self, descriptor: int, name: str, status: os.stat_result
    ) -> tuple[Node, bool, bool]:
        self.files_read += 1
        before = status
        for attempt in range(ATTEMPTS):
            tick = coarse_ns()
            if kind_of(before.st_mode) != "file":
                raise OSError(0, "is no longer a file")
            content: list[BlobId] = []
            size = self._store(descriptor, before.st_size, content)
            after = os.fstat(descriptor)
            whole = size == before.st_size
            still = whole and equal(before, after)
            grew = not still and whole and size <= after.st_size
            if still or (grew and self._reads_again(descriptor, size, content)):
                settled = still and latest_ns(before.st_ctime_ns) < tick
                return self._node(descriptor, name, before, size, content), settled, False
            if attempt < ATTEMPTS - 1:
                before = after
        return self._node(descriptor, name, before, size, content), False, True

    def _node(
        self, descriptor: int, name: str, status: os.stat_result, size: int, content: list[BlobId]
    ) -> Node:
        node = node_of(name, status)
        node.xattrs = xattrs_of(descriptor)
        node.size = size
        node.content = content
        return node

    def _reads_again(self, descriptor: int, size: int, content: list[BlobId]) -> bool:
        """Whether the bytes just stored are still there: the file was appended to at most."""
        self.settle()
        return list(blob_ids(descriptor, size)) == content

    def _store(self, descriptor: int, size: int, content: list[BlobId]) -> int:
        """Hand the first `size` bytes over, to become `content`; returns how many there were."""
        if size == 0:
            return 0
        if size <= SMALL_BYTES:
            return self._store_small(descriptor, size, content)
        self._submit()
        position = 0
        rest = b""
        dump = False
        while True:
            buffer = self._buffer = self._writer.buffer()
            buffer[: len(rest)] = rest
            with memoryview(buffer) as view:
                want = min(BATCH_BYTES - len(rest), size - position)
                got = _fill(descriptor, view[len(rest) : len(rest) + want], position)
                if not position:
                    dump = _is_dump(view[:got])
                position += got
                filled = len(rest) + got
                final = position == size or got < want
                self._sizes = _cuts(view[:filled], dump=dump, final=final)
                self._owners = [content] * len(self._sizes)
                rest = bytes(view[sum(self._sizes) : filled])
            self._advance(got)
            self._submit()
            if final:
                return position

    def _store_small(self, descriptor: int, size: int, content: list[BlobId]) -> int:
        if self._filled + size > BATCH_BYTES or len(self._sizes) >= BATCH_FILES:
            self._submit()
        if self._buffer is None:
            self._buffer = self._writer.buffer()
        with memoryview(self._buffer) as view:
            got = _fill(descriptor, view[self._filled : self._filled + size], 0)
        self._advance(got)
        if got:
            self._filled += got
            self._sizes.append(got)
            self._owners.append(content)
        return got

    def _submit(self) -> None:
        """Send the open buffer on its way."""
        buffer, sizes, owners = self._buffer, self._sizes, self._owners
        self._buffer, self._sizes, self._owners, self._filled = None, [], [], 0
        if buffer is None:
            return
        if not sizes:
            self._writer.discard(buffer)
            return
        self._flying.append((self._writer.submit(buffer, sizes), owners))
        self.submitted += 1
        self._resolve(IN_FLIGHT)

    def _resolve(self, leave: int) -> None:
        while len(self._flying) > leave:
            pending, owners = self._flying.popleft()
            for owner, blob_id in zip(owners, pending.result(), strict=True):
                owner.append(blob_id)
            self.resolved += 1

    def settle(self) -> None:
        """Wait until every file read so far has its content."""
        self._submit()
        self._resolve(0)

    def close(self) -> None:
        """Give the open buffer back. Idempotent."""
        buffer, self._buffer, self._sizes = self._buffer, None, []
        if buffer is not None:
            self._writer.discard(buffer)
