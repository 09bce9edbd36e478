"""Live Chroma stores are taken hot, and every copy is an exact state that was acknowledged.

Real servers and embedded clients in processes of their own write without a pause; each snapshot is
brought back and opened by a fresh process. `tar` of the same folder is the control: it is a copy
without the procedure.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from safetake.sources.chroma.proof import questions
from tests.support.chroma_live import (
    Load,
    Taken,
    bring_back,
    longest_stall,
    questioned,
    server,
    take,
    tar_copy,
    writers,
    wrong,
)
from tests.support.memory_writer import MemoryRepository, entry_of


def store(kind: str, folder: Path) -> AbstractContextManager[str]:
    folder.mkdir()
    return server(folder) if kind == "server" else nullcontext(str(folder))


def snapshot_and_judge(
    folder: Path, place: Path, loads: Sequence[Load], before: Taken | None
) -> tuple[Taken, list[str]]:
    """One snapshot, an increment of the one before, and what a fresh process finds wrong in it."""
    repository = before.repository if before else MemoryRepository()
    parent = before.parent() if before else None
    taken = take(folder, place / "scratch", repository=repository, parent=parent)
    problems = [*taken.captured.unread]
    assert not any((place / "scratch").iterdir())
    copy = bring_back(taken, place / "copy")
    problems += wrong(questioned(copy), place, loads, taken)
    shutil.rmtree(copy)
    return taken, problems


@pytest.mark.parametrize(
    ("kind", "loads"),
    [
        ("server", [Load("first", 10, "l2"), Load("second", 100, "cosine", batch=3)]),
        ("embedded", [Load("first", 10, "ip", batch=9)]),
    ],
)
def test_every_snapshot_of_a_live_store_is_an_exact_prefix(
    tmp_path: Path, kind: str, loads: list[Load]
) -> None:
    folder, taken = tmp_path / "chroma", None
    with store(kind, folder) as target, writers(target, loads, 600, tmp_path):
        for _ in range(3):
            taken, problems = snapshot_and_judge(folder, tmp_path, loads, taken)
            assert problems == []
        assert taken is not None
        copy = bring_back(taken, tmp_path / "proof")
    failed = [check for check in questions(copy, entry_of(taken.captured)) if not check.ok]
    assert failed == []


SLOW = [
    ("server", 10, 18),
    ("server", 100, 18),
    ("server", 1000, 18),
    ("embedded", 10, 18),
    ("embedded", 100, 18),
    ("embedded", 1000, 18),
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "threshold", "count"), SLOW)
def test_campaign(
    tmp_path: Path, kind: str, threshold: int, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """108 snapshots in all; both collections are written at once, through one server."""
    loads = [Load("first", threshold, "l2", 128, 20, 4000)]
    if kind == "server":
        loads.append(Load("second", threshold, "l2", 64, 10))
    folder, taken = tmp_path / "chroma", None
    holds, bad, torn, controls = [], [], 0, 0
    with store(kind, folder) as target, writers(target, loads, 1800, tmp_path):
        for number in range(count):
            taken, problems = snapshot_and_judge(folder, tmp_path, loads, taken)
            holds.append(taken.hold_ms)
            bad += problems
            if number % 3:
                continue
            controls += 1
            control = tar_copy(folder, tmp_path / "tar")
            torn += bool(wrong(questioned(control), tmp_path, loads, None))
            shutil.rmtree(control)
        stalls = [longest_stall(tmp_path, load.name) for load in loads]
    with capsys.disabled():
        print(
            f"\n{kind}, threshold {threshold}: {len(bad)} of {count} wrong,"
            f" tar {torn} of {controls};"
            f" hold median {statistics.median(holds):.0f} ms, max {max(holds):.0f} ms;"
            f" longest stalls {[f'{stall:.2f} s' for stall in stalls]}"
        )
    assert not bad, bad


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_one_gigabyte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The hold does not grow with the vectors, and an increment stores what is new."""
    loads = [Load("first", 1000, "l2", 2048, 20, 130_000)]
    folder, holds, added = tmp_path / "chroma", [], []
    taken: Taken | None = None
    with store("embedded", folder) as target, writers(target, loads, 5400, tmp_path):
        for _ in range(12):
            repository = taken.repository if taken else MemoryRepository()
            parent = taken.parent() if taken else None
            taken = take(folder, tmp_path / "scratch", repository=repository, parent=parent)
            holds.append(taken.hold_ms)
            added.append(taken.added >> 20)
        assert taken is not None
        assert taken.captured.bytes > 1 << 30
        stall = longest_stall(tmp_path, "first")
        copy = bring_back(taken, tmp_path / "copy")
        problems = wrong(questioned(copy, 1800), tmp_path, loads, taken)
    with capsys.disabled():
        print(
            f"\n{taken.captured.bytes >> 20} MB: hold median {statistics.median(holds):.0f} ms,"
            f" max {max(holds):.0f} ms, longest stall {stall:.2f} s, MB added {added}"
        )
    assert problems == []
    assert statistics.median(holds) < 500
