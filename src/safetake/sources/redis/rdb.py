"""Cuts an RDB file into its keys, and each key into the payload that DUMP would give.

The file is streamed through a window of bounded size; values are measured, never held. Every length
is checked against the file, so that a hostile file ends in DamagedError and in nothing else. What a
value holds inside a listpack or an LZF string is not looked into: the CRC64 vouches for the bytes,
and a scratch server for their meaning.

Types up to Redis 8.2 and Valkey 9.1 (rdb.h of both). The two families give number 22 different
meanings, so the header decides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from safetake.errors import DamagedError
from safetake.sources.redis.rdbformat import (
    AUX,
    EOF,
    EXPIRE_MS,
    EXPIRE_SECONDS,
    FREQ,
    FUNCTION2,
    IDLE,
    MAX_KEY,
    MODULE_AUX,
    RESIZEDB,
    SELECTDB,
    SLOT_INFO,
    crc64,
    lzf_decompress,
)

WINDOW = 1 << 20
"""Bytes of the file that are held at a time."""
MAX_DATABASE = 1 << 20
MAX_EXTRAS = 100_000
"""Most functions, auxiliary fields and module sections together."""

_ROOM = 4096
_AHEAD = 32
"""Longest run of bytes that is read without asking: a length (9) and the fixed fields beside it."""


class UnsupportedRdbError(DamagedError):
    """The file uses something that this slicer does not know; it may be perfectly good."""


class Record(NamedTuple):
    """One key: `start:end` are its bytes, `value:end` its value without the type byte."""

    db: int
    key: bytes
    expire_ms: int | None
    type: int
    start: int
    value: int
    end: int


class Extra(NamedTuple):
    """A section that is no key: `function` or `module`. `after` says it stood behind the keys."""

    kind: str
    start: int
    end: int
    after: bool


class RdbFile:
    """An RDB file, read once from front to back with `records`.

    After the iteration `aux`, `extras`, `sizes` (the RESIZEDB hints) and `end` are filled. Raises
    DamagedError for what is no RDB, UnsupportedRdbError for what is newer than this module.
    """

    def __init__(self, path: Path, *, size: int | None = None) -> None:
        self.path = path
        self.aux: dict[bytes, bytes] = {}
        self.extras: list[Extra] = []
        self.end = 0
        """Length of the RDB with its CRC, once read; what follows is no part of it."""
        self._file = path.open("rb", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size if size is None else size
        self._buffer = b""
        self._base = 0
        self._pos = 0
        match = re.fullmatch(rb"(REDIS|VALKEY)(\d+)", self.read(0, min(9, self._size)))
        if match is None or self._size < 10:
            self._file.close()
            raise DamagedError(f"RDB: {path.name} does not start with the header of an RDB file")
        self.magic = match[1].decode()
        self.version = int(match[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    # -- bytes -------------------------------------------------------------------------------

    def read(self, start: int, end: int) -> bytes:
        """Bytes of a span; the caller bounds it."""
        base = self._base
        if base <= start and end <= base + len(self._buffer):
            return self._buffer[start - base : end - base]
        data = os.pread(self._file.fileno(), end - start, start)
        if len(data) != end - start:
            raise DamagedError(f"RDB: {self.path.name} ends early")
        return data

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes of a span of any length, at most WINDOW at a time."""
        while start < end:
            step = min(end, start + WINDOW)
            yield self.read(start, step)
            start = step

    def value(self, record: Record) -> Iterator[bytes]:
        """The value as it stands in DUMP: type byte and body, without the footer."""
        yield bytes((record.type,))
        yield from self.pieces(record.value, record.end)

    def dump_payload(self, record: Record) -> bytes:
        """Exactly what DUMP answers, held whole: value, RDB version, CRC64."""
        body = b"".join(self.value(record)) + self.version.to_bytes(2, "little")
        return body + crc64(body).to_bytes(8, "little")

    def check_crc(self) -> bool:
        """Whether the CRC64 at the end is right; a stored zero means "not computed" and passes.

        Needs `records` to have run, which finds the end.
        """
        crc = 0
        for piece in self.pieces(0, self.end - 8):
            crc = crc64(piece, crc)
        stored = int.from_bytes(self.read(self.end - 8, self.end), "little")
        return stored in (0, crc)

    # -- cursor ------------------------------------------------------------------------------

    def _slide(self) -> None:
        """Move the window to the position. Raises DamagedError beyond the end of the file."""
        at = self._base + self._pos
        if at > self._size:
            raise DamagedError(f"RDB: {self.path.name} ends inside a value")
        want = min(WINDOW, self._size - at)
        self._buffer = b""
        self._base, self._pos = at, 0
        self._buffer = os.pread(self._file.fileno(), want, at)
        if len(self._buffer) != want:
            raise DamagedError(f"RDB: {self.path.name} ends early")

    def _more(self, n: int) -> None:
        """Have `n` (small) bytes in the window. Raises DamagedError when the file ends before."""
        if self._pos + n > len(self._buffer):
            self._slide()
            if n > len(self._buffer):
                raise DamagedError(f"RDB: {self.path.name} ends inside a value")

    def _byte(self) -> int:
        self._more(1)
        value = self._buffer[self._pos]
        self._pos += 1
        return value

    def _length(self) -> int:
        b = self._byte()
        if b < 0x40:
            return b
        if b < 0x80:
            return (b & 63) << 8 | self._byte()
        if b == 0x80:
            return self._number(4)
        if b == 0x81:
            return self._number(8)
        raise DamagedError(f"RDB: bad length byte {b:#x} at {self._base + self._pos - 1}")

    def _number(self, size: int) -> int:
        self._more(size)
        value = int.from_bytes(self._buffer[self._pos : self._pos + size], "big")
        self._pos += size
        return value

    def _skip(self, n: int) -> None:
        self._pos += n
        if self._base + self._pos > self._size:
            raise DamagedError(f"RDB: {self.path.name} ends inside a value")

    def _skip_strings(self, n: int) -> None:
        """Pass over `n` strings. The one loop that large collections live in."""
        buffer, pos = self._buffer, self._pos
        safe = len(buffer) - _AHEAD
        while n:
            n -= 1
            if pos > safe:
                self._pos = pos
                self._slide()
                buffer, pos = self._buffer, 0
                safe = len(buffer) - _AHEAD
                if safe < 0:  # the last bytes of the file: carefully
                    self._skip_string()
                    pos = self._pos
                    continue
            b = buffer[pos]
            if b < 0x40:
                pos += 1 + b
            elif b < 0x80:
                pos += 2 + ((b & 63) << 8 | buffer[pos + 1])
            elif b == 0xC0:
                pos += 2
            elif b == 0xC1:
                pos += 3
            elif b == 0xC2:
                pos += 5
            else:
                self._pos = pos
                self._skip_string()
                pos = self._pos
                if self._buffer is not buffer:
                    buffer = self._buffer
                    safe = len(buffer) - _AHEAD
        self._pos = pos
        self._skip(0)

    def _skip_string(self) -> None:
        self._more(1)
        b = self._buffer[self._pos]
        if b < 0xC0:
            self._skip(self._length())
        elif b <= 0xC2:
            self._skip(1 + (1 << (b - 0xC0)))
        elif b == 0xC3:
            self._pos += 1
            packed, plain = self._length(), self._length()
            if plain > packed * 264 // 3 + 264:
                raise DamagedError("RDB: compressed string claims an impossible length")
            self._skip(packed)
        else:
            raise DamagedError(f"RDB: bad string byte {b:#x} at {self._base + self._pos}")

    def _string(self) -> bytes:
        """A string, held whole. Raises UnsupportedRdbError beyond MAX_KEY."""
        self._more(1)
        b = self._buffer[self._pos]
        if b < 0xC0:
            return self._take(self._length())
        self._pos += 1
        if b <= 0xC2:
            size = 1 << (b - 0xC0)
            self._more(size)
            raw = self._buffer[self._pos : self._pos + size]
            self._pos += size
            return b"%d" % int.from_bytes(raw, "little", signed=True)
        if b == 0xC3:
            packed, plain = self._length(), self._length()
            return lzf_decompress(self._take(packed), plain)
        raise DamagedError(f"RDB: bad string byte {b:#x} at {self._base + self._pos - 1}")

    def _take(self, n: int) -> bytes:
        start = self._base + self._pos
        self._skip(n)
        if n > MAX_KEY:
            raise UnsupportedRdbError(f"RDB: {self.path.name} has a key of {n} bytes")
        return self.read(start, start + n)

    # -- values ------------------------------------------------------------------------------

    def _skip_value(self, kind: int) -> None:
        if kind == 0 or 9 <= kind <= 13 or kind in (16, 17, 20, 23):
            if kind != 23 or self.magic == "REDIS":
                return self._skip_strings(1)
        elif kind in (1, 2, 14):
            return self._skip_strings(self._length())
        elif kind == 4:
            return self._skip_strings(2 * self._length())
        elif kind == 5:
            return self._skip_each(strings=1, fixed=8)
        elif kind == 3:
            return self._skip_old_zset()
        elif kind == 18:
            return self._skip_each(lengths=1, strings=1)
        elif kind in (15, 19, 21):
            return self._skip_stream(kind)
        elif kind == 7:
            self._length()
            return self._skip_module()
        elif self.magic == "VALKEY" and kind == 22:  # hash, an expiry (or -1) after each value
            return self._skip_each(strings=2, fixed=8)
        elif self.magic == "REDIS" and kind in (22, 24):  # hash, a relative expiry before each
            if kind == 24:
                self._skip(8)
            return self._skip_each(lengths=1, strings=2)
        elif self.magic == "REDIS" and kind == 25:
            self._skip(8)
            return self._skip_strings(1)
        raise UnsupportedRdbError(
            f"RDB: unknown type {kind} at {self._base + self._pos} of {self.path.name}",
            hint="the file may be from a newer server than this version of safetake knows",
        )

    def _skip_each(self, *, lengths: int = 0, strings: int, fixed: int = 0) -> None:
        """A counted collection whose elements are a length, strings and fixed bytes, if any."""
        for _ in range(self._length()):
            if lengths:
                self._length()
            self._skip_strings(strings)
            self._skip(fixed)

    def _skip_old_zset(self) -> None:
        for _ in range(self._length()):
            self._skip_strings(1)
            if (n := self._byte()) < 253:  # 253 to 255: not a number and the infinities
                self._skip(n)

    def _skip_stream(self, kind: int) -> None:
        v2, v3 = kind >= 19, kind == 21
        self._skip_strings(2 * self._length())
        for _ in range(8 if v2 else 3):
            self._length()
        for _ in range(self._length()):  # groups
            self._skip_strings(1)
            for _ in range(3 if v2 else 2):
                self._length()
            for _ in range(self._length()):  # pending entries
                self._skip(24)
                self._length()
            for _ in range(self._length()):  # consumers
                self._skip_strings(1)
                self._skip(16 if v3 else 8)
                self._skip(16 * self._length())

    def _skip_module(self) -> None:
        while True:
            opcode = self._length()
            if opcode == 0:
                return
            if opcode in (1, 2):
                self._length()
            elif opcode in (3, 4):
                self._skip(4 * (opcode - 2))
            elif opcode == 5:
                self._skip_strings(1)
            else:
                raise DamagedError(f"RDB: bad module opcode {opcode}")

    # -- the file ----------------------------------------------------------------------------

    def records(self) -> Iterator[Record]:
        """Every key in the file's order. Can be called again; starts over."""
        self.aux, self.extras = {}, []
        self._buffer, self._base, self._pos = b"", 9, 0
        db = 0
        expire: int | None = None
        start: int | None = None
        seen_key = False
        while True:
            pos, buffer = self._pos, self._buffer
            if pos + _ROOM > len(buffer):  # most records then lie in one window
                self._slide()
                pos, buffer = 0, self._buffer
            at = self._base + pos
            # The usual record by hand, since calls are what costs: a short key, a plain string.
            if len(buffer) - pos >= _ROOM and buffer[pos] == 0 and buffer[pos + 1] < 0x40:
                tail = pos + 2 + buffer[pos + 1]
                key = buffer[pos + 2 : tail]
                b = buffer[tail]
                if b < 0x80:
                    end = tail + 1 + b
                    if b >= 0x40:
                        end = tail + 2 + ((b & 63) << 8 | buffer[tail + 1])
                    if end <= len(buffer):
                        self._pos = end
                        base = self._base
                        first = at if start is None else start
                        yield Record(db, key, expire, 0, first, base + tail, base + end)
                        expire, start, seen_key = None, None, True
                        continue
            kind = self._byte()
            if kind < SLOT_INFO - 1:
                if start is None:
                    start = at
                key = self._string()
                value = self._base + self._pos
                if kind == 0:
                    self._skip_strings(1)
                else:
                    self._skip_value(kind)
                yield Record(db, key, expire, kind, start, value, self._base + self._pos)
                expire, start, seen_key = None, None, True
            elif kind == EXPIRE_MS:
                start = at if start is None else start
                self._more(8)
                raw = self._buffer[self._pos : self._pos + 8]
                expire = int.from_bytes(raw, "little", signed=True)
                self._pos += 8
            elif kind == EXPIRE_SECONDS:
                start = at if start is None else start
                self._more(4)
                raw = self._buffer[self._pos : self._pos + 4]
                expire = int.from_bytes(raw, "little", signed=True) * 1000
                self._pos += 4
            elif kind == IDLE:
                start = at if start is None else start
                self._length()
            elif kind == FREQ:
                start = at if start is None else start
                self._byte()
            elif kind == EOF:
                self._finish()
                return
            elif start is not None:
                raise DamagedError(f"RDB: opcode {kind} between an expiry and its key")
            elif kind == SELECTDB:
                db = self._length()
                if db > MAX_DATABASE:
                    raise UnsupportedRdbError(f"RDB: database number {db}")
            elif kind == RESIZEDB:
                self._length()
                self._length()
            elif kind == SLOT_INFO:
                for _ in range(3):
                    self._length()
            else:
                self._section(kind, at, seen_key)

    def _section(self, kind: int, at: int, after: bool) -> None:
        if len(self.extras) + len(self.aux) >= MAX_EXTRAS:
            raise UnsupportedRdbError(f"RDB: {self.path.name} has too many sections")
        if kind == AUX:
            name = self._string()
            self.aux[name[:64]] = self._string()[:4096]
        elif kind == FUNCTION2:
            self._skip_string()
            self.extras.append(Extra("function", at, self._base + self._pos, after))
        elif kind == MODULE_AUX:
            self._length()
            self._skip_module()
            self.extras.append(Extra("module", at, self._base + self._pos, after))
        else:
            raise UnsupportedRdbError(
                f"RDB: unknown section {kind} at {at} of {self.path.name}",
                hint="the file may be from a newer server than this version of safetake knows",
            )

    def _finish(self) -> None:
        if self.version >= 5:
            self._skip(8)
        self.end = self._base + self._pos
