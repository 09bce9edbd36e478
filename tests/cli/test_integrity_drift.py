"""`safetake integrity`: references, drift and its acceptance, the references inside a snapshot."""

from __future__ import annotations

import sqlite3
from typing import Any

from tests.cli.conftest import Workplace

REFERENCE = """
[restore]
state = "state"
[references.script]
from = { source = "projects", sql = "SELECT id FROM projects" }
to = { source = "scripts", files = "{id}.txt" }
settle = 0
"""


def bad(answer: Any) -> dict[str, list[str]]:
    return {one["check"]: one["ids"] for one in answer["findings"] if not one["ok"]}


def test_a_loss_and_a_broken_reference_until_they_are_mended_or_accepted(
    workplace: Workplace,
) -> None:
    with (workplace.folder / "safetake.toml").open("a") as config:
        config.write(REFERENCE)
    scripts = workplace.folder / "scripts"
    for number in range(1, 101):
        (scripts / f"{number}.txt").write_text(f"scene {number}\n" * 40)
    workplace.run("backup")
    with sqlite3.connect(workplace.folder / "projects.db") as db:
        db.execute("DELETE FROM projects WHERE id > 10")
    db.close()
    (scripts / "7.txt").unlink()
    found = bad(workplace.json("integrity", code=1))
    assert found["reference script"] == ["7"]
    assert found["did not shrink"] == ["100 rows became 10", "projects: 100 rows became 10"]

    told = workplace.run("backup").stderr
    assert "warning: projects: since the snapshot before: 100 rows became 10" in told
    inside = workplace.json("integrity", "--snapshot", "latest", code=1)
    assert bad(inside) == {"reference script": ["7"]}
    answer = workplace.json("integrity", "--accept", "projects", code=1)
    assert answer["sources"] == ["projects"]
    assert bad(answer) == {"reference script": ["7"]}, "only what shrank was accepted"
    (scripts / "7.txt").write_text("scene 7\n")
    assert bad(workplace.json("integrity", "projects")) == {}


def test_what_makes_no_sense_is_refused(workplace: Workplace) -> None:
    assert "no source 'x'" in workplace.error("integrity", "--accept", "x", code=2)[0]
    message, _ = workplace.error("integrity", "--accept", "projects", "--no-repository", code=2)
    assert "--accept" in message
    assert "no reference" in workplace.error("integrity", "--snapshot", "latest", code=2)[0]
