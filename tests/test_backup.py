"""The order of a backup: one moment over all, nothing half visible, everything closed."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.backup import chosen_sources, take_snapshot
from safetake.config import BarrierConfig, Config, FilesConfig, RepositoryConfig
from safetake.configjobs import JobConfig
from safetake.errors import (
    BarrierTimeoutError,
    RepositoryLockedError,
    SourceError,
    UsageError,
)
from safetake.model import CaptureContext, Captured, Cut, SourceState
from safetake.repository import Repository
from safetake.snapshots import find_snapshot, list_snapshots, read_manifest
from tests.support.repositories import (
    database,
    file_node,
    files_source,
    folder_node,
    memory_folder,
    new_repository,
    restic,
    snapshot,
    sqlite_source,
    store_all,
)

Log = list[tuple[str, str]]


class Store:
    """A source that says what is done with it, and fails where it is told to."""

    type = "files"

    def __init__(self, name: str, rank: int, log: Log, fails: str = "", times: int = 99) -> None:
        self.name = name
        self.hold_rank = rank
        self.log = log
        self.fails = fails
        self.times = times
        self.unread: list[str] = []
        self.context: CaptureContext | None = None

    def inspect(self) -> SourceState:
        return SourceState(ok=True, summary="")

    def session(self, context: CaptureContext) -> Store:
        self.context = context
        self._step("session")
        return self

    def _step(self, step: str) -> None:
        self.log.append((step, self.name))
        if step == self.fails and self.times > 0:
            self.times -= 1
            if step == "hold":
                raise BarrierTimeoutError(f"{self.name} is busy")
            raise SourceError(f"{self.name} failed in {step}", hint="look")

    def prepare(self) -> None:
        assert self.context is not None
        assert self.context.scratch.is_dir()
        self._step("prepare")

    def hold(self, timeout: float) -> Cut:
        assert timeout == 0.25
        self._step("hold")
        now = time.monotonic_ns()
        return Cut(now, now)

    def release(self) -> None:
        self.log.append(("release", self.name))

    def capture(self) -> Captured:
        assert self.context is not None
        self._step("capture")
        writer = self.context.writer
        data = f"{self.name} data".encode()
        tree = writer.save_tree([file_node("file", writer.store(data).result(), len(data))])
        return Captured(folder_node(self.name, tree), len(data), {"files": 1}, unread=self.unread)

    def close(self) -> None:
        self.log.append(("close", self.name))


@pytest.fixture
def base() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def repository(base: Path) -> Repository:
    return new_repository(base / "repository")


BARRIER = BarrierConfig(timeout=0.25, attempts=3)


def left_behind(repository: Repository) -> list[str]:
    """Files of an unfinished run."""
    place = Path(repository.storage.location)
    kinds = ("tmp", "locks", "index", "snapshots")
    return [path.name for kind in kinds for path in (place / kind).iterdir()]


def test_all_are_held_at_once_in_the_order_of_their_work(repository: Repository) -> None:
    log: Log = []
    stores = [Store("late", 50, log), Store("early", 10, log), Store("middle", 30, log)]
    report = take_snapshot(repository, [*stores], barrier=BARRIER, job="nightly")
    held = [name for step, name in log if step == "hold"]
    assert held == ["early", "middle", "late"]
    steps = [step for step, _ in log]
    assert steps[:3] == ["session"] * 3
    assert set(steps[3:6]) == {"prepare"}
    assert steps[6:9] == ["hold"] * 3
    assert log[9:12] == [("release", "late"), ("release", "middle"), ("release", "early")]
    assert set(steps[12:15]) == {"capture"}
    assert set(steps[15:]) == {"close"}
    assert report.exit_code == 0
    assert report.barrier.skew_ms == 0.0
    assert report.barrier.attempts == 1
    assert set(report.barrier.holds_ms) == {"early", "middle", "late"}
    found = find_snapshot(repository, report.id)
    assert found.job == "nightly"
    assert set(found.sources) == {"early", "middle", "late"}
    manifest = read_manifest(repository.reader(), found)
    assert manifest is not None
    assert manifest["sources"]["early"]["facts"] == {"files": 1}
    assert not any(store.context and store.context.scratch.exists() for store in stores)
    assert "no errors" in restic(Path(repository.storage.location), "check", "--read-data")


def test_a_busy_store_lets_all_go_and_is_tried_again(repository: Repository) -> None:
    log: Log = []
    stores = [Store("free", 10, log), Store("busy", 30, log, "hold", times=2)]
    report = take_snapshot(repository, [*stores], barrier=BARRIER)
    assert report.barrier.attempts == 3
    held: set[str] = set()
    for step, name in log:
        if step == "hold":
            assert name not in held
            held.add(name)
        elif step == "release":
            held.discard(name)
        elif step == "capture":
            assert not held
    assert list_snapshots(repository)[0].id == report.id


@pytest.mark.parametrize("step", ["session", "prepare", "hold", "capture"])
def test_a_failure_leaves_nothing_held_and_nothing_behind(
    repository: Repository, step: str
) -> None:
    log: Log = []
    stores = [Store("good", 10, log), Store("bad", 30, log, step)]
    expected = BarrierTimeoutError if step == "hold" else SourceError
    with pytest.raises(expected, match="bad") as caught:
        take_snapshot(repository, [*stores], barrier=BARRIER)
    assert caught.value.hint
    opened = {name for name_of, name in log if name_of == "session"}
    closed = [name for name_of, name in log if name_of == "close"]
    assert set(closed) >= opened - {"bad"} if step == "session" else set(closed) == opened
    assert ("hold", "good") not in log or ("release", "good") in log
    assert left_behind(repository) == []
    assert list_snapshots(repository) == []
    assert not any(store.context and store.context.scratch.exists() for store in stores)


def test_every_failure_is_told(repository: Repository) -> None:
    log: Log = []
    stores = [Store("one", 1, log, "prepare"), Store("two", 2, log, "prepare")]
    with pytest.raises(SourceError, match="one failed in prepare") as caught:
        take_snapshot(repository, [*stores], barrier=BARRIER)
    assert "two failed in prepare" in str(caught.value)


def test_what_was_not_read_makes_exit_code_3(repository: Repository) -> None:
    store = Store("part", 1, [])
    store.unread = ["a/file: it changed"]
    report = take_snapshot(repository, [store], barrier=BARRIER)
    assert report.exit_code == 3
    assert report.as_dict()["sources"]["part"]["unread"] == ["a/file: it changed"]


def test_the_newest_snapshot_of_each_source_is_its_parent(repository: Repository) -> None:
    a, b = Store("a", 1, []), Store("b", 2, [])
    take_snapshot(repository, [a], barrier=BARRIER)
    assert a.context is not None
    assert a.context.parent is None
    second = take_snapshot(repository, [a, b], barrier=BARRIER)
    third = take_snapshot(repository, [b], barrier=BARRIER)
    take_snapshot(repository, [a, b], barrier=BARRIER)
    assert a.context.parent is not None
    assert b.context is not None
    assert b.context.parent is not None
    assert a.context.parent.entry["snapshot"] == second.id
    assert b.context.parent.entry["snapshot"] == third.id
    assert a.context.parent.node.name == "a"


def test_a_prune_between_two_snapshots_of_one_process_is_noticed(
    base: Path, repository: Repository
) -> None:
    """What the index said before the lock may be gone: it must not be taken for stored."""
    (base / "scripts").mkdir()
    (base / "scripts" / "file").write_bytes(b"all of it is pruned" * 1000)
    first = snapshot(repository, files_source("scripts", base / "scripts"))
    restic(base / "repository", "forget", "--prune", first.id)
    snapshot(repository, files_source("scripts", base / "scripts"))
    assert "no errors" in restic(base / "repository", "check", "--read-data")


def test_a_snapshot_that_something_was_taken_out_of_is_no_parent(
    base: Path, repository: Repository
) -> None:
    """As `restic rewrite --exclude` does, which leaves the manifest as it was."""
    (base / "scripts").mkdir()
    for name in ("kept", "left-out"):
        (base / "scripts" / name).write_bytes(name.encode())
    source = files_source("scripts", base / "scripts")
    found = find_snapshot(repository, snapshot(repository, source).id)
    reader = repository.reader()
    with repository.lock(exclusive=False), repository.writer() as writer:
        nodes = reader.tree(found.tree)
        for node in nodes:
            if node.name == "scripts" and node.subtree is not None:
                entries = reader.tree(node.subtree)
                node.subtree = writer.save_tree(e for e in entries if e.name == "kept")
        tree = writer.save_tree(nodes)
        writer.flush()
    repository.save_snapshot({**found.document, "tree": tree.hex()})
    repository.storage.remove("snapshots", found.id)
    after = find_snapshot(repository, snapshot(repository, source).id)
    reader = repository.reader()
    (folder,) = (node for node in reader.tree(after.tree) if node.name == "scripts")
    assert folder.subtree is not None
    assert {node.name for node in reader.tree(folder.subtree)} == {"kept", "left-out"}


def test_a_snapshot_without_any_change_adds_next_to_nothing(
    base: Path, repository: Repository
) -> None:
    (base / "scripts").mkdir()
    for number in range(50):
        (base / "scripts" / str(number)).write_bytes(bytes([number]) * 50_000)
    first = snapshot(repository, files_source("scripts", base / "scripts"))
    second = snapshot(repository, files_source("scripts", base / "scripts"))
    assert second.added_bytes < min(20_000, first.added_bytes)


def test_a_live_lock_stops_it_before_any_source_is_touched(repository: Repository) -> None:
    log: Log = []
    with repository.lock(exclusive=True):
        with pytest.raises(RepositoryLockedError):
            take_snapshot(repository, [Store("a", 1, log)], barrier=BARRIER)
    assert log == []


def test_what_runs_is_chosen_by_names_job_or_all(tmp_path: Path) -> None:
    config = Config(
        repository=RepositoryConfig(location=str(tmp_path / "repository")),
        sources={n: FilesConfig(type="files", path=tmp_path / n) for n in ("one", "two", "three")},
        jobs={"nightly": JobConfig(kind="backup", sources=["three", "one"])},
    )
    assert chosen_sources(config, None, None) == ["one", "two", "three"]
    assert chosen_sources(config, ["two", "two"], None) == ["two"]
    assert chosen_sources(config, None, "nightly") == ["three", "one"]
    with pytest.raises(UsageError, match="no source 'tow'") as caught:
        chosen_sources(config, ["tow"], None)
    assert "two" in str(caught.value)
    with pytest.raises(UsageError, match="no job"):
        chosen_sources(config, None, "daily")
    empty = Config(repository=config.repository, sources={})
    with pytest.raises(UsageError, match="has no source"):
        chosen_sources(empty, None, None)


def test_stored_bytes_are_counted(base: Path, repository: Repository) -> None:
    with repository.lock(exclusive=False), repository.writer() as writer:
        store_all(writer, [os.urandom(100_000)])
        writer.flush()
        assert 100_000 < writer.stats.stored_bytes < 101_000


def test_a_source_that_lost_most_of_it_says_so(base: Path, repository: Repository) -> None:
    path = base / "a.db"
    database(path, rows=100)
    shrink, source = {"projects": 0.5}, sqlite_source("projects", path)
    first = take_snapshot(repository, [source], barrier=BARRIER, shrink=shrink)
    assert first.sources["projects"].notes == []
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM episodes WHERE id > 10")
    db.close()
    second = take_snapshot(repository, [source], barrier=BARRIER, shrink=shrink)
    assert second.sources["projects"].notes == [
        "since the snapshot before: episodes: 100 rows became 10",
        "since the snapshot before: 100 rows became 10",
    ]
    assert second.exit_code == 0
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM episodes")
    db.close()
    third = take_snapshot(repository, [source], barrier=BARRIER, shrink={"projects": None})
    assert third.sources["projects"].notes == []
