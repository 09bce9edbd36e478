"""What services wrote to restored data, before it goes back to the data from before."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from safetake import configfile
from safetake.errors import RefusedError
from safetake.recovery.engine import Engine
from safetake.recovery.inplace import resume, roll_back
from safetake.recovery.outcome import RolledBackError
from safetake.restore.beside import restore_to
from safetake.snapshots import find_snapshot, list_snapshots
from safetake.sources.sqlite.restore import SqliteRestorer
from tests.recovery.test_engine import Site, cut_off

WRITES = """
if verb == "start":
    import sqlite3
    url = (folder / "app.env").read_text().strip().partition(":///")[2]
    connection = sqlite3.connect(url)
    with connection:
        connection.execute("INSERT INTO episodes (script) VALUES ('written by the service')")
    connection.close()
    (folder / "data" / "scripts" / "two.md").write_text("by the service\\n")
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def writing(site: Site) -> Site:
    """Its service writes when it starts, and is never well on the restored data."""
    program = site.folder / "application.py"
    program.write_text(program.read_text() + WRITES)
    (site.folder / "sick").write_text("")
    return site


def kept(site: Site) -> list[str]:
    site.repository.reload()
    found = list_snapshots(site.repository)
    return [one.id for one in found if "written-since" in (one.document.get("tags") or ())]


def rows(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    found = [row[0] for row in connection.execute("SELECT script FROM episodes ORDER BY id")]
    connection.close()
    return found


def restored(site: Site, snapshot: str) -> Path:
    """A kept snapshot, beside."""
    target = site.folder / f"out-{snapshot[:8]}"
    restore_to(site.repository, find_snapshot(site.repository, snapshot), [], target)
    return target


def test_what_a_service_wrote_before_its_gate_failed_is_a_snapshot(writing: Site) -> None:
    with pytest.raises(RolledBackError) as caught:
        writing.restore()
    text = str(caught.value)
    found = {}
    for snapshot in kept(writing):
        (name,) = find_snapshot(writing.repository, snapshot).sources
        found[name] = snapshot
        assert f"what was written to {name} after it was replaced" in text.replace("What", "what")
        assert snapshot[:8] in text
        assert find_snapshot(writing.repository, snapshot).safety, "`latest` never means it"
    assert set(found) == {"projects", "scripts"}
    projects = restored(writing, found["projects"]) / "projects"
    before = [row[1] for row in writing.new["rows"]]
    assert rows(next(projects.glob("*.db"))) == [*before, "written by the service"]
    scripts = restored(writing, found["scripts"]) / "scripts"
    assert (scripts / "two.md").read_text() == "by the service\n"
    live = rows(writing.data / "p.db")
    # the service wrote to the old data, too, when it was started on it again
    assert live == [*(row[1] for row in writing.old["rows"]), "written by the service"]
    writing.nothing_left()


def test_of_a_new_database_beside_too(writing: Site) -> None:
    with pytest.raises(RolledBackError):
        writing.restore("projects", mode="beside")
    (snapshot,) = kept(writing)
    projects = restored(writing, snapshot) / "projects"
    assert rows(next(projects.glob("*.db")))[-1] == "written by the service"
    assert [path.name for path in writing.data.glob("*.db")] == ["p.db"]
    writing.nothing_left()


def test_nothing_is_kept_where_nothing_was_written(site: Site) -> None:
    (site.folder / "sick").write_text("")
    with pytest.raises(RolledBackError) as caught:
        site.restore()
    assert kept(site) == []
    assert "after it was replaced" not in str(caught.value)
    site.is_old()


def test_what_is_no_database_any_more_is_kept_as_it_lies(site: Site) -> None:
    program = site.folder / "application.py"
    damage = """
if verb == "start" and not (folder / "damaged").exists():
    (folder / "damaged").write_text("")
    with open(folder / "data" / "p.db", "r+b") as file:
        file.write(b"this is no database any more")
"""
    program.write_text(program.read_text() + damage)
    (site.folder / "sick").write_text("")
    with pytest.raises(RolledBackError):
        site.restore("projects")
    (snapshot,) = kept(site)
    found = restored(site, snapshot) / "projects" / "p.db"
    assert found.read_bytes().startswith(b"this is no database")
    site.is_old()


def test_a_repository_that_is_gone_does_not_hold_the_old_data_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(site, monkeypatch)
    connection = sqlite3.connect(site.data / "p.db")
    with connection:
        connection.execute("INSERT INTO episodes (script) VALUES ('after the boot')")
    connection.close()
    (site.folder / "runs").write_text("")
    shutil.rmtree(site.folder / "repository")
    outcome = roll_back(site.config, site.telling())
    assert any("is gone" in text and "projects" in text for text in outcome.warnings)
    assert outcome.written == {}
    site.is_old()


def test_a_service_that_the_boot_started_is_stopped_before_the_data_goes_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died after the switch, and the machine's boot started what had been stopped."""
    cut_off(site, monkeypatch)
    log = site.folder / "service.log"
    log.write_text("")
    (site.folder / "runs").write_text("")
    connection = sqlite3.connect(site.data / "p.db")
    with connection:
        connection.execute("INSERT INTO episodes (script) VALUES ('after the boot')")
    connection.close()
    outcome = roll_back(site.config, site.telling(), lambda: site.repository)
    verbs = [verb for verb in log.read_text().split() if verb in ("stop", "start")]
    assert verbs == ["stop", "start"]
    projects = restored(site, outcome.written["projects"]) / "projects"
    assert rows(next(projects.glob("*.db")))[-1] == "after the boot"
    site.is_old()


def test_nothing_moves_under_an_application_that_nobody_can_stop(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started by hand after a crash: it would go on with a file that is nowhere any more."""
    cut_off(site, monkeypatch)
    monkeypatch.setattr("safetake.recovery.engine._PATIENCE_S", 0.3)
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM "
    program += "episodes').fetchall(); print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, site.data / "p.db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(2):
        with pytest.raises(RefusedError, match=f"in use by .*{process.pid}"):
            roll_back(site.config, site.telling())
        assert site.state()["rows"] == site.new["rows"]
    process.communicate()
    roll_back(site.config, site.telling())
    site.is_old()


def test_and_before_a_resume_goes_on_with_the_switch(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(self: object, *args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SqliteRestorer, "switch", die)
        patch.setattr(Engine, "back", die)
        with pytest.raises(Killed):
            site.restore()
    log = site.folder / "service.log"
    log.write_text("")
    (site.folder / "runs").write_text("")
    assert resume(site.config, site.opening, site.telling()).ended == "committed"
    assert [verb for verb in log.read_text().split() if verb in ("stop", "start")] == [
        "stop",
        "start",
    ]
    site.is_new()


def test_a_service_that_nobody_can_start_anew_is_not_switched(site: Site) -> None:
    told = site.folder / "safetake.toml"
    lines = told.read_text().splitlines(keepends=True)
    told.write_text("".join(line for line in lines if line[:4] not in ("stop", "star", "runn")))
    site.config = configfile.load(told)
    with pytest.raises(RefusedError, match="app would go on with the old file") as caught:
        site.restore("projects", mode="beside")
    assert "[services.app]" in caught.value.hint
    site.is_old()


def test_a_stop_command_that_returns_too_early_is_waited_for(site: Site) -> None:
    """`kill $(cat pid)` is what many have, and no command that says whether it runs."""
    script = f"""
import signal, sqlite3, sys, time
connection = sqlite3.connect({str(site.data / "p.db")!r})
connection.execute("SELECT * FROM episodes").fetchall()
def end(*_):
    time.sleep(1)
    sys.exit()
signal.signal(15, end)
print("up", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        told = site.folder / "safetake.toml"
        lines = told.read_text().splitlines(keepends=True)
        lines = [line for line in lines if not line.startswith(("stop = ", "start = ", "running"))]
        at = lines.index("[services.app]\n") + 1
        lines[at:at] = [f'stop = ["kill", "{process.pid}"]\n', 'start = ["true"]\n']
        told.write_text("".join(lines))
        site.config = configfile.load(told)
        assert site.restore("projects").ended == "committed"
        assert site.state()["rows"] == site.new["rows"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
