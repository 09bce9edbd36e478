"""Whether content compresses, by the measure with which the repository stores it.

A snapshot says of each of its blobs how small it became, in the index, without reading it. Live
content is measured with the same compressor in pieces of the same order. Text, rows and code come
to a fifth to a half; what is encrypted comes to all of itself. It says nothing about content that
never compressed (images, archives), nor about encryption that is written as text (base64).
"""

from __future__ import annotations

from collections.abc import Sequence

from safetake.model import BlobId
from safetake.repository import Repository
from safetake.repository.codec import compress
from safetake.repository.crypto import OVERHEAD

DENSE = 0.95
"""Compressed to more than this share of itself, content does not compress."""
LOOSE = 0.9
"""Compressed to less than this share, it does. Between the two nothing is said."""
LEAST_BYTES = 256
"""Shorter pieces say nothing."""

_ARCHIVES = (
    (0, b"\x1f\x8b"),
    (0, b"PK\x03\x04"),
    (0, b"\x28\xb5\x2f\xfd"),
    (0, b"BZh"),
    (0, b"\xfd7zXZ"),
    (0, b"7z\xbc\xaf"),
    (0, b"\x89PNG"),
    (0, b"\xff\xd8\xff"),
    (0, b"GIF8"),
    (8, b"WEBP"),
    (4, b"ftyp"),
    (0, b"OggS"),
    (0, b"fLaC"),
    (0, b"ID3"),
    (0, b"%PDF"),
    (0, b"\x1aE\xdf\xa3"),
)


def density(piece: bytes) -> float | None:
    """Compressed length by length; None when it is too short to tell."""
    return len(compress(piece)) / len(piece) if len(piece) >= LEAST_BYTES else None


def known_form(head: bytes) -> bool:
    """Whether content says that it is an archive, an image, a film: it is meant to be dense."""
    return any(head[at : at + len(magic)] == magic for at, magic in _ARCHIVES)


def stored_density(repository: Repository, content: Sequence[BlobId]) -> float | None:
    """Of stored blobs, from the index alone; None when they are too short or are not there."""
    plain = packed = 0
    for blob_id in content:
        places = repository.index.locations(blob_id, False)
        if not places:
            return None
        entry = places[0][1]
        size = entry.plain_length or entry.length - OVERHEAD
        plain, packed = plain + size, packed + min(size, entry.length - OVERHEAD)
    return packed / plain if plain >= LEAST_BYTES else None
