"""`kill -9` at the calls of a prune that change a file: the repository stays whole for stock
restic, every kept snapshot restores byte for byte, and the next prune finishes the work.

The quick form takes calls that are spread over all steps, from a seed that it prints; the slow one
takes every call.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.restore.beside import restore_to
from safetake.snapshots import list_snapshots
from tests.support.pruning import pruned
from tests.support.ptrace import Call
from tests.support.repositories import (
    files_source,
    memory_folder,
    new_repository,
    open_repository,
    picture,
    restic,
    snapshot,
)
from tests.support.zygote import Run, Zygote

PROGRAM = "tests.support.pruning:main"
KILLS = 6
STEPS = (
    ("snapshots", r"/snapshots"),
    ("index", r"/index"),
    ("packs", r"/data"),
    ("proofs", r"/proofs"),
    ("digests", r"/digests"),
    ("locks", r"/locks"),
    ("temporary", r"/tmp"),
)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


class World:
    """A repository with leftovers of all kinds, and what its snapshots have to restore to."""

    def __init__(self, base: Path, zygote: Zygote, chance: random.Random) -> None:
        self.zygote = zygote
        self.template = base / "template"
        self.place = base / "repository"
        self.out = base / "out"
        data = base / "scripts"
        data.mkdir()
        repository = new_repository(self.template)
        truth: dict[str, dict[bytes, Any]] = {}
        for _ in range(6):
            for _ in range(3):
                path = data / f"{chance.randrange(8)}.bin"
                path.write_bytes(chance.randbytes(chance.randrange(1, 150_000)))
            report = snapshot(repository, files_source("scripts", data))
            truth[report.id] = picture(data)
            document = repository.load_document("snapshots", report.id)
            proof = {"tree": document["tree"], "time": document["time"], "ok": True,
                     "rung": "opened", "problems": []}  # fmt: skip
            repository.save_document("proofs", proof)
        ids = list(truth)
        self.forget = [ids[at] for at in (0, 1, 3)]
        self.truth = {name: state for name, state in truth.items() if name not in self.forget}
        self.all = truth
        with repository.lock(exclusive=False), repository.writer() as writer:
            writer.store(b"in no index" * 1000).result()
            writer.flush_packs()
        self.trials: list[tuple[Call, str]] = []
        self.calls: list[Call] = []

    def reset(self) -> None:
        """As before the prune."""
        shutil.rmtree(self.place, ignore_errors=True)
        subprocess.run(["cp", "-a", self.template, self.place], check=True)

    def prune(self, kill_at: int | None = None) -> Run:
        """One prune, watched."""
        return self.zygote.run(
            self.place, "0", *self.forget, function=PROGRAM, kill_at=kill_at, ignore=r"^/dev/null$"
        )

    def count(self) -> int:
        """One that is not disturbed."""
        self.reset()
        run = self.prune()
        assert run.code == 0, run.said
        self.calls = run.seen.calls
        self.finished()
        return len(self.calls)

    def trial(self, number: int) -> bool:
        """Kill at a call, judge, prune again, judge. False: it had ended before."""
        self.reset()
        run = self.prune(kill_at=number)
        if not run.seen.killed:
            assert run.code == 0, run.said
            self.finished()
            return False
        call = run.seen.calls[0]
        self.trials.append((call, self.step(call)))
        try:
            self.whole()
            self.restores()
            again = self.prune()
            assert again.code == 0, again.said
            self.finished()
        except BaseException as error:
            error.add_note(f"killed at {call}")
            raise
        return True

    def step(self, call: Call) -> str:
        """What it was at, for people."""
        return next((name for name, found in STEPS if re.search(found, call.place)), "other")

    def whole(self) -> str:
        """Stock restic finds no error."""
        said = restic(self.place, "check", "--read-data", "--no-lock")
        assert "no errors were found" in said
        return said

    def restores(self) -> None:
        """Every snapshot that is there restores exactly; those to be kept are all there."""
        repository = open_repository(self.place)
        listed = list_snapshots(repository)
        assert {one.id for one in listed} >= set(self.truth)
        for one in listed:
            restore_to(repository, one, [], self.out, durable=False)
            assert picture(self.out / "scripts") == self.all[one.id]
            shutil.rmtree(self.out)

    def finished(self) -> None:
        """Exactly what is kept is there, and nothing is left over."""
        said = self.whole()
        assert "additional files" not in said
        assert "several indexes" not in said
        self.restores()
        names = {
            kind: {path.name for path in (self.place / kind).iterdir()}
            for kind in ("snapshots", "tmp", "locks")
        }
        assert names == {"snapshots": set(self.truth), "tmp": set(), "locks": set()}
        repository = open_repository(self.place)
        assert len(list(repository.storage.list("proofs"))) == len(self.truth)
        idle = pruned(repository)
        assert (idle.packs_removed, idle.packs_written, idle.unused_bytes) == (0, 0, 0)

    def report(self) -> str:
        """Counts, for people."""
        steps = Counter(step for _, step in self.trials)
        names = Counter(call.name for call, _ in self.trials)
        return (
            f"{len(self.calls)} calls in an undisturbed prune; {len(self.trials)} kills, "
            "each seen\n"
            f"  by place: {dict(steps.most_common())}\n  by call: {dict(names.most_common())}"
        )


@pytest.fixture
def world(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with memory_folder() as base:
        yield World(base, zygote, random.Random(seed))


def test_a_killed_prune_harms_nothing(world: World) -> None:
    total = world.count()
    chance = random.Random(total)
    step = total / KILLS
    try:
        for turn in range(KILLS):
            world.trial(1 + int((turn + chance.random()) * step))
    finally:
        print(world.report())
    assert len(world.trials) >= KILLS - 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_prune_killed_at_every_call_harms_nothing(world: World) -> None:
    world.count()
    number, late = 0, 0
    try:
        while late < 3:  # to the end, also of a run that makes more calls than the counted
            number += 1
            late = 0 if world.trial(number) else late + 1
    finally:
        print(world.report())
    assert len(world.trials) >= len(world.calls) - 3
