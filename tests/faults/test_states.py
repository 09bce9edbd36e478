"""The comparers of the crash campaigns see every kind of difference, and nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.faults.stores import Chroma, Files, Redis, Sqlite
from tests.support.states import difference


@pytest.fixture
def database(tmp_path: Path) -> Path:
    Sqlite().make(tmp_path)
    return tmp_path / "projects.db"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE episodes SET length = length + 0.0001 WHERE id = 7",
        "UPDATE episodes SET script = CAST(script AS BLOB) WHERE id = 7",
        "UPDATE episodes SET cover = NULL WHERE id = 7",
        "DELETE FROM tags WHERE episode = 1",
        "INSERT INTO projects (title) VALUES ('x'); DELETE FROM projects WHERE title = 'x'",
        "UPDATE episodes SET id = 900 WHERE id = 40",
        "DROP TRIGGER indexed",
        "DROP INDEX by_project",
        "ALTER TABLE projects ADD COLUMN later",
        "PRAGMA user_version = 9",
        "PRAGMA application_id = 9",
        "PRAGMA journal_mode = delete",
        "DELETE FROM words WHERE rowid = 3",
    ],
)
def test_a_database_that_differs_is_seen(database: Path, change: str) -> None:
    before = Sqlite().state(database.parent)
    connection = sqlite3.connect(database)
    connection.executescript(change)
    connection.close()
    assert difference(Sqlite().state(database.parent), before)


def test_where_a_commit_lies_is_no_difference(database: Path) -> None:
    before = Sqlite().state(database.parent)
    holder = sqlite3.connect(database)
    holder.execute("CREATE TABLE x (y)")
    holder.execute("DROP TABLE x")
    holder.commit()
    assert (database.parent / "projects.db-wal").stat().st_size > 0
    assert Sqlite().state(database.parent) == before
    holder.close()
    assert Sqlite().state(database.parent) == before


def test_a_databases_mode_counts(database: Path) -> None:
    before = Sqlite().state(database.parent)
    database.chmod(0o600)
    assert difference(Sqlite().state(database.parent), before)


def test_a_folder_that_differs_is_seen(tmp_path: Path) -> None:
    store = Files()
    store.make(tmp_path)
    root = tmp_path / "scripts"
    before = store.state(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy / "scripts", symlinks=True)
    assert difference(store.state(copy), before)  # the two names of one file are two files there
    shutil.rmtree(copy)
    assert store.state(tmp_path) == before
    changes: list[Callable[[], object]] = [
        lambda: (root / "seasons").chmod(0o700),
        lambda: os.utime(root / "gone" / "away.md", (1, 1)),
        lambda: os.setxattr(root / "becomes", "user.x", b"y"),
        lambda: (root / "empty").rmdir(),
        lambda: (root / "new").touch(),
        lambda: root.chmod(0o700),
    ]
    for change in changes:
        last = store.state(tmp_path)
        change()
        assert difference(store.state(tmp_path), last)


def test_a_chroma_folder_that_differs_is_seen(tmp_path: Path) -> None:
    store = Chroma()
    store.make(tmp_path)
    before = store.state(tmp_path)
    index = next((tmp_path / "vectors").rglob("data_level0.bin"))
    content = index.read_bytes()
    index.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert difference(store.state(tmp_path), before)
    index.write_bytes(content)
    assert store.state(tmp_path) == before
    shutil.rmtree(index.parent)
    assert difference(store.state(tmp_path), before)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    store = Redis()
    store.place(tmp_path)
    store.start()
    try:
        store.make(tmp_path)
        yield store
    finally:
        store.kill()


@pytest.mark.parametrize(
    "command",
    [
        "SET job:1 x",
        "PEXPIREAT session 4000000000009",
        "PERSIST session",
        "LSET list 3 x",
        "SADD set d",
        "HSET hash f1 2",
        "ZADD zset 1.25 a",
        "XADD stream 6-1 a 2",
        "XGROUP SETID stream group 0",
        "COPY job:1 job:1 DB 1",
        "SWAPDB 0 3",
        "FUNCTION FLUSH",
    ],
)
def test_a_server_that_differs_is_seen(server: Redis, tmp_path: Path, command: str) -> None:
    before = server.state(tmp_path)
    assert server.state(tmp_path) == before
    with server.client() as client:
        asked: Any = client.execute_command
        asked(*command.split())
    assert difference(server.state(tmp_path), before)


def test_a_server_is_put_back(server: Redis, tmp_path: Path) -> None:
    server.change(tmp_path)
    changed = server.state(tmp_path)
    with redis.Redis(port=server.port) as client:
        client.flushall()
        client.function_flush()
    assert difference(server.state(tmp_path), changed)
    server.reset(tmp_path)
    assert server.state(tmp_path) == changed
