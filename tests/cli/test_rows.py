"""`safetake rows` as a user types it."""

from __future__ import annotations

import json
import sqlite3
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Workplace, in_a_terminal


@pytest.fixture
def damaged(workplace: Workplace) -> Workplace:
    """Ten projects deleted, one changed, one new."""
    sql(
        workplace,
        "DELETE FROM projects WHERE id BETWEEN 11 AND 20",
        "UPDATE projects SET name = 'spoilt\x1b[31m' WHERE id = 30",
        "INSERT INTO projects VALUES (200, 'new')",
    )
    workplace.environment["XDG_STATE_HOME"] = str(workplace.folder / "state")
    return workplace


def sql(workplace: Workplace, *statements: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(workplace.folder / "projects.db") as db:
        for statement in statements:
            found = db.execute(statement).fetchall()
    db.close()
    return found


def count(workplace: Workplace) -> object:
    return sql(workplace, "SELECT count(*) FROM projects")[0][0]


def test_what_differs_is_shown_and_nothing_is_changed(damaged: Workplace) -> None:
    said = damaged.run("rows", "latest", "projects").stdout
    assert said.split() == ["table", "missing", "changed", "extra", "projects", "10", "1", "1"]
    said = damaged.run(
        "rows", "latest", "projects", "--missing", "--changed", "--extra", "--limit", "2"
    ).stdout
    assert "프로젝트 10" in said
    assert "프로젝트 12" not in said
    assert "spoilt\\x1b[31m" in said
    assert "new" in said
    assert count(damaged) == 91
    assert not (damaged.folder / "state").exists()


def test_as_json(damaged: Workplace) -> None:
    found = damaged.json(
        "rows", "latest", "projects", "--missing", "--changed", "--extra", "--limit", "1"
    )
    table = found["tables"]["projects"]
    assert (table["missing"], table["changed"], table["extra"]) == (10, 1, 1)
    assert table["columns"] == ["id", "name"]
    assert table["rows"]["missing"] == [[11, "프로젝트 10"]]
    assert table["rows"]["changed"] == [
        {
            "key": {"id": 30},
            "recycled": False,
            "columns": {"name": ["프로젝트 29", "spoilt\x1b[31m"]},
        }
    ]
    assert table["rows"]["extra"] == [[200, "new"]]
    assert found["applied"] is None
    assert 0 < found["read"]["repository_share"] <= 1
    assert set(found["read"]) == {"repository_bytes", "repository_share", "local_bytes"}


def test_there_and_back(damaged: Workplace) -> None:
    words = ("rows", "latest", "projects", "--apply")
    found = damaged.json(*words, "--dry-run")
    assert found["applied"]["inserted"] == {"projects": 10}
    assert (found["dry_run"], found["undo"], count(damaged)) == (True, None, 91)
    found = damaged.json(*words, "--changed", "--yes")
    assert found["applied"]["updated"] == {"projects": 1}
    assert count(damaged) == 101
    folder = damaged.folder / "state" / "safetake" / "rows" / found["undo"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    record = json.loads((folder / "record.json").read_text())
    assert record["snapshot"] == found["snapshot"]

    rehearsed = damaged.json("rows", "--undo", found["undo"][:12], "--dry-run")
    assert rehearsed["removed"] == {"projects": 10}
    assert count(damaged) == 101
    said = damaged.run("rows", "--undo", str(folder), "--yes").stdout
    assert said == "projects: 10 rows removed again, 1 put back as before\n"
    assert count(damaged) == 91
    message, _ = damaged.error("rows", "--undo", found["undo"], "--yes", code=1)
    assert "undone already" in message


def test_rows_that_are_left_out_are_named(damaged: Workplace) -> None:
    sql(
        damaged,
        "CREATE UNIQUE INDEX one_name ON projects (name)",
        "INSERT INTO projects VALUES (300, '프로젝트 10')",
    )
    done = damaged.run("rows", "latest", "projects", "--apply", "--yes", code=3)
    assert "projects: 9 rows brought back" in done.stdout
    assert "left out: projects (id = 11): UNIQUE constraint failed: projects.name" in done.stderr


def test_a_choice_of_rows(damaged: Workplace) -> None:
    found = damaged.json("rows", "latest", "projects", "--where", "id > 15", "--table", "projects")
    assert found["tables"]["projects"]["missing"] == 5
    for words, message in {
        ("--where", "nowhere = 1"): "no such column: nowhere",
        ("--table", "project"): "did you mean 'projects'",
        ("--since", "1h"): "no column that is known as a time",
        ("--since", "noon"): "is no time",
        ("--yes",): "go with --apply",
        ("--time-column", "made"): "goes with --since or --until",
        ("--recycled", "--apply"): "goes with --changed",
        ("--undo", "latest"): "takes no snapshot",
        ("--apply",): "nobody to ask",
    }.items():
        said, _ = damaged.error("rows", "latest", "projects", *words, code=2)
        assert message in said, words
    for words in (("--table", "projects"), ("--changed",), ("--since", "1h"), ("--where", "1")):
        said, hint = damaged.error("rows", "--undo", "latest", *words, code=2)
        assert said == f"{words[0]} does not go with --undo: all that one --apply did is taken back"
        assert hint == "leave it out"
    assert "no application" in damaged.error("rows", "--undo", "x", "--yes", code=2)[0]
    assert "has no rows" in damaged.error("rows", "latest", "scripts", code=2)[0]
    assert count(damaged) == 91


def test_given_a_live_database_that_is_gone_then_it_is_told(damaged: Workplace) -> None:
    for path in damaged.folder.glob("projects.db*"):
        path.unlink()
    message, hint = damaged.error("rows", "latest", "projects", code=1)
    assert "does not exist" in message
    assert hint
    Path(damaged.folder / "projects.db").write_bytes(b"no database" * 100)
    damaged.error("rows", "latest", "projects", code=1)


def test_somebody_is_asked(damaged: Workplace) -> None:
    import os
    import pty
    import subprocess

    undo = ("rows", "--undo", "latest")
    for words, answer, code, expected in (
        (("rows", "latest", "projects", "--apply"), "n\n", 1, 91),
        (("rows", "latest", "projects", "--apply"), "y\n", 0, 101),
        (undo, "n\n", 1, 101),
        (undo, "y\n", 0, 91),
    ):
        main, other = pty.openpty()
        process = subprocess.Popen(
            damaged.command(*words),
            cwd=damaged.folder,
            env={**damaged.environment, "TERM": "xterm"},
            stdin=other,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        os.write(main, answer.encode())
        said, _ = process.communicate(timeout=60)
        os.close(main)
        os.close(other)
        assert process.returncode == code, said
        assert (b"Take them back" if words == undo else b"Bring rows back") in said
        assert (b"nothing was changed" in said) == bool(code)
        assert count(damaged) == expected


def test_for_people_on_a_terminal(damaged: Workplace) -> None:
    assert "missing" in in_a_terminal(damaged, "rows", "latest", "projects")


def test_given_an_open_restore_then_it_is_refused(damaged: Workplace) -> None:
    from safetake.recovery.journal import working

    restores = damaged.folder / "state" / "safetake" / "restores"
    restores.mkdir(parents=True)
    with working(restores):
        message, _ = damaged.error("rows", "latest", "projects", "--apply", "--yes", code=1)
    assert "at work" in message
    assert count(damaged) == 91
