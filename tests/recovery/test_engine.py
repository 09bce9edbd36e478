"""Restores in place as a whole: what goes wrong leads back to exactly what was there before."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safetake import configfile
from safetake.config import Config
from safetake.errors import RefusedError, SafetakeError, UsageError
from safetake.model import Check, RestoreWork
from safetake.recovery.engine import Engine
from safetake.recovery.halfway import refuse_half_restored
from safetake.recovery.inplace import (
    Telling,
    restore_in_place,
    restores_folder,
    resume,
    roll_back,
    undoable,
)
from safetake.recovery.journal import journals
from safetake.recovery.outcome import Outcome, RolledBackError
from safetake.recovery.plan import PlannedRestore, Wishes
from safetake.snapshots import find_snapshot, list_snapshots
from safetake.sources.files.restore import FilesRestorer
from safetake.sources.sqlite.restore import SqliteRestorer
from tests.faults.support import small_disk
from tests.support.repositories import (
    database,
    files_source,
    new_repository,
    open_repository,
    sqlite_source,
)
from tests.support.repositories import snapshot as take

APPLICATION = """
import pathlib, sys
folder, verb = pathlib.Path(sys.argv[1]), sys.argv[2]
log = folder / "service.log"
log.write_text(log.read_text() + verb + "\\n" if log.exists() else verb + "\\n")
mark = folder / "runs"
if verb == "stop" and not (folder / "stubborn").exists():
    mark.unlink(missing_ok=True)
if verb == "start":
    mark.write_text("")
if verb == "running":
    sys.exit(0 if mark.exists() else 1)
if verb == "health":
    sys.exit(1 if (folder / "sick").exists() else 0)
"""


class Site:
    """A database and files, a service that uses both, a snapshot, and what came later."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self.data.mkdir(exist_ok=True)
        self.log: list[tuple[str, str]] = []
        database(self.data / "p.db", 50)
        (self.data / "scripts").mkdir()
        (self.data / "scripts" / "one.md").write_text("one\n")
        (self.data / "scripts" / "two.md").write_text("two\n")
        program = folder / "application.py"
        program.write_text(APPLICATION)
        (folder / "runs").write_text("")
        words = [sys.executable, str(program), str(folder)]
        config = f"""
[repository]
location = "{folder / "repository"}"
[restore]
state = "{folder / "state"}"
[sources.projects]
type = "sqlite"
path = "{self.data / "p.db"}"
[sources.scripts]
type = "files"
path = "{self.data / "scripts"}"
[objectives.projects]
rto = "15m"
[services.app]
stop = {json.dumps([*words, "stop"])}
start = {json.dumps([*words, "start"])}
running = {json.dumps([*words, "running"])}
stop_timeout = 1
[services.app.health]
command = {json.dumps([*words, "health"])}
interval = 0.05
timeout = 1
[services.app.switch.projects]
setting = "DATABASE_URL"
value = "sqlite:///{{path}}"
env_file = "{folder / "app.env"}"
"""
        (folder / "safetake.toml").write_text(config)
        (folder / "app.env").write_text(f"DATABASE_URL=sqlite:///{self.data / 'p.db'}\n")
        self.config: Config = configfile.load(folder / "safetake.toml")
        self.repository = new_repository(folder / "repository")
        taken = take(
            self.repository,
            sqlite_source("projects", self.data / "p.db"),
            files_source("scripts", self.data / "scripts"),
        )
        self.repository = open_repository(folder / "repository")
        self.snapshot = find_snapshot(self.repository, taken.id)
        self.new = self.state()
        self.change()
        self.old = self.state()

    def change(self) -> None:
        connection = sqlite3.connect(self.data / "p.db")
        with connection:
            connection.execute("DELETE FROM episodes WHERE id < 10")
            connection.execute("INSERT INTO episodes (script) VALUES ('written since')")
        connection.close()
        (self.data / "scripts" / "one.md").write_text("another\n")
        (self.data / "scripts" / "three.md").write_text("three\n")

    def state(self) -> dict[str, Any]:
        """Everything that a restore may change."""
        connection = sqlite3.connect(self.data / "p.db")
        rows = connection.execute("SELECT * FROM episodes ORDER BY id").fetchall()
        connection.close()
        files = {}
        for path in sorted((self.data / "scripts").rglob("*")):
            found = path.lstat()
            files[str(path.relative_to(self.data))] = (
                stat.S_IMODE(found.st_mode), found.st_mtime_ns, path.read_bytes()
            )  # fmt: skip
        return {"rows": rows, "files": files}

    def restore(self, *names: str, **wishes: Any) -> Outcome:
        wishes.setdefault("delete_extra", True)
        _, outcome = restore_in_place(
            self.repository,
            self.config,
            self.snapshot,
            list(names),
            Wishes(**wishes),
            lambda plan: True,
            self.telling(),
        )
        assert outcome is not None
        return outcome

    def telling(self) -> Telling:
        return Telling(lambda step, text: self.log.append((step, text)))

    def opening(self, name: str) -> Any:
        repository = open_repository(self.folder / "repository")
        return repository, find_snapshot(repository, name)

    def nothing_left(self) -> None:
        assert not list(self.data.rglob(".safetake-restore-*"))
        assert all(journal.ended for journal in journals(restores_folder(self.config)))
        assert (self.folder / "runs").exists(), "the service does not run"

    def is_old(self) -> None:
        assert self.state() == self.old
        self.nothing_left()

    def is_new(self) -> None:
        assert self.state() == self.new
        self.nothing_left()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_all_come_back_and_can_be_undone(site: Site) -> None:
    outcome = site.restore()
    assert outcome.ended == "committed"
    assert outcome.downtime > 0
    site.is_new()
    verbs = (site.folder / "service.log").read_text().split()
    assert [v for v in verbs if v in ("stop", "start")] == ["stop", "start"]
    journal, safety = undoable(site.config, "")
    names = list(journal.saved)
    assert set(names) == {"projects", "scripts"}
    site.snapshot = find_snapshot(site.repository, safety)
    assert site.snapshot.safety
    site.restore(*names)
    site.is_old()


def test_the_plan_says_what_will_be_lost_and_changes_nothing(site: Site) -> None:
    seen: list[PlannedRestore] = []

    def refuse(plan: PlannedRestore) -> bool:
        seen.append(plan)
        return False

    before = len(list_snapshots(site.repository))
    restore_in_place(
        site.repository,
        site.config,
        site.snapshot,
        [],
        Wishes(delete_extra=True),
        refuse,
        site.telling(),
    )
    (plan,) = seen
    losses = plan.as_dict()["sources"]
    (rows,) = losses["projects"]["losses"]
    assert (rows["newer"], rows["missing"]) == (1, 9)
    assert sum(loss["newer"] for loss in losses["scripts"]["losses"]) == 1
    assert sum(loss["changed"] for loss in losses["scripts"]["losses"]) == 1
    assert plan.stop == ["app"]
    assert plan.rto == 900
    assert plan.seconds > 0
    assert len(list_snapshots(site.repository)) == before
    assert (
        not (site.folder / "service.log").exists()
        or "stop" not in (site.folder / "service.log").read_text()
    )
    site.is_old()


def database_of(site: Site) -> Path:
    return Path((site.folder / "app.env").read_text().strip().partition("sqlite:///")[2])


def rows_of(path: Path) -> list[Any]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM episodes ORDER BY id").fetchall()
    connection.close()
    return rows


def test_a_new_database_beside_and_the_setting_switched(site: Site) -> None:
    outcome = site.restore("projects", mode="beside")
    assert outcome.ended == "committed"
    new = database_of(site)
    assert new != site.data / "p.db"
    assert rows_of(new) == site.new["rows"]
    assert site.state() == site.old, "the old file is as it was"
    assert any(str(new) in warning for warning in outcome.warnings)
    site.nothing_left()


def test_the_setting_goes_back_when_the_service_stays_sick(site: Site) -> None:
    (site.folder / "sick").write_text("")
    with pytest.raises(RolledBackError):
        site.restore("projects", mode="beside")
    assert database_of(site) == site.data / "p.db"
    assert [path.name for path in site.data.glob("*.db")] == ["p.db"]
    site.is_old()


def test_extra_files_stay_unless_told(site: Site) -> None:
    site.restore("scripts", delete_extra=False)
    assert (site.data / "scripts" / "three.md").read_text() == "three\n"
    assert (site.data / "scripts" / "one.md").read_text() == "one\n"
    site.restore("scripts", delete_extra=True)
    assert not (site.data / "scripts" / "three.md").exists()


Spoil = Callable[[Site, pytest.MonkeyPatch], None]


def a_service_that_does_not_stop(site: Site, patch: pytest.MonkeyPatch) -> None:
    (site.folder / "stubborn").write_text("")


def a_service_that_stays_sick(site: Site, patch: pytest.MonkeyPatch) -> None:
    (site.folder / "sick").write_text("")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def a_staged_database_that_is_damaged(site: Site, patch: pytest.MonkeyPatch) -> None:
    check = SqliteRestorer.check_staged

    def damaged(self: SqliteRestorer, work: RestoreWork) -> list[Check]:
        _flip(work.staged / "p.db")
        return check(self, work)

    patch.setattr(SqliteRestorer, "check_staged", damaged)


def staged_files_that_are_damaged(site: Site, patch: pytest.MonkeyPatch) -> None:
    check = FilesRestorer.check_staged

    def damaged(self: FilesRestorer, work: RestoreWork) -> list[Check]:
        _flip(work.staged / "one.md")
        return check(self, work)

    patch.setattr(FilesRestorer, "check_staged", damaged)


def _raising(patch: pytest.MonkeyPatch, kind: type, method: str, after: bool) -> None:
    """The method fails, before it did anything or after all of it."""
    original = getattr(kind, method)

    def failing(self: Any, work: RestoreWork) -> Any:
        if after:
            original(self, work)
        raise OSError(28, "No space left on device")

    patch.setattr(kind, method, failing)


def an_error_before_the_database_is_switched(site: Site, patch: pytest.MonkeyPatch) -> None:
    _raising(patch, SqliteRestorer, "switch", after=False)


def an_error_after_the_database_is_switched(site: Site, patch: pytest.MonkeyPatch) -> None:
    _raising(patch, SqliteRestorer, "switch", after=True)


def an_error_after_the_files_are_switched(site: Site, patch: pytest.MonkeyPatch) -> None:
    _raising(patch, FilesRestorer, "switch", after=True)


def a_live_store_that_does_not_answer(site: Site, patch: pytest.MonkeyPatch) -> None:
    def wrong(self: SqliteRestorer, work: RestoreWork) -> list[Check]:
        return [Check("opens", False, "a database", "rubbish")]

    patch.setattr(SqliteRestorer, "confirm", wrong)


def an_interrupt(site: Site, patch: pytest.MonkeyPatch) -> None:
    def interrupted(self: SqliteRestorer, work: RestoreWork) -> list[Check]:
        raise KeyboardInterrupt

    patch.setattr(SqliteRestorer, "confirm", interrupted)


FAILURES: list[Spoil] = [
    a_service_that_does_not_stop,
    a_service_that_stays_sick,
    a_staged_database_that_is_damaged,
    staged_files_that_are_damaged,
    an_error_before_the_database_is_switched,
    an_error_after_the_database_is_switched,
    an_error_after_the_files_are_switched,
    a_live_store_that_does_not_answer,
    an_interrupt,
]


@pytest.mark.parametrize("spoil", FAILURES, ids=lambda f: f.__name__)
def test_any_failure_leads_back_by_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch, spoil: Spoil
) -> None:
    spoil(site, monkeypatch)
    expected = (RolledBackError, KeyboardInterrupt, OSError)
    with pytest.raises(expected) as caught:
        site.restore()
    monkeypatch.undo()
    if isinstance(caught.value, RolledBackError):
        assert "exactly as it was before" in str(caught.value)
    site.is_old()
    (site.folder / "sick").unlink(missing_ok=True)
    (site.folder / "stubborn").unlink(missing_ok=True)
    site.restore()  # nothing of the failure is in the way
    site.is_new()


def test_a_disk_that_is_too_small_is_refused_before_anything(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        site = Site(tmp_path, disk)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 200_000))
        with pytest.raises(RefusedError, match="free"):
            site.restore()
        assert not site.log
        site.is_old()


def test_a_disk_that_fills_while_staging_leads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        site = Site(tmp_path, disk)
        monkeypatch.setattr("safetake.recovery.plan._room", lambda plan: None)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 30_000))
        with pytest.raises(RolledBackError, match="No space left"):
            site.restore("projects")
        (disk / "filler").unlink()  # SQLite cannot even read its log without room
        site.is_old()


def test_a_second_restore_and_a_backup_are_refused_while_one_is_open(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(self: object, *args: object) -> list[Check]:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SqliteRestorer, "confirm", die)
        patch.setattr(Engine, "back", die)
        with pytest.raises(Killed):
            site.restore()
    with pytest.raises(RefusedError, match="not ended") as caught:
        site.restore()
    assert "--rollback" in caught.value.hint
    with pytest.raises(RefusedError, match="not ended"):
        refuse_half_restored(site.config, ["projects"])
    with pytest.raises(RefusedError, match="not ended"):
        undoable(site.config, "")
    other = site.config.model_copy(
        update={"restore": site.config.restore.model_copy(update={"state": site.folder / "s2"})}
    )
    with pytest.raises(RefusedError, match="begun and not ended"):
        restore_in_place(
            site.repository, other, site.snapshot, ["projects"], Wishes(), lambda plan: True,
            site.telling(),
        )  # fmt: skip
    outcome = resume(site.config, site.opening, site.telling())
    assert outcome.ended == "committed"
    site.is_new()
    refuse_half_restored(site.config, ["projects"])


class Killed(BaseException):
    """The process ends here."""


def cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore whose process died after the switch."""

    def die(self: object, *args: object) -> list[Check]:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SqliteRestorer, "confirm", die)
        patch.setattr(Engine, "back", die)
        with pytest.raises(Killed):
            site.restore()


def test_a_path_that_was_changed_meanwhile_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun over one store is not ended over another."""
    cut_off(site, monkeypatch)
    other = site.data / "other.db"
    database(other, 3)
    before = other.read_bytes()
    told = site.folder / "safetake.toml"
    text = told.read_text()
    told.write_text(text.replace(f'path = "{site.data / "p.db"}"', f'path = "{other}"'))
    site.config = configfile.load(told)
    said = r"at .*p\.db, and the configuration says .*other\.db"
    with pytest.raises(RefusedError, match=said):
        resume(site.config, site.opening, site.telling())
    with pytest.raises(RefusedError, match=said):
        roll_back(site.config, site.telling())
    assert other.read_bytes() == before
    told.write_text(text)
    site.config = configfile.load(told)
    roll_back(site.config, site.telling())
    site.is_old()


def test_a_restore_whose_journal_was_lost_is_named_with_the_way_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetake.cli.doctor import restores

    assert restores(site.config) == []
    cut_off(site, monkeypatch)
    assert [finding.state for finding in restores(site.config)] == ["problem"]
    shutil.rmtree(site.folder / "state")
    with pytest.raises(RefusedError, match=r"and its journal .* is gone") as caught:
        site.restore()
    assert "safety snapshot" in caught.value.hint
    found = restores(site.config)
    assert [finding.state for finding in found] == ["problem"] * 2
    assert all(".safetake-restore-" in finding.text for finding in found)
    for work in list(site.data.glob(".safetake-restore-*")):
        work.rename(site.folder / work.name)
    (site.folder / "runs").write_text("")
    site.restore()
    site.is_new()


def test_rollback_needs_no_repository(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(self: object, *args: object) -> list[Check]:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SqliteRestorer, "confirm", die)
        patch.setattr(Engine, "back", die)
        with pytest.raises(Killed):
            site.restore()
    os.rename(site.folder / "repository", site.folder / "gone")  # noqa: PTH104
    outcome = roll_back(site.config, site.telling())
    assert outcome.ended == "rolled back"
    site.is_old()
    with pytest.raises(UsageError, match="no restore is open"):
        roll_back(site.config, site.telling())
    with pytest.raises(UsageError, match="no restore is open"):
        resume(site.config, site.opening, site.telling())


def test_a_service_that_does_not_start_again_does_not_hold_the_old_data_up(site: Site) -> None:
    (site.folder / "sick").write_text("")
    program = site.folder / "application.py"
    broken = program.read_text().replace('if verb == "start":', 'if verb == "start": sys.exit(9)')
    program.write_text(broken.replace('sys.exit(9)\n    mark.write_text("")', "sys.exit(9)\n"))
    with pytest.raises(RolledBackError, match="does not run again"):
        site.restore()
    (site.folder / "runs").write_text("")
    site.is_old()


def test_what_could_not_be_saved_is_not_replaced(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetake.model import Captured
    from safetake.sources.files.session import FilesSession

    capture = FilesSession.capture

    def torn(self: FilesSession) -> Captured:
        captured = capture(self)
        captured.unread.append("one.md: changed while it was read")
        return captured

    monkeypatch.setattr(FilesSession, "capture", torn)
    with pytest.raises(RolledBackError, match="could not be saved"):
        site.restore()
    site.is_old()


def test_a_damaged_database_is_saved_as_it_lies(site: Site) -> None:
    live = site.data / "p.db"
    rubbish = b"no database " * 1000
    live.write_bytes(rubbish)
    outcome = site.restore("projects")
    assert outcome.ended == "committed"
    assert site.state()["rows"] == site.new["rows"]
    site.nothing_left()
    journal, safety = undoable(site.config, "")
    site.snapshot = find_snapshot(site.repository, safety)
    site.restore(*journal.saved)
    assert live.read_bytes() == rubbish
    site.nothing_left()


def test_a_store_that_is_gone_comes_back(site: Site) -> None:
    (site.data / "p.db").unlink()
    shutil.rmtree(site.data / "scripts")
    outcome = site.restore()
    assert outcome.ended == "committed"
    site.is_new()
    with pytest.raises(RefusedError, match="replaced nothing"):
        undoable(site.config, "")


def test_a_database_that_a_wrong_clock_dated_is_replaced(site: Site) -> None:
    """The clock was an hour ahead when it was written, and was set back since."""
    later = time.time() + 3600
    for path in site.data.glob("p.db*"):
        os.utime(path, (later, later))
    assert site.restore("projects").ended == "committed"
    assert site.state()["rows"] == site.new["rows"]
    site.nothing_left()


def test_a_source_that_is_not_configured_is_refused(site: Site) -> None:
    sources = {name: s for name, s in site.config.sources.items() if name != "scripts"}
    site.config = site.config.model_copy(update={"sources": sources})
    with pytest.raises(UsageError, match="has no source 'scripts'"):
        site.restore()
    site.restore("projects")


def test_every_error_has_a_next_step(site: Site) -> None:
    with pytest.raises(SafetakeError) as caught:
        site.restore("nowhere")
    assert caught.value.hint
