"""Capturing a database: exact bytes, both journal modes, every page size, and increments."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import apsw
import pytest

from safetake.errors import DamagedError
from safetake.sources.sqlite import fingerprint as fingerprint_module
from safetake.sources.sqlite.rollback import RollbackCopy
from tests.sources.sqlite.support import (
    add_rows,
    as_parent,
    capture,
    database,
    prove,
    stored_bytes,
)
from tests.support.memory_writer import MemoryRepository, find, materialise

MODES = ["wal", "delete", "truncate", "persist"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_given_a_database_it_is_stored_and_proven(
    tmp_path: Path, mode: str, page_size: int
) -> None:
    path = database(tmp_path / "projects.db", mode, page_size=page_size)
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        assert captured.facts["page_size"] == page_size
        assert captured.facts["rows"] == {"episodes": 500, "projects": 500}
        assert captured.facts["journal_mode"] == ("wal" if mode == "wal" else "rollback")
        assert captured.bytes == captured.facts["page_count"] * page_size
        assert stored_bytes(captured, repository) == path.read_bytes()
        prove(captured, repository, tmp_path / "out")


def test_rows_that_are_only_in_the_log_are_captured(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db")
    writer = apsw.Connection(str(path))
    writer.wal_autocheckpoint(0)
    add_rows(writer, 2000)
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        assert captured.facts["rows"]["projects"] == 2500
        assert captured.bytes > path.stat().st_size  # the main file has not grown yet
        prove(captured, repository, tmp_path / "out")
    writer.close()
    assert stored_bytes(captured, repository) == path.read_bytes()  # now it is folded in


@pytest.mark.parametrize("checkpoint", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_commits_and_checkpoints_after_the_hold_do_not_show(
    tmp_path: Path, checkpoint: str
) -> None:
    path = database(tmp_path / "projects.db")
    writer = apsw.Connection(str(path))
    writer.set_busy_timeout(0)
    add_rows(writer, 300)

    def move_on() -> None:
        add_rows(writer, 700)
        writer.execute("DELETE FROM projects WHERE id < 100")
        writer.execute(f"PRAGMA wal_checkpoint({checkpoint})").fetchall()
        add_rows(writer, 1)

    with MemoryRepository() as repository:
        captured = capture(path, repository, before_capture=move_on)
        assert captured.facts["rows"] == {"episodes": 800, "projects": 800}
        prove(captured, repository, tmp_path / "out")
    writer.close()


@pytest.mark.parametrize("checkpoint", ["PASSIVE", "TRUNCATE"])
def test_a_log_that_was_folded_in_before_the_hold_may_restart_after_it(
    tmp_path: Path, checkpoint: str
) -> None:
    path = database(tmp_path / "projects.db")
    writer = apsw.Connection(str(path))
    add_rows(writer, 300)

    def move_on() -> None:
        add_rows(writer, 500)  # restarts the log: the reader holds mark 0
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    with MemoryRepository() as repository:
        captured = capture(
            path,
            repository,
            before_hold=lambda: writer.execute(f"PRAGMA wal_checkpoint({checkpoint})").fetchall(),
            before_capture=move_on,
        )
        assert captured.facts["rows"]["projects"] == 800
        prove(captured, repository, tmp_path / "out")
    writer.close()


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_rollback_mode_keeps_what_was_committed_before_the_hold_and_nothing_later(
    tmp_path: Path, mode: str
) -> None:
    path = database(tmp_path / "projects.db", mode, rows=3000)
    writer = apsw.Connection(str(path))
    writer.pragma("journal_mode", mode)
    with MemoryRepository() as repository:
        captured = capture(
            path,
            repository,
            before_hold=lambda: add_rows(writer, 100),
            before_capture=lambda: writer.execute("DELETE FROM episodes"),
        )
        assert captured.facts["rows"] == {"episodes": 3100, "projects": 3100}
        prove(captured, repository, tmp_path / "out")
    writer.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_hold_can_be_taken_again_and_is_then_the_newer_cut(tmp_path: Path, mode: str) -> None:
    from safetake.config import SqliteConfig
    from safetake.model import CaptureContext
    from safetake.sources.sqlite import SqliteSource

    path = database(tmp_path / "projects.db", mode)
    writer = apsw.Connection(str(path))
    (tmp_path / "scratch").mkdir()
    with MemoryRepository() as repository:
        source = SqliteSource("projects", SqliteConfig(type="sqlite", path=path))
        session = source.session(
            CaptureContext(repository, None, tmp_path / "scratch", reader=repository)
        )
        session.prepare()
        first = session.hold(1.0)
        session.release()
        session.release()
        add_rows(writer, 10)
        second = session.hold(1.0)
        assert second.held_ns > first.fixed_ns
        session.release()
        add_rows(writer, 10)
        captured = session.capture()
        session.close()
        session.close()
        assert captured.facts["rows"]["projects"] == 510
        prove(captured, repository, tmp_path / "out")
    writer.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_vacuum_between_prepare_and_hold_shrinks_the_cut(tmp_path: Path, mode: str) -> None:
    path = database(tmp_path / "projects.db", mode, rows=3000)
    writer = apsw.Connection(str(path))

    def shrink() -> None:
        writer.execute("DELETE FROM episodes; DELETE FROM projects WHERE id > 5").fetchall()
        writer.execute("VACUUM").fetchall()

    with MemoryRepository() as repository:
        captured = capture(path, repository, before_hold=shrink)
        assert captured.facts["rows"] == {"episodes": 0, "projects": 5}
        assert captured.bytes < 100_000
        prove(captured, repository, tmp_path / "out")
    writer.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("vacuum", [1, 2])
def test_auto_vacuum_databases_that_grow_and_shrink(tmp_path: Path, mode: str, vacuum: int) -> None:
    path = database(tmp_path / "projects.db", mode, rows=1000, auto_vacuum=vacuum)
    writer = apsw.Connection(str(path))
    with MemoryRepository() as repository:
        parent = None
        for turn in range(4):
            captured = capture(path, repository, parent)
            prove(captured, repository, tmp_path / f"out{turn}")
            parent = as_parent(captured, repository)
            if turn % 2:
                writer.execute("DELETE FROM episodes WHERE id % 10").fetchall()
                writer.execute("PRAGMA incremental_vacuum").fetchall()
            else:
                add_rows(writer, 2000)
    writer.close()


def test_an_increment_stores_little(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", rows=20_000)
    with MemoryRepository() as repository:
        first = capture(path, repository)
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE episodes SET script = 'changed' WHERE id = 7000").fetchall()
        connection.close()
        before = repository.stored_bytes
        second = capture(path, repository, as_parent(first, repository))
        assert repository.stored_bytes - before <= 4 * second.facts["chunk"]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_unchanged_database_is_not_read(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint_module, "RACY_NS", 0)
    path = database(tmp_path / "projects.db", mode)
    with MemoryRepository() as repository:
        first = capture(path, repository)
        submitted = repository.submitted_bytes
        second = capture(path, repository, as_parent(first, repository))
        assert repository.submitted_bytes == submitted
        assert second.method.startswith("unchanged")
        assert second.facts == first.facts
        assert second.node == first.node
        prove(second, repository, tmp_path / "out")


def test_a_fingerprint_as_young_as_the_clock_is_not_trusted(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "delete")
    with MemoryRepository() as repository:
        first = capture(path, repository)  # the file was written a moment ago
        second = capture(path, repository, as_parent(first, repository))
        assert not second.method.startswith("unchanged")


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_change_between_prepare_and_hold_of_an_unchanged_database_is_kept(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint_module, "RACY_NS", 0)
    path = database(tmp_path / "projects.db", mode, rows=3000)
    writer = apsw.Connection(str(path))
    with MemoryRepository() as repository:
        first = capture(path, repository)
        second = capture(
            path,
            repository,
            as_parent(first, repository),
            before_hold=lambda: add_rows(writer, 1),
        )
        assert second.facts["rows"]["projects"] == 3001
        prove(second, repository, tmp_path / "out")
    writer.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_parent_whose_blobs_are_gone_is_stored_anew(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint_module, "RACY_NS", 0)
    path = database(tmp_path / "projects.db", mode)
    with MemoryRepository() as old, MemoryRepository() as new:
        first = capture(path, old)
        second = capture(path, new, as_parent(first, old))
        prove(second, new, tmp_path / "out")
        old.trees.clear()
        with pytest.raises(DamagedError):
            find(old, first.node, "projects.db")
        prove(capture(path, new, as_parent(first, old)), new, tmp_path / "out2")


def test_pages_spilled_and_rolled_back_after_the_pre_copy_are_not_kept(tmp_path: Path) -> None:
    # A rolled back spill restores the pages without moving the change counter, so the pre-copy of
    # its dirty pages must not pass for unchanged.
    path = database(tmp_path / "projects.db", "delete", rows=2000)
    source = path.read_bytes()
    writer = apsw.Connection(str(path))
    writer.pragma("cache_size", 5)
    real = RollbackCopy.copy

    def spilled_copy(self: object, *args: object) -> None:
        writer.execute("BEGIN IMMEDIATE").fetchall()
        writer.execute("UPDATE episodes SET script = zeroblob(100)").fetchall()
        assert path.read_bytes() != source
        real(self, *args)  # type: ignore[arg-type]  # reads while the writer's pages are spilled
        writer.execute("ROLLBACK").fetchall()

    with pytest.MonkeyPatch.context() as patch, MemoryRepository() as repository:
        patch.setattr(fingerprint_module, "RACY_NS", 0)  # only the times can tell
        patch.setattr(RollbackCopy, "copy", spilled_copy)
        captured = capture(path, repository)
        assert path.read_bytes()[24:28] == source[24:28]
        assert stored_bytes(captured, repository) == path.read_bytes()
        prove(captured, repository, tmp_path / "out")
    writer.close()


def test_wal_mode_without_any_connection_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["projects.db"]
    with MemoryRepository() as repository:
        capture(path, repository)
    assert [entry.name for entry in tmp_path.iterdir()] == ["projects.db"]


def test_a_database_behind_a_symbolic_link_is_captured_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path = database(tmp_path / "real" / "data.sqlite")
    writer = apsw.Connection(str(path))
    add_rows(writer, 50)
    link = tmp_path / "projects.db"
    link.symlink_to(path)
    with MemoryRepository() as repository:
        captured = capture(link, repository)
        assert captured.facts["rows"]["projects"] == 550
        assert captured.facts["file"] == "projects.db"
        prove(captured, repository, tmp_path / "out")
    writer.close()


def test_virtual_strange_and_without_rowid_tables_are_counted_and_hashed(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db")
    connection = apsw.Connection(str(path))
    connection.execute(
        """
        CREATE VIRTUAL TABLE search USING fts5(text);
        INSERT INTO search VALUES ('대본 script');
        CREATE VIRTUAL TABLE boxes USING rtree(id, a, b);
        INSERT INTO boxes VALUES (1, 2, 3);
        CREATE TABLE "odd ""name""; --" (x, "y z" AS (x + 1));
        INSERT INTO "odd ""name""; --" VALUES (1.5), (NULL), (x'00ff'), (CAST(x'ff41' AS TEXT));
        CREATE TABLE pairs(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
        INSERT INTO pairs VALUES ('b', 2), ('a', 1);
        CREATE TABLE counter(id INTEGER PRIMARY KEY AUTOINCREMENT);
        CREATE VIEW shown AS SELECT * FROM pairs;
        """
    ).fetchall()
    connection.close()
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        facts = captured.facts
        assert facts["virtual_tables"] == ["boxes", "search"]
        assert facts["rows"]['odd "name"; --'] == 4
        assert facts["rows"]["pairs"] == 2
        assert facts["rows"]["search_content"] == 1
        assert facts["row_hashes"].keys() == facts["rows"].keys()
        assert None not in facts["row_hashes"].values()
        prove(captured, repository, tmp_path / "out")


def test_a_table_only_the_application_can_read_does_not_stop_the_backup(tmp_path: Path) -> None:
    path = tmp_path / "projects.db"
    connection = sqlite3.connect(path)
    connection.create_collation("hangul", lambda a, b: (a > b) - (a < b))
    connection.execute("CREATE TABLE plain(a)")
    connection.execute("CREATE TABLE names(n TEXT COLLATE hangul PRIMARY KEY) WITHOUT ROWID")
    connection.executemany("INSERT INTO names VALUES (?)", [("가",), ("나",)])
    connection.commit()
    connection.close()
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        assert captured.facts["rows"] == {"names": None, "plain": 0}
        assert any("names" in note for note in captured.notes)
        materialise(repository, captured.node, tmp_path / "out")


def test_existing_foreign_key_violations_are_told_and_proven_equal(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db")
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM projects WHERE id <= 3").fetchall()
    connection.close()
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        assert captured.facts["foreign_key_violations"] == 3
        assert captured.notes == ["3 rows refer to a row that is not there"]
        prove(captured, repository, tmp_path / "out")
