"""A hundred snapshots a journal mode beside a live writer: none wrong, while cp fails beside."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.integration.sqlite_live import run_campaign


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("mode", "page_size", "vacuum"),
    [("wal", 4096, 2), ("delete", 4096, 2)],
)
def test_a_hundred_snapshots(
    tmp_path: Path, mode: str, page_size: int, vacuum: int, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_campaign(tmp_path, mode, 100, page_size, vacuum)
    assert result.snapshots == 100
    assert result.control_faults > 0  # the writer was fast enough to tear a plain copy
    assert result.hold_ms is not None
    with capsys.disabled():
        print(
            f"\n{mode}: 0 of {result.snapshots} snapshots wrong, cp wrong in"
            f" {result.control_faults}; hold median {statistics.median(result.hold_ms):.1f} ms,"
            f" max {max(result.hold_ms):.1f} ms; longest stall of the writer"
            f" {result.longest_stall_ms:.0f} ms"
        )
