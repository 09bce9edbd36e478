"""What is in the stores: every row, record, key and file by a digest of its own.

A drill compares what came back with what was there, item by item. This reads the stores with the
libraries that applications use (sqlite3, chromadb, Redis' commands, the file system), not with
safetake's own readers: whoever restores must not be the one who judges. The items lie in a SQLite
file, so memory does not grow with the data.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetake.drill import scratchredis
from safetake.errors import SafetakeError

EXAMPLES = 10
TTL_SLACK_MS = 2000
"""How far a restored expiry may be from the one before: the clocks of two commands."""
_CHROMA_SECONDS = 600
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Item:
    """One row, record, key or file."""

    part: str
    """Table, collection, database, or empty."""
    name: str
    """Key of the row, id of the record, key, or path."""
    digest: bytes
    expires_ms: int = 0
    """Of a key: milliseconds since the epoch; 0: never."""


@dataclass(slots=True)
class Difference:
    """What one truth has and the other has not, in one store."""

    missing: int = 0
    changed: int = 0
    extra: int = 0
    examples: list[str] = field(default_factory=list)
    """Some of them by name, each with what is wrong with it."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed or self.extra)

    def words(self) -> str:
        """In one line."""
        counts = f"{self.missing} missing, {self.changed} changed, {self.extra} extra"
        return counts + (": " + "; ".join(self.examples) if self.examples else "")


class Truth:
    """What each store held at one time, in the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = sqlite3.connect(path)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS item (source TEXT, part TEXT, name TEXT, digest BLOB, "
            "expires INTEGER, PRIMARY KEY (source, part, name)) WITHOUT ROWID"
        )

    def take(self, source: str, items: Iterable[Item]) -> int:
        """Remember what a store holds; returns how many items."""
        with self._db:
            self._db.execute("DELETE FROM item WHERE source = ?", (source,))
            self._db.executemany(
                "INSERT OR IGNORE INTO item VALUES (?, ?, ?, ?, ?)",
                ((source, i.part, i.name, i.digest, i.expires_ms) for i in items),
            )
        return self.count(source)

    def adopt(self, other: Truth, source: str) -> None:
        """Remember of a store what another truth does."""
        self._db.execute("ATTACH ? AS other", (str(other.path),))
        try:
            with self._db:
                self._db.execute("DELETE FROM main.item WHERE source = ?", (source,))
                self._db.execute(
                    "INSERT INTO main.item SELECT * FROM other.item WHERE source = ?", (source,)
                )
        finally:
            self._db.execute("DETACH other")

    def count(self, source: str) -> int:
        """Items of a store."""
        row = self._db.execute("SELECT count(*) FROM item WHERE source = ?", (source,)).fetchone()
        return int(row[0])

    def parts(self, source: str) -> dict[str, int]:
        """Items of each part of a store."""
        rows = self._db.execute(
            "SELECT part, count(*) FROM item WHERE source = ? GROUP BY part", (source,)
        )
        return {str(part): int(count) for part, count in rows}

    def compare(self, other: Truth, source: str) -> Difference:
        """What `other` (now) has of a store, against this one (expected).

        A key that has expired since it was remembered is not missing.
        """
        found = Difference()
        db = self._db
        db.execute("ATTACH ? AS now", (str(other.path),))
        try:
            mine = "SELECT part, name FROM main.item WHERE source = :source"
            theirs = "SELECT part, name FROM now.item WHERE source = :source"
            alive = " AND (expires = 0 OR expires > :later)"
            later = int(time.time() * 1000) + TTL_SLACK_MS
            binding = {"source": source, "later": later, "slack": TTL_SLACK_MS}
            for field_, query in (
                ("missing", f"{mine}{alive} EXCEPT {theirs}"),
                ("extra", f"{theirs} EXCEPT {mine}"),
                (
                    "changed",
                    "SELECT a.part, a.name, a.digest != b.digest, a.expires, b.expires "
                    "FROM main.item a JOIN now.item b ON b.source = a.source"
                    " AND b.part = a.part AND b.name = a.name WHERE a.source = :source AND "
                    "(a.digest != b.digest OR abs(a.expires - b.expires) > :slack)",
                ),
            ):
                count = db.execute(f"SELECT count(*) FROM ({query})", binding).fetchone()[0]
                setattr(found, field_, int(count))
                for part, name, *how in db.execute(f"{query} LIMIT {EXAMPLES}", binding):
                    what = _WHAT.get(field_) or _change(*how)
                    found.examples.append(f"{part + ' ' if part else ''}{name} {what}")
        finally:
            db.execute("DETACH now")
        del found.examples[EXAMPLES:]
        return found

    def close(self) -> None:
        """Close the file."""
        self._db.close()


_WHAT = {"missing": "is missing", "extra": "was not there"}


def _change(content: int, before_ms: int, now_ms: int) -> str:
    if content:
        return "is another"
    if not now_ms:
        return "never expires, and did"
    if not before_ms:
        return "expires, and did not"
    seconds = abs(before_ms - now_ms) / 1000
    return f"expires {seconds:.0f} s {'earlier' if now_ms < before_ms else 'later'} than it did"


def items(kind: str, place: Path, port: int, scratch: Path) -> Iterator[Item]:
    """Everything in a store of that type; Redis is asked at `port`. Raises SafetakeError."""
    if kind == "sqlite":
        return rows(place)
    if kind == "chroma":
        return records(place, scratch)
    return keys(port) if kind == "redis" else files(place)


def rows(path: Path) -> Iterator[Item]:
    """Every row of every table of a SQLite database. Raises SafetakeError."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        db.text_factory = bytes
        with contextlib.closing(db):
            for (name,) in db.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
                "AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
            ).fetchall():
                yield from _table(db, name.decode())
    except sqlite3.Error as error:
        raise SafetakeError(f"{path}: can not be read: {error}") from error


def _table(db: sqlite3.Connection, name: str) -> Iterator[Item]:
    quoted = '"' + name.replace('"', '""') + '"'
    keys = [
        row[1].decode()
        for row in sorted(db.execute(f"PRAGMA table_info({quoted})"), key=lambda row: row[5])
        if row[5]
    ]
    columns = ", ".join('"' + key.replace('"', '""') + '"' for key in keys) or "rowid"
    count = len(keys) or 1
    for row in db.execute(f"SELECT {columns}, * FROM {quoted}"):
        key = ", ".join(_word(value) for value in row[:count])
        yield Item(name, key, _digest(repr(row).encode()))


def _word(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def files(root: Path) -> Iterator[Item]:
    """Every file, link and folder below a folder. Raises SafetakeError."""
    try:
        for folder, folders, names in os.walk(root):
            for name in (*names, *folders):
                path = Path(folder) / name
                yield _file(root, path)
    except OSError as error:
        raise SafetakeError(f"{root}: can not be read: {error}") from error


def _file(root: Path, path: Path) -> Item:
    state = path.lstat()
    digest = hashlib.blake2b(oct(state.st_mode).encode(), digest_size=16)
    if stat.S_ISLNK(state.st_mode):
        digest.update(os.fsencode(path.readlink()))
    elif stat.S_ISREG(state.st_mode):
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    name = os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")
    return Item("", name, digest.digest())


def keys(port: int) -> Iterator[Item]:
    """Every key of a Redis server on loopback, with when it expires. Raises SourceError."""
    with scratchredis.connection(port) as connection:
        offset = int(time.time() * 1000) - _server_ms(connection)
        for line in _text(connection.call("INFO", "keyspace")).splitlines():
            if line.startswith("db"):
                database = line.partition(":")[0][2:]
                connection.call("SELECT", database)
                yield from _database(connection, database, offset)


def _server_ms(connection: Any) -> int:
    seconds, micros = connection.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def _database(connection: Any, database: str, offset: int) -> Iterator[Item]:
    cursor = b"0"
    while True:
        cursor, found = connection.call("SCAN", cursor, "COUNT", _BATCH)
        for key in found:
            kind = _text(connection.call("TYPE", key))
            if kind == "none":
                continue  # expired since
            left = int(connection.call("PTTL", key))
            expires = _server_ms(connection) + left + offset if left >= 0 else 0
            name = key.decode("utf-8", "backslashreplace")
            yield Item(
                database, name, _digest(repr(_value(connection, kind, key)).encode()), expires
            )
        if cursor == b"0":
            return


def _value(connection: Any, kind: str, key: bytes) -> Any:
    """A value in an order that does not depend on how the server holds it."""
    if kind == "string":
        return connection.call("GET", key)
    if kind == "list":
        return connection.call("LRANGE", key, 0, -1)
    if kind == "set":
        return sorted(connection.call("SMEMBERS", key))
    if kind == "zset":
        return connection.call("ZRANGE", key, 0, -1, "WITHSCORES")
    if kind == "hash":
        found = connection.call("HGETALL", key)
        return sorted(zip(found[::2], found[1::2], strict=True))
    if kind == "stream":
        return connection.call("XRANGE", key, "-", "+"), connection.call("XINFO", "GROUPS", key)
    return connection.call("DUMP", key)


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")


def records(folder: Path, scratch: Path) -> Iterator[Item]:
    """Every record of every collection of a Chroma folder, read by chromadb from a copy.

    In a process of its own, since chromadb keeps what it has opened. Raises SafetakeError, also
    when chromadb is not installed.
    """
    import json
    import shutil

    copy = scratch / "chroma-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    command = [sys.executable, "-m", "safetake.drill.chroma", "list", str(copy)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_CHROMA_SECONDS, check=False, cwd=scratch
        )
    except subprocess.TimeoutExpired as error:
        raise SafetakeError(
            f"chromadb did not list the records within {error.timeout:.0f} s"
        ) from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise SafetakeError(
            f"chromadb can not list the records: {' '.join(said)}",
            hint="install it: pip install 'safetake[chroma]'",
        )
    for line in done.stdout.splitlines():
        collection, name, digest = json.loads(line)
        yield Item(collection, name, bytes.fromhex(digest))
