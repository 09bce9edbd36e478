"""A connection that only reads: a writer that begins is not one that died."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from safetake.sources.sqlite import reader
from safetake.sources.sqlite.reader import ReadingConnection

DIES = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 5")
db.execute("BEGIN")
db.execute("UPDATE item SET text = randomblob(3000)")
os.kill(os.getpid(), 9)
"""


def create(path: Path, mode: str) -> Path:
    """A database in that journal mode."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE item(id INTEGER PRIMARY KEY, text)")
        db.executemany("INSERT INTO item(text) VALUES (?)", [("x" * 1000,)] * 200)
        if mode == "persist":
            db.execute("UPDATE item SET text = 'z' WHERE id = 2")
    return path


@pytest.fixture(params=["delete", "persist", "truncate"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return create(tmp_path / "items.db", request.param)


class _Between(apsw.VFS):
    """SQLite's own files, and something that happens after each look at the writers' lock."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self.happens = happens
        self.vfs_name = f"between-{id(self)}"
        super().__init__(self.vfs_name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(
        self, vfs: _Between, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._vfs = vfs
        super().__init__("", name, flags)

    def xCheckReservedLock(self) -> bool:
        answer = super().xCheckReservedLock()
        self._vfs.happens()
        return answer


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[str]:
    """The URI of a database where a writer begins between SQLite's two looks."""
    path = create(tmp_path / "items.db", "persist")
    writer = apsw.Connection(os.fspath(path))  # of the same library: it keeps their locks apart
    writer.execute("PRAGMA synchronous = OFF")  # the journal tells of itself at once

    def begin() -> None:
        if not writer.in_transaction:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE item SET text = 'y' WHERE id = 1")

    vfs = _Between(begin)
    yield f"{path.as_uri()}?vfs={vfs.vfs_name}"
    writer.close()
    vfs.unregister()


def test_sqlite_takes_a_live_writer_for_one_that_died(busy: str) -> None:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with closing(apsw.Connection(busy, flags=flags)) as naive:
        with pytest.raises(apsw.ReadOnlyError) as caught:
            naive.execute("SELECT count(*) FROM item")
    assert reader.waits_for_a_writer(caught.value)


@pytest.mark.parametrize("how", ["execute", "pragma"])
def test_a_live_writer_is_not_taken_for_one_that_died(busy: str, how: str) -> None:
    with closing(ReadingConnection(busy, apsw.SQLITE_OPEN_URI)) as reading:
        if how == "execute":
            assert reading.execute("SELECT count(*) FROM item").fetchall() == [(200,)]
        else:
            assert reading.pragma("page_count") > 50


def test_one_that_died_is_told_of(database: Path) -> None:
    subprocess.run([sys.executable, "-c", DIES, os.fspath(database)], check=False)
    journal = database.with_name(database.name + "-journal")
    before = database.read_bytes(), journal.read_bytes()
    with closing(ReadingConnection(os.fspath(database))) as reading:
        for ask in (
            lambda: reading.execute("SELECT 1 FROM item"),
            lambda: reading.pragma("page_count"),
        ):
            with pytest.raises(apsw.ReadOnlyError) as caught:
                ask()
            assert reader.waits_for_a_writer(caught.value)
    assert before == (database.read_bytes(), journal.read_bytes())


def test_a_database_that_may_not_be_written_is_another_error(database: Path) -> None:
    with closing(ReadingConnection(os.fspath(database))) as reading:
        with pytest.raises(apsw.ReadOnlyError) as caught:
            reading.execute("DELETE FROM item")
    assert not reader.waits_for_a_writer(caught.value)
