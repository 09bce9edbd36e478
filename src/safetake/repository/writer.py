"""Storing blobs: hash, look up, compress, seal, pack on all cores; durable in the right order.

A source fills buffers of 1 MiB from a bounded pool and says where to cut. Worker threads do the
rest in native code that releases the GIL; each appends to a pack of its own, so there is no lock
between them. A full pack is synced and renamed by one committer thread while the workers go on. The
index is written after its packs (`flush`), the snapshot after the index
(`Repository.save_snapshot`).

Memory: buffers (16 MiB), one batch of sealed blobs a worker, and for each new blob 600 bytes until
its index is written (every 50,000 blobs), 101 bytes in the tables of index and digests after that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safetake.errors import DamagedError, SafetakeError, StorageError
from safetake.model import BATCH_BYTES, MAX_BLOB_BYTES, BlobId, Node, Reader
from safetake.repository.codec import compress
from safetake.repository.crypto import MasterKey, Sealer
from safetake.repository.digests import Digests, Hasher
from safetake.repository.documents import save_unpacked
from safetake.repository.index import MAX_ENTRIES, Index, encode_index
from safetake.repository.pack import Entry
from safetake.repository.packer import ClosedPack, Packer
from safetake.repository.tree import encode_tree
from safetake.storage import Storage

if TYPE_CHECKING:
    from safetake.repository.repository import Repository

BUFFERS = 16
_INCOMPRESSIBLE = 0.97
"""A blob that shrinks less than this is stored plain: reading it back then costs no zstd."""


class GivenUpError(SafetakeError):
    """The run ended for another reason, which is the one to tell."""


@dataclass(slots=True)
class WriterStats:
    """What a writer did, in blobs and bytes."""

    blobs: int = 0
    bytes: int = 0
    new_blobs: int = 0
    new_bytes: int = 0
    """Plaintext bytes that were not in the repository."""
    stored_bytes: int = 0
    """What the repository grew by in packs."""


class _Pending:
    """Ids of one batch."""

    __slots__ = ("_done", "_error", "_ids")

    def __init__(self) -> None:
        self._done = threading.Event()
        self._ids: list[BlobId] = []
        self._error: BaseException | None = None

    def result(self) -> list[BlobId]:
        """Wait for the ids."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._ids

    def resolve(self, ids: list[BlobId]) -> None:
        self._ids = ids
        self._done.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._done.set()


@dataclass(slots=True)
class _Job:
    data: bytearray | bytes
    sizes: Sequence[int]
    pending: _Pending
    pooled: bool


@dataclass(slots=True)
class _Flush:
    """Asks each worker to close its pack; answered through `done`."""

    barrier: threading.Barrier
    close: bool = True
    done: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@dataclass(slots=True)
class _Settle:
    """Answered by the committer when all packs before it are durable, and with `index` indexed."""

    index: bool
    done: threading.Event = field(default_factory=threading.Event)


class RepositoryWriter:
    """The `Writer` of model.py over a repository. A context manager: leaving it without `flush`
    abandons what was not durable (nothing refers to it)."""

    def __init__(self, repository: Repository, *, workers: int | None = None) -> None:
        self._storage: Storage = repository.storage
        self._key: MasterKey = repository.key
        self._index: Index = repository.index
        self._repository = repository
        self.stats = WriterStats()
        self._stats_lock = threading.Lock()
        self._new: dict[tuple[BlobId, bool], object] = {}
        self._buffers: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._unmade = BUFFERS
        self._jobs: queue.Queue[_Job | _Flush | None] = queue.Queue(maxsize=BUFFERS)
        self._commits: queue.Queue[ClosedPack | _Settle | None] = queue.Queue(maxsize=2)
        self._unindexed: list[tuple[str, list[Entry]]] = []
        self._error: BaseException | None = None
        self._trees = Packer(self._storage)
        self._tree_lock = threading.Lock()
        self._tree_sealer = Sealer(self._key)
        self._closed = False
        self._flush_lock = threading.Lock()
        count = workers or min(8, max(2, os.cpu_count() or 2))
        self._workers = [
            threading.Thread(target=self._work, name=f"blobs-{number}", daemon=True)
            for number in range(count)
        ]
        self._committer = threading.Thread(target=self._commit, name="packs", daemon=True)
        for thread in (*self._workers, self._committer):
            thread.start()

    # what a source calls

    def buffer(self) -> bytearray:
        """A free buffer of BATCH_BYTES; waits for one."""
        self._raise()
        if self._unmade > 0 and self._buffers.empty():
            with self._stats_lock:
                if self._unmade > 0:
                    self._unmade -= 1
                    return bytearray(BATCH_BYTES)
        return self._buffers.get()

    def discard(self, buffer: bytearray) -> None:
        """Give a buffer back unused."""
        self._buffers.put(buffer)

    def submit(self, buffer: bytearray, sizes: Sequence[int]) -> _Pending:
        """Store consecutive chunks of a pooled buffer."""
        if sum(sizes) > len(buffer) or any(size < 1 for size in sizes):
            raise ValueError("chunks do not fit the buffer")
        return self._put(_Job(buffer, sizes, _Pending(), pooled=True))

    def store(self, data: bytes) -> _Pending:
        """Store one blob."""
        if not 1 <= len(data) <= MAX_BLOB_BYTES:
            raise ValueError(f"a blob of {len(data)} bytes is not allowed")
        return self._put(_Job(data, [len(data)], _Pending(), pooled=False))

    def cancel(self) -> None:
        """End every thread that stores, at its next buffer or blob: the run is given up."""
        self._error = self._error or GivenUpError("the run was given up")

    def _put(self, job: _Job) -> _Pending:
        self._raise()
        self._jobs.put(job)
        return job.pending

    def save_tree(self, nodes: Iterable[Node]) -> BlobId:
        """Store a directory."""
        self._raise()
        nodes = list(nodes)
        blob = encode_tree(nodes)
        tree_id = hashlib.sha256(blob).digest()
        if self._all_below(nodes):
            self._index.whole[tree_id] = None
        self._store_tree(tree_id, blob)
        return tree_id

    def store_tree(self, tree_id: BlobId, blob: bytes) -> None:
        """Store a directory as it is, byte for byte. Raises DamagedError when it has another id."""
        self._raise()
        if hashlib.sha256(blob).digest() != tree_id:
            raise DamagedError(f"tree {tree_id.hex()[:12]} is damaged: its content changed")
        self._store_tree(tree_id, blob)

    def _store_tree(self, tree_id: BlobId, blob: bytes) -> None:
        if self._index.has(tree_id, True):
            return
        with self._tree_lock:
            if (tree_id, True) in self._new:
                return
            packed = compress(blob)
            small = len(packed) < len(blob)
            sealed = self._tree_sealer.seal(packed if small else blob)
            self._trees.append([(tree_id, len(blob) if small else 0)], [sealed], tree=True)
            self._new[tree_id, True] = tree_id
            if self._trees.full and (closed := self._trees.close(self._tree_sealer)):
                self._commits.put(closed)
        with self._stats_lock:
            self.stats.stored_bytes += len(sealed)
            self.stats.new_blobs += 1
            self.stats.new_bytes += len(blob)

    def _all_below(self, nodes: Iterable[Node]) -> bool:
        """Whether all that the entries name is stored, or will be by this writer's `flush`."""
        whole = self._index.whole
        return all(
            (node.subtree is None or node.subtree in whole) and self.has(node.content or ())
            for node in nodes
        )

    def has(self, ids: Iterable[BlobId]) -> bool:
        """Whether every data blob is stored (or is being stored by this writer)."""
        index, new = self._index, self._new
        return all((blob_id, False) in new or index.has(blob_id, False) for blob_id in ids)

    def whole(self, tree_id: BlobId) -> bool:
        """Whether a directory and all below it are stored. Raises DamagedError."""
        if tree_id in self._index.whole:
            return True
        return self._repository.reader(trust_digests=False).whole(tree_id)

    # the work

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise SafetakeError("the writer is closed")

    def _work(self) -> None:
        sealer = Sealer(self._key)
        hasher = Hasher(self._key)
        packer = Packer(self._storage)
        while True:
            job = self._jobs.get()
            if job is None:
                packer.abort()
                return
            if isinstance(job, _Flush):
                try:
                    job.barrier.wait()  # every worker takes exactly one
                    if job.close and self._error is None:
                        closed = packer.close(sealer)
                        if closed is not None:
                            self._commits.put(closed)
                except (SafetakeError, threading.BrokenBarrierError) as error:
                    self._error = self._error or error
                finally:
                    job.done.release()
                continue
            try:
                if self._error is not None:
                    raise self._error
                ids = self._batch(job, sealer, hasher, packer)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the ids
                self._error = self._error or error
                job.pending.fail(error)
            else:
                job.pending.resolve(ids)
            finally:
                if job.pooled and isinstance(job.data, bytearray):
                    self._buffers.put(job.data)

    def _batch(self, job: _Job, sealer: Sealer, hasher: Hasher, packer: Packer) -> list[BlobId]:
        ids: list[BlobId] = []
        blobs: list[tuple[BlobId, int]] = []
        plains: list[bytes | memoryview] = []
        fresh = 0
        index, new = self._index, self._new
        # what is stored by the way (a manifest) is not worth loading the digests for
        digests = self._repository.digests if job.pooled else self._repository.loaded_digests
        view = memoryview(job.data)
        at = 0
        for size in job.sizes:
            chunk = view[at : at + size]
            at += size
            blob_id = _blob_id(chunk, hasher, digests)
            ids.append(blob_id)
            if index.has(blob_id, False):
                continue
            token = object()
            if new.setdefault((blob_id, False), token) is not token:
                continue  # this run has it already: setdefault is one step under the GIL
            packed = compress(chunk)
            fresh += size
            if len(packed) < size * _INCOMPRESSIBLE:
                blobs.append((blob_id, size))
                plains.append(packed)
            else:
                blobs.append((blob_id, 0))
                plains.append(chunk)
        stored = 0
        if blobs:
            sealed = sealer.seal_all(plains)
            packer.append(blobs, sealed, tree=False)
            stored = sum(map(len, sealed))
            if packer.full and (closed := packer.close(sealer)) is not None:
                self._commits.put(closed)
        with self._stats_lock:
            stats = self.stats
            stats.blobs += len(ids)
            stats.bytes += at
            stats.new_blobs += len(blobs)
            stats.new_bytes += fresh
            stats.stored_bytes += stored
        return ids

    def _commit(self) -> None:
        while True:
            item = self._commits.get()
            if item is None:
                return
            try:
                if self._error is not None:
                    raise self._error
                if isinstance(item, ClosedPack):
                    self._commit_pack(item)
                elif item.index:
                    self._save_index()
            except BaseException as error:  # noqa: BLE001 - raised again by flush and submit
                self._error = self._error or error
                if isinstance(item, ClosedPack):
                    item.upload.abort()
            finally:
                if isinstance(item, _Settle):
                    item.done.set()

    def _commit_pack(self, pack: ClosedPack) -> None:
        pack.upload.commit("data", pack.name)
        self._index.add(pack.name, pack.entries)
        self._unindexed.append((pack.name, pack.entries))
        for entry in pack.entries:  # found in the index from here on
            self._new.pop((entry.id, entry.tree), None)
        if sum(len(entries) for _, entries in self._unindexed) >= MAX_ENTRIES:
            self._save_index()

    def _save_index(self) -> None:
        packs, self._unindexed = self._unindexed, []
        if not packs:
            return
        self._repository.locks.assure()  # else a prune may have taken our packs for leftovers
        name = save_unpacked(self._storage, self._key, "index", encode_index(packs, []))
        self._index.files.add(name)
        self._index.merge()
        digests = self._repository.loaded_digests
        if digests is not None:
            with contextlib.suppress(StorageError):  # only a faster way to the same answers
                digests.save()

    # durability

    def drain(self) -> None:
        """Wait until every submitted chunk is hashed and packed (not yet durable).

        Called before the barrier, so that nothing of ours competes with the held stores for a core.
        """
        self._raise()
        self._ask(close=False)
        self._raise()

    def _ask(self, *, close: bool) -> None:
        flush = _Flush(threading.Barrier(len(self._workers)), close)
        with self._flush_lock:  # two at once would each hold a part of the workers for ever
            try:
                for _ in self._workers:
                    self._jobs.put(flush)
                for _ in self._workers:
                    flush.done.acquire()
            except BaseException:  # interrupted: no worker may wait for the others for ever
                flush.barrier.abort()
                raise

    def reader(self, repository: Repository) -> Reader:
        """A reader that sees what this writer has stored, too."""
        return _OwnReader(self, repository)

    def flush_packs(self) -> None:
        """Close all open packs and wait until they are durable: their blobs can be read then."""
        self._raise()
        self._ask(close=True)
        with self._tree_lock:
            closed = self._trees.close(self._tree_sealer)
        if closed is not None:
            self._commits.put(closed)
        self._settle(index=False)

    def _settle(self, *, index: bool) -> None:
        settle = _Settle(index)
        self._commits.put(settle)
        settle.done.wait()
        self._raise()

    def flush(self) -> None:
        """Everything stored so far is durable and in the index when this returns."""
        self.flush_packs()
        self._settle(index=True)

    def close(self) -> None:
        """Stop the threads; what was not flushed is abandoned. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for _ in self._workers:
            self._jobs.put(None)
        for thread in self._workers:
            thread.join()
        self._trees.abort()
        self._commits.put(None)
        self._committer.join()

    def __enter__(self) -> RepositoryWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _blob_id(chunk: memoryview, hasher: Hasher, digests: Digests | None) -> BlobId:
    if digests is None:
        return hashlib.sha256(chunk).digest()
    digest = hasher.digest(chunk)
    blob_id = digests.find(digest)
    if blob_id is None:
        blob_id = hashlib.sha256(chunk).digest()
        digests.add(digest, blob_id)
    return blob_id


class _OwnReader:
    """Reads what is durable already; makes the rest durable when it is asked for."""

    def __init__(self, writer: RepositoryWriter, repository: Repository) -> None:
        self._writer = writer
        self._index = repository.index
        self._reader = repository.reader(trust_digests=False)

    def _settle(self, ids: Iterable[BlobId], *, tree: bool) -> None:
        if not all(self._index.has(blob_id, tree) for blob_id in ids):
            self._writer.flush_packs()

    def blob(self, blob_id: BlobId) -> bytes:
        self._settle([blob_id], tree=False)
        return self._reader.blob(blob_id)

    def sizes(self, ids: Sequence[BlobId]) -> list[int]:
        self._settle(ids, tree=False)
        return self._reader.sizes(ids)

    def tree(self, tree_id: BlobId) -> list[Node]:
        self._settle([tree_id], tree=True)
        return self._reader.tree(tree_id)

    def references(self, tree_id: BlobId) -> tuple[list[BlobId], list[BlobId]]:
        self._settle([tree_id], tree=True)
        return self._reader.references(tree_id)
