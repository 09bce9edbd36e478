"""Unpacked files: JSON documents (index, snapshot, lock, proof), each sealed under its own hash."""

from __future__ import annotations

import hashlib

from safetake.errors import DamagedError
from safetake.repository.codec import decode_unpacked, encode_unpacked
from safetake.repository.crypto import MasterKey, Sealer
from safetake.storage import Kind, Storage


def save_unpacked(storage: Storage, key: MasterKey, kind: Kind, plain: bytes) -> str:
    """Store a JSON document durably; returns its name, the SHA-256 of the sealed bytes."""
    sealed = bytes(Sealer(key).seal(encode_unpacked(plain)))
    name = hashlib.sha256(sealed).hexdigest()
    storage.put(kind, name, sealed)
    return name


def load_sealed(storage: Storage, kind: Kind, name: str) -> bytes:
    """The sealed bytes that a name stands for. Raises FileNotFoundError, DamagedError."""
    what = f"{kind}/{name}"
    sealed = storage.get(kind, name)
    if hashlib.sha256(sealed).hexdigest() != name:
        hints = {
            "index": "make it again from the packs with `restic rebuild-index` (0.16 and newer: "
            "`restic repair index`)",
            "history": "remove this file; `safetake history --verify` says which records it held "
            "and whether a machine still has them",
            "proofs": "remove this file, then run `safetake verify` again",
        }
        raise DamagedError(
            f"{what} is damaged: its content does not hash to its name",
            hint=hints.get(
                kind,
                "bring this file back from a copy of the repository, then run `safetake check`",
            ),
        )
    return sealed


def load_unpacked(storage: Storage, key: MasterKey, kind: Kind, name: str) -> bytes:
    """The JSON of a document. Raises FileNotFoundError, DamagedError naming the file."""
    what = f"{kind}/{name}"
    return decode_unpacked(Sealer(key).unseal(load_sealed(storage, kind, name), what), what)
