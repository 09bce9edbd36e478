"""The newest snapshot has one source of two: nothing is forgotten, and what is older is named."""

from __future__ import annotations

import json
import shutil
import sqlite3

import pytest

from tests.cli.conftest import Workplace


def saved_by_another_job(place: Workplace) -> list[str]:
    """One more project, saved by the job that saves projects only; (all of both, the newest)."""
    with sqlite3.connect(place.folder / "projects.db") as db:
        db.execute("INSERT INTO projects (name) VALUES ('newer')")
    db.close()
    place.run("backup", "nightly")
    return [one["short_id"] for one in place.json("snapshots")]


def test_on_a_bare_machine_all_comes_back(workplace: Workplace) -> None:
    full, newest = saved_by_another_job(workplace)
    workplace.json("snapshots")
    bare = Workplace(workplace.folder.parent / "bare", workplace.environment)
    bare.folder.mkdir()
    place = workplace.folder
    (bare.folder / "kit.toml").write_text(
        f'[repository]\nlocation = "{place / "repo"}"\npassword_file = "password"\n'
        '[restore]\nstate = "state"\n'
    )
    shutil.copy(place / "safetake.password", bare.folder / "password")
    said = bare.run("--config", "kit.toml", "runbook", "--yes").stdout
    assert f"Restore which snapshot? ({full})" in said
    assert f"projects: a newer snapshot has it, too: {newest} of " in said
    assert "number 5 of the page `Recovery kit`" in said
    assert "so the RTO of 1 h 00 m runs on" in said
    assert {one.name for one in (bare.folder / "restored").iterdir()} == {"projects", "scripts"}
    (document,) = bare.json("--config", "kit.toml", "evidence", "list", "--kind", "runbook")
    assert "rto_seconds" not in document["measured"], "nobody said that anything works"


@pytest.mark.slow
def test_what_no_snapshot_has_together_comes_from_two(workplace: Workplace) -> None:
    full, newest = saved_by_another_job(workplace)
    workplace.run("backup", "scripts")
    for one in workplace.folder.glob(f"repo/snapshots/{full}*"):
        one.unlink()
    config = workplace.folder / "kit.toml"
    config.write_text(
        '[repository]\nlocation = "repo"\npassword_file = "safetake.password"\n'
        '[restore]\nstate = "state"\n'
    )
    said = workplace.run("--config", "kit.toml", "runbook", "--yes").stdout
    assert f"projects is not in this snapshot; the newest that has it: {newest} of " in said
    came_back = workplace.folder / "restored"
    assert {one.name for one in came_back.iterdir()} == {"projects", "scripts"}
    db = sqlite3.connect(came_back / "projects" / "projects.db")
    assert db.execute("SELECT count(*) FROM projects").fetchone() == (101,)
    db.close()


@pytest.mark.slow
def test_in_place_the_fullest_is_proposed_and_what_it_lacks_is_unknown(
    workplace: Workplace,
) -> None:
    full, _ = saved_by_another_job(workplace)
    file = workplace.folder / "safetake.toml"
    file.write_text(file.read_text() + '[restore]\nstate = "state"\n')
    said = workplace.run("runbook", "--yes").stdout
    assert f"snapshot {full} is the live data now" in said
    for one in workplace.folder.glob(f"repo/snapshots/{full}*"):
        one.unlink()
    workplace.run("backup", "scripts")
    latest = workplace.json("snapshots")[-1]["short_id"]
    document = workplace.json("runbook", "--yes")
    assert latest in json.dumps(document)
    assert "projects is not in this snapshot" in json.dumps(document)
