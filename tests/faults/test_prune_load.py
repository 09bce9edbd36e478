"""Prunes while backups run one after the other: nothing is lost, every snapshot restores."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.repository import prune
from safetake.restore.beside import restore_to
from safetake.snapshots import list_snapshots
from tests.support.backing_up import content_of
from tests.support.repositories import memory_folder, new_repository, open_repository, restic


class Backups:
    """A process that takes snapshots, and what it said of each."""

    def __init__(self, base: Path, name: str, seed: int) -> None:
        (base / name).mkdir()
        self.said: dict[str, list[str]] = {}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.backing_up"),
                *(base / "repository", base / name / "scripts", str(seed)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            name, words = json.loads(line)
            self.said[name] = words

    def more(self, count: int) -> None:
        """Wait until it has taken so many more."""
        wanted = len(self.said) + count
        while len(self.said) < wanted and self._process.poll() is None:
            time.sleep(0.01)

    def end(self) -> None:
        """Let it finish the last one; it met no failure."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._reader.join()
        said = self._process.stderr.read()
        assert self._process.wait() == 0, said
        self._process.stderr.close()


@contextlib.contextmanager
def backups(base: Path, seed: int) -> Iterator[list[Backups]]:
    running = [Backups(base, name, seed + at) for at, name in enumerate(("one", "two"))]
    try:
        for one in running:
            one.more(2)
        yield running
    finally:
        for one in running:
            one.end()


def campaign(rounds: int) -> None:
    """Prune, `rounds` times, while two processes back up; then judge."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    removed: set[str] = set()
    rescued = meanwhile = 0
    alone = 0.0
    with memory_folder() as base:
        new_repository(base / "repository")
        with backups(base, seed) as running:
            for turn in range(rounds):
                repository = open_repository(base / "repository")
                there = [one.id for one in list_snapshots(repository, proofs=False)]
                forget = chance.sample(there, max(1, len(there) * 2 // 3))
                share = chance.choice([0.0, 0.1, 0.5])
                before = sum(len(one.said) for one in running)
                plan = prune.plan_prune(repository, forget, max_unused=share)
                for one in running:
                    one.more(turn % 2)
                result = prune.run(repository, plan, wait=120)
                meanwhile += sum(len(one.said) for one in running) - before
                assert sorted(result.removed) == sorted(forget)
                removed.update(forget)
                rescued += result.packs_rescued
                alone = max(alone, result.alone_seconds)
                for one in running:
                    one.more(1)
                said = restic(base / "repository", "check", "--no-lock")
                assert "no errors were found" in said
        truth = {name: words for one in running for name, words in one.said.items()}
        said = restic(base / "repository", "check", "--read-data")
        assert "no errors were found" in said
        repository = open_repository(base / "repository")
        listed = list_snapshots(repository)
        assert {each.id for each in listed} == set(truth) - removed
        for found in listed:
            restore_to(repository, found, [], base / "out", durable=False)
            files = {path.name: path.read_bytes() for path in (base / "out" / "scripts").iterdir()}
            assert files == {word: content_of(word) for word in truth[found.id]}
            shutil.rmtree(base / "out")
    print(
        f"{rounds} prunes beside {len(truth)} snapshots, {meanwhile} of them between a plan and "
        f"its end; {len(removed)} removed, {rescued} packs rescued, {len(listed)} restored; alone "
        f"at most {alone:.3f} s"
    )
    assert meanwhile > 0


def test_prunes_beside_backups_lose_nothing() -> None:
    campaign(4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_prunes_beside_backups_lose_nothing() -> None:
    campaign(50)
