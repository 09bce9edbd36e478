"""Filling a pack: sealed blobs one after the other, then the header, and the name from the hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from safetake.model import BlobId
from safetake.repository.crypto import Sealer
from safetake.repository.pack import PACK_BLOBS, PACK_BYTES, Entry, encode_header
from safetake.storage import Storage, Upload


@dataclass(slots=True)
class ClosedPack:
    """A pack with all of its bytes, to be committed under its name."""

    upload: Upload
    name: str
    entries: list[Entry]
    length: int


class Packer:
    """One open pack: an upload, its hash and its entries. Used by one thread at a time."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._upload: Upload | None = None
        self._sha = hashlib.sha256()
        self._entries: list[Entry] = []
        self._length = 0

    def append(
        self,
        blobs: list[tuple[BlobId, int]],
        sealed: Sequence[bytearray | memoryview],
        *,
        tree: bool,
    ) -> None:
        """(id, plain length when compressed else 0) and the sealed bytes, in the same order."""
        if self._upload is None:
            self._upload = self._storage.upload()
        for (blob_id, plain_length), data in zip(blobs, sealed, strict=True):
            self._sha.update(data)
            self._entries.append(Entry(blob_id, tree, self._length, len(data), plain_length))
            self._length += len(data)
        self._upload.write(list(sealed))

    @property
    def full(self) -> bool:
        """Whether it is time to close it."""
        return self._length >= PACK_BYTES or len(self._entries) >= PACK_BLOBS

    def close(self, sealer: Sealer) -> ClosedPack | None:
        """The finished pack to commit, or None when there is nothing in it."""
        if self._upload is None:
            return None
        header = encode_header(self._entries, sealer)
        self._sha.update(header)
        self._upload.write([header])
        closed = ClosedPack(
            self._upload, self._sha.hexdigest(), self._entries, self._length + len(header)
        )
        self._upload = None
        self._sha = hashlib.sha256()
        self._entries = []
        self._length = 0
        return closed

    def abort(self) -> None:
        """Forget what was not closed."""
        if self._upload is not None:
            self._upload.abort()
            self._upload = None
