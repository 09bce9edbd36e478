"""Five snapshots a mode beside a live writer, and databases that a killed writer left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import sqlite_writer
from tests.integration.sqlite_live import Writer, faults_of, run_campaign
from tests.sources.sqlite.support import capture
from tests.support.memory_writer import MemoryRepository, materialise


@pytest.mark.parametrize(
    ("mode", "page_size", "vacuum"),
    [("wal", 4096, 0), ("wal", 512, 2), ("delete", 4096, 0), ("truncate", 65536, 1)],
)
def test_every_snapshot_is_an_exact_prefix(
    tmp_path: Path, mode: str, page_size: int, vacuum: int
) -> None:
    result = run_campaign(tmp_path, mode, 5, page_size, vacuum)
    assert result.snapshots == 5


@pytest.mark.parametrize("mode", ["wal", "delete", "persist"])
def test_what_a_killed_writer_left_is_recovered_and_captured(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "projects.db"
    sqlite_writer.create(str(path), mode, 4096, 0)
    left: set[str] = set()
    for seed in range(4):
        writer = Writer(path, mode, seed)
        writer.wait_for_more(20)
        writer.kill()
        acknowledged = writer.acknowledged
        left.update(entry.name for entry in tmp_path.iterdir())
        # As after a restart of the machine: the log is there, its shared memory is not.
        (tmp_path / "projects.db-shm").unlink(missing_ok=True)
        with MemoryRepository() as repository:
            captured = capture(path, repository)
            materialise(repository, captured.node, tmp_path / f"out{seed}")
        out = tmp_path / f"out{seed}" / "projects.db"
        assert faults_of(out, acknowledged, acknowledged + 1) == []
    if mode == "wal":
        assert "projects.db-wal" in left
