"""The election on real repositories, with a clock that the tests turn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.errors import StorageError
from safetake.operate import leader
from safetake.operate.leader import Candidate
from safetake.repository import Repository
from safetake.storage import Kind, LocalStorage
from tests.support.repositories import memory_folder, new_repository, restic

LEASE = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return new_repository(tmp_path / "repo")


def documents(repository: Repository) -> int:
    return len(list(repository.storage.list("leader")))


def role(candidate: Candidate) -> str:
    return candidate.role


def renew(repository: Repository, *candidates: Candidate, times: int = 1) -> None:
    for _ in range(times):
        for candidate in candidates:
            candidate.renew(repository)


def test_one_alone_leads_at_its_second_look(repository: Repository, clock: Clock) -> None:
    alone = Candidate(LEASE, clock)
    assert role(alone) == "starting"
    renew(repository, alone)
    assert role(alone) == "follower"
    renew(repository, alone)
    assert role(alone) == "leader"
    renew(repository, alone, times=20)
    assert documents(repository) == 1


def test_a_second_one_follows_and_takes_over_when_the_first_resigns(
    repository: Repository, clock: Clock
) -> None:
    first, second = Candidate(LEASE, clock, "b"), Candidate(LEASE, clock, "a")
    renew(repository, first, times=2)
    renew(repository, second, first, times=5)
    assert (role(first), role(second)) == ("leader", "follower")  # though `a` comes before `b`
    assert "process" in second.leader
    first.resign(repository)
    renew(repository, second)
    assert role(second) == "leader"
    assert documents(repository) == 1


def test_a_dead_leader_is_followed_after_its_lease_and_not_before(
    repository: Repository, clock: Clock
) -> None:
    first, second = Candidate(LEASE, clock, "a"), Candidate(LEASE, clock, "b")
    renew(repository, first, times=2)
    renew(repository, second, first, second, times=2)
    while role(first) == "leader":
        assert role(second) == "follower"
        clock.now += 1
        renew(repository, second)
    assert role(second) == "follower"  # the first gave up before the second may begin
    clock.now += LEASE / 2
    renew(repository, second)
    assert role(second) == "leader"
    renew(repository, first)  # it was asleep, not dead
    assert (role(first), role(second)) == ("follower", "leader")


def test_a_dead_process_of_this_machine_is_followed_at_once(
    repository: Repository, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not leader.machine():
        pytest.skip("the kernel does not name this machine's processes")
    first, second = Candidate(LEASE, clock, "a"), Candidate(LEASE, clock, "b")
    with monkeypatch.context() as patch:
        # its document says that it began at another time: the process is another one now
        patch.setattr(leader, "process_began", lambda pid: "12345")
        renew(repository, first, times=2)
    renew(repository, second, times=2)
    assert role(second) == "leader"
    assert documents(repository) == 1  # what the dead one left is gone


def test_of_two_that_lead_after_all_one_gives_way(repository: Repository, clock: Clock) -> None:
    first, second = Candidate(LEASE, clock, "a"), Candidate(LEASE, clock, "b")
    renew(repository, first, second)
    first.wanted = second.wanted = True  # neither had seen the other
    renew(repository, first, second, first, second)
    assert (role(first), role(second)) == ("leader", "follower")


@given(st.randoms(use_true_random=False), st.integers(2, 4))
def test_any_order_of_looks_ends_with_one_leader(random_: random.Random, count: int) -> None:
    clock = Clock()
    with memory_folder() as folder:
        repository = new_repository(folder / "repo")
        candidates = [Candidate(LEASE, clock) for _ in range(count)]
        for _ in range(random_.randint(0, 12)):
            renew(repository, random_.choice(candidates))
            clock.now += random_.choice([0.0, 1.0, 5.0])
            assert sum(candidate.role == "leader" for candidate in candidates) <= 1
        dead = random_.choice([None, *candidates])
        clock.now += LEASE + 1 if dead is not None else 0
        living = [candidate for candidate in candidates if candidate is not dead]
        for _ in range(4):
            renew(repository, *living)
            clock.now += 1
        clock.now += LEASE
        for _ in range(4):
            renew(repository, *living)
        assert sum(candidate.role == "leader" for candidate in candidates) == 1


class Refusing(LocalStorage):
    """A storage that is full, or append-only, or gone."""

    refused: frozenset[str] = frozenset()

    def put(self, kind: Kind, name: str, data: bytes) -> None:
        if "put" in self.refused:
            raise StorageError("no space left on device")
        super().put(kind, name, data)

    def remove(self, kind: Kind, name: str) -> None:
        if "remove" in self.refused:
            raise StorageError("append-only")
        super().remove(kind, name)

    def list(self, kind: Kind) -> Iterator[tuple[str, int]]:
        if "list" in self.refused:
            raise StorageError("gone")
        return super().list(kind)


@pytest.fixture
def refusing(repository: Repository) -> Repository:
    assert isinstance(repository.storage, LocalStorage)
    repository.storage = Refusing(repository.storage.root)
    return repository


def refuse(repository: Repository, *what: str) -> None:
    assert isinstance(repository.storage, Refusing)
    repository.storage.refused = frozenset(what)


def test_a_full_repository_is_led_by_whoever_is_alone(refusing: Repository, clock: Clock) -> None:
    refuse(refusing, "put")
    alone = Candidate(LEASE, clock)
    renew(refusing, alone)
    assert role(alone) == "leader"
    assert "no space" in alone.trouble


def test_a_leader_whose_storage_is_gone_goes_on_and_a_follower_does_not_begin(
    refusing: Repository, clock: Clock
) -> None:
    first, second = Candidate(LEASE, clock, "a"), Candidate(LEASE, clock, "b")
    renew(refusing, first, times=2)
    renew(refusing, second, times=2)
    refuse(refusing, "list")
    for _ in range(20):
        clock.now += LEASE / 4
        renew(refusing, first, second)
    assert (role(first), role(second)) == ("leader", "follower")
    assert first.trouble == "gone"
    refuse(refusing)
    renew(refusing, first, second)
    assert first.trouble == ""
    assert (role(first), role(second)) == ("leader", "follower")


def test_documents_do_not_pile_up_where_nothing_can_be_removed(
    refusing: Repository, clock: Clock
) -> None:
    refuse(refusing, "remove")
    alone = Candidate(LEASE, clock)
    renew(refusing, alone, times=20)
    assert role(alone) == "leader"
    assert documents(refusing) == 2


def test_a_storage_that_hangs_ends_the_leadership(repository: Repository, clock: Clock) -> None:
    alone = Candidate(LEASE, clock)
    renew(repository, alone, times=2)
    clock.now += LEASE * 0.75
    assert role(alone) == "follower"


def test_damaged_and_foreign_documents_are_no_candidates(
    repository: Repository, clock: Clock, tmp_path: Path
) -> None:
    repository.save_document("leader", {"name": "x", "leads": True})
    place = tmp_path / "repo" / "leader"
    (place / ("0" * 64)).write_bytes(b"no document")
    (place / "note.txt").write_text("of a person")
    alone = Candidate(LEASE, clock)
    renew(repository, alone, times=2)
    assert role(alone) == "leader"


def test_the_folder_is_made_when_it_is_not_there_and_restic_does_not_see_it(
    repository: Repository, clock: Clock, tmp_path: Path
) -> None:
    (tmp_path / "repo" / "leader").rmdir()
    alone = Candidate(LEASE, clock)
    renew(repository, alone, times=2)
    assert role(alone) == "leader"
    assert "no errors were found" in restic(tmp_path / "repo", "check")
    assert documents(repository) == 1
