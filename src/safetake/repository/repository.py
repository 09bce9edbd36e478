"""A repository: restic's format v2 over a storage, opened with a password.

`init` makes one, `open` finds the key; index and digests are loaded when they are first needed. The
order of a backup is packs, index, snapshot (`writer`, `flush`, `save_snapshot`); readers list the
snapshots before they load the index, so that what they list is always complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from safetake.errors import (
    DamagedError,
    RepositoryLockedError,
    RepositoryMissingError,
    SafetakeError,
)
from safetake.model import BlobId
from safetake.repository.cache import IndexCache
from safetake.repository.crypto import MasterKey, Sealer
from safetake.repository.digests import Digests
from safetake.repository.documents import load_sealed, load_unpacked, save_unpacked
from safetake.repository.index import Index
from safetake.repository.keys import Keys, find_key, seal_key
from safetake.repository.locks import Locks
from safetake.repository.polynomial import random_polynomial
from safetake.repository.reader import RepositoryReader
from safetake.repository.writer import RepositoryWriter
from safetake.storage import Kind, Storage

_LISTINGS = 5
"""So often is the index listed again when files vanish while they are read."""


class Repository:
    """An open repository. A context manager; closing it forgets the key."""

    def __init__(
        self, storage: Storage, key: MasterKey, key_id: str, config: dict[str, Any]
    ) -> None:
        self.storage = storage
        self.key = key
        self.id = str(config["id"])
        self.version = int(config["version"])
        self.locks = Locks(storage, key)
        self.keys = Keys(storage, key, key_id, lambda: self.lock(exclusive=True))
        self.lock_wait = 0.0
        """Seconds that `lock` waits for others, when it is not told otherwise."""
        self.cache: IndexCache | None = None
        """Where this machine keeps the index between two runs; none unless it is set."""
        self._index: Index | None = None
        self._digests: Digests | None = None
        self._loading = threading.Lock()

    @staticmethod
    def init(storage: Storage, password: str) -> Repository:
        """Make a new repository. Raises SafetakeError when there is one already."""
        if storage.exists():
            raise SafetakeError(
                f"there is a repository at {storage.location} already",
                hint="use it, or name another location",
            )
        storage.create()
        key = MasterKey.generate()
        content = seal_key(key, password)
        name = hashlib.sha256(content).hexdigest()
        storage.put("keys", name, content)
        config = {
            "version": 2,
            "id": os.urandom(32).hex(),
            "chunker_polynomial": f"{random_polynomial():x}",
        }
        plain = json.dumps(config, separators=(",", ":")).encode()
        # the config comes last: without it there is no repository, so a crash leaves none
        storage.put("config", "config", bytes(Sealer(key).seal(plain)))
        return Repository.open(storage, password)

    @staticmethod
    def open(storage: Storage, password: str) -> Repository:
        """Open with any of the keys.

        Raises RepositoryMissingError, WrongPasswordError, DamagedError.
        """
        if not storage.exists():
            raise RepositoryMissingError(
                f"there is no repository at {storage.location}",
                hint="make one with `safetake init`, or correct [repository] location",
            )
        key, name = find_key(storage, password)
        try:
            sealed = storage.get("config", "config")
        except FileNotFoundError as error:
            raise RepositoryMissingError(
                f"the repository at {storage.location} was removed while it was opened",
                hint="correct [repository] location, or make one with `safetake init`",
            ) from error
        plain = Sealer(key).unseal(sealed, "config")
        try:
            config = json.loads(bytes(plain))
            version = config["version"]
            if not isinstance(config["id"], str) or not isinstance(version, int):
                raise DamagedError("config is damaged: no repository id")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedError("config is damaged: not a repository configuration") from error
        if version not in (1, 2):
            raise SafetakeError(
                f"the repository has format version {version}; safetake reads 1 and 2",
                hint="use a newer safetake",
            )
        return Repository(storage, key, name, config)

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *exc: object) -> None:
        self._index = None
        self._digests = None

    def lock(self, *, exclusive: bool, wait: float | None = None) -> AbstractContextManager[None]:
        """Hold a lock; wait so many seconds for others. Raises RepositoryLockedError."""
        return self.locks.hold(exclusive=exclusive, wait=self.lock_wait if wait is None else wait)

    def index_names(self) -> list[str]:
        """Names of all index files."""
        return sorted(name for name, _ in self.storage.list("index"))

    def reload(self) -> None:
        """Forget index and digests, to see what others have written since."""
        self._index = None
        self._digests = None

    @property
    def index(self) -> Index:
        """All blobs; loaded at the first use. Raises DamagedError."""
        if self._index is None:
            self._index = self._read_index()
        return self._index

    def _read_index(self) -> Index:
        for _ in range(_LISTINGS):
            names = self.index_names()
            index = self._kept_index(names) or Index()
            gone = False
            for name in names:
                if name not in index.files:
                    try:
                        content = load_unpacked(self.storage, self.key, "index", name)
                    except FileNotFoundError:
                        gone = True
                        continue
                    index.load(name, content)
            index.freeze()
            if not gone:
                break  # else a prune replaced some since the listing, and wrote others
        return index

    def _renewed_index(self, seen: Index) -> Index | None:
        """The index of now for a reader that has an older one; None when it is still the same."""
        return None if seen.files == set(self.index_names()) else self._read_index()

    def _kept_index(self, names: list[str]) -> Index | None:
        """The index of the last run, if the files that it was made of are all there and whole."""
        index = self.cache.load(names) if self.cache is not None else None
        if index is None:
            return None
        try:
            for name in index.files:
                load_sealed(self.storage, "index", name)
        except FileNotFoundError:
            return None  # replaced since the listing
        return index

    def remember(self, trees: Iterable[BlobId]) -> None:
        """Keep the index and what is known of `trees` for the next run on this machine.

        Call when everything is durable. Never fails.
        """
        if self.cache is not None and self._index is not None:
            self.cache.save(self._index, trees)

    @property
    def digests(self) -> Digests:
        """The second digests; loaded at the first use."""
        with self._loading:
            if self._digests is None:
                digests = Digests(self.storage, self.key)
                digests.load()
                self._digests = digests
            return self._digests

    @property
    def loaded_digests(self) -> Digests | None:
        """The second digests if something has used them already."""
        return self._digests

    def reader(self, *, trust_digests: bool = True) -> RepositoryReader:
        """A reader; without `trust_digests` every blob is proven by SHA-256 alone."""
        digests = self.digests if trust_digests else None
        return RepositoryReader(self.storage, self.key, self.index, digests, self._renewed_index)

    def writer(self) -> RepositoryWriter:
        """A writer; hold a lock for as long as it is open. Raises SafetakeError for format v1."""
        if self.version != 2:
            raise SafetakeError(
                "safetake writes format version 2 only; this repository has version 1",
                hint="upgrade it with `restic migrate upgrade_repo_v2`",
            )
        return RepositoryWriter(self)

    # documents

    def save_snapshot(self, document: dict[str, Any]) -> str:
        """Store a snapshot; everything that it refers to must be flushed. Returns its id.

        Raises RepositoryLockedError when a lock held here was lost: what the snapshot refers to may
        have been pruned meanwhile, and the snapshot is not there afterwards.
        """
        self.locks.assure()
        plain = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        name = save_unpacked(self.storage, self.key, "snapshots", plain)
        try:
            self.locks.assure()  # lost later than this is lost after everybody can see the snapshot
        except RepositoryLockedError:
            self.storage.remove("snapshots", name)
            raise
        return name

    def load_document(self, kind: Kind, name: str) -> dict[str, Any]:
        """A snapshot or proof. Raises FileNotFoundError, DamagedError."""
        plain = load_unpacked(self.storage, self.key, kind, name)
        try:
            document = json.loads(plain)
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{kind}/{name} is damaged: not JSON") from error
        if not isinstance(document, dict):
            raise DamagedError(f"{kind}/{name} is damaged: not a JSON object")
        return document

    def documents(self, kind: Kind) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every document of a kind, by name."""
        for name in sorted(name for name, _ in self.storage.list(kind)):
            try:
                yield name, self.load_document(kind, name)
            except FileNotFoundError:
                continue  # removed since the listing

    def save_document(self, kind: Kind, document: dict[str, Any]) -> str:
        """Store a document durably; returns its name."""
        plain = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        return save_unpacked(self.storage, self.key, kind, plain)
