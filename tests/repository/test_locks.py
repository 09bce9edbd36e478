"""Locks: who keeps out whom, how they age, and how the dead ones go."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.clock import go_time, now_ns
from safetake.errors import DamagedError, RepositoryLockedError
from safetake.repository import Repository, locks
from safetake.repository.documents import save_unpacked
from safetake.repository.locks import STALE_NS
from safetake.storage import Kind, local
from tests.support.repositories import (
    PASSWORD,
    memory_folder,
    new_repository,
    open_repository,
    restic,
)

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


def test_an_interrupt_while_a_lock_is_written_leaves_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = open_repository(folder)
    sync = local.fsync_folder

    def interrupted(path: Path) -> None:
        sync(path)
        if path.name == "locks" and any(path.iterdir()):
            raise KeyboardInterrupt

    monkeypatch.setattr(local, "fsync_folder", interrupted)
    with pytest.raises(KeyboardInterrupt), repository.lock(exclusive=False):
        pytest.fail("it was had")
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


# waiting


@contextlib.contextmanager
def for_a_while(folder: Path, how: str, seconds: float = 0.4) -> Iterator[None]:
    """Another process that gives its lock back after some time."""
    with another(folder, how) as process:
        timer = threading.Timer(seconds, process.communicate)
        timer.start()
        yield
        timer.join()


@pytest.mark.parametrize(
    ("theirs", "ours"), [("exclusive", False), ("exclusive", True), ("shared", True)]
)
def test_who_may_wait_gets_the_lock_when_the_other_is_done(
    folder: Path, theirs: str, ours: bool
) -> None:
    repository = open_repository(folder)
    with for_a_while(folder, theirs), repository.lock(exclusive=ours, wait=60):
        assert count(repository) == 1
    assert count(repository) == 0


def test_waiting_is_bounded_and_leaves_no_lock(folder: Path) -> None:
    repository = open_repository(folder)
    repository.lock_wait = 0.2
    for theirs, ours in (("exclusive", False), ("exclusive", True), ("shared", True)):
        with another(folder, theirs) as process:
            with pytest.raises(RepositoryLockedError, match="after 0 s of waiting") as caught:
                with repository.lock(exclusive=ours):
                    pass
            assert f"process {process.pid}" in str(caught.value)
            assert count(repository) == 1


def test_who_waits_to_be_alone_keeps_new_ones_out_for_a_while_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "ALONE_S", 0.3)
    repository = open_repository(folder)
    seen: list[bool] = []
    with another(folder, "shared"):
        waiting = threading.Thread(target=_try_alone, args=(folder, 2.0))
        waiting.start()
        while waiting.is_alive():
            seen.append(any(lock.exclusive for lock in repository.locks.list()))
            if seen.count(True) and not seen[-1]:
                with repository.lock(exclusive=False):  # others come in between
                    break
        waiting.join()
    assert True in seen
    assert False in seen[seen.index(True) :]
    assert count(repository) == 0


def _try_alone(folder: Path, wait: float) -> None:
    with contextlib.suppress(RepositoryLockedError):
        with open_repository(folder).lock(exclusive=True, wait=wait):
            pass


def test_one_backup_after_the_other_does_not_keep_out_who_wants_to_be_alone(folder: Path) -> None:
    end = threading.Event()

    def backups() -> None:
        repository = open_repository(folder)
        while not end.is_set():
            with repository.lock(exclusive=False, wait=60):
                time.sleep(0.02)

    running = [threading.Thread(target=backups) for _ in range(3)]
    for one in running:
        one.start()
    try:
        with open_repository(folder).lock(exclusive=True, wait=60):
            assert count(open_repository(folder)) == 1
    finally:
        end.set()
        for one in running:
            one.join()


def test_restics_lock_is_waited_for(folder: Path) -> None:
    process = subprocess.Popen(
        ["restic", "--no-cache", "-r", folder, "backup", "--stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
    )
    repository = open_repository(folder)
    # it looks again 200 ms after it wrote its lock, and gives up when somebody wants to be alone
    while not any(now_ns() - lock.time_ns > 10**9 for lock in repository.locks.list()):
        assert process.poll() is None
    timer = threading.Timer(0.3, process.communicate, [b"data"])
    timer.start()
    with repository.lock(exclusive=True, wait=60):
        assert len(list(repository.storage.list("snapshots"))) == 1
    timer.join()
    assert process.returncode == 0


# a lock that was lost


def test_a_lock_that_somebody_removed_is_missed_before_a_snapshot_is_stored(folder: Path) -> None:
    repository = open_repository(folder)
    with repository.lock(exclusive=False):
        repository.locks.assure()
        repository.locks.remove(all_locks=True)
        with pytest.raises(RepositoryLockedError, match="was lost"):
            repository.save_snapshot({"time": "2026-01-02T03:04:05Z", "tree": "00" * 32})
    assert not list(repository.storage.list("snapshots"))
    repository.locks.assure()  # none is held


def test_a_lock_that_is_lost_while_a_snapshot_is_stored_takes_it_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = open_repository(folder)
    storage = repository.storage
    put = storage.put

    def slow(kind: Kind, name: str, data: bytes) -> None:
        put(kind, name, data)
        if kind == "snapshots":  # others worked meanwhile
            for lock, _ in storage.list("locks"):
                storage.remove("locks", lock)

    monkeypatch.setattr(storage, "put", slow)
    with repository.lock(exclusive=False), pytest.raises(RepositoryLockedError, match="was lost"):
        repository.save_snapshot({"time": "2026-01-02T03:04:05Z", "tree": "00" * 32})
    assert not list(storage.list("snapshots"))


def test_after_a_long_sleep_the_lock_is_not_relied_upon(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = open_repository(folder)
    with repository.lock(exclusive=False):
        later = now_ns() + locks.SAFE_NS + 10**9
        monkeypatch.setattr(locks, "now_ns", lambda: later)
        with pytest.raises(RepositoryLockedError, match="stood still"):
            repository.locks.assure()
        monkeypatch.undo()
        repository.locks.assure()


def test_a_lost_lock_is_not_refreshed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "REFRESH_S", 0.01)
    repository = open_repository(folder)
    with repository.lock(exclusive=False):
        first = {lock.id for lock in repository.locks.list()}
        while {lock.id for lock in repository.locks.list()} <= first:
            pass
        while not any(thread.name == "lock-refresh" for thread in threading.enumerate()):
            pass
        while any(thread.name == "lock-refresh" for thread in threading.enumerate()):
            repository.locks.remove(all_locks=True)
        with pytest.raises(RepositoryLockedError, match="was lost"):
            repository.locks.assure()
    assert count(repository) == 0
