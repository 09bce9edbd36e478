"""A repository in memory: both contracts of `safetake.model` kept faithfully, nothing on disk.

It hashes in two threads behind a bounded pool of buffers, as the engine does, and fills each buffer
with garbage when it comes back, so that a source which goes on using a submitted buffer is found
out. With `keep=False` it forgets the bytes (a null writer, for measurements of sources).
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetake.errors import DamagedError
from safetake.model import BATCH_BYTES, MAX_BLOB_BYTES, BlobId, Node, Reader

POOL = 8
_GARBAGE = bytes([0xA5]) * BATCH_BYTES


class _Ids:
    """A `Pending` over futures."""

    def __init__(self, future: Future[list[BlobId]]) -> None:
        self._future = future

    def result(self) -> list[BlobId]:
        return self._future.result()


class MemoryRepository:
    """A `Writer` and a `Reader` over dictionaries; `close` ends its threads.

    Counters for tests: `stored_bytes` (new plaintext), `submitted_bytes`, `buffers_out`, and
    `fetched` (ids in the order in which `blob` gave them).
    """

    def __init__(self, *, keep: bool = True, threads: int = 2, poison: bool = True) -> None:
        self.blobs: dict[BlobId, bytes] = {}
        self.lengths: dict[BlobId, int] = {}
        self.trees: dict[BlobId, list[Node]] = {}
        self.fetched: list[BlobId] = []
        self.submitted_bytes = 0
        self.stored_bytes = 0
        self.buffers_out = 0
        self._keep = keep
        self._poison = poison
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="memory-writer")
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(POOL):
            self._free.put(bytearray(BATCH_BYTES))

    def __enter__(self) -> MemoryRepository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; the stored blobs stay readable."""
        self._threads.shutdown()

    # Writer

    def buffer(self) -> bytearray:
        buffer = self._free.get()
        with self._lock:
            self.buffers_out += 1
        return buffer

    def discard(self, buffer: bytearray) -> None:
        self._take_back(buffer)

    def submit(self, buffer: bytearray, sizes: Sequence[int]) -> _Ids:
        if len(buffer) != BATCH_BYTES:
            raise ValueError(f"a buffer of {len(buffer)} bytes is not one of the pool")
        if sum(sizes) > BATCH_BYTES:
            raise ValueError(f"{sum(sizes)} bytes do not fit into a buffer")
        for size in sizes:
            self._check_size(size)
        return _Ids(self._threads.submit(self._work, buffer, list(sizes)))

    def store(self, data: bytes) -> _Ids:
        self._check_size(len(data))
        future: Future[list[BlobId]] = Future()
        future.set_result([self._put(memoryview(data))])
        return _Ids(future)

    def save_tree(self, nodes: Iterable[Node]) -> BlobId:
        entries = sorted(nodes, key=lambda node: os.fsencode(node.name))
        names = [node.name for node in entries]
        if len(set(names)) != len(names):
            raise ValueError(f"duplicate names in one directory: {names}")
        for node in entries:
            if not node.name or "/" in node.name or node.name in (".", ".."):
                raise ValueError(f"bad name in a tree: {node.name!r}")
            if (node.type == "file") != (node.content is not None):
                raise ValueError(f"{node.name!r}: files have content, and nothing else has")
            if (node.type == "dir") != (node.subtree is not None):
                raise ValueError(f"{node.name!r}: directories have a subtree, and nothing else has")
        text = json.dumps([asdict(node) for node in entries], default=bytes.hex)
        tree_id = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        with self._lock:
            self.trees[tree_id] = entries
        return tree_id

    def has(self, ids: Iterable[BlobId]) -> bool:
        with self._lock:
            return all(blob_id in self.lengths for blob_id in ids)

    def whole(self, tree_id: BlobId) -> bool:
        subtrees, content = self.references(tree_id)
        return self.has(content) and all(map(self.whole, subtrees))

    # Reader

    def blob(self, blob_id: BlobId) -> bytes:
        with self._lock:
            data = self.blobs.get(blob_id)
            self.fetched.append(blob_id)
        if data is None:
            raise DamagedError(f"blob {blob_id.hex()} is not in the repository")
        if hashlib.sha256(data).digest() != blob_id:
            raise DamagedError(f"blob {blob_id.hex()} does not match its hash")
        return data

    def sizes(self, ids: Sequence[BlobId]) -> list[int]:
        with self._lock:
            missing = [blob_id for blob_id in ids if blob_id not in self.lengths]
            if missing:
                raise DamagedError(f"blob {missing[0].hex()} is not in the repository")
            return [self.lengths[blob_id] for blob_id in ids]

    def tree(self, tree_id: BlobId) -> list[Node]:
        with self._lock:
            entries = self.trees.get(tree_id)
        if entries is None:
            raise DamagedError(f"tree {tree_id.hex()} is not in the repository")
        return list(entries)

    def references(self, tree_id: BlobId) -> tuple[list[BlobId], list[BlobId]]:
        nodes = self.tree(tree_id)
        subtrees = [node.subtree for node in nodes if node.subtree is not None]
        return subtrees, [blob_id for node in nodes for blob_id in node.content or ()]

    @property
    def fetched_bytes(self) -> int:
        """Plaintext bytes that `blob` gave out so far."""
        with self._lock:
            return sum(self.lengths.get(blob_id, 0) for blob_id in self.fetched)

    def _check_size(self, size: int) -> None:
        if not 1 <= size <= MAX_BLOB_BYTES:
            raise ValueError(f"a blob of {size} bytes is not allowed")

    def _work(self, buffer: bytearray, sizes: list[int]) -> list[BlobId]:
        ids: list[BlobId] = []
        offset = 0
        with memoryview(buffer) as view:
            for size in sizes:
                with view[offset : offset + size] as chunk:
                    ids.append(self._put(chunk))
                offset += size
        self._take_back(buffer)
        return ids

    def _put(self, chunk: memoryview) -> BlobId:
        blob_id = hashlib.sha256(chunk).digest()
        with self._lock:
            self.submitted_bytes += len(chunk)
            if blob_id not in self.lengths:
                self.lengths[blob_id] = len(chunk)
                self.stored_bytes += len(chunk)
                if self._keep:
                    self.blobs[blob_id] = bytes(chunk)
        return blob_id

    def _take_back(self, buffer: bytearray) -> None:
        if self._poison:
            buffer[:] = _GARBAGE
        with self._lock:
            self.buffers_out -= 1
        self._free.put(buffer)


def read_file(reader: Reader, node: Node) -> bytes:
    """All bytes of a file node."""
    return b"".join(reader.blob(blob_id) for blob_id in node.content or [])


def find(reader: Reader, node: Node, *path: str) -> Node:
    """The node at `path` below the directory `node`; KeyError when there is none."""
    for name in path:
        if node.subtree is None:
            raise KeyError(name)
        node = {entry.name: entry for entry in reader.tree(node.subtree)}[name]
    return node


def materialise(reader: Reader, node: Node, directory: Path) -> None:
    """Write the content of directory `node` into `directory` (made when it is missing).

    Brings back files, folders, symlinks, FIFOs, hard links, permission bits, modification times and
    extended attributes; not owners, no sockets, and no devices (an error).
    """
    _write_directory(reader, node, directory, {})


def _write_directory(
    reader: Reader, node: Node, directory: Path, linked: dict[tuple[int, int], Path]
) -> None:
    if node.subtree is None:
        raise ValueError(f"{node.name!r} is no directory")
    directory.mkdir(parents=True, exist_ok=True)
    for entry in reader.tree(node.subtree):
        _write_entry(reader, entry, directory / entry.name, linked)
    _write_metadata(node, directory)


def _write_entry(
    reader: Reader, entry: Node, path: Path, linked: dict[tuple[int, int], Path]
) -> None:
    if entry.type == "socket":
        return  # as a restore does
    if entry.type == "dir":
        _write_directory(reader, entry, path, linked)
        return
    if entry.type == "symlink":
        path.symlink_to(entry.linktarget)
        os.utime(path, ns=(entry.atime_ns, entry.mtime_ns), follow_symlinks=False)
        return
    if entry.type == "fifo":
        os.mkfifo(path)
    elif entry.type == "file":
        key = (entry.device_id, entry.inode)
        if entry.links > 1 and key in linked:
            path.hardlink_to(linked[key])
            return
        linked[key] = path
        with path.open("wb") as file:
            for blob_id in entry.content or []:
                file.write(reader.blob(blob_id))
    else:
        raise ValueError(f"cannot write a {entry.type} in a test: {path}")
    _write_metadata(entry, path)


def _write_metadata(node: Node, path: Path) -> None:
    for name, value in node.xattrs.items():
        os.setxattr(path, name, value)
    path.chmod(node.mode & 0o7777)
    os.utime(path, ns=(node.atime_ns, node.mtime_ns))


def entry_of(captured: Any) -> dict[str, Any]:
    """The manifest entry of a `Captured`, gone through JSON as a real one is."""
    document: dict[str, Any] = json.loads(
        json.dumps(
            {
                "bytes": captured.bytes,
                "facts": captured.facts,
                "fingerprint": captured.fingerprint,
                "one_moment": captured.one_moment,
                "method": captured.method,
                "unread": captured.unread,
                "notes": captured.notes,
            }
        )
    )
    return document
