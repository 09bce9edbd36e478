"""The history of real repositories: nothing is lost, and whatever is changed or gone is named."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetake.errors import SafetakeError, StorageError
from safetake.operate.history import History, stored
from safetake.operate.history.local import LocalHistory
from safetake.repository import Repository
from safetake.repository.check import check
from safetake.storage import LocalStorage
from tests.operate.history.support import Clock, log, machine, run
from tests.support.repositories import (
    database,
    memory_folder,
    new_repository,
    open_repository,
    restic,
    snapshot,
    sqlite_source,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as place:
        yield place


@pytest.fixture
def repository(folder: Path) -> Repository:
    return new_repository(folder / "repo")


def names(repository: Repository) -> list[str]:
    return sorted(stored.names(repository))


def test_a_run_is_kept_on_the_machine_and_in_the_repository(
    folder: Path, repository: Repository
) -> None:
    config = machine(folder)
    clock = Clock()
    first = run(config, repository, clock=clock, job="nightly", facts={"added_bytes": 5})
    second = run(config, repository, "prune", clock=clock, exit_code=1, error="full", hint="buy")
    assert second.previous == (first.id,)
    for history in (History(config), History(machine(folder, "other"), repository)):
        assert history.records() == [first, second]
        assert history.verify() == []
    assert History(config).records(since_ns=second.ended_ns) == [second]
    assert History(config).heads() == [second.id]
    assert History(config).unpushed() == 0
    assert log(config).stat().st_mode & 0o777 == 0o600
    assert log(config).parent.stat().st_mode & 0o777 == 0o700


def test_a_record_waits_for_the_repository(folder: Path, repository: Repository) -> None:
    config = machine(folder)
    waiting = [run(config) for _ in range(3)]
    assert History(config).unpushed() == 3
    last = run(config, repository)
    assert History(config).unpushed() == 0
    other = History(machine(folder, "other"), repository)
    assert {record.id for record in other.records()} == {r.id for r in [*waiting, last]}
    assert len(names(repository)) == 1


def test_a_repository_that_fails_leaves_the_record_on_the_machine(
    folder: Path, repository: Repository
) -> None:
    config = machine(folder)
    run(config, repository)
    shutil.move(folder / "repo", folder / "away")
    history = History(config, repository)
    record = history.append("backup", started_ns=1)
    assert history.trouble
    shutil.move(folder / "away", folder / "repo")
    run(config, repository)
    assert record.id in {one.id for one in History(machine(folder, "b"), repository).records()}


def test_a_machine_without_a_folder_uses_the_repository(
    folder: Path, repository: Repository
) -> None:
    run(machine(folder), repository)
    (folder / "state-none").write_text("in the way")
    pod = machine(folder, "none")
    history = History(pod, repository)
    second = history.append("backup", started_ns=1)
    assert len(second.previous) == 1
    assert [record.id for record in history.records()][-1] == second.id
    with pytest.raises(SafetakeError, match="cannot open the history"):
        History(pod).append("backup", started_ns=1)


def test_a_machine_that_forgot_all_goes_on_where_it_was(
    folder: Path, repository: Repository
) -> None:
    config = machine(folder)
    first = run(config, repository)
    shutil.rmtree(folder / "state-one")
    assert run(config, repository).previous == (first.id,)
    assert History(config, repository).verify() == []


def test_two_machines_fork_and_join(folder: Path, repository: Repository) -> None:
    one, two = machine(folder, "one"), machine(folder, "two")
    clock = Clock()
    root = run(one, repository, clock=clock)
    run(two, repository, clock=clock)  # has seen the root now
    left, right = run(one, clock=clock), run(two, clock=clock)  # neither sees the other's
    joined_left = run(one, repository, clock=clock)
    joined = run(two, repository, clock=clock)
    assert set(joined.previous) == {right.id, joined_left.id}
    assert root.previous == ()
    for config in (one, two):
        history = History(config, repository)
        assert len(history.records()) == 6
        assert history.verify() == []
    assert left.id in {record.id for record in History(two).records()}


def test_a_new_repository_at_the_place_gets_all(folder: Path, repository: Repository) -> None:
    config = machine(folder)
    before = [run(config, repository) for _ in range(3)]
    shutil.rmtree(folder / "repo")
    fresh = new_repository(folder / "repo")
    run(config, fresh)
    found = History(machine(folder, "other"), fresh)
    assert {record.id for record in before} < {record.id for record in found.records()}
    assert History(config, fresh).verify() == []


# ------------------------------------------------------------------------ any order of writers

STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["with", "without", "look"])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.randoms(use_true_random=False))
def test_any_interleaving_verifies_and_any_change_is_named(
    steps: list[tuple[int, str]], choice: random.Random
) -> None:
    with memory_folder() as folder:
        repository = new_repository(folder / "repo")
        machines = [machine(folder, str(n)) for n in range(3)]
        clock = Clock()
        written: dict[int, list[str]] = {0: [], 1: [], 2: []}
        for who, what in steps:
            if what == "look":
                History(machines[who], repository).records()
            else:
                there = repository if what == "with" else None
                written[who].append(run(machines[who], there, clock=clock).id)
        everything = {one for ids in written.values() for one in ids}
        for who in range(3):  # what waited is pushed
            everything.add(run(machines[who], repository, clock=clock).id)
        for who, config in enumerate(machines):
            history = History(config, repository)
            assert {record.id for record in history.records()} == everything
            assert history.verify() == [], who
        _damage_is_named(folder, machines[choice.randrange(3)].repository.location, choice)
        _changes_are_named(History(machines[choice.randrange(3)], repository), choice)


def _damage_is_named(folder: Path, location: str, choice: random.Random) -> None:
    """A document that vanishes from the repository, or is changed there."""
    repository = open_repository(Path(location))
    name = choice.choice(names(repository))
    ids = [record.id for record in stored.load(repository, name)]
    path = Path(location) / "history" / name
    kept = path.read_bytes()
    for content in (None, kept[:-1] + bytes([kept[-1] ^ 1])):
        path.unlink() if content is None else path.write_bytes(content)
        for who in range(3):
            shutil.copytree(folder / f"state-{who}", folder / "copy", dirs_exist_ok=True)
            found = " ".join(History(machine(folder, str(who)), repository).verify())
            duplicated = set(ids) <= {
                record.id
                for other in names(repository)
                if other != name
                for record in stored.load(repository, other)
            }
            assert duplicated or all(one[:8] in found for one in ids), found
    path.write_bytes(kept)


def _changes_are_named(history: History, choice: random.Random) -> None:
    """A line of a record that is changed, taken out, cut off, or put before what it follows."""
    path = history.local().log
    lines = path.read_bytes().splitlines(keepends=True)
    records = [n for n, line in enumerate(lines) if line[:1] in b"rl"]
    at = choice.choice(records)
    record_id = lines[at][2:66].decode()
    place = choice.randrange(67, len(lines[at]) - 1)
    changed = bytearray(lines[at])
    changed[place] ^= 1 + choice.randrange(127)
    ways = {
        "changed": [*lines[:at], bytes(changed), *lines[at + 1 :]],
        "removed": [*lines[:at], *lines[at + 1 :]],
        "cut off": lines[: records[-1]],
    }
    before = [
        n for n in records if n < at and lines[n][2:66].decode() in lines[at].decode("ascii")[66:]
    ]
    if before and lines[at][:1] == b"r":
        swapped = list(lines)
        swapped[at], swapped[before[0]] = swapped[before[0]], swapped[at]
        ways["reordered"] = swapped
    for way, content in ways.items():
        path.write_bytes(b"".join(content))
        wanted = lines[records[-1]][2:66].decode() if way == "cut off" else record_id
        for other in (history, History(history.config)):  # with and without the repository
            found = " ".join(other.verify())
            assert wanted[:8] in found, (way, found)
    path.write_bytes(b"".join(lines))
    assert history.verify() == []


# -------------------------------------------------------------------------- cut off and crashed


def test_a_cut_off_end_stays_visible_after_the_next_run(folder: Path) -> None:
    config = machine(folder)
    run(config)
    lost = run(config)
    lines = log(config).read_bytes().splitlines(keepends=True)
    log(config).write_bytes(lines[0])
    assert lost.id[:8] in " ".join(History(config).verify())
    after = run(config)
    assert lost.id in after.previous
    (problem,) = History(config).verify()
    assert problem.startswith(f"record {lost.id[:8]} is missing: record {after.id[:8]}")


def test_what_this_machine_lost_comes_back_from_the_repository(
    folder: Path, repository: Repository
) -> None:
    config = machine(folder)
    written = [run(config, repository) for _ in range(3)]
    log(config).write_bytes(log(config).read_bytes()[:300])
    found = History(config, repository).records()
    assert {record.id for record in found} == {record.id for record in written}
    assert len(run(config, repository).previous) == 1


def test_a_line_cut_off_at_any_byte_loses_no_older_one(folder: Path) -> None:
    config = machine(folder)
    first = run(config)
    whole = log(config).read_bytes()
    state = (log(config).parent / "state").read_bytes()
    second = run(config)
    both = log(config).read_bytes()
    for end in range(len(whole), len(both) + 1):
        log(config).write_bytes(both[:end])
        (log(config).parent / "state").write_bytes(state)  # the crash came before it was written
        there = [first] if end < len(both) else [first, second]
        assert History(config).records() == there
        assert History(config).verify() == []
        third = run(config)
        last = second if end >= len(both) - 1 else first
        assert third.previous == (last.id,)
        assert History(config).verify() == []


def test_a_broken_state_file_is_made_again(folder: Path) -> None:
    config = machine(folder)
    first = run(config)
    for content in (b"", b"{}", b"[" * 10000, b'{"state":"{}","crc":0}', os.urandom(100)):
        (log(config).parent / "state").write_bytes(content)
        second = run(config)
        assert second.previous == (first.id,)
        first = second
    assert History(config).verify() == []


def _appender(folder: str, name: str, number: int) -> None:
    config = machine(Path(folder), name)
    repository = open_repository(Path(folder) / "repo")
    for n in range(number):
        History(config, repository if n % 2 else None).append("backup", started_ns=n)


def test_several_processes_append_at_once(folder: Path, repository: Repository) -> None:
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_appender, args=(str(folder), name, 12))
        for name in ("one", "one", "one", "two")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    run(machine(folder, "one"), repository)
    run(machine(folder, "two"), repository)
    for name in ("one", "two"):
        history = History(machine(folder, name), repository)
        history.records()
        assert history.verify() == []
        assert len(history.records()) == 4 * 12 + 2


def _append_until_killed(folder: str, told: str) -> None:
    history = History(machine(Path(folder)), open_repository(Path(folder) / "repo"))
    fd = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        record = history.append("backup", started_ns=1, facts={"text": "x" * 5000})
        os.write(fd, record.id.encode() + b"\n")


def test_kill_9_while_appending_loses_nothing_that_was_told(
    folder: Path, repository: Repository
) -> None:
    told = folder / "told"
    context = multiprocessing.get_context("fork")
    for round_ in range(12):
        before = told.stat().st_size if told.exists() else 0
        process = context.Process(target=_append_until_killed, args=(str(folder), str(told)))
        process.start()
        while not told.exists() or told.stat().st_size == before:
            time.sleep(0.001)
        time.sleep(0.002 * round_)
        process.kill()
        process.join()
        assert History(machine(folder), repository).verify() == []
    wanted = set(told.read_text().split())
    assert wanted <= {record.id for record in History(machine(folder)).records()}
    run(machine(folder), repository)
    other = History(machine(folder, "other"), repository)
    assert wanted <= {record.id for record in other.records()}


def test_a_full_disk_leaves_the_older_records(folder: Path) -> None:
    config = machine(folder)
    first = run(config)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.operate.history.support import machine, run, log\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "config = machine(Path(sys.argv[1])); size = log(config).stat().st_size + 100\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "try: run(config)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("StorageError cannot write the history")
    assert History(config).records() == [first]
    assert History(config).verify() == []
    assert run(config).previous == (first.id,)


# --------------------------------------------------------------------------------- many, restic


def test_many_documents_become_few_and_stay_verifiable(
    folder: Path, repository: Repository
) -> None:
    config = machine(folder)
    clock = Clock()
    written = [run(config, repository, clock=clock) for _ in range(stored.SMALL + 5)]
    assert len(names(repository)) == stored.SMALL + 5
    History(config, repository).put_together()
    assert len(names(repository)) == 1
    History(config, repository).put_together()
    after = run(config, repository, clock=clock)
    for name in ("one", "fresh"):
        history = History(machine(folder, name), repository)
        assert history.records() == [*written, after]
        assert history.verify() == []


def test_putting_together_stops_anywhere_and_loses_nothing(
    folder: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = machine(folder)
    written = {run(config, repository).id for _ in range(stored.SMALL)}
    single = names(repository)

    def refuse(*_: object) -> None:
        raise StorageError("nothing may be removed")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "remove", refuse)
        for _ in range(3):  # no second segment, whatever is tried
            history = History(config, repository)
            history.put_together()
            assert history.trouble == ["nothing may be removed"]
            assert len(names(repository)) == len(single) + 1
    fresh = History(machine(folder, "fresh"), repository)
    assert {record.id for record in fresh.records()} == written
    assert fresh.verify() == []
    (segment,) = set(names(repository)) - set(single)
    path = folder / "repo" / "history" / segment
    content = path.read_bytes()
    path.write_bytes(b"x" + content[1:])  # damaged: what it was to replace stays
    History(config, repository).put_together()
    assert set(single) <= set(names(repository))
    path.write_bytes(content)
    History(config, repository).put_together()
    assert names(repository) == [segment]
    assert History(config, repository).verify() == []
    assert fresh.verify() == []


def test_append_only_repositories_keep_every_document(folder: Path, repository: Repository) -> None:
    config = machine(folder)
    config = config.model_copy(
        update={"retention": config.retention.model_copy(update={"append_only": True})}
    )
    for _ in range(stored.SMALL):
        run(config, repository)
    History(config, repository).put_together()
    assert len(names(repository)) == stored.SMALL


def test_stock_restic_neither_sees_nor_touches_it(folder: Path, repository: Repository) -> None:
    database(folder / "one.db")
    source = sqlite_source("one", folder / "one.db")
    for _ in range(2):
        snapshot(repository, source)
        run(machine(folder), repository)
    before = {name: (folder / "repo/history" / name).read_bytes() for name in names(repository)}
    assert "no errors were found" in restic(folder / "repo", "check", "--read-data")
    restic(folder / "repo", "forget", "--keep-last", "1", "--prune", "--group-by", "")
    restic(folder / "repo", "prune", "--max-unused", "0")
    assert "no errors were found" in restic(folder / "repo", "check", "--read-data")
    assert {
        name: (folder / "repo/history" / name).read_bytes() for name in names(repository)
    } == before
    assert History(machine(folder), repository).verify() == []


def test_thousands_of_records_cost_an_append_nothing(
    folder: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append reads no old record; a listing since a day parses only that day."""
    config = machine(folder)
    clock = Clock()
    history = History(config, now_ns=clock)
    with history.local().locked() as opened:
        from safetake.operate.history.record import make

        for _ in range(3000):
            opened.add(
                make(opened.state.heads, kind="backup", started_ns=clock(), ended_ns=clock(),
                     host="h", user="u")
            )  # fmt: skip
        opened.save()
    run(config, repository, clock=clock)
    monkeypatch.setattr(LocalHistory, "scan", None)
    monkeypatch.setattr(LocalHistory, "lines", None)
    last = run(config, repository, clock=clock)
    monkeypatch.undo()
    assert History(config).records(since_ns=last.ended_ns) == [last]
    assert len(names(repository)) == 5
    assert History(machine(folder, "other"), repository).verify() == []


def test_check_names_a_damaged_document(folder: Path, repository: Repository) -> None:
    run(machine(folder), repository)
    (name,) = names(repository)
    path = folder / "repo" / "history" / name
    path.write_bytes(path.read_bytes()[:-1])
    (error,) = check(repository).errors
    assert f"history/{name}" in error
    history = History(machine(folder), repository)
    (problem,) = [text for text in history.verify() if "damaged" in text]
    assert f"(record {history.records()[0].id[:8]})" in problem
    path.unlink()
    assert check(repository).errors == []
