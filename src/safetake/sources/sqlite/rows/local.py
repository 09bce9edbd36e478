"""Chunks of a snapshot out of the live file where they are still the same.

A chunk of the live file whose SHA-256 is the blob's id *is* the stored chunk, however the file
changes meanwhile, so nothing needs to be consistent. Only what has moved on since the snapshot is
read from the repository. (`stored.LiveFirst` does it for a capture, which knows more.)
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

from safetake.model import BlobId, Node, Reader
from safetake.sources.sqlite import rawfile
from safetake.sources.sqlite.vfs import chunk_ends


class LocalFirst:
    """A `model.Reader` for the chunks of one stored database. Safe to use from several threads.

    `local_bytes` and `stored_bytes` count plaintext that came from the live file and from `reader`.
    """

    def __init__(self, reader: Reader, file: Node, raw: rawfile.RawFile) -> None:
        self._reader = reader
        self._raw = raw
        content = file.content or []
        start = 0
        self._places: dict[BlobId, tuple[int, int]] = {}
        for blob_id, end in zip(content, chunk_ends(reader, content, file.size), strict=True):
            # a chunk that occurs several times (zeros) is looked for at its first place only
            self._places.setdefault(blob_id, (start, end - start))
            start = end
        self._counting = threading.Lock()
        self.local_bytes = 0
        self.stored_bytes = 0

    def blob(self, blob_id: BlobId) -> bytes:
        """One chunk. Raises DamagedError, SourceError when the disk of the live file fails."""
        place = self._places.get(blob_id)
        if place is not None:
            start, length = place
            data = rawfile.read(self._raw, length, start)
            if len(data) == length and hashlib.sha256(data).digest() == blob_id:
                with self._counting:
                    self.local_bytes += length
                return data
        data = self._reader.blob(blob_id)
        with self._counting:
            self.stored_bytes += len(data)
        return data

    def sizes(self, ids: Sequence[BlobId]) -> list[int]:
        """As the reader below."""
        return self._reader.sizes(ids)

    def tree(self, tree_id: BlobId) -> list[Node]:
        """As the reader below."""
        return self._reader.tree(tree_id)

    def references(self, tree_id: BlobId) -> tuple[list[BlobId], list[BlobId]]:
        """As the reader below."""
        return self._reader.references(tree_id)
