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
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from safetake.errors import DamagedError
from safetake.sources.redis import rdb
from safetake.sources.redis.rdb import RdbFile, Record

SAMPLE_KEYS = 200_000
"""Up to so many keys the content hash is worked out; beyond, it is left out (null)."""
RUN_KEYS = 100_000
RUN_BYTES = 16 << 20
"""A sorted run ends at so many keys, or so many bytes of them."""
KEPT_AUX = (b"redis-ver", b"valkey-ver", b"redis-bits")

_Entry = tuple[int, bytes, int, int, int, bool, int]
"""database, key, value start, end, type, expires, expiry in ms"""


class Tally:
    """Counts of an RDB, and a hash of its content that does not depend on the order of the keys."""

    def __init__(self, sample_keys: int = SAMPLE_KEYS) -> None:
        self.keys: Counter[int] = Counter()
        self.expires: Counter[int] = Counter()
        self.types: Counter[int] = Counter()
        self.total = 0
        self._sample_keys = sample_keys
        self._sum = 0

    def add(self, file: RdbFile, record: Record) -> None:
        """Count one key."""
        self.total += 1
        self.keys[record.db] += 1
        self.types[record.type] += 1
        if record.expire_ms is not None:
            self.expires[record.db] += 1
        if self.total <= self._sample_keys:
            # A sum of truncated hashes: order-independent, and unlike XOR no pair cancels out.
            hasher = hashlib.sha256(
                b"%d %d %d "
                % (record.db, -1 if record.expire_ms is None else record.expire_ms, len(record.key))
            )
            hasher.update(record.key)
            for piece in file.value(record):
                hasher.update(piece)
            self._sum += int.from_bytes(hasher.digest()[:16], "big")

    def facts(self) -> dict[str, Any]:
        """JSON-able: databases, types, sample."""
        types: Counter[str] = Counter()
        for number, count in self.types.items():
            types[rdb.TYPE_NAMES.get(number, str(number))] += count
        sampled = self.total <= self._sample_keys
        return {
            "databases": {
                str(db): {"keys": n, "expires": self.expires[db]}
                for db, n in sorted(self.keys.items())
            },
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
    runs: list[Path] = []
    with RdbFile(source) as file:
        run: list[_Entry] = []
        budget = RUN_BYTES
        for record in file.records():
            if not duplicates:
                tally.add(file, record)
            expire = record.expire_ms
            run.append(
                (
                    record.db,
                    record.key,
                    record.value,
                    record.end,
                    record.type,
                    expire is not None,
                    expire or 0,
                )
            )
            budget -= len(record.key)
            if len(run) >= RUN_KEYS or budget < 0:
                runs.append(_spill(run, scratch / f"run{len(runs)}"))
                run, budget = [], RUN_BYTES
        if not file.check_crc():
            raise DamagedError(f"RDB: the CRC64 at the end of {source.name} is wrong")
        run.sort()
        ordered: Iterator[_Entry] = heapq.merge(*(_unspill(path) for path in runs), run)
        with target.open("wb", buffering=0) as out:
            if duplicates:
                _write(file, _Out(out), _last_of_each(ordered), None)
            else:
                _write(file, _Out(out), _distinct(ordered), tally)
    for path in runs:
        path.unlink()
    if duplicates:
        with RdbFile(target) as written:
            for record in written.records():
                tally.add(written, record)
    return file, tally


def _spill(run: list[_Entry], path: Path) -> Path:
    run.sort()
    with path.open("wb") as out:
        for at in range(0, len(run), 500):
            marshal.dump(run[at : at + 500], out)  # our own file in our own 0700 folder
    return path


def _unspill(path: Path) -> Iterator[_Entry]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            yield from marshal.load(file)


def _distinct(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    before: tuple[int, bytes] | None = None
    for entry in entries:
        if entry[:2] == before:
            raise DamagedError(f"RDB: the key {entry[1][:80]!r} comes twice")
        before = entry[:2]
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
        self._crc = rdb.crc64(bytes(self._buffer), self._crc)
        view = memoryview(self._buffer)
        while view:
            view = view[self._file.write(view) :]
        view.release()
        self._buffer = bytearray()

    def finish(self) -> None:
        self.write(bytes((rdb.EOF,)))
        self.flush()
        self._buffer += self._crc.to_bytes(8, "little")
        self.flush()


def _write(file: RdbFile, out: _Out, entries: Iterable[_Entry], tally: Tally | None) -> None:
    out.write(rdb.header(file.magic, file.version))
    for name in KEPT_AUX:
        if (version := file.aux.get(name)) is not None:
            out.write(bytes((rdb.AUX,)) + _raw(name) + _raw(version))
    _write_extras(file, out, after=False)
    db = -1
    for entry in entries:
        if entry[0] != db:
            db = entry[0]
            out.write(bytes((rdb.SELECTDB,)) + rdb.encode_length(db))
            if tally is not None:
                sizes = rdb.encode_length(tally.keys[db]) + rdb.encode_length(tally.expires[db])
                out.write(bytes((rdb.RESIZEDB,)) + sizes)
        _, key, value, end, kind, expires, expiry = entry
        head = bytes((kind,)) + rdb.encode_length(len(key)) + key
        if expires:
            head = bytes((rdb.EXPIRE_MS,)) + expiry.to_bytes(8, "little", signed=True) + head
        out.write(head)
        if end - value <= rdb.WINDOW:
            out.write(file.read(value, end))
        else:
            for piece in file.pieces(value, end):
                out.write(piece)
    _write_extras(file, out, after=True)
    out.finish()


def _write_extras(file: RdbFile, out: _Out, *, after: bool) -> None:
    for extra in file.extras:
        if extra.after == after:
            for piece in file.pieces(extra.start, extra.end):
                out.write(piece)


def _raw(text: bytes) -> bytes:
    return rdb.encode_length(len(text)) + text
