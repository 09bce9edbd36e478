"""Many snapshots beside a writer that never rests: the repository stays whole."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.repository.check import check
from safetake.restore.beside import restore_to
from safetake.snapshots import list_snapshots
from tests.support.repositories import (
    files_source,
    memory_folder,
    new_repository,
    open_repository,
    restic,
    snapshot,
    sqlite_source,
)

WRITER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=wal")
connection.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, twin INTEGER, noise BLOB)")
connection.execute("CREATE TABLE total (n INTEGER)")
connection.execute("INSERT INTO total VALUES (0)")
print("ready", flush=True)
n = 0
while True:
    connection.execute("BEGIN IMMEDIATE")
    n += 1
    row = (n % 2000, n, os.urandom(3000))
    connection.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", row)
    connection.execute("UPDATE total SET n = ?", (n,))
    connection.execute("COMMIT")
"""


@pytest.fixture
def base() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


def campaign(base: Path, count: int) -> None:
    """Snapshots under load; each is one moment of the database, and restic finds nothing wrong."""
    place, data = base / "repository", base / "p.db"
    (base / "scripts").mkdir()
    repository = new_repository(place)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, data], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for number in range(count):
            (base / "scripts" / str(number)).write_bytes(bytes([number % 256]) * 10_000)
            report = snapshot(
                repository, files_source("scripts", base / "scripts"), sqlite_source("p", data)
            )
            assert report.exit_code == 0
            assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    assert "no errors were found" in restic(place, "check", "--read-data")
    repository = open_repository(place)
    assert check(repository, read_data=True, trust_digests=False).errors == []
    totals = []
    for number, found in enumerate(list_snapshots(repository)):
        target = base / f"out-{number}"
        assert restore_to(repository, found, [], target, durable=False).problems == []
        restored = sqlite3.connect(target / "p" / "p.db")
        assert restored.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (total,) = restored.execute("SELECT n FROM total").fetchone()
        rows = restored.execute("SELECT n, twin FROM rows ORDER BY twin").fetchall()
        restored.close()
        assert rows == [(n % 2000, n) for n in range(max(1, total - 1999), total + 1)]
        assert len(list((target / "scripts").iterdir())) == number + 1
        shutil.rmtree(target)
        totals.append(total)
    assert len(totals) == count
    assert totals == sorted(totals)
    assert totals[-1] > totals[0]
    print(f"{count} snapshots beside {totals[-1]} transactions, all whole")


def test_six_snapshots_under_load(base: Path) -> None:
    campaign(base, 6)


@pytest.mark.slow
def test_fifty_snapshots_under_load(base: Path) -> None:
    campaign(base, 50)
