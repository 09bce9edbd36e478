"""zstd, in the two places where format v2 has it, with bounds against bombs.

A blob or an unpacked file (index, snapshot, lock) is one zstd frame. Level 1: on text it is
the slowest kernel of a full backup already, and a higher level is slower for a few per cent.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from safetake.errors import DamagedError

if TYPE_CHECKING or sys.version_info < (3, 14):
    from backports import zstd
else:
    from compression import zstd

LEVEL = 1
MAX_UNPACKED_BYTES = 512 << 20
"""Largest plain index, snapshot or lock that is accepted (restic writes indexes under 10 MB)."""

_local = threading.local()


def compress(plain: bytes | bytearray | memoryview) -> bytes:
    """One frame. The frame names its content size, so a reader can allocate once."""
    compressor: zstd.ZstdCompressor | None = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstd.ZstdCompressor(LEVEL)
    # A known size is written into the frame; one context a thread is kept and used again.
    compressor.set_pledged_input_size(len(plain))
    return compressor.compress(plain, zstd.ZstdCompressor.FLUSH_FRAME)


def decompress(packed: bytes | bytearray | memoryview, limit: int, what: str) -> bytes:
    """The plaintext of exactly one frame, at most `limit` bytes. Raises DamagedError."""
    decompressor = zstd.ZstdDecompressor()
    try:
        plain = decompressor.decompress(packed, max_length=limit + 1)
    except zstd.ZstdError as error:
        raise DamagedError(f"{what} is damaged: not valid zstd ({error})") from error
    if len(plain) > limit:
        raise DamagedError(f"{what} is damaged: larger than the {limit} bytes that it declares")
    if not decompressor.eof or decompressor.unused_data:
        raise DamagedError(f"{what} is damaged: not exactly one zstd frame")
    return plain


def encode_unpacked(plain: bytes) -> bytes:
    """An index, snapshot or lock before sealing: 0x02 ‖ zstd."""
    return b"\x02" + compress(plain)


def decode_unpacked(data: bytes | bytearray, what: str) -> bytes:
    """The JSON of an unpacked file: plain (first byte `{` or `[`) or 0x02 ‖ zstd."""
    if not data:
        raise DamagedError(f"{what} is damaged: empty")
    first = data[0]
    if first in b"{[":
        return bytes(data)
    if first != 2:
        raise DamagedError(f"{what} is damaged: unknown encoding {first}")
    return decompress(memoryview(data)[1:], MAX_UNPACKED_BYTES, what)
