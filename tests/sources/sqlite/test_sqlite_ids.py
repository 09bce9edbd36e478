"""Ids out of SELECTs: live in both journal modes, restored, and straight out of a snapshot."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from safetake.config import SqliteConfig
from safetake.errors import SafetakeError, UsageError
from safetake.model import CaptureContext
from safetake.sources.sqlite import SqliteSource
from safetake.sources.sqlite.ids import live_ids, staged_ids, stored_ids
from tests.support.memory_writer import MemoryRepository

SQL = "SELECT id FROM things -- all of them"
IDS = {"7", "8", "nine", "7.5", "00ff", "말", ""}


def database(path: Path, mode: str = "wal", encoding: str = "UTF-8") -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA encoding = '{encoding}'")
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("CREATE TABLE things (id, other)")
    values = (7, 8.0, "nine", 7.5, b"\x00\xff", None, "말", "7", "")
    connection.executemany("INSERT INTO things VALUES (?, 1)", [(value,) for value in values])
    return connection


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_one_select_at_three_places(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = database(path, mode)
    config = SqliteConfig(type="sqlite", path=path)
    (tmp_path / "scratch").mkdir()
    with MemoryRepository() as repository:
        context = CaptureContext(repository, None, tmp_path / "scratch", reader=repository)
        session = SqliteSource("projects", config).session(context)
        session.prepare()
        session.hold(1.0)
        session.release()
        node = session.capture().node
        session.close()
        before = sorted(entry.name for entry in tmp_path.iterdir())
        readers = [live_ids(config, SQL + "\n;"), stored_ids(repository, node, SQL)]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy = tmp_path / "scratch" / "a.db"
        shutil.copy(path, copy)
        readers.append(staged_ids(copy, SQL))
        for reader in readers:
            assert set(reader.ids()) == IDS
            assert reader.among({"7", "10", "말"}) == {"7", "말"}
        assert sorted(entry.name for entry in tmp_path.iterdir()) == before
        assert [entry.name for entry in copy.parent.iterdir()] == ["a.db"]
    connection.close()


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_text_that_is_no_text_is_its_bytes(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = database(path, encoding=encoding)
    if encoding == "UTF-8":
        connection.execute("INSERT INTO things VALUES (CAST(x'ff41' AS TEXT), 1)")
    found = set(live_ids(SqliteConfig(type="sqlite", path=path), SQL).ids())
    assert found == IDS | ({"\udcffA"} if encoding == "UTF-8" else set())
    connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id, other FROM things",
        "SELECT id FROM thing",
        "SELECT id FROM things; SELECT 1",
        "DELETE FROM things",
        "DELETE FROM things RETURNING id",
        "PRAGMA user_version = 5",
        "SELECT 1) SELECT 2 --",
        "SELECT load_extension('x')",
        "",
    ],
)
def test_what_is_not_one_select_of_one_column_is_refused(sql: str, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = database(path)
    with pytest.raises(UsageError, match="SQL of the reference"):
        list(live_ids(SqliteConfig(type="sqlite", path=path), sql).ids())
    assert connection.execute("SELECT count(*) FROM things").fetchone() == (9,)
    connection.close()


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for content in (None, b"", b"x" * 5000):
        if content is not None:
            path.write_bytes(content)
        for reader in (
            live_ids(SqliteConfig(type="sqlite", path=path), SQL),
            staged_ids(path, SQL),
        ):
            with pytest.raises(SafetakeError, match=r"a\.db"):
                list(reader.ids())
