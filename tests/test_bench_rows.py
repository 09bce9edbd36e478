"""The measurement of `safetake rows` runs, small, and brings back exactly the right rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import main

BIG = [["--big"], ["--big", "--damage", "apart"], ["--big", "--damage", "scattered"]]


@pytest.mark.parametrize("more", [[], *(pytest.param(big, marks=pytest.mark.slow) for big in BIG)])
def test_given_few_rows_then_exactly_the_missing_come_back(tmp_path: Path, more: list[str]) -> None:
    places = ["--data", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    assert main(["rows", "--scale", "0.005", *places, *more]) == 0
    measured = json.loads((tmp_path / "results" / "rows.json").read_text())
    assert measured["exactly_the_missing"] is True
    assert measured["brought_back"] == measured["missing"] > 0
    assert list((tmp_path / "data").iterdir()) == []
