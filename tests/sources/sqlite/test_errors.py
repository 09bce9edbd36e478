"""Every way in which a source is not what it should be has its own clear failure."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from safetake.config import SqliteConfig
from safetake.errors import BarrierTimeoutError, SourceError
from safetake.model import BATCH_BYTES, CaptureContext
from safetake.sources.sqlite import SqliteSource, rawfile
from safetake.sources.sqlite.rollback import RollbackCopy
from tests.sources.sqlite.support import add_rows, capture, database, prove
from tests.support.memory_writer import MemoryRepository


def fails(path: Path, words: str, **config: Any) -> SourceError:
    """The capture fails with `words`; `inspect` says the same and raises nothing."""
    with MemoryRepository() as repository, pytest.raises(SourceError, match=words) as caught:
        capture(path, repository, **config)
    assert caught.value.hint
    state = SqliteSource("projects", SqliteConfig(type="sqlite", path=path)).inspect()
    assert not state.ok
    assert state.problems
    return caught.value


def test_missing(tmp_path: Path) -> None:
    fails(tmp_path / "projects.db", "does not exist")
    assert list(tmp_path.iterdir()) == []  # and looking did not create it


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "projects.db").touch()
    fails(tmp_path / "projects.db", "empty", may_be_empty=True)


def test_directory(tmp_path: Path) -> None:
    fails(tmp_path, "directory")


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "projects.db")
    fails(tmp_path / "projects.db", "not a regular file")


def test_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "projects.db").write_text("id,title\n" * 1000)
    fails(tmp_path / "projects.db", "not a SQLite database")


def test_encrypted(tmp_path: Path) -> None:
    (tmp_path / "projects.db").write_bytes(random.Random(1).randbytes(64 * 1024))
    fails(tmp_path / "projects.db", "encrypted")


def test_cut_inside_the_header(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "delete")
    os.truncate(path, 50)
    fails(path, "corrupt")


@pytest.mark.parametrize("place", [(16, b"\x03\x01"), (18, b"\x09\x09")])
def test_an_impossible_header(tmp_path: Path, place: tuple[int, bytes]) -> None:
    path = database(tmp_path / "projects.db", "delete")
    data = bytearray(path.read_bytes())
    data[place[0] : place[0] + 2] = place[1]
    path.write_bytes(data)
    fails(path, "corrupt")


def test_a_file_shorter_than_its_page_count(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "delete")
    os.truncate(path, path.stat().st_size // 2)
    fails(path, "corrupt")


def test_a_malformed_schema(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "delete")
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA writable_schema = on").fetchall()
    connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE (' WHERE name = 'projects'")
    connection.close()
    fails(path, "corrupt")


def test_no_table_fails_unless_it_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "projects.db"
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 7)
    connection.close()
    fails(path, "no table")
    with MemoryRepository() as repository:
        captured = capture(path, repository, may_be_empty=True)
        assert captured.facts["rows"] == {}
        assert captured.facts["user_version"] == 7


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_writer_that_stays_is_a_barrier_timeout_and_nothing_stays_held(
    tmp_path: Path, mode: str
) -> None:
    path = database(tmp_path / "projects.db", mode)
    writer = apsw.Connection(str(path))
    (tmp_path / "scratch").mkdir()
    with MemoryRepository() as repository:
        session = SqliteSource("projects", SqliteConfig(type="sqlite", path=path)).session(
            CaptureContext(repository, None, tmp_path / "scratch", reader=repository)
        )
        try:
            session.prepare()
            writer.execute("BEGIN IMMEDIATE").fetchall()
            with pytest.raises(BarrierTimeoutError, match="locked"):
                session.hold(0.2)
            writer.execute("INSERT INTO projects(title) VALUES ('a'); COMMIT").fetchall()
            session.hold(0.2)
            writer.set_busy_timeout(0)
            with pytest.raises(apsw.BusyError):
                writer.execute("BEGIN IMMEDIATE").fetchall()
            session.release()
            add_rows(writer, 1)
            captured = session.capture()
        finally:
            session.close()
        assert captured.facts["rows"]["projects"] == 501
    writer.close()


def test_an_exclusively_locked_database(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "delete")
    writer = apsw.Connection(str(path))
    writer.execute("BEGIN EXCLUSIVE").fetchall()
    with MemoryRepository() as repository, pytest.raises(BarrierTimeoutError, match="locked"):
        capture(path, repository, busy_timeout=0.1)
    writer.close()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_writer_that_ends_in_time_is_waited_for(tmp_path: Path, mode: str) -> None:
    path = database(tmp_path / "projects.db", mode)
    writer = apsw.Connection(str(path))
    writer.set_busy_timeout(2000)

    def start() -> None:
        writer.execute("BEGIN IMMEDIATE; INSERT INTO projects(title) VALUES ('late')").fetchall()
        threading.Timer(0.3, lambda: writer.execute("COMMIT").fetchall()).start()

    with MemoryRepository() as repository:
        captured = capture(path, repository, before_hold=start)
        assert captured.facts["rows"]["projects"] == 501
        prove(captured, repository, tmp_path / "out")
    writer.close()


def test_a_replaced_file(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "delete")
    other = database(tmp_path / "other.db", "delete")
    with MemoryRepository() as repository, pytest.raises(SourceError, match="replaced"):
        capture(path, repository, before_hold=lambda: other.rename(path))


def test_a_journal_mode_that_changes_in_between(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db", "delete")

    def change() -> None:
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA journal_mode = wal").fetchall() == [("wal",)]
        connection.close()

    with MemoryRepository() as repository, pytest.raises(SourceError, match="journal mode"):
        capture(path, repository, before_hold=change)


def test_a_failure_inside_the_hold_leaves_nothing_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = database(tmp_path / "projects.db", "delete")
    monkeypatch.setattr(
        RollbackCopy, "settle", lambda *_: (_ for _ in ()).throw(SourceError("disk"))
    )
    writer = apsw.Connection(str(path))
    writer.set_busy_timeout(0)
    with MemoryRepository() as repository, pytest.raises(SourceError, match="disk"):
        capture(path, repository)
    add_rows(writer, 1)
    writer.close()


def test_what_a_thread_could_not_compare_does_not_pass_for_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * BATCH_BYTES))

    def without_memory(self: object, view: memoryview, offset: int, spool: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError

    monkeypatch.setattr(RollbackCopy, "_compare", without_memory)
    with MemoryRepository(keep=False) as repository, rawfile.opened(path) as raw:
        copy = RollbackCopy(raw, 1 << 20, repository, tmp_path)
        copy.copy(3 * BATCH_BYTES, lambda done: None)
        with pytest.raises(MemoryError):
            copy.settle(3 * BATCH_BYTES)
        copy.close()


# What permissions do is another user's view: root reads and writes everything.
_AS_NOBODY = """
import os, sys
from pathlib import Path
from typing import Any
from safetake.config import SqliteConfig
from safetake.sources.sqlite import SqliteSource, rawfile
os.setgroups([]); os.setgid(65534); os.setuid(65534)
state = SqliteSource("p", SqliteConfig(type="sqlite", path=Path(sys.argv[1]))).inspect()
print(state.summary, "HINT", state.problems[0][1] if state.problems else "")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize(
    ("mode", "file_mode", "folder_mode", "words"),
    [
        ("delete", 0o600, 0o755, "cannot be read: Permission denied"),
        ("delete", 0o644, 0o755, "is read-only for this user"),
        ("delete", 0o644, 0o700, "cannot be reached: Permission denied"),
        ("wal", 0o666, 0o755, "in WAL mode and its folder is read-only"),
    ],
)
def test_permissions(mode: str, file_mode: int, folder_mode: int, words: str) -> None:
    import shutil
    import subprocess
    import sys
    import tempfile

    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))  # pytest's own folders are closed to others
    try:
        path = database(folder / "projects.db", mode)
        path.chmod(file_mode)
        folder.chmod(folder_mode)
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert words in done.stdout, done.stdout + done.stderr
        assert "HINT give this user" in done.stdout or "HINT mount" in done.stdout
    finally:
        shutil.rmtree(folder)
