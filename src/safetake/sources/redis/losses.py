"""What a restore of a whole server would change: keys newer, changed and missing, by database.

The names of the live keys (SCAN) against those in the snapshot's dump, as 8-byte digests, so that a
million keys take tens of megabytes. Values are compared up to VALUES keys of a database. Writers go
on meanwhile: the numbers are of about now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.errors import SafetakeError
from safetake.model import Loss, Node, Reader
from safetake.scratch import scratch_folder
from safetake.sources.redis.live import LiveKey, read_keys, same_expiry, server_ms
from safetake.sources.redis.rdb import RdbFile
from safetake.sources.redis.server import Server
from safetake.sources.redis.store import materialise
from safetake.sources.redis.values import (
    EXPIRING,
    MAX_VALUE,
    all_expired,
    content_digest,
    magic_of,
)
from safetake.sources.redis.wire import Connection, ServerRefusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_KEYS = 2_000_000
MAX_BYTES = 4 << 30
VALUES = 20_000
EXAMPLES = 10
_BATCH = 1000


def losses(
    connection: Connection, server: Server, reader: Reader, node: Node, facts: Mapping[str, Any]
) -> tuple[list[Loss], list[str]]:
    """(by database, warnings). Never raises for what cannot be found out: `unknown` says why."""
    live = sum(db["keys"] for db in server.keyspace.values())
    if max(live, int(facts.get("keys") or 0)) > MAX_KEYS or facts.get("bytes", 0) > MAX_BYTES:
        return [Loss("keys", unknown="there are too many keys to compare")], []
    if facts.get("form") == "aof":
        return [Loss("keys", unknown="the snapshot is in append-only form")], []
    try:
        with scratch_folder() as scratch:
            dump = scratch / "dump.rdb"
            for inner in reader.tree(node.subtree) if node.subtree is not None else []:
                if inner.name == "dump.rdb":
                    materialise(inner, reader, dump)
            found = list(_compare(connection, server, dump))
    except ServerRefusal as refusal:
        return [Loss("keys", unknown=f"SCAN is not allowed ({refusal.code})")], []
    except (SafetakeError, OSError) as error:
        return [Loss("keys", unknown=str(error))], []
    skipped = [name for name, db in server.keyspace.items() if db["keys"] > VALUES]
    warnings = []
    if skipped:
        warnings.append(f"values were not compared in database {', '.join(skipped)}: too many keys")
    return found, warnings


def _compare(connection: Connection, server: Server, dump: Path) -> Iterator[Loss]:
    from array import array

    import numpy

    now = server_ms(connection)
    names: dict[int, array[int]] = {}
    values: dict[int, dict[bytes, tuple[int, int | None, bytes | None]]] = {}
    with RdbFile(dump) as file:
        for record in file.records():
            if record.expire_ms is not None and record.expire_ms <= now:
                continue
            kept = values.setdefault(record.db, {})
            digest = None
            if (len(kept) <= VALUES or (file.magic, record.type) in EXPIRING) and (
                record.end - record.value <= MAX_VALUE
            ):
                body = file.read(record.value, record.end)
                if all_expired(record.type, body, file.magic, now):
                    continue
                digest = _value(record.type, body, file.magic, now)
            names.setdefault(record.db, array("Q")).append(_name(record.key))
            if len(kept) <= VALUES:
                kept[record.key] = (record.type, record.expire_ms, digest)
    for db in sorted({*names, *map(int, server.keyspace)}):
        old = numpy.unique(numpy.frombuffer(names.get(db, array("Q")), dtype=numpy.uint64))
        yield _database(connection, server, db, old, values.get(db, {}), now)


def _database(
    connection: Connection,
    server: Server,
    db: int,
    old: NDArray[Any],
    values: dict[bytes, tuple[int, int | None, bytes | None]],
    now_ms: int,
) -> Loss:
    import numpy

    connection.call("SELECT", db)
    loss = Loss(f"keys of database {db}")
    deep = len(values) <= VALUES and server.keyspace.get(str(db), {}).get("keys", 0) <= VALUES
    seen: list[NDArray[Any]] = []
    cursor = b"0"
    while True:
        cursor, keys = connection.call("SCAN", cursor, "COUNT", _BATCH)
        here = numpy.array([_name(key) for key in keys], dtype=numpy.uint64)
        seen.append(here)
        known = _among(here, old)
        for key, is_old in zip(keys, known, strict=True):
            text = key.decode("utf-8", "backslashreplace")
            if not is_old and len(loss.examples) < EXAMPLES and text not in loss.examples:
                loss.examples.append(text)
        if deep:
            wanted = [key for key in keys if key in values]
            for live in read_keys(connection, server, wanted):
                loss.changed += _differs(live, values[live.key], now_ms)
                values.pop(live.key)  # SCAN may name it again
        if cursor == b"0":
            break
    now = numpy.unique(numpy.concatenate(seen))
    both = int(_among(now, old).sum())
    loss.newer, loss.missing = len(now) - both, len(old) - both
    return loss


def _among(some: NDArray[Any], sorted_all: NDArray[Any]) -> NDArray[Any]:
    """Which of `some` are in the other array."""
    import numpy

    if not len(sorted_all):
        return numpy.zeros(len(some), dtype=bool)
    places = numpy.minimum(numpy.searchsorted(sorted_all, some), len(sorted_all) - 1)
    found: NDArray[Any] = sorted_all[places] == some
    return found


def _differs(live: LiveKey, was: tuple[int, int | None, bytes | None], now_ms: int) -> bool:
    _, expire, digest = was
    if not same_expiry(live.expire_ms, expire):
        return True
    magic = magic_of(live.payload)
    return digest is not None and _value(live.type, live.body, magic, now_ms) != digest


def _value(kind: int, body: bytes, magic: str, now_ms: int) -> bytes:
    found = content_digest(kind, body, magic, now_ms)
    return found or hashlib.blake2b(bytes((kind,)) + body, digest_size=16).digest()


def _name(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
