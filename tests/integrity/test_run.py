"""A whole run: real stores, real processes, a repository; what hangs or crashes is an answer."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from safetake.config import Config
from safetake.errors import UsageError
from safetake.findings import KEPT_IDS, Asking, Finding, not_asked, offenders
from safetake.integrity import run_integrity, stores
from safetake.integrity.report import IntegrityReport
from safetake.repository import Repository
from safetake.sources import ask_live
from tests.integrity.damage_sqlite import database, orphan, overwritten
from tests.integrity.support import picture, wrong
from tests.support.repositories import files_source, new_repository, snapshot, sqlite_source

NOW = 20_000 * 86_400 * 10**9


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (place := tmp_path / "place").mkdir()
    database(place / "projects.db", "wal")
    (place / "scripts").mkdir()
    for number in range(10):
        (place / "scripts" / f"{number}.md").write_bytes(bytes([number]) * 1000)
    return place


def config(place: Path, **more: Any) -> Config:
    return Config.model_validate(
        {
            "repository": {"location": str(place / "repo")},
            "sources": {
                "projects": {"type": "sqlite", "path": place / "projects.db"},
                "scripts": {"type": "files", "path": place / "scripts"},
            },
            "restore": {"state": place / "state"},
            **more,
        }
    )


@pytest.fixture
def repository(place: Path) -> Repository:
    repository = new_repository(place / "repo")
    time.sleep(2.1)  # what was written in the tick of a snapshot cannot be told from rot
    snapshot(
        repository,
        sqlite_source("projects", place / "projects.db"),
        files_source("scripts", place / "scripts"),
    )
    return repository


def problems(report: IntegrityReport) -> dict[str, str]:
    return {f"{one.source}: {one.check}": one.detail for one in report.problems}


def test_sound_stores_give_a_report_without_problems(place: Path, repository: Repository) -> None:
    data = [place / "projects.db", place / "scripts"]
    before = picture(place / "scripts"), data[0].read_bytes()
    report = run_integrity(config(place), None, repository, now_ns=NOW)
    assert problems(report) == {}
    assert report.exit_code == 0
    assert report.sources == ["projects", "scripts"]
    same = [one for one in report.findings if one.check == "same bytes as in the snapshot"]
    assert [(one.source, one.ok, one.asked) for one in same] == [
        ("projects", True, True),
        ("scripts", True, True),
    ]
    assert (picture(place / "scripts"), data[0].read_bytes()) == before
    assert report.facts["scripts"]["compared_files"] == 10
    document = json.loads(json.dumps(report.as_dict()))
    assert document["ok"] is True
    assert {"source", "check", "ok", "level", "detail", "ids", "hint"} == set(
        document["findings"][0]
    )


def test_problems_make_it_fail_and_rot_is_seen(place: Path, repository: Repository) -> None:
    path = place / "scripts" / "4.md"
    state = path.stat()
    path.write_bytes(b"\xff" * 1000)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    orphan(place / "projects.db")
    report = run_integrity(config(place), None, repository, now_ns=NOW)
    assert set(problems(report)) == {
        "projects: foreign_key_check",
        "scripts: same bytes as in the snapshot",
    }
    assert report.exit_code == 1
    brief = report.brief()
    assert {one["check"] for one in brief["findings"] if one["level"] == "error"} == {
        "foreign_key_check",
        "same bytes as in the snapshot",
    }
    assert problems(run_integrity(config(place), ["scripts"], repository, now_ns=NOW)) == {
        "scripts: same bytes as in the snapshot": (
            "1 changed although neither size nor time did; 10 of 10 files (9.77 KiB of"
            " 9.77 KiB) compared"
        )
    }


def test_without_a_repository_that_is_said(place: Path) -> None:
    report = run_integrity(config(place), no_repository="it burned")
    assert report.exit_code == 0
    assert {one.detail for one in report.unasked} == {"it burned"}
    assert {one.check for one in report.unasked} >= {"same bytes as in the snapshot", "drift"}


def test_a_missing_source_does_not_keep_others_from_being_asked(place: Path) -> None:
    shutil.rmtree(place / "scripts")
    overwritten(place / "projects.db")
    report = run_integrity(config(place))
    assert {one.source for one in report.problems} == {"projects", "scripts"}
    assert report.exit_code == 1


def test_an_unknown_source_is_a_mistake(place: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'projects'"):
        run_integrity(config(place), ["project"])


def test_a_locked_repository_is_said_and_the_stores_are_asked(
    place: Path, repository: Repository
) -> None:
    repository.lock_wait = 0
    other = Repository.open(repository.storage, "correct horse 말")
    with other.lock(exclusive=True):
        report = run_integrity(config(place), None, repository, now_ns=NOW)
    assert any("cannot be asked" in one.detail for one in report.unasked)
    assert next(one for one in report.findings if one.check == "integrity_check").ok


# --------------------------------------------------------------------- processes that misbehave


def instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """What the child's process does: the same command line, another program."""
    real = subprocess.Popen

    def start(command: list[Any], **more: Any) -> Any:
        return real([command[0], "-c", program, command[-1]], **more)

    monkeypatch.setattr(stores.subprocess, "Popen", start)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("raise SystemExit('out of luck')", "out of luck"),
        ("pass", "no answer"),
        ("import sys; open(sys.argv[1], 'w').write('{')", "no answer"),
        ("import time; time.sleep(60)", "hangs"),
    ],
    ids=["crash", "error", "nothing", "nonsense", "hang"],
)
def test_what_crashes_or_hangs_is_an_answer(
    place: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    instead(monkeypatch, program)
    report = run_integrity(
        config(place, integrity={"timeout": 1.5 if said == "hangs" else 60}), ["projects"]
    )
    assert list(problems(report)) == ["projects: answers"]
    assert said in problems(report)["projects: answers"]


def test_a_place_for_copies_that_is_not_there_is_told(place: Path) -> None:
    report = run_integrity(config(place, integrity={"scratch": place / "nowhere"}), ["projects"])
    assert "scratch folder" in problems(report)["projects: asked"]


def test_nothing_is_left_in_the_place_for_copies(place: Path, tmp_path: Path) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    database(place / "old.db", "delete")
    settings = config(
        place,
        integrity={"scratch": scratch},
        sources={"old": {"type": "sqlite", "path": place / "old.db"}},
    )
    assert problems(run_integrity(settings)) == {}
    assert list(scratch.iterdir()) == []


def test_locks_of_this_process_survive_the_look(place: Path) -> None:
    """Closing a descriptor of a database drops its process's locks: none is opened here."""
    path = place / "old.db"
    database(path, "delete")
    settings = config(place, sources={"old": {"type": "sqlite", "path": path}})
    with sqlite3.connect(path, isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert problems(run_integrity(settings)) == {}
        program = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0);"
            "c.execute('BEGIN IMMEDIATE')"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, path],
            capture_output=True,
            check=False,
        )
        assert b"locked" in done.stderr
    holder.close()


# --------------------------------------------------------------------------------- the words


def test_offenders_are_counted_and_the_first_are_kept() -> None:
    count, kept = offenders(map(str, range(1000)))
    assert count == 1000
    assert kept == [str(n) for n in range(KEPT_IDS)]
    assert offenders([]) == (0, [])


def test_only_an_error_makes_a_report_fail() -> None:
    report = IntegrityReport()
    report.add([Finding("a", "x", True), not_asked("a", "y", "why")])
    report.add([Finding("a", "z", False, "warning")])
    assert report.exit_code == 0
    report.add([Finding("b", "z", False, "error")])
    assert report.exit_code == 1
    assert [one.source for one in report.problems] == ["b", "a"], "errors first"
    assert [one.check for one in report.unasked] == ["y"]


def test_what_the_history_keeps_is_bounded() -> None:
    report = IntegrityReport()
    report.add(Finding("a", f"{n}", False, "error", "x" * 9999, ["y"] * 99) for n in range(200))
    brief = report.brief()
    assert len(json.dumps(brief)) < 40_000
    assert brief["left_out"] == 150


def test_a_question_has_one_answer(place: Path, tmp_path: Path) -> None:
    for name, section in config(place).sources.items():
        (folder := tmp_path / name).mkdir()
        found = ask_live(section, Asking(name, folder))
        checks = [one.check for one in found.findings]
        assert len(checks) == len(set(checks))
        assert wrong(found) == {}
