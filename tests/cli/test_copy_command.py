"""`safetake copy`, and jobs of that kind, as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Workplace


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    """With a second repository in the configuration that is not made yet."""
    with (workplace.folder / "safetake.toml").open("a") as config:
        config.write(
            '[copies.elsewhere]\nlocation = "elsewhere"\npassword_file = "elsewhere.password"\n'
            '[jobs.offsite]\nkind = "copy"\nto = "elsewhere"\n'
        )
    secret = workplace.folder / "elsewhere.password"
    secret.write_text("another\n")
    secret.chmod(0o600)
    return workplace


def restic(folder: Path, *words: str) -> str:
    """Stock restic on the second repository."""
    done = subprocess.run(
        ["restic", "--no-cache", "-r", folder / "elsewhere", *words],
        env={**os.environ, "RESTIC_PASSWORD": "another"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_second_repository_is_made_filled_and_left_alone(place: Workplace) -> None:
    message, hint = place.error("copy", "elsewhere", code=10)
    assert "elsewhere" in message
    assert "--init" in hint
    first = place.json("copy", "elsewhere", "--init")
    assert len(first["copied"]) == 1
    assert first["to"] == "elsewhere"
    assert first["bytes"] > 0
    assert "no errors were found" in restic(place.folder, "check", "--read-data")
    assert place.json("copy", "elsewhere")["copied"] == {}
    place.json("backup")
    assert (
        "1 snapshot copied to elsewhere, 0 were there"
        in place.run("copy", "elsewhere", "latest").stdout
    )
    kinds = [record["kind"] for record in place.json("history")["records"]]
    assert kinds.count("copy") >= 4
    assert place.run("copy", "elsewhere", "--quiet").stdout == ""


def test_a_job_copies_too(place: Workplace) -> None:
    place.json("copy", "elsewhere", "--init")
    place.json("backup")
    place.run("run", "offsite")
    assert len(restic(place.folder, "list", "snapshots").split()) == 2


def after_the_loss(place: Workplace) -> tuple[str, str]:
    """Options for a configuration whose only repository is the second one."""
    text = (place.folder / "safetake.toml").read_text().split("[copies")[0]
    moved = text.replace('location = "repo"', 'location = "elsewhere"')
    moved = moved.replace("safetake.password", "elsewhere.password")
    (place.folder / "lost.toml").write_text(moved)
    return "--config", "lost.toml"


def test_what_was_proven_is_known_when_the_first_repository_is_lost(place: Workplace) -> None:
    proven = place.json("verify")["evidence"]
    first = place.json("copy", "elsewhere", "--init")
    assert (first["evidence"], first["proofs"], first["problems"]) == (1, 1, [])
    shutil.rmtree(place.folder / "repo")
    there = after_the_loss(place)
    assert [one["id"] for one in place.json(*there, "evidence", "list")] == [proven]
    assert place.json(*there, "evidence", "verify") == {
        "documents": 1, "ok": True, "problems": [], "notes": []
    }  # fmt: skip
    assert [one["rung"] for one in place.json(*there, "snapshots")] == ["opened"]


@pytest.mark.slow
def test_evidence_of_both_is_joined_and_what_cannot_be_read_is_told(place: Workplace) -> None:
    place.json("verify")
    place.json("copy", "elsewhere", "--init")
    there = after_the_loss(place)
    own = place.json(*there, "verify")["evidence"]
    again = place.json("verify")["evidence"]
    assert "; evidence: 1 more" in place.run("copy", "elsewhere").stdout
    assert "evidence" not in place.run("copy", "elsewhere").stdout
    joined = place.json(*there, "verify")["evidence"]
    last = place.json(*there, "evidence", "show", joined)
    assert last["previous"] == sorted([own, again])
    assert place.json(*there, "evidence", "verify")["ok"]
    file = next(one for one in (place.folder / "repo/evidence").rglob("*") if one.is_file())
    file.chmod(0o600)
    file.write_bytes(b"x" + file.read_bytes()[1:])
    told = place.run("copy", "elsewhere", code=3)
    assert f"not copied: evidence/{file.name}" in told.stderr
    assert "0 snapshots copied" in told.stdout
    place.run("run", "offsite", code=3)
    told_of = [one for one in place.json("history")["records"] if file.name in one["error"]]
    assert len(told_of) == 2


def test_a_wrong_name_or_snapshot_is_told(place: Workplace) -> None:
    message, hint = place.error("copy", "elsewere", code=2)
    assert message.startswith("there is no copy 'elsewere' in the configuration (did you mean")
    assert hint == "[copies.NAME] says where it is"
    place.json("copy", "elsewhere", "--init")
    message, _ = place.error("copy", "elsewhere", "ffff", code=1)
    assert "ffff" in message
