"""Reading ahead: while SQLite compares one chunk, the next ones are read, hashed and unpacked.

A comparison walks through a table, mostly chunk after chunk. All that is done to a chunk (reading,
SHA-256, decryption, decompression) releases Python's lock, so that it runs beside SQLite.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from safetake.model import BlobId, Node, Reader

_AHEAD = 4
"""Chunks on their way, each at most 1 MiB."""


class ReadAhead:
    """A `model.Reader` over one file's chunks. Close it; not for several threads itself."""

    def __init__(self, reader: Reader, file: Node) -> None:
        self._reader = reader
        self._content = file.content or []
        self._places = {blob_id: place for place, blob_id in enumerate(self._content)}
        self._threads = ThreadPoolExecutor(1, "read-ahead")
        self._coming: OrderedDict[BlobId, Future[bytes]] = OrderedDict()
        self._last = -2

    def close(self) -> None:
        """Wait for what is on its way, and forget it. Idempotent."""
        self._threads.shutdown(cancel_futures=True)
        self._coming.clear()

    def blob(self, blob_id: BlobId) -> bytes:
        """One chunk. Raises what the reader below raises."""
        place = self._places.get(blob_id, -2)
        coming = self._coming.pop(blob_id, None)
        if 0 < place - self._last <= _AHEAD:  # a walk; small leaps are other tables' pages
            for after in self._content[place + 1 : place + 1 + _AHEAD]:
                if after not in self._coming:
                    self._coming[after] = self._threads.submit(self._reader.blob, after)
            while len(self._coming) > 2 * _AHEAD:
                self._coming.popitem(last=False)[1].cancel()
        self._last = place
        return coming.result() if coming is not None else self._reader.blob(blob_id)

    def sizes(self, ids: Sequence[BlobId]) -> list[int]:
        """As the reader below."""
        return self._reader.sizes(ids)

    def tree(self, tree_id: BlobId) -> list[Node]:
        """As the reader below."""
        return self._reader.tree(tree_id)

    def references(self, tree_id: BlobId) -> tuple[list[BlobId], list[BlobId]]:
        """As the reader below."""
        return self._reader.references(tree_id)
