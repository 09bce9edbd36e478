"""Raw snapshot of a database with a rollback journal (delete, truncate, persist).

Here every reader blocks the writer's commit, so the bulk is stored before, unlocked, with a hash of
each chunk; the hold takes SQLite's RESERVED lock (writers wait, readers go on), hashes the file
again and keeps only the chunks that differ. When neither the file's times nor its change counter
moved since before the copy, the hold reads nothing at all.
"""

from __future__ import annotations

import hashlib
import secrets
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import xxhash

from safetake.errors import SourceError
from safetake.model import BATCH_BYTES, BlobId, Pending, Writer
from safetake.sources.sqlite import rawfile
from safetake.sources.sqlite.chunks import batches, store_file

_SPOOL_BYTES = 32 << 20
"""Changed chunks up to this much wait in memory, more in a scratch file."""
_THREADS = 2
_AHEAD = 64

Digest = Callable[[memoryview], bytes]


class RollbackCopy:
    """The chunks of one rollback-journal database, copied early and put right inside the hold.

    Call `copy` or `assume` first, then, with the database held, `settle` or nothing (unchanged),
    then `store`. A new `settle` replaces an older one.
    """

    def __init__(self, raw: rawfile.RawFile, chunk: int, writer: Writer, scratch: Path) -> None:
        self._raw = raw
        self._chunk = chunk
        self._writer = writer
        self._scratch = scratch
        self._ids: list[BlobId] = []
        self._digests: Sequence[bytes] = []
        self._digest: Digest = _sha256
        self._changed: _Spool | None = None
        self._total = 0

    def copy(self, total: int, progress: Callable[[int], None]) -> None:
        """Store all chunks as they are now, torn or not, and remember a hash of each."""
        # A seed that nobody can know before: no file can be made in which two different chunks
        # meet in 128 bits, and xxh3 reads at memory speed where SHA-256 would triple the hold.
        seed = secrets.randbits(64)
        digests: list[bytes] = []

        def digest(view: memoryview) -> bytes:
            return xxhash.xxh3_128_digest(view, seed=seed)

        def look(view: memoryview, offset: int) -> None:
            digests.extend(_digests(view, self._chunk, digest))

        self._ids = store_file(self._writer, self._raw, total, self._chunk, progress, look)
        self._digests, self._digest, self._total = digests, digest, total

    def assume(self, ids: Sequence[BlobId], total: int) -> None:
        """Start from the parent's chunks instead, unread: their ids are hashes as well."""
        self._ids = list(ids)
        self._digests, self._digest, self._total = self._ids, _sha256, total

    def keep(self) -> None:
        """The held database is what `copy` or `assume` saw: forget an older `settle`."""
        self._drop()

    def settle(self, total: int) -> None:
        """With the database held: find the chunks that differ and keep their bytes.

        Reads `total` bytes once, in two threads. Raises SourceError.
        """
        self._drop()
        spool = self._changed = _Spool(self._scratch, total)
        work = list(batches(total, self._chunk))
        failures: list[BaseException] = []

        def compare(part: Sequence[tuple[int, int]]) -> None:
            try:
                with memoryview(bytearray(BATCH_BYTES)) as buffer:
                    for offset, length in part:
                        if failures:
                            return
                        with buffer[:length] as view:
                            self._compare(view, offset, spool)
            except BaseException as error:  # noqa: BLE001 - raised by the caller
                failures.append(error)

        half = len(work) // _THREADS
        other = threading.Thread(target=compare, args=(work[:half],), name="sqlite-compare")
        other.start()
        compare(work[half:])
        other.join()
        if failures:
            raise failures[0]

    def store(self) -> list[BlobId]:
        """After the hold: put the changed chunks, return all ids. Length: `total`."""
        spool = self._changed
        if spool is None:
            return self._ids
        count = -(-spool.total // self._chunk)
        ids = self._ids[:count] + [b""] * (count - len(self._ids))
        waiting: deque[tuple[int, Pending]] = deque()
        for index, data in spool.chunks():
            waiting.append((index, self._writer.store(data)))
            if len(waiting) > _AHEAD:
                done, pending = waiting.popleft()
                ids[done] = pending.result()[0]
        for done, pending in waiting:
            ids[done] = pending.result()[0]
        return ids

    def same(self, index: int, data: bytes) -> bool:
        """Whether `data` is chunk `index` as `copy` stored it, by the hash that the hold relies on.

        False for what changed since, and for what was taken over by `assume`: ask SHA-256 then.
        """
        spooled = self._changed is not None and index in self._changed.indexes
        if self._digest is _sha256 or spooled or index >= len(self._digests):
            return False
        with memoryview(data) as view:
            return self._digest(view) == self._digests[index]

    @property
    def total(self) -> int:
        """Bytes of the database at the cut."""
        return self._total if self._changed is None else self._changed.total

    def close(self) -> None:
        """Drop the scratch file."""
        self._drop()

    def _compare(self, view: memoryview, offset: int, spool: _Spool) -> None:
        if rawfile.read_into(self._raw, view, offset) < len(view):
            raise SourceError(
                f"{self._raw.path} is shorter than its page count says: it is corrupt",
                hint="restore the last proven snapshot",
            )
        first = offset // self._chunk
        for index, digest in enumerate(_digests(view, self._chunk, self._digest), start=first):
            if index >= len(self._digests) or digest != self._digests[index]:
                place = (index - first) * self._chunk
                with view[place : place + self._chunk] as changed:
                    spool.add(index, changed)

    def _drop(self) -> None:
        if self._changed is not None:
            self._changed.close()
            self._changed = None


class _Spool:
    """Chunks that wait for the end of the hold: in memory, then in one scratch file."""

    def __init__(self, scratch: Path, total: int) -> None:
        self.total = total
        self._lock = threading.Lock()
        self._places: list[tuple[int, int, int]] = []
        self.indexes: set[int] = set()
        self._end = 0
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - lives as long as the spool
            max_size=_SPOOL_BYTES, dir=str(scratch)
        )

    def add(self, index: int, data: memoryview) -> None:
        with self._lock:
            self._places.append((index, self._end, len(data)))
            self.indexes.add(index)
            self._end += len(data)
            try:
                self._file.write(data)
            except OSError as error:
                raise SourceError(
                    f"the changed chunks of a database cannot be kept for a moment: {error}",
                    hint="make room in the temporary folder (TMPDIR)",
                ) from error

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """(index, bytes) of each kept chunk."""
        for index, place, length in self._places:
            self._file.seek(place)
            yield index, self._file.read(length)

    def close(self) -> None:
        self._file.close()


def _sha256(view: memoryview) -> bytes:
    return hashlib.sha256(view).digest()


def _digests(view: memoryview, chunk: int, digest: Digest) -> list[bytes]:
    found = []
    for place in range(0, len(view), chunk):
        with view[place : place + chunk] as part:
            found.append(digest(part))
    return found
