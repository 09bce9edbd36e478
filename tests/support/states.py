"""What a store holds, as a value: two stores are the same exactly when their values are equal.

Logical content in full, nothing that differs without meaning anything (where a page lies, whether
a commit is still in the log). Reading may fold a log into its file; it changes no content.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import redis

from tests.support.repositories import picture


class _Text(bytes):
    """Text as it lies in the file: other than the same bytes as a blob."""


_PRAGMAS = ("user_version", "application_id", "page_size", "encoding", "auto_vacuum")


def sqlite_state(path: Path, *, journal: bool = True) -> dict[str, Any]:
    """Schema, pragmas, every row of every table with its rowid and the types of its values, and the
    file's mode and owner. SQLite's own check has to pass.
    """
    info = path.stat()
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True)
    connection.text_factory = _Text
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [(b"ok",)]
        schema = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2, 3"
        ).fetchall()
        pragmas = _PRAGMAS + (("journal_mode",) if journal else ())
        return {
            "mode": stat.S_IMODE(info.st_mode),
            "owner": (info.st_uid, info.st_gid),
            "schema": schema,
            "dangling": sorted(connection.execute("PRAGMA foreign_key_check").fetchall(), key=repr),
            **{name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas},
            **{
                name.decode(): _rows(connection, name.decode())
                for kind, name, _, sql in schema
                if kind == b"table" and not (sql or b"").upper().startswith(b"CREATE VIRTUAL")
            },
        }
    finally:
        connection.close()


def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    name = '"' + table.replace('"', '""') + '"'
    try:
        rows = connection.execute(f"SELECT rowid, * FROM {name}").fetchall()
    except sqlite3.OperationalError:  # WITHOUT ROWID
        rows = connection.execute(f"SELECT * FROM {name}").fetchall()
    return sorted(((*map(_typed, row),) for row in rows), key=repr)


def _typed(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def chroma_state(folder: Path) -> dict[str, Any]:
    """What the database says, and every byte of the other files with mode and owner."""
    others = picture(folder, times=False)
    database = b"chroma.sqlite3"
    return {
        "database": sqlite_state(folder / database.decode()),
        "files": {
            name: what
            for name, what in others.items()
            if not name.startswith(database) or stat.S_ISDIR(what["mode"])
        },
    }


def files_state(folder: Path) -> dict[bytes, Any]:
    """Every entry: kind, mode, owner, time, content, links, attributes; the folder itself, too."""
    info = os.lstat(folder)
    return {b".": stat.S_IMODE(info.st_mode), **picture(folder)}


def redis_state(client: Any) -> dict[str, Any]:
    """Every key of every database: its type, its value, when it expires; and the functions.

    No key may be of a type that is not known here.
    """
    found: dict[str, Any] = {"functions": _functions(client)}
    for database in sorted(client.info("keyspace")):
        number = int(database.removeprefix("db"))
        client.execute_command("SELECT", number)
        keys = sorted(client.scan_iter(count=1000))
        found.update({f"{number} {key!r}": _key(client, key) for key in keys})
    client.execute_command("SELECT", 0)
    return found


def _functions(client: Any) -> list[Any]:
    try:
        listed: list[Any] = client.execute_command("FUNCTION", "LIST", "WITHCODE")
    except redis.ResponseError:  # before 7.0
        return []
    return sorted(listed, key=repr)


def _key(client: Any, key: bytes) -> tuple[str, Any, int]:
    kind = client.type(key).decode()
    value: Any
    if kind == "string":
        value = client.get(key)
    elif kind == "list":
        value = client.lrange(key, 0, -1)
    elif kind == "set":
        value = client.smembers(key)
    elif kind == "hash":
        value = client.hgetall(key)
    elif kind == "zset":
        value = client.zrange(key, 0, -1, withscores=True)
    elif kind == "stream":
        groups = client.xinfo_groups(key)
        value = (
            client.xrange(key),
            [(group["name"], group["last-delivered-id"], group["pending"]) for group in groups],
        )
    else:
        raise AssertionError(f"{key!r} is a {kind}")
    return kind, value, int(client.execute_command("PEXPIRETIME", key))


def digest(state: Any) -> str:
    """Short, for messages."""
    return hashlib.sha256(repr(state).encode()).hexdigest()[:12]


def difference(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two states differ, in words; empty when they are equal."""
    if one == other:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for key in sorted({*one, *other}, key=repr)
            for line in difference(one.get(key), other.get(key), f"{place}/{key}")
        ]
    return [f"{place}: {str(one)[:300]} instead of {str(other)[:300]}"]
