"""The show of issue 3: a live database restored while a crowd reads and writes it.

The small version runs always, in both journal modes; the one of 1 GB with 100 connections is
`slow`, goes through the command line, and prints the longest stall.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from safetake.errors import BarrierTimeoutError, RefusedError, RestoreError
from safetake.sources.sqlite import marker, online
from tests.sources.sqlite import crowd
from tests.sources.sqlite.restores import content, is_old, is_restored, opened, prepared, steps_for
from tests.sources.sqlite.support import add_rows, capture, database
from tests.support.memory_writer import MemoryRepository
from tests.support.restoring import Steps, well

ROOT = Path(__file__).parents[3]


@pytest.fixture
def repository() -> Iterator[MemoryRepository]:
    with MemoryRepository() as made:
        yield made


class Crowd:
    """Processes of `crowd`, and what they found once the block ended."""

    def __init__(self) -> None:
        self.findings = crowd.Findings()


@contextmanager
def watched(
    path: Path, readers: int, writers: int, processes: int, *, wal: bool, pause: float = 0.1
) -> Iterator[Crowd]:
    """Readers and writers in each of the processes, all of them at work when the block begins."""
    command = [
        *(sys.executable, "-m", "tests.sources.sqlite.crowd", str(path)),
        *(str(readers), str(writers), "5.0", "never" if wal else "may-wait", str(pause)),
    ]
    running = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(processes)
    ]
    seen = Crowd()
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield seen
        time.sleep(0.3)
    finally:
        for process in running:
            answer, _ = process.communicate(timeout=120)
            if answer.strip():
                seen.findings.add(crowd.Findings(**json.loads(answer)))


def changed(folder: Path, repository: MemoryRepository, rows: int, mode: str) -> Steps:
    """A snapshot of generation 1 of a database that is at generation 2."""
    path = folder / "crowd.db"
    crowd.make(path, rows, mode)
    captured = capture(path, repository)
    crowd.next_generation(path)
    return steps_for(path, repository, captured)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_readers_see_one_content_and_writers_only_busy(
    tmp_path: Path, repository: MemoryRepository, mode: str
) -> None:
    steps = changed(tmp_path, repository, 1000, mode)
    path = tmp_path / "crowd.db"
    with watched(path, 6, 4, 2, wal=mode == "wal") as seen:
        steps.run("online")
    found = seen.findings
    assert found.errors == []
    assert found.generations == [1, 2]
    assert found.reads > 0
    assert found.writes > 0
    with opened(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT DISTINCT generation FROM items").fetchall() == [(1,)]


def test_the_way_back_is_one_content_as_well(tmp_path: Path, repository: MemoryRepository) -> None:
    steps = changed(tmp_path, repository, 1000, "wal")
    path = tmp_path / "crowd.db"
    with watched(path, 3, 2, 2, wal=True) as seen:
        well(steps.stage("online"))
        with steps.saved():
            steps.restorer.switch(steps.work)
        well(steps.restorer.confirm(steps.work))
        time.sleep(0.2)
        steps.restorer.switch_back(steps.work)
        steps.restorer.finish(steps.work, committed=False)
    # what was logged to generation 1 between the switch and the way back is gone with it
    assert seen.findings.errors == []
    with opened(path) as connection:
        assert connection.execute("SELECT DISTINCT generation FROM items").fetchall() == [(2,)]
        assert connection.execute("SELECT count(*) FROM log WHERE generation = 1").get == 0


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_nothing_committed_before_the_lock_is_missing_from_the_safety_snapshot(
    tmp_path: Path, repository: MemoryRepository, mode: str
) -> None:
    steps = prepared(tmp_path, repository, mode)
    path = tmp_path / "projects.db"
    well(steps.stage("online"))
    written: list[str] = []

    def late() -> None:  # between the cut and the lock
        if not written:
            with opened(path) as connection:
                connection.execute("INSERT INTO projects(title) VALUES ('late')").fetchall()
            written.append("late")

    with steps.saved(after_cut=late):
        assert steps.cuts == 1
        with opened(path) as connection:
            connection.set_busy_timeout(0)
            with pytest.raises(apsw.BusyError):
                connection.execute("INSERT INTO projects(title) VALUES ('y')").fetchall()
        steps.restorer.switch(steps.work)
    steps.restorer.finish(steps.work, committed=True)
    assert is_restored(content(path))
    assert steps.safety is not None
    assert steps.safety.facts["rows"]["projects"] == 311


def test_little_is_stored_while_writers_are_kept_out(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    steps = prepared(tmp_path, repository)
    path = tmp_path / "projects.db"
    with opened(path) as connection:
        add_rows(connection, 3000)
        connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
        well(steps.stage("online"))
        stored: list[int] = []
        with steps.saved(after_cut=lambda: stored.append(repository.stored_bytes)):
            assert repository.stored_bytes == stored[0]
    assert steps.safety is not None
    assert steps.safety.facts["rows"]["projects"] == 3310


def test_a_writer_that_never_ends_is_waited_for_and_named(
    tmp_path: Path, repository: MemoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetake.sources.sqlite import lockout

    monkeypatch.setattr(lockout, "_WAIT_S", 0.1)
    steps = prepared(tmp_path, repository)
    steps = steps_for(tmp_path / "projects.db", repository, steps.captured, busy_timeout=0.1)
    well(steps.stage("online"))
    with opened(tmp_path / "projects.db") as application:

        def late() -> None:
            application.execute("BEGIN IMMEDIATE").fetchall()

        with pytest.raises(BarrierTimeoutError, match="stayed locked"), steps.saved(late):
            pytest.fail("the lock was had")
        application.execute("ROLLBACK").fetchall()
        application.execute("DELETE FROM projects WHERE id = 1").fetchall()
    steps.restorer.switch_back(steps.work)
    assert is_old(content(tmp_path / "projects.db"))


def test_letting_go_leaves_everything_as_it_was(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    steps = prepared(tmp_path, repository)
    path = tmp_path / "projects.db"
    well(steps.stage("online"))
    with steps.saved():
        pass
    for _ in range(2):
        steps.restorer.let_go(steps.work)
    assert not steps.restorer.touched(steps.work)
    with opened(path) as connection, connection:
        connection.execute("UPDATE projects SET title = 'x' WHERE id = 11").fetchall()
    assert is_old(content(path))


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_old_copy_is_the_committed_state_with_its_log(
    tmp_path: Path, repository: MemoryRepository, mode: str
) -> None:
    from safetake.sources.sqlite.lockout import Lockout
    from safetake.sources.sqlite.oldcopy import OldCopy

    path = database(tmp_path / "projects.db", mode, 400)
    other = database(tmp_path / "other.db", "delete", 3)
    copy = OldCopy(path, tmp_path / "old.db")
    copy.prepare()
    with opened(path) as application:
        application.wal_autocheckpoint(0)
        add_rows(application, 100)
        with application:
            application.execute("DELETE FROM projects WHERE id % 3 = 0").fetchall()
        wanted = application.execute("SELECT * FROM projects").fetchall()
        lock = Lockout(path, other, 5.0)
        copy.settle(lock.raw, 5.0)
        copy.settle(lock.raw, 5.0)
        lock.close()
        lock.close()
        assert application.execute("SELECT * FROM projects").fetchall() == wanted
    assert content(tmp_path / "old.db") == content(path)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_interrupt_in_the_middle_leaves_the_old_content(
    tmp_path: Path, repository: MemoryRepository, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetake.sources.sqlite import lockout

    monkeypatch.setattr(lockout, "_STEP_PAGES", 5)
    steps = prepared(tmp_path, repository, mode)
    well(steps.stage("online"))

    def progress(what: str, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    steps.work.progress = progress
    with pytest.raises(KeyboardInterrupt), steps.saved():
        steps.restorer.switch(steps.work)
    assert not steps.restorer.touched(steps.work)
    steps.restorer.switch_back(steps.work)
    assert is_old(content(tmp_path / "projects.db"))


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("room", ["none", "for the old copy"])
def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, repository: MemoryRepository, mode: str, room: str
) -> None:
    path = database(tmp_path / "projects.db", mode, 3000)
    captured = capture(path, repository)
    with opened(path) as application, application:
        application.execute("DELETE FROM episodes WHERE id > 30").fetchall()
        application.execute("DELETE FROM projects WHERE id > 30").fetchall()
    with opened(path) as application:
        application.execute("VACUUM").fetchall()
    old = content(path)
    steps = steps_for(path, repository, captured)
    with opened(path) as application:
        application.execute("SELECT 1 FROM projects").fetchall()
        well(steps.stage("online"))
        limit = path.stat().st_size // 2 if room == "none" else 200_000
        with pytest.raises(RestoreError), steps.saved(), limited(limit):
            steps.restorer.switch(steps.work)
        steps.restorer.switch_back(steps.work)
        application.execute("UPDATE projects SET title = 'y' WHERE 0").fetchall()
    assert content(path) == old


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Files of this process end at `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("live_way", "stored_way", "what"),
    [
        ({"page_size": 4096}, {"page_size": 8192}, "pages of 4096 bytes"),
        ({}, {"encoding": "UTF-16le"}, "UTF-16le"),
    ],
)
def test_what_connections_cannot_take_is_refused_before_anything(
    tmp_path: Path,
    repository: MemoryRepository,
    live_way: dict[str, int | str],
    stored_way: dict[str, int | str],
    what: str,
) -> None:
    captured = capture(database(tmp_path / "stored.db", "wal", 50, **stored_way), repository)
    path = database(tmp_path / "projects.db", "wal", 50, **live_way)
    steps = steps_for(path, repository, captured)
    with pytest.raises(RefusedError, match=what) as refused:
        steps.outline("online")
    assert "without `--online`" in refused.value.hint
    assert steps.outline().mode == "offline"


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize(("now", "then"), [("none", "full"), ("full", "none")])
def test_connections_follow_a_change_of_auto_vacuum(
    tmp_path: Path, repository: MemoryRepository, mode: str, now: str, then: str
) -> None:
    captured = capture(database(tmp_path / "then.db", mode, 300, auto_vacuum=then), repository)
    path = database(tmp_path / "projects.db", mode, 50, auto_vacuum=now)
    steps = steps_for(path, repository, captured)
    with opened(path) as application:
        application.execute("SELECT * FROM projects").fetchall()
        steps.run("online")
        with application:
            application.execute("DELETE FROM episodes WHERE id % 2").fetchall()
            application.execute("DELETE FROM projects WHERE id % 3").fetchall()
        add_rows(application, 200)
    content(path)


def test_other_page_sizes_are_no_matter_with_a_rollback_journal(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    captured = capture(database(tmp_path / "a.db", "delete", 300, page_size=1024), repository)
    path = database(tmp_path / "projects.db", "delete", 50, page_size=8192)
    steps = steps_for(path, repository, captured)
    with opened(path) as application:
        application.execute("SELECT * FROM projects").fetchall()
        steps.run("online")
        assert application.execute("SELECT count(*) FROM projects").get == 300
        add_rows(application, 20)
    content(path)


def test_a_snapshot_with_the_mark_of_another_restore_comes_back(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    path = database(tmp_path / "projects.db", "wal", 30)
    marker.put(path, "another")
    captured = capture(path, repository)
    with opened(path) as connection:
        connection.execute("DELETE FROM projects").fetchall()
    steps = steps_for(path, repository, captured)
    steps.run("online")
    assert len(content(path)["projects"]) == 30
    assert marker.TABLE not in content(path)


def test_the_old_copy_is_missed_and_not_made_up(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    steps = prepared(tmp_path, repository)
    well(steps.stage("online"))
    well(steps.switch())
    (steps.work.work / online._OLD).unlink()
    with pytest.raises(RestoreError, match="is gone"):
        steps.restorer.switch_back(steps.work)
    steps.restorer.finish(steps.work, committed=True)
    assert is_restored(content(tmp_path / "projects.db"))
