"""SQLite databases restored in place: offline, online, beside, and back."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from safetake.errors import RefusedError
from tests.sources.sqlite.restores import content, is_old, is_restored, opened, prepared, steps_for
from tests.sources.sqlite.support import capture, database, stored_bytes
from tests.support.memory_writer import MemoryRepository
from tests.support.restoring import Steps, well

MODES = ("offline", "online", "beside")


@pytest.fixture
def repository() -> Iterator[MemoryRepository]:
    with MemoryRepository() as made:
        yield made


@pytest.fixture(params=["wal", "delete"])
def steps(request: pytest.FixtureRequest, tmp_path: Path, repository: MemoryRepository) -> Steps:
    """A restore for each journal mode."""
    return prepared(tmp_path, repository, request.param)


def live(steps: Steps) -> Path:
    return Path(steps.outline("offline").target)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file with its bytes, the log's index left out (memory, rebuilt by whoever opens it)."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm") and ".safetake" not in str(path)
    }


def test_offline_puts_the_snapshot_bytes_in_the_place_of_the_file(steps: Steps) -> None:
    path = live(steps)
    steps.run("offline")
    assert path.read_bytes() == stored_bytes(steps.captured, steps.repository)
    assert is_restored(content(path))


def test_online_replaces_the_content_under_open_connections(steps: Steps) -> None:
    path = live(steps)
    with opened(path) as application, opened(path) as other:
        before = application.execute("SELECT count(*) FROM projects").get
        other.execute("SELECT 1 FROM projects LIMIT 1").fetchall()
        steps.run("online")
        assert (before, application.execute("SELECT count(*) FROM projects").get) == (310, 300)
        application.execute("INSERT INTO projects(title) VALUES ('after')").fetchall()
        assert other.execute("SELECT count(*) FROM projects WHERE title = 'after'").get == 1
        assert application.pragma("journal_mode") == other.pragma("journal_mode")
        other.execute("DELETE FROM projects WHERE title = 'after'").fetchall()
    assert is_restored(content(path))


def test_online_keeps_the_journal_mode_of_the_live_database(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    for live_mode, stored_mode in (("wal", "delete"), ("delete", "wal")):
        for folder in (stored_mode, live_mode):
            (tmp_path / f"{live_mode}-{folder}").mkdir()
        stored = database(tmp_path / f"{live_mode}-{stored_mode}" / "a.db", stored_mode, 30)
        captured = capture(stored, repository)
        path = database(tmp_path / f"{live_mode}-{live_mode}" / "projects.db", live_mode, 5)
        steps = steps_for(path, repository, captured)
        steps.run("online")
        with opened(path) as connection:
            assert connection.pragma("journal_mode") == live_mode
            assert connection.execute("SELECT count(*) FROM projects").get == 30


@pytest.mark.parametrize("journal", ["truncate", "persist"])
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_journals_that_stay(
    tmp_path: Path, repository: MemoryRepository, journal: str, mode: str
) -> None:
    path = database(tmp_path / "projects.db", "delete", 40)
    captured = capture(path, repository)
    with opened(path) as application:
        application.execute(f"PRAGMA journal_mode = {journal}").fetchall()
        application.execute("DELETE FROM projects WHERE id < 20").fetchall()
        if mode == "offline":
            application.close()
        assert path.with_name("projects.db-journal").exists()
        steps = steps_for(path, repository, captured)
        steps.run(mode)
        assert len(content(path)["projects"]) == 40
    steps.restorer.switch_back(steps.work)
    if mode == "offline":
        assert len(content(path)["projects"]) == 21


def test_beside_leaves_the_live_database_alone(steps: Steps) -> None:
    path = live(steps)
    before = tree(path.parent)
    with opened(path):
        steps.run("beside")
    new = Path(steps.work.notes["new_path"])
    assert new == path.with_name("projects.01234567.db")
    assert is_restored(content(new))
    assert is_old(content(path))
    steps.restorer.switch_back(steps.work)
    steps.restorer.switch_back(steps.work)
    assert tree(path.parent) == before


@pytest.mark.parametrize("mode", MODES)
def test_switch_back_brings_the_old_data_again(steps: Steps, mode: str) -> None:
    path = live(steps)
    before = tree(path.parent)
    well(steps.stage(mode))
    well(steps.switch())
    for _ in range(2):
        steps.restorer.switch_back(steps.work)
    steps.restorer.finish(steps.work, committed=False)
    assert is_old(content(path))
    if mode != "online":
        assert {k: v for k, v in tree(path.parent).items() if "-wal" not in k} == before


@pytest.mark.parametrize("mode", MODES)
def test_every_step_can_be_done_twice(steps: Steps, mode: str) -> None:
    path = live(steps)
    well(steps.stage(mode))
    well(steps.switch())
    steps.restorer.switch(steps.work)
    well(steps.restorer.confirm(steps.work))
    assert steps.restorer.touched(steps.work)
    for _ in range(2):
        steps.restorer.finish(steps.work, committed=True)
    restored = path if mode != "beside" else Path(steps.work.notes["new_path"])
    assert is_restored(content(restored))


def test_the_safety_snapshot_is_what_was_there(steps: Steps) -> None:
    path = live(steps)
    well(steps.stage("online"))
    old = content(path)
    well(steps.switch())
    steps.restorer.finish(steps.work, committed=True)
    assert steps.safety is not None
    shutil.rmtree(steps.work.work)
    undo = steps_for(path, steps.repository, steps.safety)
    undo.run("online")
    assert content(path) == old


def test_offline_with_a_log_that_was_not_folded_in(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    # an application that was killed: its log holds what the main file does not
    steps = prepared(tmp_path, repository)
    path = live(steps)
    crashed(path)
    assert path.with_name("projects.db-wal").stat().st_size > 0
    before = tree(tmp_path)
    well(steps.stage("offline"))
    well(steps.switch())
    assert not path.with_name("projects.db-wal").exists()
    steps.restorer.switch_back(steps.work)
    assert tree(tmp_path) == before
    with opened(path) as connection:
        assert connection.execute("SELECT count(*) FROM projects WHERE title = 'logged'").get == 1


def crashed(path: Path) -> None:
    """Leave a row in the log of a WAL-mode database, as a killed application does."""
    connection = apsw.Connection(str(path))
    connection.wal_autocheckpoint(0)
    connection.execute("INSERT INTO projects(title) VALUES ('logged')").fetchall()
    kept = {p: p.read_bytes() for p in path.parent.glob("projects.db*") if p.is_file()}
    connection.close()
    for file, data in kept.items():
        file.write_bytes(data)


def test_half_a_set_cannot_be_opened(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetake.swap import Swap

    path = live(steps)
    before = path.read_bytes()
    well(steps.stage("offline"))
    done = Swap.forward

    def forward(swap: Swap) -> None:
        done(swap)
        if swap._work.name == "away":
            raise KeyboardInterrupt

    monkeypatch.setattr(Swap, "forward", forward)
    with pytest.raises(KeyboardInterrupt):
        steps.switch()
    with pytest.raises(apsw.CantOpenError):
        apsw.Connection(str(path))
    monkeypatch.undo()
    assert not path.exists()
    assert path.is_symlink()
    steps.restorer.switch_back(steps.work)
    assert path.read_bytes() == before
    steps.restorer.switch(steps.work)
    assert is_restored(content(path))


def test_owner_mode_and_attributes_of_the_live_file_win(steps: Steps) -> None:
    path = live(steps)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    owner = (path.stat().st_uid, path.stat().st_gid)
    steps.run("offline")
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert (found.st_uid, found.st_gid) == owner


def test_a_link_to_the_database_stays_a_link(tmp_path: Path, repository: MemoryRepository) -> None:
    for number, mode in enumerate(MODES):
        folder = tmp_path / mode
        folder.mkdir()
        steps = prepared(folder, repository)
        real = folder / "projects.db"
        link = tmp_path / f"link-{number}.db"
        link.symlink_to(real)
        linked = steps_for(link, repository, steps.captured)
        linked.run(mode)
        assert link.is_symlink()
        assert linked.restorer.place() == folder
        assert is_restored(content(Path(linked.work.notes.get("new_path", link))))


def test_an_absent_database_comes_back(tmp_path: Path, repository: MemoryRepository) -> None:
    steps = prepared(tmp_path, repository)
    path = live(steps)
    path.unlink()
    steps.source = None
    outline = steps.run()
    assert (outline.absent, outline.mode) == (True, "offline")
    assert is_restored(content(path))


def test_an_absent_database_is_absent_again_after_the_way_back(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    steps = prepared(tmp_path, repository)
    path = live(steps)
    path.unlink()
    steps.source = None
    well(steps.stage("offline"))
    well(steps.switch())
    steps.restorer.switch_back(steps.work)
    assert not os.path.lexists(path)


@pytest.mark.parametrize("damage", ["garbage", "empty", "short"])
def test_a_damaged_database_is_replaced_and_its_raw_files_can_come_back(
    tmp_path: Path, repository: MemoryRepository, damage: str
) -> None:
    steps = prepared(tmp_path, repository)
    path = live(steps)
    data = {"garbage": b"?" * 8192, "empty": b"", "short": path.read_bytes()[:8192]}[damage]
    path.write_bytes(data)
    outline = steps.outline()
    assert outline.damaged
    assert outline.mode == "offline"
    assert outline.losses[0].unknown
    with pytest.raises(RefusedError, match="under its applications"):
        steps.outline("online")
    assert steps.restorer.raw_files() == [path]
    steps.source = None
    well(steps.stage("offline"))
    well(steps.switch())
    assert is_restored(content(path))
    steps.restorer.switch_back(steps.work)
    assert path.read_bytes() == data


def test_raw_files_are_put_back_as_they_were(tmp_path: Path, repository: MemoryRepository) -> None:
    path = database(tmp_path / "projects.db")
    crashed(path)
    raw = tmp_path / "raw" / "projects"
    raw.mkdir(parents=True)
    for file in path.parent.glob("projects.db*"):
        shutil.copy(file, raw)
    entry: dict[str, Any] = {"bytes": 1, "facts": {"raw": True}}
    steps = steps_for(path, repository, capture(path, repository))
    steps.entry = entry
    steps.source = None
    before = path.read_bytes()
    log = path.with_name("projects.db-wal").read_bytes()
    path.write_bytes(b"broken")
    steps.stage("offline")
    shutil.rmtree(steps.work.staged)
    shutil.copytree(raw, steps.work.staged)
    well(steps.restorer.check_staged(steps.work))
    well(steps.switch())
    assert path.read_bytes() == before
    assert path.with_name("projects.db-wal").read_bytes() == log
    steps.restorer.switch_back(steps.work)
    assert path.read_bytes() == b"broken"
