"""A consistent copy of a live store in a private folder, taken by the store's own capture.

A source hands its bytes to a `Writer` and knows no more; here that writer is one scratch file, and
what was captured is then written out as files. So a live store is questioned on exactly what a
backup of this moment would hold. Needs twice the store's size for a moment, and keeps nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetake.errors import BarrierTimeoutError, DamagedError
from safetake.model import BATCH_BYTES, BlobId, CaptureContext, Captured, Node, Session, Source

_POOL = 4
_TRIES = 5
_HOLD_SECONDS = 5.0
NEEDED = 2.2
"""Times the store's size that must be free in the scratch folder."""


@dataclass(slots=True)
class _Done:
    """A `Pending` that is done already."""

    ids: list[BlobId]

    def result(self) -> list[BlobId]:
        return self.ids


class HotCopy:
    """A `model.Writer` and `model.Reader` over one file. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "blobs"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._end = 0
        self._places: dict[BlobId, tuple[int, int]] = {}
        self._trees: dict[BlobId, list[Node]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(_POOL):
            self._free.put(bytearray(BATCH_BYTES))

    def close(self) -> None:
        """Drop the file."""
        os.close(self._fd)
        self._path.unlink(missing_ok=True)

    # model.Writer

    def buffer(self) -> bytearray:
        return self._free.get()

    def discard(self, buffer: bytearray) -> None:
        self._free.put(buffer)

    def submit(self, buffer: bytearray, sizes: Sequence[int]) -> _Done:
        ids, at = [], 0
        try:
            with memoryview(buffer) as view:
                for size in sizes:
                    ids.append(self._put(view[at : at + size]))
                    at += size
        finally:
            self._free.put(buffer)
        return _Done(ids)

    def store(self, data: bytes) -> _Done:
        return _Done([self._put(memoryview(data))])

    def save_tree(self, nodes: Iterable[Node]) -> BlobId:
        kept = sorted(nodes, key=lambda node: os.fsencode(node.name))
        with self._lock:
            tree = next(self._numbers).to_bytes(32, "big")
            self._trees[tree] = kept
        return tree

    def has(self, ids: Iterable[BlobId]) -> bool:
        return all(one in self._places for one in ids)

    def whole(self, tree_id: BlobId) -> bool:
        return tree_id in self._trees

    # model.Reader

    def blob(self, blob_id: BlobId) -> bytes:
        place = self._places.get(blob_id)
        data = b"" if place is None else os.pread(self._fd, place[1], place[0])
        if hashlib.sha256(data).digest() != blob_id:
            raise DamagedError("the scratch copy does not read back what was written to it")
        return data

    def sizes(self, ids: Sequence[BlobId]) -> list[int]:
        return [self._places[one][1] for one in ids]

    def tree(self, tree_id: BlobId) -> list[Node]:
        return list(self._trees[tree_id])

    def references(self, tree_id: BlobId) -> tuple[list[BlobId], list[BlobId]]:
        nodes = self._trees[tree_id]
        subtrees = [node.subtree for node in nodes if node.subtree is not None]
        return subtrees, [one for node in nodes for one in node.content or ()]

    # out again

    def write_out(self, node: Node, folder: Path) -> None:
        """Write the files below a directory node; anything else in it is left out. Raises OSError,
        DamagedError."""
        folder.mkdir(mode=0o700)
        for entry in self.tree(node.subtree) if node.subtree is not None else ():
            if entry.type == "dir":
                self.write_out(entry, folder / entry.name)
            elif entry.type == "file":
                with (folder / entry.name).open("xb") as file:
                    for one in entry.content or ():
                        file.write(self.blob(one))

    def _put(self, data: memoryview) -> BlobId:
        one = hashlib.sha256(data).digest()
        with self._lock:
            if one in self._places:
                return one
            place = self._end
            self._end += len(data)
        at = place
        while data:
            count = os.pwrite(self._fd, data, at)
            data, at = data[count:], at + count
        with self._lock:
            self._places[one] = (place, at - place)
        return one


def take(source: Source, scratch: Path, target: Path) -> tuple[Captured, float]:
    """Capture a live store and write it out as `target`; and for how many seconds it was held.

    Raises SourceError, DamagedError, OSError.
    """
    (work := scratch / "capture").mkdir(mode=0o700)
    copy = HotCopy(scratch)
    try:
        session = source.session(CaptureContext(copy, None, work, reader=copy))
        try:
            session.prepare()
            held = _hold(session)
            captured = session.capture()
        finally:
            session.close()
        copy.write_out(captured.node, target)
    finally:
        copy.close()
    return captured, held


def _hold(session: Session) -> float:
    for attempt in range(_TRIES):
        try:
            cut = session.hold(_HOLD_SECONDS)
        except BarrierTimeoutError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(0.1 * 2**attempt)
            continue
        session.release()
        return (time.monotonic_ns() - cut.held_ns) / 1e9
    raise AssertionError("the loop returns or raises")
