"""What the user's scripts do to restore a database, shown to fail, beside what is done instead."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from safetake.errors import RefusedError
from tests.sources.sqlite.restores import content, is_restored, opened, prepared, steps_for
from tests.sources.sqlite.support import add_rows, capture, database, stored_bytes
from tests.support.memory_writer import MemoryRepository
from tests.support.restoring import Steps, well


@pytest.fixture
def repository() -> Iterator[MemoryRepository]:
    with MemoryRepository() as made:
        yield made


def logged(folder: Path, repository: MemoryRepository) -> Steps:
    """300 projects in a snapshot; then an application loses the first 100 and is killed: its log is
    left beside the main file."""
    path = database(folder / "projects.db", "wal", 300)
    captured = capture(path, repository)
    connection = apsw.Connection(str(path))
    connection.wal_autocheckpoint(0)
    connection.execute("DELETE FROM projects WHERE id <= 100").fetchall()
    kept = {p: p.read_bytes() for p in folder.glob("projects.db*")}
    connection.close()
    for file, data in kept.items():
        file.write_bytes(data)
    return steps_for(path, repository, captured)


def backup_of(steps: Steps, folder: Path) -> Path:
    """The snapshot's database as a file, as the scripts have it."""
    file = folder / "backup.db"
    file.write_bytes(stored_bytes(steps.captured, steps.repository))
    return file


def test_cp_beside_a_live_log_brings_the_loss_back(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    steps = logged(tmp_path, repository)
    path = tmp_path / "projects.db"
    shutil.copyfile(backup_of(steps, tmp_path), path)
    with opened(path) as connection:  # the old log is replayed over the backup, and all is "ok"
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM projects").get == 200


def test_ours_does_not(tmp_path: Path, repository: MemoryRepository) -> None:
    steps = logged(tmp_path, repository)
    steps.run("offline")
    assert is_restored(content(tmp_path / "projects.db"))


def test_cp_beside_a_hot_journal_makes_it_malformed(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    steps = hot(tmp_path, repository)
    path = tmp_path / "projects.db"
    shutil.copyfile(backup_of(steps, tmp_path), path)
    with opened(path) as connection:
        try:
            answer = connection.execute("PRAGMA integrity_check").fetchall()
            rows = connection.execute("SELECT count(*) FROM projects").get
        except apsw.CorruptError:
            return
        assert (answer, rows) != ([("ok",)], 300)


def test_ours_takes_the_journal_with_the_old_file(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    steps = hot(tmp_path, repository)
    path = tmp_path / "projects.db"
    journal = path.with_name("projects.db-journal")
    before = path.read_bytes(), journal.read_bytes()
    outline = steps.outline()
    assert outline.losses[0].unknown == "its last transaction was not ended"
    assert any("killed in a transaction" in warning for warning in outline.warnings)
    assert (path.read_bytes(), journal.read_bytes()) == before
    steps.source = None  # a session would roll it back, as the application's next start does
    well(steps.stage("offline"))
    well(steps.switch())
    assert not journal.exists()
    assert is_restored(content(path))
    steps.restorer.switch_back(steps.work)
    assert (path.read_bytes(), journal.read_bytes()) == before
    with opened(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM projects").get == 900


def hot(folder: Path, repository: MemoryRepository) -> Steps:
    """300 projects in a snapshot, 900 in the live database, and an application killed in the
    middle of a transaction that changes them all: its journal is hot."""
    path = database(folder / "projects.db", "delete", 300)
    captured = capture(path, repository)
    with opened(path) as connection:
        add_rows(connection, 600)
    script = (
        "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('PRAGMA cache_size = 1'); c.execute('PRAGMA cache_spill = 1');"
        "c.execute(\"UPDATE projects SET title = title || 'changed'\");"
        'c.execute("UPDATE episodes SET script = script || script");'
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert path.with_name("projects.db-journal").stat().st_size > 4096
    return steps_for(path, repository, captured)


def test_open_connections_keep_the_old_file_and_lose_what_they_write(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    steps = prepared(tmp_path, repository)
    path = tmp_path / "projects.db"
    with opened(path) as application:
        application.execute("SELECT 1 FROM projects").fetchall()
        backup = backup_of(steps, tmp_path)
        backup.replace(path)
        path.with_name("projects.db-wal").unlink(missing_ok=True)
        assert application.execute("SELECT count(*) FROM projects").get == 310
        application.execute("INSERT INTO projects(title) VALUES ('lost')").fetchall()
    with opened(path) as connection:
        found = connection.execute("SELECT count(*) FROM projects WHERE title = 'lost'").get
        assert found == 0


def test_ours_sees_who_has_it_open(tmp_path: Path, repository: MemoryRepository) -> None:
    steps = prepared(tmp_path, repository, "delete")
    path = tmp_path / "projects.db"
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('SELECT 1 FROM projects'); print(flush=True); sys.stdin.read()"
    )
    application = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with application:
        assert application.stdout is not None
        application.stdout.readline()
        assert steps.outline().mode == "online"
        assert steps.outline(can_stop=True).mode == "offline"
        with pytest.raises(RefusedError, match=f"process {application.pid}"):
            steps.outline("offline")
        well(steps.stage("offline"))
        with pytest.raises(RefusedError, match=f"in use by process {application.pid}"):
            steps.restorer.quiet(steps.work)
        # it came in after `quiet`: seen when its name is gone already, and put back
        before = path.read_bytes()
        with pytest.raises(RefusedError, match="in use"):
            steps.restorer.switch(steps.work)
        assert path.read_bytes() == before
        application.communicate()


def test_the_exit_code_of_integrity_check_says_nothing(
    tmp_path: Path, repository: MemoryRepository
) -> None:
    steps = prepared(tmp_path, repository)
    backup = backup_of(steps, tmp_path)
    damage(backup)
    asked = "PRAGMA integrity_check;"
    script = f"import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('{asked}'))"
    command: list[str | Path] = ["sqlite3", backup, asked]
    if shutil.which("sqlite3") is None:
        command = [sys.executable, "-c", script, backup]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert "On tree page" in done.stdout


def test_ours_reads_the_answer_and_the_bytes(tmp_path: Path, repository: MemoryRepository) -> None:
    steps = prepared(tmp_path, repository)
    well(steps.stage("online"))
    damage(steps.work.staged / "projects.db")
    wrong = {check.name for check in steps.restorer.check_staged(steps.work) if not check.ok}
    assert wrong >= {"content", "integrity_check"}


def damage(path: Path) -> None:
    """Zeros over the cell pointers of a leaf: rows that cannot be found any more."""
    with path.open("r+b") as file:
        file.seek(4 * 4096 + 100)
        file.write(bytes(40))
