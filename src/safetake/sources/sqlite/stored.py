"""Stored chunks of a database that is still at hand: read from the live file when they are there.

`LiveFirst` answers for a content list by reading the live file and comparing its SHA-256 with the
chunk's id, and asks the repository only for chunks that have moved on since. What it returns is
exactly what is stored; hashing costs half of decrypting and decompressing. Where this run copied
the chunk itself, the hash that the hold compared with (`same`, keyed xxh3) answers first: SHA-256
of a whole database would be a second on the way of every increment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from safetake.errors import DamagedError
from safetake.model import BlobId, Node, Reader
from safetake.sources.sqlite import rawfile


class LiveFirst:
    """A `model.Reader` for one file's chunks; `reader` may be None when nothing has moved on."""

    def __init__(
        self,
        reader: Reader | None,
        raw: rawfile.RawFile,
        content: Sequence[BlobId],
        chunk: int,
        total: int,
        same: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        self._reader = reader
        self._raw = raw
        self._same = same
        self._chunk = chunk
        self._length = {
            blob_id: min(chunk, total - index * chunk) for index, blob_id in enumerate(content)
        }
        self._place = {blob_id: index * chunk for index, blob_id in enumerate(content)}

    def blob(self, blob_id: BlobId) -> bytes:
        data = rawfile.read(self._raw, self._length[blob_id], self._place[blob_id])
        if self._same is not None and self._same(self._place[blob_id] // self._chunk, data):
            return data
        if hashlib.sha256(data).digest() == blob_id:
            return data
        if self._reader is None:
            raise DamagedError(f"chunk {blob_id.hex()} moved on, and no repository is at hand")
        return self._reader.blob(blob_id)

    def sizes(self, ids: Sequence[BlobId]) -> list[int]:
        return [self._length[blob_id] for blob_id in ids]

    def references(self, tree_id: BlobId) -> tuple[list[BlobId], list[BlobId]]:
        raise DamagedError(f"tree {tree_id.hex()} is not part of a database file")

    def tree(self, tree_id: BlobId) -> list[Node]:
        raise DamagedError(f"tree {tree_id.hex()} is not part of a database file")
