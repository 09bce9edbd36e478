"""`kill -9` at each call of a restorer's steps that changes something, then ended both ways."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MEMORY = Path("/dev/shm")
CASES = [
    (mode, journal, step)
    for mode in ("offline", "online", "beside")
    for journal in ("wal", "delete")
    for step in ("switch", "switch_back", "commit")
    if step != "commit" or mode == "online"
]
SPARSE = {"offline": 8, "online": 30, "beside": 6}


@pytest.fixture
def ground() -> Iterator[Path]:
    """Where a sync costs nothing, if there is such a place: a kill loses no page of the cache."""
    place = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as made:
        yield Path(made)


def kill(mode: str, journal: str, step: str, ground: Path, every: int) -> int:
    """How often it was killed; fails on a state that is neither the old nor the new one."""
    command = [sys.executable, "-m", "tests.sources.sqlite.kills", mode, journal, str(ground)]
    done = subprocess.run(
        [*command, step, str(every)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["wrong"] == []
    assert answer["kills"] > 0
    return int(answer["kills"])


@pytest.mark.parametrize(("mode", "journal", "step"), CASES)
def test_some_calls(mode: str, journal: str, step: str, ground: Path) -> None:
    kill(mode, journal, step, ground, SPARSE[mode] if step == "switch" else SPARSE[mode] // 2)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "journal", "step"), CASES)
def test_every_call(
    mode: str, journal: str, step: str, ground: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kills = kill(mode, journal, step, ground, 1)
    with capsys.disabled():
        print(f"\n{mode}, {journal}, {step}: {kills} kills, each ended right")
