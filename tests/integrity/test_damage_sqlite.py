"""Each damage of facts/sqlite.md, made under an open application: named, or said to be unseen."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from safetake.config import SqliteConfig
from safetake.sources.sqlite import reading
from safetake.sources.sqlite.rot import CHECK
from tests.integrity.damage_sqlite import SEEN, UNSEEN, Damage, database, flipped_text, orphan
from tests.integrity.support import ask, by_check, picture, table, wrong
from tests.sources.sqlite.support import capture
from tests.support.memory_writer import MemoryRepository, entry_of

MODES = ("wal", "delete")
ORPHANS = {
    "name": "orphaned episodes",
    "sql": "SELECT id FROM episodes WHERE project_id NOT IN (SELECT id FROM projects)",
}


def config(path: Path, **more: Any) -> SqliteConfig:
    return SqliteConfig(type="sqlite", path=path, **more)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path, mode: str) -> Path:
    (folder := tmp_path / "data").mkdir()
    return database(folder / "projects.db", mode)


@contextmanager
def application(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody who has the database open, idle."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM projects").fetchall()
        yield connection


def test_a_sound_database_answers_well_and_stays_as_it_is(path: Path, tmp_path: Path) -> None:
    for connected in (True, False):
        before = picture(path.parent)
        if connected:
            with application(path):
                asked = ask(config(path, checks=[ORPHANS]), tmp_path / "scratch")
        else:
            asked = ask(config(path, checks=[ORPHANS]), tmp_path / "scratch")
            assert picture(path.parent) == before
            assert not list(path.parent.glob("*-shm")), "the last one takes the log away"
        assert wrong(asked) == {}
        assert {"opens", "integrity_check", "foreign_key_check", "has tables"} <= set(
            by_check(asked)
        )
        assert by_check(asked)["check: orphaned episodes"].ok
        assert not by_check(asked)[CHECK].asked
        assert asked.facts["free_pages"] == 12
        assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(("damage", "check"), SEEN.values(), ids=SEEN)
def test_damage_is_named_and_nothing_is_changed(
    path: Path, tmp_path: Path, damage: Damage, check: str
) -> None:
    with application(path):
        damage(path)
        before = picture(path.parent)
        asked = ask(config(path), tmp_path / "scratch")
        assert picture(path.parent) == before
    found = wrong(asked)
    assert check in found or "opens" in found, found
    assert all(finding.level == "error" for finding in found.values())


def test_offenders_are_listed(path: Path, tmp_path: Path) -> None:
    orphan(path)
    found = wrong(ask(config(path, checks=[ORPHANS]), tmp_path / "scratch"))
    assert found["foreign_key_check"].ids == [
        "episodes: rowid 3 → projects",
        "episodes: rowid 5 → projects",
    ]
    assert found["check: orphaned episodes"].ids == ["3", "5"]
    assert found["check: orphaned episodes"].detail == "2 offenders"


def test_no_flipped_bit_makes_it_fail_otherwise_than_by_a_finding(
    path: Path, tmp_path: Path
) -> None:
    good = path.read_bytes()
    chooser = random.Random(8)
    for number in range(150):
        data = bytearray(good)
        for _ in range(chooser.randrange(1, 100)):
            at = chooser.randrange(min(len(data), chooser.choice([100, 4096, 1 << 30])))
            data[at] ^= 1 << chooser.randrange(8)
        path.write_bytes(data)
        for finding in wrong(ask(config(path, checks=[ORPHANS]), tmp_path / f"s{number}")).values():
            assert finding.detail, finding
        for left in path.parent.glob("projects.db-*"):
            left.unlink()


def test_many_offenders_are_counted_and_some_are_named(path: Path, tmp_path: Path) -> None:
    check = {"name": "every one", "sql": "SELECT id, title FROM projects ORDER BY id"}
    found = wrong(ask(config(path, checks=[check]), tmp_path / "scratch"))["check: every one"]
    assert found.detail == "300 offenders"
    assert len(found.ids) == 100
    assert found.ids[0] == "1, 작품 1"


@pytest.mark.parametrize("damage", UNSEEN.values(), ids=UNSEEN)
def test_what_it_cannot_see_it_sees_by_a_snapshot_when_nobody_wrote(
    path: Path, tmp_path: Path, damage: Damage
) -> None:
    with MemoryRepository() as repository:
        entry = entry_of(capture(path, repository))
    entry["fingerprint"]["taken_ns"] += 3 * 10**9  # as if it had lain still for a while
    assert by_check(ask(config(path), tmp_path / "scratch", entry=entry))[CHECK].asked
    state = path.stat()
    damage(path)
    assert wrong(ask(config(path), tmp_path / "scratch")) == {}
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # no disk tells of its flipped bits
    found = wrong(ask(config(path), tmp_path / "scratch", entry=entry))
    assert list(found) == [CHECK]
    os.utime(path)
    asked = by_check(ask(config(path), tmp_path / "scratch", entry=entry))[CHECK]
    assert not asked.asked
    assert "written to" in asked.detail


def test_rot_below_a_log_is_seen(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "wal")
    with application(path) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("UPDATE projects SET title = 'x' WHERE id = 1")
        connection.commit()
        with MemoryRepository() as repository:
            entry = entry_of(capture(path, repository))
        assert entry["fingerprint"]["wal"] is not None
        entry["fingerprint"]["taken_ns"] += 3 * 10**9
        good = by_check(ask(config(path), tmp_path / "scratch", entry=entry))[CHECK]
        assert good.asked
        assert good.ok
        state = path.stat()
        flipped_text(path)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert CHECK in wrong(ask(config(path), tmp_path / "scratch", entry=entry))
        connection.execute("UPDATE projects SET title = 'y' WHERE id = 1")
        connection.commit()
        assert not by_check(ask(config(path), tmp_path / "scratch", entry=entry))[CHECK].asked


def test_a_crashed_writers_journal_is_told_and_not_rolled_back(tmp_path: Path) -> None:
    (folder := tmp_path / "data").mkdir()
    path = database(folder / "projects.db", "delete")
    program = (
        "import os, sys, apsw; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE');"
        "c.execute('UPDATE episodes SET project_id = 77777').fetchall(); c.cache_flush();"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], check=False)
    assert done.returncode == -signal.SIGKILL
    before = picture(folder)
    assert "projects.db-journal" in before
    asked = ask(config(path, checks=[ORPHANS]), tmp_path / "scratch")
    assert picture(folder) == before
    found = wrong(asked)
    assert list(found) == ["no crashed writer"]
    assert found["no crashed writer"].level == "warning"
    assert by_check(asked)["integrity_check"].ok, "asked of a copy that was rolled back"
    assert by_check(asked)["check: orphaned episodes"].ok


def test_a_crashed_writers_log_is_read(tmp_path: Path) -> None:
    (folder := tmp_path / "data").mkdir()
    path = database(folder / "projects.db", "wal")
    program = (
        "import os, sys, sqlite3; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('UPDATE episodes SET project_id = 7777 WHERE id = 8'); c.commit();"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, path], check=False)
    before = picture(folder)
    asked = ask(config(path), tmp_path / "scratch")
    assert picture(folder) == before
    assert wrong(asked)["foreign_key_check"].ids == ["episodes: rowid 8 → projects"]


def test_a_large_database_is_asked_quickly_and_that_is_said(tmp_path: Path, mode: str) -> None:
    path = database(tmp_path / "projects.db", mode)
    SEEN["other value in an index"][0](path)
    asked = by_check(ask(config(path), tmp_path / "scratch", quick_above=1000))
    assert not asked["integrity_check"].asked
    if mode == "wal":
        assert asked["quick_check"].ok, "it does not look into indexes"
        assert "indexes" in asked["integrity_check"].detail
    else:
        assert "no writer could commit" in asked["integrity_check"].detail
    assert wrong(ask(config(path), tmp_path / "scratch", quick_above=1000, full=True))
    quick = by_check(ask(config(path), tmp_path / "scratch", full=False))
    assert not quick["integrity_check"].asked
    assert quick["quick_check"].ok


def test_a_full_scratch_folder_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = database(tmp_path / "projects.db", "delete")
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: usage)
    asked = by_check(ask(config(path, checks=[ORPHANS]), tmp_path / "scratch"))
    assert "no room" in asked["integrity_check"].detail
    assert asked["check: orphaned episodes"].ok


def test_what_only_the_application_knows_is_not_asked(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "names.db"
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    connection.create_collation("hangul", lambda a, b: (a > b) - (a < b))
    connection.execute("CREATE TABLE names(n TEXT COLLATE hangul PRIMARY KEY) WITHOUT ROWID")
    connection.execute("INSERT INTO names VALUES ('가')")
    connection.close()
    asked = by_check(ask(config(path), tmp_path / "scratch"))
    assert wrong(asked.values()) == {}
    assert "hangul" in asked["integrity_check"].detail
    assert not asked["integrity_check"].asked


def test_a_key_that_is_declared_wrongly_hides_no_other_table(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "wal")
    orphan(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bad (a REFERENCES projects (title))")
        connection.execute("INSERT INTO bad VALUES ('x')")
        connection.commit()
    asked = by_check(ask(config(path), tmp_path / "scratch"))
    assert len(asked["foreign_key_check"].ids) == 2
    assert "bad" in asked["foreign_key_check of 1 tables"].detail


@pytest.mark.parametrize("sql", ["SELEC 1", "DELETE FROM episodes RETURNING id", "ATTACH 'x' AS y"])
def test_a_check_that_cannot_be_asked_is_an_error(path: Path, tmp_path: Path, sql: str) -> None:
    before = picture(path.parent)
    found = wrong(ask(config(path, checks=[{"name": "odd", "sql": sql}]), tmp_path / "scratch"))
    assert list(found) == ["check: odd"]
    assert "cannot be asked" in found["check: odd"].detail
    assert picture(path.parent) == before


def test_an_empty_database_is_an_error_unless_it_may_be(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DROP TABLE words; DROP TABLE episodes; DROP TABLE projects; DROP TABLE gone;"
        )
    assert list(wrong(ask(config(path), tmp_path / "scratch"))) == ["has tables"]
    assert wrong(ask(config(path, may_be_empty=True), tmp_path / "scratch")) == {}


def test_a_file_that_we_may_not_write_is_read_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder := tmp_path / "data").mkdir()
    path = database(folder / "projects.db", "wal")
    monkeypatch.setattr("os.access", lambda *_: False)
    before = picture(folder)
    asked = by_check(ask(config(path), tmp_path / "scratch"))
    assert wrong(asked.values()) == {}
    assert not asked["CHECK constraints"].asked
    assert picture(folder) == before
    with application(path):
        assert wrong(ask(config(path), tmp_path / "scratch")) == {}


def test_a_locked_database_is_told_after_some_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = database(tmp_path / "projects.db", "delete")
    monkeypatch.setattr(reading, "PATIENCE_SECONDS", 0.2)
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN EXCLUSIVE'); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = wrong(ask(config(path, busy_timeout=0.1), tmp_path / "scratch"))
        holder.kill()
    assert "locked" in found["opens"].detail


def test_the_page_says_the_same() -> None:
    said = table("SQLite")
    assert {damage for damage, word in said.items() if word == "named"} == set(SEEN)
    assert {damage for damage, word in said.items() if word != "named"} == set(UNSEEN)
