"""Locks: who keeps out whom, how they age, and how the dead ones go."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.clock import go_time, now_ns
from safetake.errors import DamagedError, RepositoryLockedError
from safetake.repository import Repository, locks
from safetake.repository.documents import save_unpacked
from safetake.repository.locks import STALE_NS
from tests.support.repositories import memory_folder, new_repository, open_repository, restic

HOLD = """
import sys
from pathlib import Path
from tests.support.repositories import open_repository
with open_repository(Path(sys.argv[1])).lock(exclusive=sys.argv[2] == "exclusive"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as base:
        new_repository(base / "repository")
        yield base / "repository"


@contextlib.contextmanager
def another(folder: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        if process.returncode is None:
            process.communicate()


def count(repository: Repository) -> int:
    return len(list(repository.storage.list("locks")))


def forged(repository: Repository, *, age_ns: int, host: str, pid: int, exclusive: bool) -> str:
    """A lock that somebody else wrote some time ago."""
    when = go_time(now_ns() - age_ns)
    text = (
        f'{{"time":"{when}","exclusive":{str(exclusive).lower()},"hostname":"{host}",'
        f'"username":"u","pid":{pid}}}'
    )
    return save_unpacked(repository.storage, repository.key, "locks", text.encode())


@pytest.mark.parametrize("theirs", ["shared", "exclusive"])
def test_two_processes_share_or_exclude_each_other(folder: Path, theirs: str) -> None:
    repository = open_repository(folder)
    with another(folder, theirs) as process:
        for exclusive in (False, True):
            attempt = repository.lock(exclusive=exclusive)
            if theirs == "shared" and not exclusive:
                with attempt:
                    assert count(repository) == 2
                continue
            with pytest.raises(RepositoryLockedError, match=f"process {process.pid}") as caught:
                with attempt:
                    pass
            assert caught.value.exit_code == 11
            assert "unlock" in caught.value.hint
            assert count(repository) == 1
    assert count(repository) == 0


def test_the_lock_of_a_killed_process_is_no_obstacle(folder: Path) -> None:
    repository = open_repository(folder)
    with another(folder, "exclusive") as process:
        process.kill()
        process.wait()
        (left,) = repository.locks.list()
        assert left.stale()
        with repository.lock(exclusive=True):
            assert [lock.id for lock in repository.locks.list()] != [left.id]
    assert count(repository) == 0


def test_a_stale_lock_goes_even_when_it_is_not_in_our_way(folder: Path) -> None:
    """It would be in the way of `restic prune`."""
    repository = open_repository(folder)
    forged(repository, age_ns=STALE_NS + 10**9, host="elsewhere", pid=1, exclusive=False)
    with repository.lock(exclusive=False):
        assert count(repository) == 1
    assert count(repository) == 0


def test_age_decides_about_other_hosts_and_processes_about_ours(folder: Path) -> None:
    repository = open_repository(folder)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    here = socket.gethostname()
    minute = 60 * 10**9
    for age, host, pid, stale in [
        (29 * minute, "elsewhere", 1, False),
        (31 * minute, "elsewhere", 1, True),
        (minute, here, int(dead.stdout), True),
        (minute, here, 1, False),
        (minute, here, os.getpid(), True),  # of this pid before the container restarted
        (31 * minute, here, 1, True),
        (minute, here, 1 << 80, True),
        (-minute, "elsewhere", 1, False),
    ]:
        name = forged(repository, age_ns=age, host=host, pid=pid, exclusive=True)
        (lock,) = repository.locks.list()
        assert lock.id == name
        assert lock.stale() == stale, (age, host, pid)
        assert lock.as_dict()["stale"] == stale
        if stale:
            with repository.lock(exclusive=True):
                pass
            assert count(repository) == 0
        else:
            with pytest.raises(RepositoryLockedError), repository.lock(exclusive=False):
                pass
            repository.storage.remove("locks", name)


def test_a_held_lock_is_refreshed_and_given_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "REFRESH_S", 0.01)
    repository = open_repository(folder)
    with repository.lock(exclusive=True):
        first = {lock.id for lock in repository.locks.list()}
        while {lock.id for lock in repository.locks.list()} <= first:
            pass
        assert all(lock.exclusive and not lock.stale() for lock in repository.locks.list())
    assert count(repository) == 0


def test_unlock_takes_the_stale_and_all_takes_all(folder: Path) -> None:
    repository = open_repository(folder)
    live = forged(repository, age_ns=0, host="elsewhere", pid=1, exclusive=False)
    stale = forged(repository, age_ns=2 * STALE_NS, host="elsewhere", pid=2, exclusive=False)
    assert [lock.id for lock in repository.locks.remove(all_locks=False)] == [stale]
    repository.storage.put("locks", "ab" * 32, b"damaged")
    with pytest.raises(DamagedError, match="locks/abab") as caught:
        repository.locks.list()
    assert "unlock --all" in caught.value.hint
    removed = repository.locks.remove(all_locks=True)
    assert {lock.id for lock in removed} == {live, "ab" * 32}
    assert count(repository) == 0


def test_a_holder_survives_the_question_whether_it_lives(folder: Path) -> None:
    """Stock restic asks with SIGHUP, whose default is death."""
    with another(folder, "exclusive") as process:
        process.send_signal(signal.SIGHUP)
        assert "successfully removed" in restic(folder, "unlock")
        process.send_signal(signal.SIGHUP)
        process.communicate()
        assert process.returncode == 0
    before = signal.getsignal(signal.SIGHUP)
    with open_repository(folder).lock(exclusive=False):
        assert signal.getsignal(signal.SIGHUP) is not before
    assert signal.getsignal(signal.SIGHUP) is before


@pytest.mark.parametrize(
    "text", ["5", "[]", "{}", '{"time":5}', '{"time":"2026-01-02T03:04:05Z"}', "[" * 50_000,
             '{"time":"2026-01-02T03:04:05Z","exclusive":true,"pid":"x"}',
             '{"time":"2026-01-02T03:04:05Z","exclusive":true,"pid":1e999}',
             '{"time":"2026-01-02T03:04:05Z","exclusive":true,"pid":null}'],
    ids=lambda text: text[:60],
)  # fmt: skip
def test_what_is_no_lock_is_damage(folder: Path, text: str) -> None:
    repository = open_repository(folder)
    if not text.startswith(("{", "[")):
        text = "[" + text
    name = save_unpacked(repository.storage, repository.key, "locks", text.encode())
    with pytest.raises(DamagedError, match=f"locks/{name} is damaged"):
        repository.locks.list()


def test_an_empty_lock_file_is_tolerated_as_in_restic(folder: Path) -> None:
    repository = open_repository(folder)
    repository.storage.put("locks", "ab" * 32, b"")
    with repository.lock(exclusive=True):
        pass
