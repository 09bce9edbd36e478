"""How an RDB is written: its opcodes and types, lengths, checksums and compressed strings."""

from __future__ import annotations

import functools
from typing import Any

from safetake.errors import DamagedError

MAX_KEY = 64 << 20
"""Longest key that is read; longer ones are refused, since keys (and only keys) are held whole."""

EOF = 255
SELECTDB = 254
EXPIRE_SECONDS = 253
RESIZEDB = 251
AUX = 250
EXPIRE_MS = 252
FREQ = 249
IDLE = 248
MODULE_AUX = 247
FUNCTION2 = 245
SLOT_INFO = 244

TYPE_NAMES = {
    **dict.fromkeys((0,), "string"),
    **dict.fromkeys((1, 10, 14, 18), "list"),
    **dict.fromkeys((2, 11, 20), "set"),
    **dict.fromkeys((3, 5, 12, 17), "zset"),
    **dict.fromkeys((4, 9, 13, 16, 22, 23, 24, 25), "hash"),
    **dict.fromkeys((15, 19, 21), "stream"),
    **dict.fromkeys((6, 7), "module"),
}


def crc64(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """CRC64 as Redis computes it (Jones, reflected, initial value 0), continued from `crc`."""
    return int(_crc_model().calc(data, crc))


@functools.cache
def _crc_model() -> Any:
    import anycrc

    return anycrc.Model("CRC64-REDIS")


def encode_length(n: int) -> bytes:
    """A length as rdbSaveLen writes it."""
    if n < 1 << 6:
        return bytes((n,))
    if n < 1 << 14:
        return bytes((0x40 | n >> 8, n & 255))
    if n < 1 << 32:
        return b"\x80" + n.to_bytes(4, "big")
    return b"\x81" + n.to_bytes(8, "big")


def header(magic: str, version: int) -> bytes:
    """The nine bytes at the start: `REDIS0010`, `VALKEY080`."""
    return f"{magic}{version:0{9 - len(magic)}d}".encode()


def lzf_decompress(data: bytes, length: int) -> bytes:
    """Undo LZF. Raises DamagedError unless exactly `length` bytes come out."""
    # One LZF back reference of 3 bytes yields at most 264: more is a bomb or a broken length.
    if length > len(data) * 264 // 3 + 264 or length > MAX_KEY:
        raise DamagedError("RDB: compressed string claims an impossible length")
    out = bytearray()
    i, n = 0, len(data)
    while i < n:
        control = data[i]
        i += 1
        if control < 32:
            if i + control + 1 > n:
                raise DamagedError("RDB: compressed string ends early")
            out += data[i : i + control + 1]
            i += control + 1
        else:
            run = control >> 5
            if run == 7:
                if i >= n:
                    raise DamagedError("RDB: compressed string ends early")
                run += data[i]
                i += 1
            if i >= n:
                raise DamagedError("RDB: compressed string ends early")
            back = ((control & 31) << 8 | data[i]) + 1
            i += 1
            at = len(out) - back
            if at < 0:
                raise DamagedError("RDB: compressed string refers to before its start")
            run += 2
            while run > 0:
                piece = out[at : at + run]
                out += piece
                at += len(piece)
                run -= len(piece)
        if len(out) > length:
            raise DamagedError("RDB: compressed string is longer than it claims")
    if len(out) != length:
        raise DamagedError("RDB: compressed string is shorter than it claims")
    return bytes(out)
