"""Who holds a lock on chroma.sqlite3: seen without taking one, and without a trace."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from safetake.errors import RefusedError
from safetake.sources.chroma.inuse import lock_holder, refuse_open
from tests.support.repositories import picture

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute(sys.argv[2]).fetchall()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def connected(path: Path, sql: str) -> Iterator[int]:
    """A process that has the database open and did one thing."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path, sql], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.communicate()


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_locks_are_seen_without_a_trace(tmp_path: Path, mode: str) -> None:
    database = tmp_path / "chroma.sqlite3"
    db = sqlite3.connect(database)
    db.execute(f"PRAGMA journal_mode={mode}")
    db.execute("CREATE TABLE t (x)")
    db.close()
    before = picture(tmp_path)
    assert lock_holder(database) is None
    assert refuse_open(tmp_path) == refuse_open(tmp_path)
    assert picture(tmp_path) == before
    for sql in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
        with connected(database, sql) as pid:
            assert lock_holder(database) == pid
            with pytest.raises(RefusedError, match=f"process {pid}"):
                refuse_open(tmp_path)
    with connected(database, "SELECT * FROM t") as pid:
        # idle in rollback mode: no lock, and still its descriptor tells
        assert lock_holder(database) == (pid if mode == "wal" else None)
        with pytest.raises(RefusedError, match=f"process {pid}"):
            refuse_open(tmp_path)
    assert lock_holder(tmp_path / "missing") is None
