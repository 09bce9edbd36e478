"""Progress bars: on a terminal, on stderr, only when there is something to wait for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Workplace, environment, in_a_terminal

CODE = """
import sys
from safetake.cli import progress
progress.PATIENCE_S = float(sys.argv[1])
with progress.Progress(quiet=sys.argv[2] == "quiet") as bar:
    for what in ("projects", "vectors[red]"):
        bar(what, 1 << 20, 4 << 20)
bar("late", 1, 2)
print("result")
"""


@pytest.mark.parametrize(
    ("patience", "loudness", "shown"),
    [("0", "loud", True), ("0", "quiet", False), ("3600", "loud", False)],
)
def test_bars(tmp_path: Path, patience: str, loudness: str, shown: bool) -> None:
    place = Workplace(tmp_path, environment(tmp_path), ["-c", CODE])
    seen = in_a_terminal(place, patience, loudness)
    assert ("1.0/4.0 MiB" in seen) == shown
    assert ("vectors[red]" in seen) == shown  # a name is no markup
    assert "late" not in seen
    assert "result" in seen


def test_no_bar_without_a_terminal(tmp_path: Path) -> None:
    place = Workplace(tmp_path, environment(tmp_path), ["-c", CODE])
    done = place.run("0", "loud")
    assert (done.stdout, done.stderr) == ("result\n", "")
