"""References between real stores: live under a writer, in snapshots, and in restored copies."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from safetake.backup import take_snapshot
from safetake.config import BarrierConfig, Config
from safetake.demo.application import Application, Places, sample_application
from safetake.demo.processes import Processes
from safetake.findings import KEPT_IDS, Finding
from safetake.integrity.idsets import IdSets
from safetake.integrity.references import Live, Staged, check_references, check_snapshot
from safetake.repository import Repository
from safetake.restore.beside import restore_to
from safetake.snapshots import find_snapshot
from safetake.sources import build
from tests.support.repositories import new_repository
from tests.support.sample_application import until_load

ROWS = {"source": "projects", "sql": "SELECT id FROM episodes"}
FILES = {"source": "scripts", "files": "*/{id}.txt"}


def configured(sources: dict[str, Any], **references: dict[str, Any]) -> Config:
    return Config.model_validate(
        {"repository": {"location": "/nowhere"}, "sources": sources, "references": references}
    )


def pair(folder: Path, **more: Any) -> Config:
    """Rows in a.db refer to files in `scripts/`."""
    (folder / "scripts" / "p").mkdir(parents=True)
    return configured(
        {
            "projects": {"type": "sqlite", "path": folder / "a.db"},
            "scripts": {"type": "files", "path": folder / "scripts", "may_be_empty": True},
        },
        script={"from": ROWS, "to": FILES, **more},
    )


def fill(folder: Path, rows: list[object], files: list[str], mode: str = "wal") -> None:
    with sqlite3.connect(folder / "a.db") as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE IF NOT EXISTS episodes (id)")
        db.executemany("INSERT INTO episodes VALUES (?)", [(row,) for row in rows])
    db.close()
    for name in files:
        (folder / "scripts" / "p" / f"{name}.txt").write_text("x")


def no_sleep(seconds: float) -> None:
    """Nobody writes: there is nothing to wait for."""


def test_offenders_are_named_and_a_number_is_a_number(tmp_path: Path) -> None:
    config = pair(tmp_path)
    fill(tmp_path, [7, 8.0, "nine", None, "lost", 12], ["7", "8", "nine", "spare"])
    (found,) = check_references(config, sleep=no_sleep)
    assert (found.source, found.check, found.ok, found.level) == (
        "projects",
        "reference script",
        False,
        "error",
    )
    assert found.ids == ["12", "lost"]
    assert "2 of 5 ids" in found.detail
    assert "scripts" in found.hint
    (tmp_path / "scripts" / "p" / "12.txt").write_text("x")
    (tmp_path / "scripts" / "p" / "lost.txt").write_text("x")
    assert [one.ok for one in check_references(config, sleep=no_sleep)] == [True]


def test_some_are_named_and_all_are_counted(tmp_path: Path) -> None:
    config = pair(tmp_path)
    fill(tmp_path, list(range(1500)), ["3"])
    (found,) = check_references(config, sleep=no_sleep)
    assert len(found.ids) == KEPT_IDS
    assert "1,499 of 1,500 ids" in found.detail


def test_a_side_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    config = pair(tmp_path)
    (found,) = check_references(config)
    assert not found.ok
    assert "a.db does not exist" in found.detail
    fill(tmp_path, [1], [])
    shutil.rmtree(tmp_path / "scripts")
    (found,) = check_references(config)
    assert not found.ok
    assert "scripts cannot be looked at" in found.detail
    assert found.ids == []


def test_only_references_of_the_sources_that_are_asked_about(tmp_path: Path) -> None:
    config = pair(tmp_path)
    fill(tmp_path, [1], ["1"])
    assert check_references(config, ["other"]) == []
    assert len(check_references(config, ["scripts"])) == 1


# ---------------------------------------------------------------------- a busy application

WRITER = """
import os, random, sqlite3, sys
from pathlib import Path
folder, mode, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
db = sqlite3.connect(folder / "a.db", isolation_level=None, timeout=60)
db.execute("PRAGMA synchronous = off")
place = folder / "scripts" / "p"
choose, alive, number = random.Random(seed), [], 0
def make(one):
    (place / f".{one}").write_text("x")
    (place / f".{one}").rename(place / f"{one}.txt")
def row(one): db.execute("INSERT INTO episodes VALUES (?)", (one,))
while True:
    number += 1
    one = f"{seed}-{number}"
    if mode == "ordered":
        make(one), row(one)
    else:
        row(one), make(one)
    alive.append(one)
    if len(alive) > 40:
        gone = alive.pop(choose.randrange(len(alive)))
        db.execute("DELETE FROM episodes WHERE id = ?", (gone,))
        (place / f"{gone}.txt").unlink()
    if number == 60:
        print("busy", flush=True)
"""


@contextmanager
def busy(folder: Path, mode: str) -> Iterator[None]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, folder, mode, str(seed)], stdout=subprocess.PIPE
        )
        for seed in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"busy\n"
        yield
        assert [process.poll() for process in processes] == [None, None], "the writers ended"
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def suspected_at_first(config: Config, folder: Path) -> int:
    """What one pass over both sides would call offenders."""
    reference = config.references["script"]
    folder.mkdir()
    sets = IdSets(folder)
    try:
        sets.fill("from", Live().reader(config, reference.from_, folder).ids())
        sets.fill("to", Live().reader(config, reference.to, folder).ids())
        return sets.suspect("from", "to")
    finally:
        sets.close()


@pytest.mark.parametrize(("journal", "mode"), [("wal", "ordered"), ("delete", "unordered")])
def test_a_busy_application_gives_no_false_alarm_and_hides_no_offender(
    journal: str, mode: str, tmp_path: Path
) -> None:
    config = pair(tmp_path, settle=4)
    # so many that reading both sides takes a while
    steady = [f"s{number}" for number in range(3000)]
    fill(tmp_path, [*steady], steady, journal)
    with busy(tmp_path, mode):
        suspected = 0
        for number in range(200):  # the control: without asking again there are false alarms
            suspected += suspected_at_first(config, tmp_path / f"first{number}")
            if suspected and number >= 5:
                break
        assert suspected > 0, "nothing came or went between the two passes"
        for _ in range(4):
            (found,) = check_references(config)
            assert found.ok, found
        (tmp_path / "scripts" / "p" / "s7.txt").unlink()
        (found,) = check_references(config)
        assert found.ids == ["s7"], found


# ---------------------------------------------------------------------- the sample application


def sample_references() -> dict[str, dict[str, Any]]:
    records = {"source": "vectors", "collection": "scripts"}
    jobs = {"source": "queue", "keys": "script-generator:job:{id}"}
    projects = {"source": "projects", "sql": "SELECT id FROM projects"}
    return {
        "embedding-row": {"from": records, "to": ROWS},
        "embedding-project": {"from": {**records, "field": "project_id"}, "to": projects},
        "file-embedding": {"from": FILES, "to": records},
        "file-project": {"from": {"source": "scripts", "files": "{id}/"}, "to": projects},
        "job-file": {"from": jobs, "to": FILES},
        "job-row": {"from": jobs, "to": ROWS},
    }


@pytest.fixture
def site() -> Iterator[tuple[Application, Config, Repository, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="safetake-references-"))
    data, logs = folder / "data", folder / "logs"
    data.mkdir()
    logs.mkdir()
    processes = Processes(logs, {"PYTHONPATH": str(sample_application())})
    application = Application(
        processes, Places(data / "projects.db", data / "chroma", data / "redis", data / "scripts")
    )
    try:
        application.start_redis()
        application.create_stores()
        application.start_services()
        application.wait_healthy()
        config = configured(
            {
                "projects": {"type": "sqlite", "path": data / "projects.db"},
                "vectors": {"type": "chroma", "path": data / "chroma"},
                "queue": {"type": "redis", "url": application.redis_url},
                "scripts": {"type": "files", "path": data / "scripts"},
            },
            **sample_references(),
        )
        with new_repository(folder / "repository") as repository:
            yield application, config, repository, folder
    finally:
        processes.kill()
        shutil.rmtree(folder, ignore_errors=True)


def bad(findings: list[Finding]) -> dict[str, list[str]]:
    assert len(findings) == len(sample_references())
    return {one.check.removeprefix("reference "): one.ids for one in findings if not one.ok}


def test_the_sample_application_live_in_snapshots_and_restored(
    site: tuple[Application, Config, Repository, Path],
) -> None:
    application, config, repository, folder = site
    sources = [build(name, source) for name, source in config.sources.items()]
    application.start_load(folder / "journal.jsonl", 4)
    until_load(folder / "journal.jsonl")
    taken = []
    for _ in range(3):
        assert bad(check_references(config)) == {}
        taken.append(take_snapshot(repository, sources, barrier=BarrierConfig()).id)
    application.end_load(folder / "logs")

    for snapshot in taken:  # of one moment each, taken under load
        findings = check_snapshot(config, repository, find_snapshot(repository, snapshot))
        assert bad(findings) == {}
        assert all(": 0 ids" not in one.detail for one in findings), findings
    restore_to(repository, find_snapshot(repository, taken[-1]), [], folder / "restored")
    assert bad(check_references(config, place=Staged(folder / "restored"))) == {}

    one = sorted((folder / "data" / "scripts").glob("*/*.txt"))[0]
    one.unlink()
    with sqlite3.connect(folder / "data" / "projects.db") as db:
        (row,) = db.execute("SELECT id FROM episodes ORDER BY id DESC LIMIT 1").fetchone()
        db.execute("DELETE FROM episodes WHERE id = ?", (row,))
    db.close()
    broken = {"embedding-row": [row], "job-file": [one.stem], "job-row": [row]}
    assert bad(check_references(config, sleep=no_sleep)) == broken
    report = take_snapshot(repository, sources, barrier=BarrierConfig())
    found = check_snapshot(config, repository, find_snapshot(repository, report.id))
    assert bad(found) == broken, "a snapshot of broken data is not called consistent"


def test_a_snapshot_is_asked_about_what_is_in_it(tmp_path: Path) -> None:
    config = pair(tmp_path)
    fill(tmp_path, ["1"], ["1"])
    with new_repository(tmp_path / "repository") as repository:
        only = build("projects", config.sources["projects"])
        report = take_snapshot(repository, [only], barrier=BarrierConfig())
        assert check_snapshot(config, repository, find_snapshot(repository, report.id)) == []


@pytest.mark.slow
def test_memory_is_bounded_by_far_less_than_the_ids(tmp_path: Path) -> None:
    """300,000 ids of 60 characters are 45 MB as a set, and there are two."""
    config = pair(tmp_path)
    with sqlite3.connect(tmp_path / "a.db") as db:
        db.execute("CREATE TABLE episodes (id)")
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 299999)"
            " INSERT INTO episodes SELECT printf('%060d', i) FROM n"
        )
    db.close()
    code = f"""
import resource, sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
from tests.integrity.test_references import *
both = configured({{"projects": {{"type": "sqlite", "path": {str(tmp_path / "a.db")!r}}}}},
                  r={{"from": ROWS, "to": ROWS}})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(found,) = check_references(both)
assert found.ok and "300,000" in found.detail, found
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    assert config.references
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50
