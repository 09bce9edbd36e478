"""`safetake diff`."""

from __future__ import annotations

import sqlite3

from tests.cli.conftest import Workplace


def test_what_changed_between_two_snapshots(workplace: Workplace) -> None:
    (first,) = (one["id"] for one in workplace.json("snapshots"))
    with sqlite3.connect(workplace.folder / "projects.db") as db:
        db.execute("DELETE FROM projects WHERE id <= 60")
    db.close()
    (workplace.folder / "scripts" / "new\x1b[31m.txt").write_text("x" * 2048)
    workplace.run("backup")
    lines = workplace.run("diff", first[:8], "--paths").stdout.splitlines()
    words = [line.split() for line in lines]
    assert ["rows", "of", "projects", "100", "40", "-60"] in words
    assert ["files", "2", "3", "+1"] in words
    assert ["added,", "2.00", "KiB", "1"] in words
    assert lines[-1] == "+ scripts/new\\x1b[31m.txt"
    assert max(map(len, lines)) <= 80
    found = workplace.json("diff", first, "latest")
    assert found["sources"]["projects"]["state"] == "changed"
    assert found["sources"]["scripts"]["files"]["added"]["count"] == 1
    same = workplace.run("diff", "latest").stdout
    assert same.count("nothing changed") == 2


def test_what_is_no_snapshot(workplace: Workplace) -> None:
    assert "no snapshot" in workplace.error("diff", "ffffffff", code=1)[0]
