"""Moves done and undone; `tests/faults/test_swap_kills.py` kills them at each of their calls."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from safetake.errors import RefusedError, RestoreError
from safetake.swap import Move, Swap, is_mount_point, plan_move


@pytest.fixture
def swap(tmp_path: Path) -> Swap:
    """A live folder and staged entries, planned."""
    live, new = tmp_path / "live", tmp_path / "work" / "new"
    for folder in (live / "folder", new / "folder", live / "goes"):
        folder.mkdir(parents=True)
    odd = os.fsdecode(b"\xff\n")
    for place in (
        live / "file",
        live / "gone",
        live / "folder" / "x",
        live / odd,
        live / "becomes",
    ):
        place.write_text("old")
    (live / "goes" / "inner").write_text("old")
    for place in (new / "file", new / "folder" / "y", new / "comes", new / odd):
        place.write_text("new")
    (new / "becomes").mkdir()
    swap = Swap(tmp_path / "work")
    moves = [plan_move(live / n, new / n) for n in ("file", "folder", "comes", "becomes", odd)]
    moves += [plan_move(live / n, None) for n in ("gone", "goes", "never")]
    assert not swap.planned
    assert list(swap.moves()) == []
    swap.plan(moves)
    assert swap.planned
    assert list(swap.moves()) == moves
    return swap


def tree(swap: Swap) -> dict[str, str]:
    live = Path(next(swap.moves()).live).parent
    return {
        str(p.relative_to(live)): p.read_text() if p.is_file() else "folder"
        for p in sorted(live.rglob("*"))
    }


ODD = os.fsdecode(b"\xff\n")
NEW = {
    "file": "new",
    "folder": "folder",
    "folder/y": "new",
    "comes": "new",
    "becomes": "folder",
    ODD: "new",
}


@pytest.mark.parametrize("links", [True, False])
def test_there_and_back_with_and_without_hard_links(
    swap: Swap, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", none)
    before = tree(swap)
    for _ in range(2):
        for _ in range(2):
            swap.forward()
            assert tree(swap) == NEW
        for _ in range(2):
            swap.backward()
            assert tree(swap) == before


def test_a_target_that_moved_is_refused_before_anything_is_replaced(swap: Swap) -> None:
    live = Path(next(swap.moves()).live).parent
    (live / "other").symlink_to("file")  # made first: an inode is soon given again
    (live / "other").rename(live / "gone")
    before = tree(swap)
    with pytest.raises(RefusedError, match="gone is not what it was"):
        swap.forward()
    swap.backward()
    assert tree(swap) == before
    assert sorted(p.name for p in swap.old(0).parent.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "gone", "goes", "folder"])
@pytest.mark.parametrize("folder", [True, False])
def test_what_was_made_in_a_place_since_does_not_stop_the_way_back(
    swap: Swap, name: str, folder: bool
) -> None:
    """An application that was started, and stopped again when the health gate failed."""
    before = tree(swap)
    swap.forward()
    place = Path(next(swap.moves()).live).parent / name
    if place.is_dir():
        place.rename(place.with_name("away"))
    place.unlink(missing_ok=True)
    if folder:
        place.mkdir()
        (place / "made").write_text("since")
    else:
        place.write_text("since")
    swap.backward()
    assert {k: v for k, v in tree(swap).items() if not k.startswith("away")} == before


def test_an_old_file_keeps_its_inode_and_comes_back_with_it(swap: Swap) -> None:
    live = Path(next(swap.moves()).live)
    number = live.stat().st_ino
    swap.forward()
    assert swap.old(0).stat().st_ino == number
    swap.backward()
    assert live.stat().st_ino == number


def test_a_plan_of_another_version_is_refused_and_nothing_is_moved(swap: Swap) -> None:
    before = tree(swap)
    path = swap.old(0).parent.parent / "moves.json"
    path.write_text(
        json.dumps([{"live": move.live, "new": move.new, "seen": None} for move in swap.moves()])
    )
    for go in (swap.forward, swap.backward):
        with pytest.raises(RestoreError, match=r"moves.json is not a list of moves") as error:
            go()
        assert "version that began it" in error.value.hint
    path.unlink()
    swap.plan([plan_move(path.parent.parent / "live" / "file", None)])
    assert tree(swap) == before


def peak(work: Path, count: int) -> int:
    """Bytes of Python's that so many moves of nothing take, there and back."""
    work.mkdir()
    swap = Swap(work)
    tracemalloc.start()
    try:
        swap.plan(Move(f"{work}/live/{n % 1500}/{n}", None, None, [n]) for n in range(count))
        swap.forward()
        swap.backward()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_plan_of_any_length_takes_the_same_memory(tmp_path: Path) -> None:
    few = peak(tmp_path / "few", 3_000)
    assert peak(tmp_path / "many", 12_000) < few + 300_000  # a list of the others takes 4 MB
    moves = Swap(tmp_path / "many").moves()
    assert [move.told for move in moves] == [[n] for n in range(12_000)]


def test_a_disk_that_fails_is_told(swap: Swap, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    before = tree(swap)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(RestoreError, match="Input/output error") as error:
            swap.forward()
    assert "--resume" in error.value.hint
    swap.backward()
    assert tree(swap) == before


def test_a_plan_that_can_not_be_written_is_no_plan(tmp_path: Path) -> None:
    swap = Swap(tmp_path / "missing")
    with pytest.raises(RestoreError):
        swap.plan([])
    assert not swap.planned


def test_mount_points() -> None:
    assert is_mount_point(Path("/"))
    assert is_mount_point(Path("/proc"))
    assert not is_mount_point(Path("/proc/self"))
    assert not is_mount_point(Path(__file__).parent)
