"""Pack files: sealed blobs, a sealed header that lists them, and the header's length.

Header entry: type byte (0 data, 1 tree, +2 when compressed) ‖ sealed length (4, little-endian) ‖
plain length (4, only when compressed) ‖ SHA-256 of the plaintext (32).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from safetake.errors import DamagedError
from safetake.model import MAX_BLOB_BYTES
from safetake.repository.crypto import OVERHEAD, Sealer

PACK_BYTES = 16 << 20
"""A pack is closed when it is at least this long."""

PACK_BLOBS = 100_000
"""A pack is closed when it holds this many: with one more batch of the smallest chunks its header
stays under the 16 MiB that stock restic accepts."""

MAX_HEADER_BYTES = 16 << 20
"""Longest header that is accepted, as in restic."""

MAX_TREE_BYTES = 1 << 30
"""Longest tree that is accepted (a folder of some million entries is one blob)."""

_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")


@dataclass(frozen=True, slots=True)
class Entry:
    """One blob in a pack. `plain_length` is 0 when it is stored without compression."""

    id: bytes
    tree: bool
    offset: int
    length: int
    """Sealed bytes in the pack."""
    plain_length: int

    @property
    def size(self) -> int:
        """Bytes of the plaintext."""
        return self.plain_length or self.length - OVERHEAD


def encode_header(entries: Sequence[Entry], sealer: Sealer) -> bytes:
    """The end of a pack: sealed header and its length."""
    parts = []
    for entry in entries:
        if entry.plain_length:
            parts.append(
                _COMPRESSED.pack(2 + entry.tree, entry.length, entry.plain_length, entry.id)
            )
        else:
            parts.append(_PLAIN.pack(int(entry.tree), entry.length, entry.id))
    sealed = sealer.seal(b"".join(parts))
    return bytes(sealed) + struct.pack("<I", len(sealed))


def header_length(tail: bytes, pack_size: int, what: str) -> int:
    """The sealed header's length from the last four bytes. Raises DamagedError."""
    if len(tail) < 4:
        raise DamagedError(f"{what} is damaged: truncated")
    length: int = struct.unpack("<I", tail[-4:])[0]
    if length < OVERHEAD + _PLAIN.size or length > min(pack_size - 4, MAX_HEADER_BYTES):
        raise DamagedError(f"{what} is damaged: impossible header length {length}")
    return length


def decode_header(
    sealed: bytes | memoryview, pack_size: int, sealer: Sealer, what: str
) -> list[Entry]:
    """The entries of a sealed header; they fill the pack without a gap. Raises DamagedError."""
    plain = bytes(sealer.unseal(sealed, f"the header of {what}"))
    entries = []
    at = offset = 0
    try:
        while at < len(plain):
            kind = plain[at]
            if kind in (2, 3):
                _, length, plain_length, blob = _COMPRESSED.unpack_from(plain, at)
                at += _COMPRESSED.size
                if not 0 < plain_length <= (MAX_TREE_BYTES if kind == 3 else MAX_BLOB_BYTES):
                    raise DamagedError(f"{what} is damaged: impossible blob size {plain_length}")
            elif kind in (0, 1):
                _, length, blob = _PLAIN.unpack_from(plain, at)
                at += _PLAIN.size
                plain_length = 0
            else:
                raise DamagedError(f"{what} is damaged: unknown blob type {kind}")
            entries.append(Entry(blob, bool(kind & 1), offset, length, plain_length))
            offset += length
    except struct.error as error:
        raise DamagedError(f"{what} is damaged: cut header") from error
    if offset != pack_size - 4 - len(sealed):
        raise DamagedError(f"{what} is damaged: its blobs do not fill it")
    return entries
