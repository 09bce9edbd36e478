"""What a value in an RDB (or a DUMP) holds, whichever of its encodings it is stored in.

A server keeps one and the same set as an intset, a listpack or a hash table, depending on its size,
its history and the server's settings, and dumps a hash table in the order of a random seed. The
digest here is over the elements: of strings, lists, sets, hashes, sorted sets, and streams with
their groups. Modules have none; they are compared as bytes.

Fields of a hash may have expiries of their own (Redis 7.4, Valkey 9). Those that are over are no
content, whether a server has thrown them away yet or not.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator

from safetake.errors import DamagedError
from safetake.sources.redis.rdbformat import lzf_decompress

MAX_VALUE = 64 << 20
"""Longest value that is taken apart; longer ones are compared as bytes."""
VALKEY_FROM = 80
"""The first RDB version of Valkey's own."""
FOOTER = 10
"""DUMP ends with the RDB version (2) and a CRC64 (8)."""

_LISTS, _SETS, _HASHES, _ZSETS = (1, 10, 14, 18), (2, 11, 20), (4, 13, 16), (3, 5, 12, 17)
_STREAMS = (15, 19, 21)
EXPIRING = {("REDIS", 24), ("REDIS", 25), ("VALKEY", 22)}
"""Hashes whose fields may have expiries."""
_EXPIRING_KINDS = {kind for _, kind in EXPIRING}
_ONE_STRING = {10, 11, 12, 13, 16, 17, 20}
"""Collections that are one string, which may be compressed."""
_MOST_TIMES = 4
"""How much larger compressed elements are in memory, mostly."""
_DAMAGE = (DamagedError, IndexError, KeyError, struct.error, ValueError)


def content_digest(kind: int, body: bytes, magic: str = "REDIS", now_ms: int = 0) -> bytes | None:
    """16 bytes that are equal for equal content at `now_ms`; None where that is not known.

    `body` is the value without its type byte (and without DUMP's footer).
    """
    try:
        return _digest(kind, body, magic, now_ms)
    except _DAMAGE:
        return None


def payload_digest(payload: bytes, now_ms: int = 0) -> bytes | None:
    """The digest of what DUMP answered; None where it is not known, or too long."""
    if len(payload) > MAX_VALUE:
        return None
    return content_digest(payload[0], payload[1:-FOOTER], magic_of(payload), now_ms)


def payload_expired(payload: bytes, now_ms: int) -> bool:
    """`all_expired` of what DUMP answered."""
    if payload[0] not in _EXPIRING_KINDS or len(payload) > MAX_VALUE:
        return False
    return all_expired(payload[0], payload[1:-FOOTER], magic_of(payload), now_ms)


def memory_of(payload: bytes) -> int:
    """What the value of DUMP's payload takes in memory, about; rather too much than too little."""
    if payload[0] != 0 and payload[0] not in _ONE_STRING:
        return _MOST_TIMES * len(payload)
    if payload[1] != 0xC3:
        return len(payload)
    cursor = _Cursor(payload[2:40])
    try:
        cursor.length()
        return cursor.length()
    except _DAMAGE:
        return _MOST_TIMES * len(payload)


def magic_of(payload: bytes) -> str:
    """Whose types DUMP's payload has: the two families number them differently."""
    version = int.from_bytes(payload[-FOOTER : 2 - FOOTER], "little")
    return "VALKEY" if version >= VALKEY_FROM else "REDIS"


def all_expired(kind: int, body: bytes, magic: str, now_ms: int) -> bool:
    """Whether it is a hash of which nothing is left at `now_ms`: then there is no such key."""
    if (magic, kind) not in EXPIRING:
        return False
    try:
        return all(0 < until <= now_ms for *_, until in _fields(kind, body))
    except _DAMAGE:
        return False


def _digest(kind: int, body: bytes, magic: str, now_ms: int) -> bytes | None:
    if (magic, kind) in EXPIRING:
        fields = sorted(one for one in _fields(kind, body) if not 0 < one[2] <= now_ms)
        if any(until for *_, until in fields):
            parts = ((field, value, b"%d" % until) for field, value, until in fields)
            return _hash(b"H", (part for one in parts for part in one))
        return _hash(b"h", (part for one in fields for part in one[:2]))
    if kind in _STREAMS:
        return _hash(b"x", _stream(kind, body))
    if kind == 0:
        return _hash(b"s", [_Cursor(body).string()])
    if kind in _LISTS:
        return _hash(b"l", _list(kind, body))
    if kind in _SETS:
        return _hash(b"S", sorted(_set(kind, body)))
    if kind in _HASHES:
        pairs = sorted(_pairs(_hash_items(kind, body)))
        return _hash(b"h", (part for pair in pairs for part in pair))
    if kind in _ZSETS:
        scored = sorted(_zset(kind, body))
        return _hash(b"z", (part for pair in scored for part in pair))
    return None


def _hash(mark: bytes, parts: Iterable[bytes]) -> bytes:
    hasher = hashlib.blake2b(mark, digest_size=16)
    for part in parts:
        hasher.update(b"%d:" % len(part))
        hasher.update(part)
    return hasher.digest()


class _Cursor:
    """Lengths and strings as an RDB writes them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        piece = self.data[self.at : self.at + n]
        if len(piece) != n:
            raise DamagedError("RDB: a value ends early")
        self.at += n
        return piece

    def length(self) -> int:
        b = self.take(1)[0]
        if b < 0x40:
            return b
        if b < 0x80:
            return (b & 63) << 8 | self.take(1)[0]
        if b in (0x80, 0x81):
            return int.from_bytes(self.take(4 if b == 0x80 else 8), "big")
        raise DamagedError("RDB: bad length")

    def string(self) -> bytes:
        b = self.data[self.at]
        if b < 0xC0:
            return self.take(self.length())
        self.at += 1
        if b <= 0xC2:
            return b"%d" % int.from_bytes(self.take(1 << (b - 0xC0)), "little", signed=True)
        if b == 0xC3:
            packed, plain = self.length(), self.length()
            return lzf_decompress(self.take(packed), plain)
        raise DamagedError("RDB: bad string")

    def strings(self, n: int) -> Iterator[bytes]:
        for _ in range(n):
            yield self.string()


def _list(kind: int, body: bytes) -> Iterator[bytes]:
    cursor = _Cursor(body)
    if kind == 1:
        yield from cursor.strings(cursor.length())
    elif kind == 10:
        yield from _ziplist(cursor.string())
    else:
        for _ in range(cursor.length()):
            plain = kind == 18 and cursor.length() == 1
            node = cursor.string()
            if plain:
                yield node
            else:
                yield from _listpack(node) if kind == 18 else _ziplist(node)


def _set(kind: int, body: bytes) -> Iterator[bytes]:
    cursor = _Cursor(body)
    if kind == 2:
        yield from cursor.strings(cursor.length())
    elif kind == 20:
        yield from _listpack(cursor.string())
    else:
        packed = cursor.string()
        width, count = struct.unpack_from("<II", packed)
        for i in range(count):
            piece = packed[8 + i * width : 8 + (i + 1) * width]
            yield b"%d" % int.from_bytes(piece, "little", signed=True)


def _hash_items(kind: int, body: bytes) -> Iterator[bytes]:
    cursor = _Cursor(body)
    if kind == 4:
        yield from cursor.strings(2 * cursor.length())
    else:
        packed = cursor.string()
        yield from _listpack(packed) if kind == 16 else _ziplist(packed)


def _fields(kind: int, body: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Field, value and expiry (0: none) of a hash whose fields may have some."""
    cursor = _Cursor(body)
    if kind == 22:
        for _ in range(cursor.length()):
            field, value = cursor.string(), cursor.string()
            yield field, value, max(0, int.from_bytes(cursor.take(8), "little", signed=True))
        return
    soonest = int.from_bytes(cursor.take(8), "little", signed=True)
    if kind == 24:
        for _ in range(cursor.length()):
            after = cursor.length()
            field, value = cursor.string(), cursor.string()
            yield field, value, after and soonest + after - 1
        return
    items = _listpack(cursor.string())
    for field, value, until in zip(items, items, items, strict=False):
        yield field, value, int(until)


def _stream(kind: int, body: bytes) -> Iterator[bytes]:
    """Entries, last id and groups, without what only newer versions say of them."""
    cursor = _Cursor(body)
    v2, v3 = kind >= 19, kind == 21

    def numbers(n: int) -> bytes:
        return b" ".join(b"%d" % cursor.length() for _ in range(n))

    yield from cursor.strings(2 * cursor.length())
    yield numbers(3)
    numbers(5 if v2 else 0)
    for _ in range(cursor.length()):
        yield b"group"
        yield cursor.string()
        yield numbers(2)
        numbers(1 if v2 else 0)
        for _ in range(cursor.length()):
            yield cursor.take(24)  # id, and when it was delivered
            yield numbers(1)
        for _ in range(cursor.length()):
            yield b"consumer"
            yield cursor.string()
            cursor.take(16 if v3 else 8)  # when it was seen
            for _ in range(cursor.length()):
                yield cursor.take(16)


def _zset(kind: int, body: bytes) -> Iterator[tuple[bytes, bytes]]:
    cursor = _Cursor(body)
    if kind in (12, 17):
        packed = cursor.string()
        items = _listpack(packed) if kind == 17 else _ziplist(packed)
        for member, score in _pairs(items):
            yield member, _score(float(score))
        return
    for _ in range(cursor.length()):
        member = cursor.string()
        if kind == 5:
            yield member, _score(struct.unpack("<d", cursor.take(8))[0])
            continue
        n = cursor.take(1)[0]
        special = {253: "nan", 254: "inf", 255: "-inf"}.get(n)
        yield member, _score(float(special or cursor.take(n)))


def _score(value: float) -> bytes:
    return struct.pack("<d", value + 0.0)  # one zero


def _pairs(items: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    held = iter(items)
    return zip(held, held, strict=False)


def _listpack(data: bytes) -> Iterator[bytes]:
    """listpack.c: total bytes (4), elements (2), entries each with its length behind, 0xFF."""
    at, end = 6, len(data)
    while at < end and (b := data[at]) != 0xFF:
        start = at
        if b < 0x80:
            value, at = b"%d" % b, at + 1
        elif b < 0xC0:
            value, at = data[at + 1 : at + 1 + (b & 63)], at + 1 + (b & 63)
        elif b < 0xE0:
            number = (b & 31) << 8 | data[at + 1]
            value, at = b"%d" % (number - (1 << 13) if number >> 12 else number), at + 2
        elif b < 0xF0:
            n = (b & 15) << 8 | data[at + 1]
            value, at = data[at + 2 : at + 2 + n], at + 2 + n
        elif b == 0xF0:
            n = int.from_bytes(data[at + 1 : at + 5], "little")
            value, at = data[at + 5 : at + 5 + n], at + 5 + n
        elif 0xF1 <= b <= 0xF4:
            n = (2, 3, 4, 8)[b - 0xF1]
            value = b"%d" % int.from_bytes(data[at + 1 : at + 1 + n], "little", signed=True)
            at += 1 + n
        else:
            raise DamagedError("RDB: bad listpack")
        size = at - start
        at += 1 + sum(size >= limit for limit in (128, 16383, 2097151, 268435455))
        yield value
    if at >= end:
        raise DamagedError("RDB: a listpack ends early")


def _ziplist(data: bytes) -> Iterator[bytes]:
    """ziplist.c: bytes (4), tail (4), entries (2), entries with the length before them, 0xFF."""
    at, end = 10, len(data)
    while at < end and data[at] != 0xFF:
        at += 5 if data[at] == 0xFE else 1
        b = data[at]
        if b < 0x40:
            n, at = b, at + 1
        elif b < 0x80:
            n, at = (b & 63) << 8 | data[at + 1], at + 2
        elif b == 0x80:
            n, at = int.from_bytes(data[at + 1 : at + 5], "big"), at + 5
        elif 0xF1 <= b <= 0xFD:
            yield b"%d" % ((b & 15) - 1)
            at += 1
            continue
        else:
            n = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}[b]
            yield b"%d" % int.from_bytes(data[at + 1 : at + 1 + n], "little", signed=True)
            at += 1 + n
            continue
        yield data[at : at + n]
        at += n
    if at >= end:
        raise DamagedError("RDB: a ziplist ends early")
