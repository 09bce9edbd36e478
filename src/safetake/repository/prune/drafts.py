"""New index files that are written already and not visible yet, so that nobody waits for them.

They are temporary files until `publish` gives each its name. A pack is never split over two files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from safetake.repository.codec import encode_unpacked
from safetake.repository.crypto import Sealer
from safetake.repository.index import MAX_ENTRIES, encode_index

if TYPE_CHECKING:
    from safetake.repository import Repository
    from safetake.repository.pack import Entry
    from safetake.repository.prune.table import Bools, Table
    from safetake.storage import Upload


class IndexDrafts:
    """Packs are added, files come out. Memory: the blobs of one file."""

    def __init__(self, repository: Repository) -> None:
        self._storage = repository.storage
        self._sealer = Sealer(repository.key)
        self._packs: list[tuple[str, list[Entry]]] = []
        self._blobs = 0
        self._uploads: list[tuple[str, Upload]] = []

    def add(self, pack: str, entries: list[Entry]) -> None:
        """A pack with all of its blobs. Raises StorageError."""
        self._packs.append((pack, entries))
        self._blobs += len(entries)
        if self._blobs >= MAX_ENTRIES:
            self.finish()

    def add_packs(self, table: Table, chosen: Bools) -> None:
        """Packs as they were in the old indexes. Raises StorageError."""
        entries: list[Entry] = []
        number = -1
        for row in table.of_packs(chosen):
            if table.pack[row] != number:
                if entries:
                    self.add(table.packs[number], entries)
                number, entries = int(table.pack[row]), []
            entries.append(table.entry(int(row)))
        if entries:
            self.add(table.packs[number], entries)

    def finish(self) -> None:
        """Write what was added and not written. Raises StorageError."""
        if not self._packs:
            return
        sealed = bytes(self._sealer.seal(encode_unpacked(encode_index(self._packs, []))))
        self._packs, self._blobs = [], 0
        upload = self._storage.upload()
        self._uploads.append((hashlib.sha256(sealed).hexdigest(), upload))
        upload.write([sealed])

    def publish(self) -> None:
        """Make them visible, each durable. Raises StorageError."""
        self.finish()
        while self._uploads:
            name, upload = self._uploads[-1]
            upload.commit("index", name)
            self._uploads.pop()

    def abort(self) -> None:
        """Forget what was not published."""
        for _, upload in self._uploads:
            upload.abort()
        self._uploads = []


def packs_of(names: Iterable[str], repository: Repository) -> set[str]:
    """The packs that some index files name. Raises FileNotFoundError, DamagedError."""
    from safetake.repository.documents import load_unpacked
    from safetake.repository.index import Index

    index = Index()
    for name in names:
        index.load(name, load_unpacked(repository.storage, repository.key, "index", name))
    return set(index.table()[0])
