"""`kill -9` at the calls of restores in place, of each kind of store and of all together:
afterwards `--resume` and `--rollback` end in exactly one of the two states.

The quick form takes calls that are spread over all steps, from a seed that it prints; the slow one
takes every call, ended both ways.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import ENDINGS, Matrix, World, place
from tests.faults.stores import (
    AbsentSqlite,
    BesideSqlite,
    Chroma,
    DamagedSqlite,
    Files,
    OfflineRedis,
    Reader,
    Redis,
    Sqlite,
)
from tests.support.states import difference
from tests.support.supervisor import Supervisor
from tests.support.zygote import Zygote


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


@contextlib.contextmanager
def world(zygote: Zygote) -> Iterator[World]:
    """An empty one; on disk once in a while."""
    with place(disk=random.random() < 0.25) as base, Supervisor(base / "run") as supervisor:
        one = World(base, zygote, [], supervisor)
        try:
            yield one
        finally:
            if one.bystander is not None:
                one.bystander.stop()


def there(*paths: Path) -> list[Path]:
    """Those that exist: an application must not make an empty database."""
    return [path for path in paths if path.exists()]


@contextlib.contextmanager
def sqlite_offline(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        store = Sqlite()
        one.stores = [store]
        one.program = Reader(lambda: there(store.path(one.home)))
        yield one


@contextlib.contextmanager
def sqlite_rollback_journal(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        one.stores = [Sqlite(journal="delete")]
        yield one


@contextlib.contextmanager
def sqlite_online(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        store = Sqlite()
        one.stores = [store]
        one.bystander = Reader(lambda: there(store.path(one.home)))
        yield one


@contextlib.contextmanager
def sqlite_beside(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        store = BesideSqlite()
        one.stores = [store]
        one.program = Reader(lambda: there(store.current(one.home)))
        one.words = ("--beside",)
        one.service = (
            'switch.projects = {setting = "DATABASE_URL", value = "sqlite:///{path}", '
            'env_file = "app.env"}\n'
        )
        yield one


@contextlib.contextmanager
def sqlite_damaged(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        one.stores = [DamagedSqlite()]
        one.sound = False
        yield one


@contextlib.contextmanager
def sqlite_absent(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        one.stores = [AbsentSqlite()]
        one.sound = False
        yield one


@contextlib.contextmanager
def undone(zygote: Zygote) -> Iterator[World]:
    with sqlite_offline(zygote) as one:
        one.undo = True
        yield one


@contextlib.contextmanager
def undone_damage(zygote: Zygote) -> Iterator[World]:
    with sqlite_damaged(zygote) as one:
        one.undo = True
        yield one


@contextlib.contextmanager
def chroma(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        one.stores = [Chroma()]
        one.program = Reader(lambda: there(one.home / "vectors" / "chroma.sqlite3"))
        yield one


@contextlib.contextmanager
def redis_online(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one, served(one) as store:
        one.stores = [store]
        yield one


@contextlib.contextmanager
def served(one: World) -> Iterator[Redis]:
    """A server that runs all the time."""
    store = Redis()
    store.place(one.base)
    store.start()
    try:
        yield store
    finally:
        store.kill()


@contextlib.contextmanager
def redis_offline(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        store = OfflineRedis("queue", ["--save", "3600 1"])
        store.place(one.home)
        one.stores = [store]
        one.program = store
        one.down = True
        yield one


@contextlib.contextmanager
def redis_append_only(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        store = OfflineRedis("queue", ["--save", "", "--appendonly", "yes"])
        store.place(one.home)
        one.stores = [store]
        one.program = store
        one.down = True
        yield one


@contextlib.contextmanager
def files(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one:
        one.stores = [Files()]
        one.words = ("--delete-extra",)
        yield one


@contextlib.contextmanager
def whole_system(zygote: Zygote) -> Iterator[World]:
    with world(zygote) as one, served(one) as queue:
        database = Sqlite()
        one.stores = [queue, Files(), Chroma(), database]
        vectors = one.home / "vectors" / "chroma.sqlite3"
        one.program = Reader(lambda: there(database.path(one.home), vectors))
        one.words = ("--delete-extra",)
        yield one


LATE = 6
"""So many runs in a row that ended before the call at which they were to be killed are the end."""
Make = Callable[[Zygote], contextlib.AbstractContextManager[World]]
WORLDS: dict[Make, int] = {
    sqlite_offline: 6,
    sqlite_rollback_journal: 3,
    sqlite_online: 6,
    sqlite_beside: 4,
    sqlite_damaged: 3,
    sqlite_absent: 3,
    undone: 3,
    undone_damage: 3,
    chroma: 6,
    redis_online: 6,
    redis_offline: 4,
    redis_append_only: 4,
    files: 6,
    whole_system: 8,
}
"""And how many trials the quick form makes."""


@pytest.mark.parametrize("make", WORLDS, ids=lambda make: make.__name__)
def test_killed_anywhere_it_ends_old_or_new(make: Make, zygote: Zygote) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with make(zygote) as one:
        one.build()
        matrix = Matrix(one)
        matrix.count()
        chosen = matrix.chosen(WORLDS[make], chance)
        again = chance.randrange(len(chosen))
        try:
            for turn, number in enumerate(chosen):
                second = (chance.choice(ENDINGS), chance.randrange(1, 50))
                # runs differ in how often they ask a server: the last calls may not come
                while not matrix.trial(
                    number,
                    ENDINGS[(turn + seed) % 2],
                    alone=chance.random() < 0.3,
                    close=turn % 3 == 0,
                    second=second if turn == again else None,
                ):
                    number -= max(1, number // 10)
        finally:
            print(matrix.report())
        assert sum(trial.call is not None for trial in matrix.trials) == len(chosen)


def test_killed_while_the_name_of_a_database_leads_nowhere(zygote: Zygote) -> None:
    """The way on and the way back know by then what the name stood for."""
    with sqlite_offline(zygote) as one:
        one.build()
        matrix = Matrix(one)
        matrix.count()
        gone = [call for call in matrix.calls if call.place.endswith("/home/projects.db-shm")]
        number = next(call.number for call in gone if call.name == "unlink")
        one.reset()
        assert one.restore(kill_at=number).seen.killed
        (store,) = one.stores
        assert isinstance(store, Sqlite)
        assert store.path(one.home).is_symlink()
        for ending in ENDINGS:
            assert matrix.trial(number, ending)


@pytest.mark.parametrize(
    "share", [pytest.param(12, id="some"), pytest.param(0, id="every", marks=pytest.mark.slow)]
)
@pytest.mark.timeout(3600)
def test_killed_while_it_keeps_what_was_written_to_the_restored_data(
    share: int, zygote: Zygote
) -> None:
    """A way back that is killed at any call ends in the old state, and keeps what it found."""

    def cut_off(one: World, number: int) -> None:
        one.reset()
        assert one.restore(kill_at=number).seen.killed
        with contextlib.closing(sqlite3.connect(one.home / "projects.db")) as live, live:
            live.execute("CREATE TABLE written_by_the_service (id)")

    with sqlite_offline(zygote) as one:
        one.build()
        matrix = Matrix(one)
        matrix.count()
        lines = [call for call in matrix.calls if call.place.endswith("/journal")]
        for call in reversed([call for call in lines if call.name == "write"]):
            one.reset()
            one.restore(kill_at=call.number)
            if one.step() == "done start":
                break
        cut_off(one, call.number)
        calls = [seen.number for seen in one.safetake("restore", "--rollback").seen.calls]
        found = difference(one.state(), one.old)
        assert not found, found
        step = max(1, len(calls) // share) if share else 1
        chosen = calls[random.randrange(step) :: step]
        for number in chosen:
            cut_off(one, call.number)
            killed = one.safetake("restore", "--rollback", kill_at=number)
            if one.is_open():
                one.safetake("restore", "--rollback", code=0)
            where = f"the way back was killed at {number}: {killed.seen.calls[:1]}"
            found = difference(one.state(), one.old)
            assert not found, where + "\n".join(found)
            one.whole()
            told = json.loads(one.safetake("--json", "snapshots", code=0).said)
            assert any("written-since" in each["tags"] for each in told), where
        print(f"{len(chosen)} of {len(calls)} calls of a way back")


PARTS: dict[Make, int] = {whole_system: 6}
"""Campaigns that are cut in parts, so that none takes hours; part k takes each n-th call from k."""


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("make", "part"),
    [
        pytest.param(make, part, id=f"{make.__name__}-{part + 1}of{PARTS.get(make, 1)}")
        for make in WORLDS
        for part in range(PARTS.get(make, 1))
    ],
)
def test_killed_at_every_call_it_ends_old_or_new(make: Make, part: int, zygote: Zygote) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    parts = PARTS.get(make, 1)
    with make(zygote) as one:
        one.build()
        matrix = Matrix(one)
        total = matrix.count()
        try:
            number, late = part + 1, 0
            while late < LATE:  # to the end, also of a run that makes more calls than the counted
                for ending in ENDINGS:
                    killed = matrix.trial(number, ending, close=number // parts % 10 == 0)
                    late = 0 if killed else late + 1
                number += parts
            for _ in range(total // parts // 4):
                number = chance.randrange(1, total + 1)
                second = (chance.choice(ENDINGS), chance.randrange(1, total // 2))
                matrix.trial(number, chance.choice(ENDINGS), second=second)
                matrix.trial(number, chance.choice(ENDINGS), alone=True)
        finally:
            print(matrix.report())
