"""The hold is real for other processes, and nothing in this process drops it by accident."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from safetake.config import SqliteConfig
from safetake.sources.sqlite import SqliteSource, live, rawfile
from tests.sources.sqlite.support import capture, database
from tests.support.memory_writer import MemoryRepository

_TRY_TO_WRITE = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
try:
    c.execute("BEGIN IMMEDIATE")
    c.execute("INSERT INTO projects(title) VALUES ('from outside')")
    c.execute("COMMIT")
    print("wrote")
except sqlite3.OperationalError as error:
    print(error)
"""


def write_from_outside(path: Path) -> str:
    """What another process is told when it wants to commit."""
    done = subprocess.run(
        [sys.executable, "-c", _TRY_TO_WRITE, str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_hold_stands_while_this_process_looks_at_the_same_file(
    tmp_path: Path, mode: str
) -> None:
    # Any close() of a descriptor of the file would drop this process's POSIX locks on it.
    path = database(tmp_path / "projects.db", mode)
    other = SqliteSource("again", SqliteConfig(type="sqlite", path=path))
    said = []

    def look_and_try() -> None:
        assert other.inspect().ok
        assert other.hold_rank in (20, 30)
        with rawfile.opened(path) as raw:
            rawfile.read(raw, 100, 0)
        said.append(write_from_outside(path))

    with MemoryRepository() as repository:
        captured = capture(
            path,
            repository,
            in_hold=look_and_try,
            before_capture=lambda: said.append(write_from_outside(path)),
        )
    assert said == ["database is locked", "wrote"]
    assert captured.facts["rows"]["projects"] == 500


_COMMIT_WITHOUT_TIMEOUT = """
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
c.execute("BEGIN IMMEDIATE")
print("begun", flush=True)
time.sleep(0.2)
for n in range(1000):
    c.execute("INSERT INTO projects(title) VALUES ('x')")
c.execute("COMMIT")
print("committed")
"""


def test_waiting_for_a_writer_does_not_make_its_commit_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every try of BEGIN IMMEDIATE takes a SHARED lock, on which a COMMIT without a timeout fails.
    monkeypatch.setattr(live, "_POLL_SECONDS", 0)  # so that they are sure to meet
    path = database(tmp_path / "projects.db", "delete")
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", _COMMIT_WITHOUT_TIMEOUT, str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        said = writer.stdout

        def wait_for_the_writer(said: IO[str] = said) -> None:
            assert said.readline() == "begun\n"

        with MemoryRepository() as repository:
            capture(path, repository, before_hold=wait_for_the_writer)
        assert writer.communicate()[0] == "committed\n"


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_readers_go_on_during_the_hold(tmp_path: Path, mode: str) -> None:
    path = database(tmp_path / "projects.db", mode)
    found = []

    def read() -> None:
        code = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1], timeout=0)"
        code += ".execute('SELECT count(*) FROM projects').fetchone())"
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        found.append(done.stdout.strip())

    with MemoryRepository() as repository:
        capture(path, repository, in_hold=read)
    assert found == ["500"]


def test_a_log_without_its_shared_memory_is_recovered_and_left_in_place(tmp_path: Path) -> None:
    path = database(tmp_path / "live.db")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("INSERT INTO projects(title) VALUES ('only in the log')")
    crashed = tmp_path / "projects.db"
    for suffix in ("", "-wal"):
        crashed.with_name(crashed.name + suffix).write_bytes(
            path.with_name(path.name + suffix).read_bytes()
        )
    connection.close()
    with MemoryRepository() as repository:
        captured = capture(crashed, repository)
    assert captured.facts["rows"]["projects"] == 501
    assert crashed.with_name("projects.db-wal").stat().st_size > 0  # not folded in by us


def test_descriptors_are_shared_and_closed_by_the_last_user(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"x" * 100)
    first = rawfile.acquire(path)
    second = rawfile.acquire(path)
    assert first is second
    moved = path.rename(tmp_path / "b.db")
    assert rawfile.acquire(moved) is first
    for _ in range(3):
        assert rawfile.read(first, 200, 90) == b"x" * 10
        rawfile.release(first)
    with pytest.raises(OSError):
        os.fstat(first.fd)
