"""`swap` killed at each of its calls, and the way on or back killed again: all moves, or none."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.swap import Swap, plan_move
from tests.support.repositories import memory_folder
from tests.support.states import difference, files_state
from tests.support.zygote import Zygote

HERE = "tests.faults.test_swap_kills"
WAYS = ("forward", "backward")


def prepare(base: Path) -> None:
    """A live folder, and staged entries of every kind for it."""
    live, new = base / "live", base / "work" / "new"
    for name in ("folder", "deep", "goes", "falls"):
        (live / name).mkdir(parents=True)
    for name in ("folder", "turns"):
        (new / name).mkdir(parents=True)
    for path, text in {
        live / "file": "old",
        live / "folder" / "x": "old",
        live / "deep" / "file": "old",
        live / "turns": "a file",
        live / "gone": "gone",
        live / "goes" / "y": "gone",
        new / "file": "new",
        new / "folder" / "x": "new",
        new / "folder" / "more": "new",
        new / "deep": "new",
        new / "turns" / "z": "a folder",
        live / "falls" / "w": "a folder",
        new / "falls": "a file",
        new / "comes": "new",
    }.items():
        path.write_text(text)
    (live / "link").symlink_to("file")
    (new / "link").symlink_to("folder")
    os.link(live / "file", live / "file's second name")
    for number, path in enumerate(sorted(base.rglob("*"), key=lambda p: (-len(p.parts), p))):
        os.utime(path, (10**9 + number, 10**9 + number), follow_symlinks=False)


def run(arguments: list[str]) -> int:
    """Plan where nothing is planned yet (forward), then go one way."""
    base, way = Path(arguments[0]), arguments[1]
    swap = Swap(base / "work")
    if way == "forward" and not swap.planned:
        live, new = base / "live", base / "work" / "new"
        names = ("file", "folder", "turns", "falls", "link", "comes")
        moves = [plan_move(live / name, new / name) for name in names]
        moves.append(plan_move(live / "deep" / "file", new / "deep"))
        moves += [plan_move(live / name, None) for name in ("gone", "goes", "never there")]
        swap.plan(moves)
    getattr(swap, way)()
    return 0


def state(base: Path) -> dict[bytes, Any]:
    """Of the live folder; the times of folders change with their entries."""
    found = files_state(base / "live")
    for what in found.values():
        if isinstance(what, dict) and "sha256" not in what:
            del what["mtime"]
    return found


class Bench:
    """The same prepared folders again and again."""

    def __init__(self, base: Path, zygote: Zygote) -> None:
        self.base = base / "at"
        self.zygote = zygote
        self.template = base / "template"
        prepare(self.template)
        self.reset()
        self.old = state(self.base)
        self.calls = len(self.go("forward").seen.calls)
        self.new = state(self.base)
        assert self.old != self.new

    def reset(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)
        shutil.copytree(self.template, self.base, symlinks=True)
        (self.base / "live" / "file's second name").unlink()
        os.link(self.base / "live" / "file", self.base / "live" / "file's second name")

    def go(self, way: str, kill_at: int | None = None) -> Any:
        done = self.zygote.run(self.base, way, function=f"{HERE}:run", kill_at=kill_at)
        assert done.seen.killed or done.code == 0, done.said
        return done

    def trial(self, kills: list[tuple[str, int]], last: str) -> bool:
        """Killed each time; then one way to its end. Whether every kill was seen to happen."""
        self.reset()
        seen = [self.go(way, number).seen.killed for way, number in kills]
        self.go(last)
        found = difference(state(self.base), self.new if last == "forward" else self.old)
        assert not found, (kills, last, found)
        return all(seen)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with memory_folder() as base, Zygote() as zygote:
        yield Bench(base, zygote)


@pytest.mark.parametrize("last", WAYS)
def test_killed_at_every_call_all_moves_or_none(bench: Bench, last: str) -> None:
    seen = sum(bench.trial([("forward", n)], last) for n in range(1, bench.calls + 1))
    print(f"{seen} kills of {bench.calls} calls, then {last}")
    assert seen == bench.calls


def test_killed_again_and_again_all_moves_or_none(bench: Bench) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    seen = trials = 0
    while trials < 60 or (seen <= 10 and trials < 600):
        trials += 1
        kills = [("forward", chance.randrange(1, bench.calls + 1))]
        kills += [
            (chance.choice(WAYS), chance.randrange(1, bench.calls))
            for _ in range(chance.randrange(1, 4))
        ]
        seen += bench.trial(kills, chance.choice(WAYS))
    print(f"{seen} of {trials} trials in which every kill was seen")
    assert seen > 10


@pytest.mark.slow
@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("last", WAYS)
def test_killed_twice_at_every_pair_of_calls(bench: Bench, second: str, last: str) -> None:
    seen = 0
    for first in range(1, bench.calls + 1):
        for number in range(1, bench.calls + 1):
            if not bench.trial([("forward", first), (second, number)], last):
                break
            seen += 1
    print(f"{seen} pairs of kills, then {last}")
    assert seen > bench.calls
