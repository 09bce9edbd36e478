"""Writes an RDB again in one fixed order, and counts what is in it on the way.

A server dumps its keys in the order of a hash table with a random seed, so two dumps of the same
data share hardly a chunk once the server was restarted or the table has grown. Sorted by database
and key, equal data gives equal bytes, and an increment stores what changed.

Left out on purpose, because they differ every time and are no data: creation time, memory use,
replication ids, and the LRU/LFU hints of single keys. Memory is bounded: sorted runs go to scratch.
"""

from __future__ import annotations

import hashlib
import heapq
import marshal
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from safetake.errors import DamagedError
from safetake.sources.redis.rdb import RdbFile, Record
from safetake.sources.redis.rdbformat import (
    AUX,
    EOF,
    EXPIRE_MS,
    RESIZEDB,
    SELECTDB,
    TYPE_NAMES,
    crc64,
    encode_length,
    header,
)

SAMPLE_KEYS = 200_000
"""Up to so many keys the content hash is worked out; beyond, it is left out (null)."""
RUN_KEYS = 100_000
RUN_BYTES = 16 << 20
"""A sorted run ends at so many keys, or so many bytes of keys and small values."""
_EXPIRES = bytes((EXPIRE_MS,))
KEPT_AUX = (b"redis-ver", b"valkey-ver", b"redis-bits")

FAN_IN = 32
PIECE_KEYS = 500
PIECE_BYTES = 256 << 10
"""What is held of each run while runs are merged."""
SMALL = 256
"""Values up to so many bytes travel with their keys; longer ones are read when they are written."""

_Entry = tuple[int, bytes, int, int, bytes]
"""database, key, value start, value end, and the record: whole, or up to a long value"""


class Tally:
    """Counts of an RDB, and a hash of its content that does not depend on the order of the keys."""

    def __init__(self, sample_keys: int = SAMPLE_KEYS) -> None:
        self.total = 0
        self._counts: Counter[tuple[int, int, bool]] = Counter()
        """(database, type, expires)"""
        self._sample_keys = sample_keys
        self._sum = 0

    def add(self, file: RdbFile, record: Record) -> None:
        """Count one key."""
        self.total += 1
        db, key, expire, kind, _, start, end = record
        self._counts[db, kind, expire is not None] += 1
        if self.total <= self._sample_keys:
            # A sum of truncated hashes: order-independent, and unlike XOR no pair cancels out.
            head = b"%d %d %d %d " % (db, kind, -1 if expire is None else expire, len(key))
            hasher = hashlib.sha256(head + key)
            for piece in file.pieces(start, end):
                hasher.update(piece)
            self._sum += int.from_bytes(hasher.digest()[:16], "big")

    def keys(self, db: int) -> int:
        """Keys in one database."""
        return sum(n for (at, _, _), n in self._counts.items() if at == db)

    def expires(self, db: int) -> int:
        """Keys with an expiry in one database."""
        return sum(n for (at, _, expires), n in self._counts.items() if at == db and expires)

    def facts(self) -> dict[str, Any]:
        """JSON-able: databases, types, sample."""
        types: Counter[str] = Counter()
        databases: dict[int, dict[str, int]] = {}
        for (db, kind, expires), count in self._counts.items():
            types[TYPE_NAMES.get(kind, str(kind))] += count
            entry = databases.setdefault(db, {"keys": 0, "expires": 0})
            entry["keys"] += count
            entry["expires"] += count if expires else 0
        sampled = self.total <= self._sample_keys
        return {
            "databases": {str(db): entry for db, entry in sorted(databases.items())},
            "types": dict(sorted(types.items())),
            "sample": f"{self._sum % (1 << 128):032x}" if sampled else None,
        }


def canonicalise(
    source: Path, target: Path, scratch: Path, *, duplicates: bool = False
) -> tuple[RdbFile, Tally]:
    """Write `source` to `target`, sorted; return the (closed) file's header facts and the counts.

    `duplicates`: keys that come twice are legal (SCAN repeats itself), the later one wins. Raises
    DamagedError (also for a wrong CRC), UnsupportedRdbError, OSError when scratch is full.
    """
    tally = Tally()
    runs = _Runs(scratch)
    with RdbFile(source) as file:
        run: list[_Entry] = []
        budget = RUN_BYTES
        for record in file.records():
            if not duplicates:
                tally.add(file, record)
            db, key, expire, kind, _, start, end = record
            piece = b"%c%b%b" % (kind, encode_length(len(key)), key)
            if expire is not None:
                piece = _EXPIRES + expire.to_bytes(8, "little", signed=True) + piece
            if end - start <= SMALL:
                piece += file.read(start, end)
                budget -= end - start
            budget -= len(key)
            run.append((db, key, start, end, piece))
            if len(run) >= RUN_KEYS or budget < 0:
                run.sort()
                runs.add(run)
                run, budget = [], RUN_BYTES
        if not file.check_crc():
            raise DamagedError(f"RDB: the CRC64 at the end of {source.name} is wrong")
        run.sort()
        ordered: Iterator[_Entry] = heapq.merge(*runs.iterators(), run)
        with target.open("wb", buffering=0) as out:
            if duplicates:
                _write(file, _Out(out), _last_of_each(ordered), None)
            else:
                _write(file, _Out(out), _distinct(ordered), tally)
    if duplicates:
        with RdbFile(target) as written:
            for record in written.records():
                tally.add(written, record)
    return file, tally


class _Runs:
    """Sorted runs on disk, merged by FAN_IN whenever there are as many of one level.

    So the open files grow with the logarithm of the data, and each entry is written that often.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._levels: list[list[Path]] = []
        self._written = 0

    def add(self, run: Iterable[_Entry], level: int = 0) -> None:
        """Write one sorted run."""
        path = self._scratch / f"run{self._written}"
        self._written += 1
        _spill(run, path)
        if level == len(self._levels):
            self._levels.append([])
        paths = self._levels[level]
        paths.append(path)
        if len(paths) == FAN_IN:
            self.add(heapq.merge(*map(_unspill, paths)), level + 1)
            paths.clear()

    def iterators(self) -> list[Iterator[_Entry]]:
        """One for each run; a file is gone when it has been read."""
        return [_unspill(path) for paths in self._levels for path in paths]


def _spill(run: Iterable[_Entry], path: Path) -> None:
    with path.open("wb") as out:
        piece: list[_Entry] = []
        size = 0
        for entry in run:
            piece.append(entry)
            size += len(entry[1]) + len(entry[4])
            if len(piece) == PIECE_KEYS or size > PIECE_BYTES:
                _spill_piece(piece, out)
                piece, size = [], 0
        _spill_piece(piece, out)


def _spill_piece(piece: list[_Entry], out: BinaryIO) -> None:
    data = marshal.dumps(piece)
    out.write(len(data).to_bytes(8, "little") + data)


def _unspill(path: Path) -> Iterator[_Entry]:
    with path.open("rb") as file:
        path.unlink()
        while size := file.read(8):
            # marshal is for one's own data only: this is our file in our 0700 folder
            yield from marshal.loads(file.read(int.from_bytes(size, "little")))


def _distinct(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    last_db, last_key = -1, b""
    for entry in entries:
        if entry[1] == last_key and entry[0] == last_db:
            raise DamagedError(f"RDB: the key {last_key[:80]!r} comes twice")
        last_db, last_key = entry[0], entry[1]
        yield entry


def _last_of_each(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    held: _Entry | None = None
    for entry in entries:
        if held is not None and held[:2] != entry[:2]:
            yield held
        held = entry
    if held is not None:
        yield held


class _Out:
    """Buffered writing with a running CRC64."""

    def __init__(self, file: BinaryIO | Any) -> None:
        self._file = file
        self._buffer = bytearray()
        self._crc = 0

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= 1 << 20:
            self.flush()

    def flush(self) -> None:
        self._crc = crc64(bytes(self._buffer), self._crc)
        view = memoryview(self._buffer)
        while view:
            view = view[self._file.write(view) :]
        view.release()
        self._buffer = bytearray()

    def finish(self) -> None:
        self.write(bytes((EOF,)))
        self.flush()
        self._buffer += self._crc.to_bytes(8, "little")
        self.flush()


def _write(file: RdbFile, out: _Out, entries: Iterable[_Entry], tally: Tally | None) -> None:
    out.write(header(file.magic, file.version))
    for name in KEPT_AUX:
        if (version := file.aux.get(name)) is not None:
            out.write(bytes((AUX,)) + _raw(name) + _raw(version))
    _write_extras(file, out, after=False)
    now = -1
    for db, _, start, end, piece in entries:
        if db != now:
            now = db
            out.write(bytes((SELECTDB,)) + encode_length(db))
            if tally is not None:
                sizes = encode_length(tally.keys(db)) + encode_length(tally.expires(db))
                out.write(bytes((RESIZEDB,)) + sizes)
        out.write(piece)
        if end - start > SMALL:
            for part in file.pieces(start, end):
                out.write(part)
    _write_extras(file, out, after=True)
    out.finish()


def _write_extras(file: RdbFile, out: _Out, *, after: bool) -> None:
    for extra in file.extras:
        if extra.after == after:
            for piece in file.pieces(extra.start, extra.end):
                out.write(piece)


def _raw(text: bytes) -> bytes:
    return encode_length(len(text)) + text
