"""`safetake integrity`: what a person sees, what a program reads, how it ends."""

from __future__ import annotations

import sqlite3

from tests.cli.conftest import Workplace


def orphans(place: Workplace) -> None:
    with sqlite3.connect(place.folder / "projects.db") as db:
        db.execute("CREATE TABLE episodes (id INTEGER PRIMARY KEY, p REFERENCES projects (id))")
        db.executemany("INSERT INTO episodes (p) VALUES (?)", [(n + 1000,) for n in range(30)])
    db.close()


def test_sound_stores(workplace: Workplace) -> None:
    done = workplace.run("integrity", "--no-repository")
    assert done.stdout.splitlines()[0].split() == ["source", "state", "asked", "size"]
    assert "not asked  projects, scripts: same bytes as in the snapshot" in done.stdout
    assert "nothing wrong" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert workplace.run("integrity", "--quiet", "--no-repository").stdout == ""
    found = workplace.json("integrity", "scripts")
    assert found["sources"] == ["scripts"]
    assert found["ok"] is True


def test_what_is_wrong_is_listed_and_exits_1(workplace: Workplace) -> None:
    orphans(workplace)
    done = workplace.run("integrity", code=1)
    assert "ERROR      projects: foreign_key_check: 30 rows refer to a row" in done.stdout
    assert "episodes: rowid 1 → projects" in done.stdout
    assert "20 more with --json" in done.stdout
    assert "hint: " in done.stdout
    quiet = workplace.run("integrity", "-q", code=1).stdout
    assert quiet.startswith("ERROR")
    assert "not asked" not in quiet
    found = workplace.json("integrity", code=1)
    bad = [one for one in found["findings"] if not one["ok"]]
    assert [one["check"] for one in bad] == ["foreign_key_check"]
    assert len(bad[0]["ids"]) == 30


def test_without_a_repository_the_stores_are_asked_all_the_same(workplace: Workplace) -> None:
    (workplace.folder / "repo").rename(workplace.folder / "elsewhere")
    done = workplace.run("integrity")
    assert "the repository does not open" in done.stdout
    (workplace.folder / "projects.db").unlink()
    assert "projects: opens" in workplace.run("integrity", code=1).stdout


def test_what_makes_no_sense_is_refused(workplace: Workplace) -> None:
    words = ("integrity", "projects", "--snapshot", "latest")
    assert "references inside a snapshot" in workplace.error(*words, code=2)[0]
    assert "did you mean 'scripts'" in workplace.error("integrity", "script", code=2)[0]


def test_the_history_has_what_was_found(workplace: Workplace) -> None:
    orphans(workplace)
    workplace.run("integrity", code=1)
    records = workplace.json("history")["records"]
    mine = [record for record in records if record["kind"] == "integrity"]
    assert len(mine) == 1
    assert mine[0]["exit_code"] == 1
    assert "1 error" in mine[0]["error"]
    assert mine[0]["facts"]["sources"] == ["projects", "scripts"]
    told = [one for one in mine[0]["facts"]["findings"] if one["level"] == "error"]
    assert told[0]["check"] == "foreign_key_check"
    assert len(told[0]["ids"]) == 10
