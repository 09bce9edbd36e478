"""What the daemon does beside its loop, when the storage hangs and when work fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from safetake.config import Config
from safetake.configfile import parse
from safetake.errors import SafetakeError
from safetake.operate.watch import Clerk, Lookout
from safetake.repository import Repository
from safetake.storage import Kind, LocalStorage
from tests.support.jobs import until
from tests.support.repositories import new_repository


class Hanging(LocalStorage):
    """A storage whose listings wait while `free` is not set, as a dead NFS server's do."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.free = threading.Event()
        self.free.set()

    def list(self, kind: Kind) -> Iterator[tuple[str, int]]:
        self.free.wait(120)
        return super().list(kind)


def config(folder: Path) -> Config:
    text = '[repository]\nlocation = "repo"\n[restore]\nstate = "state"\n[daemon]\nlease = 2\n'
    return parse(text, folder / "safetake.toml")


def test_a_storage_that_hangs_costs_the_lead_and_it_comes_back(tmp_path: Path) -> None:
    repository: Repository = new_repository(tmp_path / "repo")
    storage = Hanging(tmp_path / "repo")
    repository.storage = storage
    woken = threading.Event()
    lookout = Lookout(config(tmp_path), repository, woken.set)
    lookout.start()
    until(lambda: lookout.records is not None, "the history")
    assert woken.is_set()
    lookout.records, lookout.wants_records = None, False  # as the loop takes it
    until(lookout.reachable, "the storage")
    storage.free.clear()
    until(lambda: lookout.candidate.role == "follower", "the end of the lead")
    until(lambda: not lookout.reachable(), "the storage to be missed")
    lookout.wants_records = True
    storage.free.set()
    until(lambda: lookout.records is not None, "the history once more")
    until(lambda: lookout.candidate.role == "leader", "the lead once more")
    assert lookout.alive()
    lookout.close(60)
    assert list((tmp_path / "repo" / "leader").iterdir()) == []


def test_closing_does_not_wait_for_a_storage_that_hangs(tmp_path: Path) -> None:
    repository: Repository = new_repository(tmp_path / "repo")
    storage = Hanging(tmp_path / "repo")
    repository.storage = storage
    lookout = Lookout(config(tmp_path), repository, lambda: None)
    storage.free.clear()
    lookout.start()
    lookout.close(0.1)
    assert lookout.candidate.role == "starting"
    storage.free.set()


def test_the_clerk_goes_on_after_what_fails() -> None:
    said: list[str] = []
    done = threading.Event()

    def fails() -> None:
        raise SafetakeError("the disk is full")

    clerk = Clerk(said.append)
    clerk.give(fails)
    clerk.give(done.set)
    clerk.close(60)
    assert done.is_set()
    assert said == ["the disk is full"]


def test_what_nobody_keeps_up_with_is_told_and_not_kept() -> None:
    said: list[str] = []
    go = threading.Event()
    clerk = Clerk(said.append)
    for _ in range(1100):
        clerk.give(lambda: go.wait(60))
    assert said
    assert "left out" in said[0]
    go.set()
    clerk.close(60)
