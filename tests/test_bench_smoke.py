"""The measurements run: small, every tool that is installed, restored bytes compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.compare import STEPS
from bench.drills import Times, felt


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


@pytest.mark.slow
def test_given_changed_files_then_what_each_takes_is_measured(tmp_path: Path) -> None:
    words = ["files", "--small", "--data", str(tmp_path / "data"), "--results", str(tmp_path)]
    assert main(words) == 0
    measured = json.loads((tmp_path / "files.json").read_text())
    assert measured["files"] == [500, 2000]
    assert set(measured["kb_per_file"]) >= {"--in-place", "--undo"}
    assert not list((tmp_path / "data").iterdir())


def test_given_a_probe_then_requests_are_told_apart_by_what_ran(tmp_path: Path) -> None:
    second = 10**9
    times = Times(
        (0, 100 * second), [(20 * second, 30 * second), (70 * second, 80 * second)],
        [(10 * second, 12 * second)], [(17 * second, 31 * second), (69 * second, 81 * second)],
    )  # fmt: skip
    asked = [  # at, milliseconds, status
        (5, 1, 200), (9.5, 900, 200), (18, 7, 200), (25, 4, 200), (29, 6, 500), (50, 2, 201),
        (75, 8, 200), (120, 99, 0),
    ]  # fmt: skip
    (tmp_path / "record").write_text(
        "".join(f"{int(at * second)} {ms * 1000} 3 {status}\n" for at, ms, status in asked)
    )
    found = felt(tmp_path / "record", times)
    by_sort = found["application"]["search"]
    assert {sort: one["requests"] for sort, one in by_sort.items() if sort != "ratio"} == {
        "with": 3, "without": 2, "backup": 1, "edge": 1,
    }  # fmt: skip
    assert (by_sort["with"]["errors"], by_sort["without"]["errors"]) == (1, 0)
    assert (by_sort["with"]["median_ms"], by_sort["with"]["most_ms"]) == (6, 8)
    assert found["pairs"]["median_ratios"] == [6, 4]
