"""Every row, record, key and file that is in a store, by a digest of its own.

Read with the libraries that applications use (sqlite3, chromadb, Redis' commands, the file system),
not with safetake's own readers: whoever restores must not be the one who judges.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.drill import scratchredis
from safetake.errors import SafetakeError

if TYPE_CHECKING:
    from safetake.sources.redis.wire import Connection

_BATCH = 1000
_TOGETHER_BYTES = 4 << 20
"""Values of Redis that are asked for in one go, and the memory that they may take together."""


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
    shape: bool = False
    """A table, an index, a collection: holds items and is none. Compared, not counted."""


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
        db.text_factory = _text
        with contextlib.closing(db):
            for kind, name, sql in db.execute(
                "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' "
                "ESCAPE '\\' ORDER BY name"
            ).fetchall():
                virtual = kind == "table" and sql.upper().startswith("CREATE VIRTUAL")
                what = "virtual table" if virtual else kind
                yield Item(what, name, _digest(repr(sql).encode()), shape=True)
                if what == "table":
                    yield from _table(db, name)
    except sqlite3.Error as error:
        raise SafetakeError(f"{path}: can not be read: {error}") from error


def _text(raw: bytes) -> str:
    """Text, and never what a blob of the same bytes is."""
    return raw.decode("utf-8", "surrogateescape")


def _table(db: sqlite3.Connection, name: str) -> Iterator[Item]:
    columns = db.execute(f"PRAGMA table_xinfo({_quoted(name)})").fetchall()
    names = {column[1].lower() for column in columns}
    keys = [
        _quoted(column[1]) for column in sorted(columns, key=lambda column: column[5]) if column[5]
    ] or [word for word in ("rowid", "_rowid_", "oid") if word not in names][:1]
    alike: collections.Counter[bytes] = collections.Counter()
    for row in db.execute(f"SELECT {', '.join([*keys, '*'])} FROM {_quoted(name)}"):
        key, digest = row[: len(keys)], _digest(repr(row).encode())
        words = [_word(value) for value in key]
        if not key or None in key:  # such rows may have the same key
            words.append(f"row {digest.hex()}/{alike[digest]}")
            alike[digest] += 1
        yield Item(name, ", ".join(words), digest)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _word(value: Any) -> str:
    """A key as people read it; no two are alike."""
    if not isinstance(value, str):
        return repr(value)
    plain = value.isprintable() and not any(one in value for one in ", '\"\\")
    return value if plain and not _numeric(value) and value != "None" else ascii(value)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(raw: bytes) -> str:
    """Bytes that are most often text; no two are alike."""
    return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def files(root: Path) -> Iterator[Item]:
    """Every file, link and folder below a folder. Raises SafetakeError."""
    try:
        for folder, folders, names in os.walk(root, onerror=_raise):
            for name in (*names, *folders):
                path = Path(folder) / name
                yield _file(root, path)
    except OSError as error:
        raise SafetakeError(f"{root}: can not be read: {error}") from error


def _raise(error: OSError) -> None:
    raise error


def _file(root: Path, path: Path) -> Item:
    state = path.lstat()
    digest = hashlib.blake2b(oct(state.st_mode).encode(), digest_size=16)
    if stat.S_ISLNK(state.st_mode):
        digest.update(os.fsencode(path.readlink()))
    elif stat.S_ISREG(state.st_mode):
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return Item("", _shown(os.fsencode(path.relative_to(root))), digest.digest())


def keys(port: int) -> Iterator[Item]:
    """Every key of a Redis server on loopback, with when it expires. Raises SourceError."""
    with scratchredis.connection(port) as connection:
        for line in _ascii(connection.call("INFO", "keyspace")).splitlines():
            if line.startswith("db"):
                database = line.partition(":")[0][2:]
                connection.call("SELECT", database)
                yield from _database(connection, database)


def _database(connection: Connection, database: str) -> Iterator[Item]:
    cursor: Any = b"0"
    while True:
        cursor, page = connection.call("SCAN", cursor, "COUNT", _BATCH)
        known = _known(connection, page)
        for some in _together(known):
            asked = [_asking(one) for one in some]
            values = iter(_answers(connection, [command for each in asked for command in each]))
            for one, commands in zip(some, asked, strict=True):
                answers = list(itertools.islice(values, len(commands)))
                digest = _digest(repr(_in_order(one.kind, answers)).encode())
                yield Item(database, _shown(one.key), digest, one.expires_ms)
        if cursor == b"0":
            return


_Command = tuple[str | bytes | int, ...]


@dataclass(frozen=True, slots=True)
class _Key:
    key: bytes
    kind: str
    bytes: int
    expires_ms: int


def _known(connection: Connection, page: list[bytes]) -> list[_Key]:
    """Type, size and expiry of keys; those that have expired since are left out."""
    commands: list[_Command] = []
    for key in page:
        commands += [("TYPE", key), ("PTTL", key), ("MEMORY", "USAGE", key, "SAMPLES", 1)]
    now = int(time.time() * 1000)
    found = iter(_answers(connection, commands))
    return [
        _Key(key, _ascii(kind), size or 0, now + left if left >= 0 else 0)
        for key, kind, left, size in zip(page, found, found, found, strict=False)
        if kind != b"none" and left != -2
    ]


def _answers(connection: Connection, commands: list[_Command]) -> list[Any]:
    """Of all of them, in one go. Raises SourceError, also when one is refused."""
    answers = connection.pipeline(commands)
    for refusal in answers:
        if isinstance(refusal, Exception):
            raise refusal
    return answers


def _together(keys: list[_Key]) -> Iterator[list[_Key]]:
    """Groups whose values are small together."""
    group: list[_Key] = []
    size = 0
    for one in keys:
        if group and size + one.bytes > _TOGETHER_BYTES:
            yield group
            group, size = [], 0
        group.append(one)
        size += one.bytes
    if group:
        yield group


_COMMANDS: dict[str, tuple[str, ...]] = {
    "string": ("GET",), "list": ("LRANGE", "0", "-1"), "set": ("SMEMBERS",),
    "zset": ("ZRANGE", "0", "-1", "WITHSCORES"), "hash": ("HGETALL",),
    "stream": ("XRANGE", "-", "+"),
}  # fmt: skip


def _asking(one: _Key) -> list[_Command]:
    """The commands that give a key's value."""
    verb, *rest = _COMMANDS.get(one.kind, ("DUMP",))
    commands: list[_Command] = [(verb, one.key, *rest)]
    if one.kind == "stream":
        commands.append(("XINFO", "GROUPS", one.key))
    return commands


def _in_order(kind: str, answers: list[Any]) -> Any:
    """A value in an order that does not depend on how the server holds it."""
    found = answers[0]
    if found is None:
        return None  # expired since
    if kind == "set":
        return sorted(found)
    if kind == "hash":
        return sorted(zip(found[::2], found[1::2], strict=True))
    return answers


def _ascii(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")


def records(folder: Path, scratch: Path) -> Iterator[Item]:
    """Every record of every collection of a Chroma folder, read by chromadb from a copy.

    In a process of its own, since chromadb keeps what it has opened. Raises SafetakeError, also
    when chromadb is not installed.
    """
    copy = scratch / "chroma-copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    listed = scratch / "chroma-list"
    command = [sys.executable, "-m", "safetake.drill.chroma", "list", str(copy)]
    try:
        with listed.open("wb") as output:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.PIPE, check=False, cwd=scratch
            )
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise SafetakeError(
                f"chromadb can not list the records: {' '.join(said)}",
                hint="install it: pip install 'safetake[chroma]'",
            )
        with listed.open("rb") as lines:
            for line in lines:
                part, name, digest, shape = json.loads(line)
                yield Item(part, name, bytes.fromhex(digest), shape=shape)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
        listed.unlink(missing_ok=True)
