"""A second, faster digest of every blob: keyed BLAKE3 → SHA-256 id.

Blob ids are SHA-256, which runs at 250 to 400 MB/s a core without SHA extensions; BLAKE3 runs at
several GB/s everywhere. Whoever stores a blob computes both and keeps the pair in `digests/`,
sealed with the repository's key like an index. From then on a chunk whose BLAKE3 is known has its
id without SHA-256 (an increment), and a blob that is read back is proven by its BLAKE3 (check,
restore). The digest's key is derived from the repository's, so the pairs say nothing to others and
cannot be computed by them. Stock restic never looks into `digests/`; without the folder, or with a
damaged file in it, everything works by SHA-256 alone.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

from blake3 import blake3

from safetake.errors import DamagedError
from safetake.repository.crypto import MasterKey, Sealer
from safetake.storage import Storage

DIGEST_BYTES = 20
"""160 bits of a keyed hash: an attacker cannot search collisions without the key."""
PAIR_BYTES = DIGEST_BYTES + 32
_VERSION = b"\x01"
MERGE_FILES = 24
"""More files than this are merged into one by the next writer."""
MAX_RECORDS = 1 << 20
"""Bound of memory: 52 MiB (the blobs of 64 GiB in 64 KiB chunks); the rest goes by SHA-256."""


class Hasher:
    """Keyed BLAKE3 of blobs, in one thread."""

    def __init__(self, key: MasterKey) -> None:
        self._hash = blake3(key=key.derive(b"safetake-digests"))

    def digest(self, data: bytes | bytearray | memoryview) -> bytes:
        """20 bytes."""
        state = self._hash
        state.reset()
        state.update(data)
        return state.digest(length=DIGEST_BYTES)


def read_pairs(storage: Storage, key: MasterKey, name: str) -> bytes:
    """The pairs of one file, one after the other. Raises FileNotFoundError, DamagedError."""
    plain = Sealer(key).unseal(storage.get("digests", name), f"digests/{name}")
    if plain[:1] != _VERSION or (len(plain) - 1) % PAIR_BYTES:
        raise DamagedError(f"digests/{name} is damaged: not a table of digests")
    return bytes(memoryview(plain)[1:])


def write_pairs(storage: Storage, key: MasterKey, pairs: bytes) -> str:
    """Store sorted pairs as one file, durably; returns its name."""
    sealed = bytes(Sealer(key).seal(_VERSION + pairs))
    name = hashlib.sha256(sealed).hexdigest()
    storage.put("digests", name, sealed)
    return name


class Digests:
    """The known pairs. Looking up is safe from several threads; `load` first."""

    def __init__(self, storage: Storage, key: MasterKey) -> None:
        self._storage = storage
        self._key = key
        self._sorted = (b"", array("Q", [0]) * 65537)
        self._recent: dict[bytes, bytes] = {}
        self._unsaved: list[bytes] = []
        self._files: list[str] = []
        self.damaged: list[str] = []
        """Files that did not unseal; they are not used."""

    def __len__(self) -> int:
        return len(self._sorted[0]) // PAIR_BYTES + len(self._recent)

    def load(self) -> None:
        """Read every file. A damaged one is remembered in `damaged` and not used."""
        records: list[bytes] = []
        for name, _ in sorted(self._storage.list("digests")):
            try:
                body = read_pairs(self._storage, self._key, name)
            except FileNotFoundError:
                continue  # merged by another process since the listing
            except DamagedError:
                self.damaged.append(name)
                continue
            self._files.append(name)
            if len(records) + len(body) // PAIR_BYTES <= MAX_RECORDS:
                records.extend(body[at : at + PAIR_BYTES] for at in range(0, len(body), PAIR_BYTES))
        self._set(sorted(set(records)))

    def _set(self, records: list[bytes]) -> None:
        buckets = array("Q")
        filled = 0
        for position, record in enumerate(records):
            bucket = (record[0] << 8) | record[1]
            while filled <= bucket:
                buckets.append(position)
                filled += 1
        while filled <= 65536:
            buckets.append(len(records))
            filled += 1
        self._sorted = (b"".join(records), buckets)

    def find(self, digest: bytes) -> bytes | None:
        """The blob id, or None when it is not known."""
        found = self._recent.get(digest)
        if found is not None:
            return found
        table, buckets = self._sorted
        bucket = (digest[0] << 8) | digest[1]
        low = buckets[bucket]
        high = end = buckets[bucket + 1]
        while low < high:
            middle = (low + high) >> 1
            at = middle * PAIR_BYTES
            if table[at : at + DIGEST_BYTES] < digest:
                low = middle + 1
            else:
                high = middle
        at = low * PAIR_BYTES
        if low < end and table[at : at + DIGEST_BYTES] == digest:
            return table[at + DIGEST_BYTES : at + PAIR_BYTES]
        return None

    def add(self, digest: bytes, blob_id: bytes) -> None:
        """A pair that was just computed from one and the same plaintext."""
        self._recent[digest] = blob_id
        self._unsaved.append(digest + blob_id)

    def save(self) -> None:
        """Store the new pairs; merge the files when there are many."""
        unsaved, self._unsaved = self._unsaved, []
        if not unsaved:
            return
        fresh = sorted(set(unsaved))  # two threads may have worked out the same pair at once
        merge = len(self._files) >= MERGE_FILES
        table = self._sorted[0]
        known = [table[at : at + PAIR_BYTES] for at in range(0, len(table), PAIR_BYTES)]
        if len(known) + len(fresh) <= MAX_RECORDS:
            self._set(sorted({*known, *fresh}))
            table = self._sorted[0]
        for record in fresh:
            self._recent.pop(record[:DIGEST_BYTES], None)
        body = table if merge and len(known) + len(fresh) <= MAX_RECORDS else b"".join(fresh)
        merge = body is table
        name = write_pairs(self._storage, self._key, body)
        if merge:
            self._remove(self._files)
            self._files = []
        self._files.append(name)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._storage.remove("digests", name)


class BlobDigest:
    """Decides whether a plaintext is the blob that an id names. For one thread."""

    def __init__(self, digests: Digests | None, key: MasterKey) -> None:
        self._digests = digests
        self._hasher = Hasher(key) if digests is not None and len(digests) else None

    def fits(self, plain: bytes | bytearray | memoryview, blob_id: bytes) -> bool:
        """True when BLAKE3 leads to the id or SHA-256 is the id."""
        if self._hasher is not None and self._digests is not None:
            found = self._digests.find(self._hasher.digest(plain))
            if found is not None:
                return found == blob_id
        return hashlib.sha256(plain).digest() == blob_id
