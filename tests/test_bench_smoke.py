"""The measurements run: small, every tool that is installed, restored bytes compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.compare import STEPS


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no peer to compare with")
def test_given_little_data_then_compare_measures_every_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    words = ["compare", "--small", "--data", str(data), "--results", str(results)]
    assert main([*words, "--tools", "safetake,restic,tar"]) == 0
    result = json.loads((results / "compare.json").read_text())
    for name, medians in result["medians"].items():
        assert set(STEPS) <= set(medians), name
        assert all(medians[step] > 0 for step in STEPS)
    assert result["medians"]["safetake"]["full: stored MB"] > 1
    assert "increment stored" in capsys.readouterr().out
    left = sorted(path.name for path in data.iterdir())
    assert left == ["pristine-0.01"]


def test_given_startup_then_it_is_measured(tmp_path: Path) -> None:
    assert main(["startup", "--rounds", "2", "--results", str(tmp_path)]) == 0
    measured = json.loads((tmp_path / "startup.json").read_text())
    assert set(measured["median_s"]) >= {"python -c pass", "safetake --help"}
