"""The show of issue 3 through the command line: `restore --in-place --online` under a crowd.

The small version runs always; the one of 1 GB under 100 connections is `slow` and prints what the
crowd met. The database is in WAL mode, as an application with 100 connections has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sources.sqlite import crowd
from tests.sources.sqlite.restores import opened
from tests.sources.sqlite.test_restore_online import watched

PASSWORD = {"CROWD_PASSWORD": "a crowd"}


def safetake(folder: Path, *words: str) -> Any:
    """One command; its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "safetake", *words, "--config", folder / "safetake.toml", "--json"],
        env={**os.environ, **PASSWORD},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def restored_under_a_crowd(
    folder: Path, rows: int, readers: int, writers: int, processes: int, pause: float = 0.1
) -> tuple[crowd.Findings, dict[str, Any]]:
    """Generation 1 backed up, generation 2 live, and 1 restored while everybody is at work."""
    path = folder / "crowd.db"
    crowd.make(path, rows, "wal")
    (folder / "safetake.toml").write_text(
        f'[repository]\nlocation = "{folder / "repository"}"\npassword_env = "CROWD_PASSWORD"\n'
        f'[restore]\nstate = "{folder / "state"}"\n'
        f'[sources.crowd]\ntype = "sqlite"\npath = "{path}"\n'
    )
    safetake(folder, "init")
    safetake(folder, "backup")
    crowd.next_generation(path)
    with watched(path, readers, writers, processes, wal=True, pause=pause) as seen:
        words = ("restore", "latest", "crowd", "--in-place", "--online", "--yes")
        report = safetake(folder, *words)
    with opened(path) as connection:
        assert connection.execute("SELECT DISTINCT generation FROM items").fetchall() == [(1,)]
        assert connection.execute("SELECT count(*) FROM items").get == rows
        tables = connection.execute("SELECT name FROM sqlite_schema ORDER BY 1").fetchall()
        assert tables == [("items",), ("log",), ("meta",)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found = seen.findings
    assert found.errors == []
    assert found.generations == [1, 2]
    return found, report


def test_a_small_one(tmp_path: Path) -> None:
    found, report = restored_under_a_crowd(tmp_path, 1500, 6, 4, 2)
    assert report["ended"] == "committed"
    assert found.reads > 0
    assert found.writes > 0


@pytest.mark.slow
def test_one_gigabyte_under_a_hundred_connections(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, report = restored_under_a_crowd(tmp_path, 250_000, 20, 5, 4, pause=1.0)
    with capsys.disabled():
        print(
            f"\n{(tmp_path / 'crowd.db').stat().st_size / 1e9:.2f} GB under 100 connections: "
            f"{found.reads} reads without an error or a mix, {found.writes} writes, "
            f"{found.busy} times busy; longest read {found.longest_read:.2f} s, "
            f"longest write {found.longest_write:.2f} s; the restore {report['seconds']:.1f} s: "
            + ", ".join(f"{step['step']} {step['seconds']:.1f}" for step in report["steps"])
        )
