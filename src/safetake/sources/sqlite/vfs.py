"""SQLite straight out of a snapshot: a read-only VFS over the blobs of one stored database.

`open_snapshot` gives a connection that reads pages from a `Reader` as SQLite asks for them, keeps a
bounded number of decoded blobs, and can do nothing but read: no file of the machine is opened, no
other database attached, nothing written. It does not check the database as a whole; each blob's
hash is checked by the reader.
"""

from __future__ import annotations

import bisect
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import apsw

from safetake.errors import DamagedError
from safetake.model import BlobId, Node, Reader
from safetake.sources.sqlite.readonly import restrict

CACHE_BYTES = 32 << 20
"""Decoded blobs that a connection keeps; SQLite's own page cache (2 MB) comes on top."""
_SAMPLES = 50

_serial = itertools.count()


class BlobFile:
    """Random access to the bytes of a content list, with a least-recently-used cache of blobs.

    `fetched` and `fetched_bytes` count what was asked of the reader. Not for several threads.
    """

    def __init__(
        self,
        reader: Reader,
        content: Sequence[BlobId],
        size: int,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._reader = reader
        self._content = content
        self._ends = chunk_ends(reader, content, size)
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._cached = 0
        self._limit = cache_bytes
        self.size = self._ends[-1] if self._ends else 0
        self.fetched = 0
        self.fetched_bytes = 0

    def read(self, amount: int, offset: int) -> bytes:
        """Up to `amount` bytes from `offset`, fewer at the end. Raises DamagedError."""
        end = min(offset + amount, self.size)
        parts: list[bytes] = []
        index = bisect.bisect_right(self._ends, offset)
        while offset < end:
            blob = self._blob(index)
            start = offset - (self._ends[index] - len(blob))
            part = blob[start : start + end - offset]
            parts.append(part)
            offset += len(part)
            index += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _blob(self, index: int) -> bytes:
        blob = self._cache.get(index)
        if blob is not None:
            self._cache.move_to_end(index)
            return blob
        blob_id = self._content[index]
        blob = self._reader.blob(blob_id)
        length = self._ends[index] - (self._ends[index - 1] if index else 0)
        if len(blob) != length:
            raise DamagedError(
                f"blob {blob_id.hex()} has {len(blob)} bytes, the index says {length}",
                hint="run `safetake check --read-data`",
            )
        self.fetched += 1
        self.fetched_bytes += length
        self._cache[index] = blob
        self._cached += length
        while self._cached > self._limit and len(self._cache) > 1:
            self._cached -= len(self._cache.popitem(last=False)[1])
        return blob


def chunk_ends(reader: Reader, content: Sequence[BlobId], size: int) -> Sequence[int]:
    """Where each blob of a file of `size` bytes ends.

    Asking the index for each of 18,000 blobs cost more than the query (0.2 s): a file in equal
    chunks, as this package stores them, is told by its first, last and some chunks in between.
    """
    if len(content) > 2 * _SAMPLES:
        step = len(content) // _SAMPLES
        *equal, last = reader.sizes([*content[:-1:step], content[-1]])
        chunk = equal[0]
        rest = size - last
        if set(equal) == {chunk} and chunk.bit_count() == 1 and rest == chunk * (len(content) - 1):
            return [*range(chunk, rest + 1, chunk), size]
    return list(itertools.accumulate(reader.sizes(content)))


class SnapshotConnection(apsw.Connection):
    """A connection over a `BlobFile`, reachable as `source` for its counters."""

    source: BlobFile
    vfs: apsw.VFS


def open_snapshot(
    reader: Reader, node: Node, *, cache_bytes: int = CACHE_BYTES
) -> SnapshotConnection:
    """Open the database of `node`: its file node, or a source's folder that holds just that file.

    Raises DamagedError when the stored database is not one, ValueError for any other node.
    """
    source, vfs = blob_vfs(reader, node, cache_bytes)
    connection = SnapshotConnection(
        "file:snapshot?immutable=1",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        vfs=vfs.vfs_name,
    )
    connection.source, connection.vfs = source, vfs
    restrict(connection)
    return connection


def blob_vfs(
    reader: Reader, node: Node, cache_bytes: int = CACHE_BYTES
) -> tuple[BlobFile, BlobVFS]:
    """The file of `node` and a VFS that serves it under every name; both must outlive their users.

    Another connection attaches it: `file:snapshot?immutable=1&vfs=` and the VFS's `vfs_name`.
    Raises as `open_snapshot`.
    """
    node = database_node(reader, node)
    source = BlobFile(reader, node.content or [], node.size, cache_bytes)
    return source, BlobVFS(f"safetake-{next(_serial)}", source)


def database_node(reader: Reader, node: Node) -> Node:
    """`node` when it is a file, else the one file in it. Raises ValueError."""
    if node.content is not None:
        return node
    nodes = reader.tree(node.subtree) if node.subtree is not None else []
    files = [entry for entry in nodes if entry.content is not None]
    if len(files) != 1:
        raise ValueError(f"{node.name!r} holds {len(files)} files, not one database")
    return files[0]


class BlobVFS(apsw.VFS):
    """Knows one file, whatever its name, and refuses every other."""

    def __init__(self, name: str, source: BlobFile) -> None:
        self.vfs_name = name
        self._source = source
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        if not flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            raise apsw.CantOpenError("a snapshot opens no other file")
        flags[1] = apsw.SQLITE_OPEN_READONLY
        return _Pages(self._source)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return False

    def xFullPathname(self, name: str) -> str:
        return name

    def xDelete(self, filename: str, syncdir: bool) -> None:
        raise apsw.ReadOnlyError("a snapshot is read-only")

    def xDlOpen(self, filename: str) -> int:
        raise apsw.CantOpenError("a snapshot loads no extension")


class _Pages:
    """The database file as SQLite sees it."""

    def __init__(self, source: BlobFile) -> None:
        self._source = source

    def xRead(self, amount: int, offset: int) -> bytes:
        data = self._source.read(amount, offset)
        if offset <= 18 and offset + len(data) > 19:
            # A WAL-mode header makes SQLite look for a log and shared memory, which a snapshot
            # does not have: show it as a rollback-mode file (bytes 18 and 19 of the format).
            place = 18 - offset
            data = data[:place] + b"\x01\x01" + data[place + 2 :]
        return data

    def xFileSize(self) -> int:
        return self._source.size

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_IMMUTABLE

    def xSectorSize(self) -> int:
        return 4096

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xCheckReservedLock(self) -> bool:
        return False

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xClose(self) -> None:
        pass

    def xSync(self, flags: int) -> None:
        pass

    def xWrite(self, data: bytes, offset: int) -> None:
        raise apsw.ReadOnlyError("a snapshot is read-only")

    def xTruncate(self, size: int) -> None:
        raise apsw.ReadOnlyError("a snapshot is read-only")
