"""`rows --apply` and `rows --undo`, killed with `kill -9` at every call that changes something.

Afterwards the database has all of the rows or none; when it has them, what an undo needs is there,
complete, and the undo leads exactly back. Each kill is observed; their number is printed.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repositories import PASSWORD, memory_folder, new_repository
from tests.support.zygote import Run, Zygote

APPLY = ["rows", "latest", "projects", "--apply", "--changed", "--yes", "--json"]
UNDO = ["rows", "--undo", "latest", "--yes", "--json"]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as started:
        yield started


class Scene:
    """A damaged database with a snapshot; copied for each kill."""

    def __init__(self, base: Path, mode: str, zygote: Zygote) -> None:
        self.base, self.zygote = base, zygote
        self.pristine, self.here = base / "pristine", base / "here"
        self.pristine.mkdir()
        new_repository(self.pristine / "repository")
        (self.pristine / "safetake.toml").write_text(
            f'[repository]\nlocation = "{self.here}/repository"\n'
            f'password_file = "{self.here}/password"\n'
            f'[sources.projects]\ntype = "sqlite"\npath = "{self.here}/p.db"\n'
            f'[restore]\nstate = "{self.here}/state"\n'
        )
        (self.pristine / "password").write_text(PASSWORD)
        (self.pristine / "password").chmod(0o600)
        with sqlite3.connect(self.pristine / "p.db") as db:
            db.execute(f"PRAGMA journal_mode={mode}")
            db.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT)")
            db.executemany("INSERT INTO projects VALUES (?, ?)", [(n, f"p{n}") for n in range(500)])
        db.close()
        self.fresh()
        assert self.run(["backup"]).code == 0
        with sqlite3.connect(self.here / "p.db") as db:
            db.execute("DELETE FROM projects WHERE id BETWEEN 100 AND 300")
            db.execute("UPDATE projects SET name = 'spoilt' WHERE id = 50")
            db.execute("INSERT INTO projects VALUES (900, 'new')")
        db.close()
        self.keep()
        self.damaged = self.rows()

    def run(self, words: list[str], kill_at: int | None = None) -> Run:
        return self.zygote.run(
            *words,
            folder=self.here,
            environment={"HOME": str(self.base), "SAFETAKE_CONFIG": f"{self.here}/safetake.toml"},
            kill_at=kill_at,
        )

    def fresh(self) -> None:
        shutil.rmtree(self.here, ignore_errors=True)
        shutil.copytree(self.pristine, self.here)

    def keep(self) -> None:
        shutil.rmtree(self.pristine)
        shutil.copytree(self.here, self.pristine)

    def rows(self) -> Counter[tuple[object, ...]]:
        db = sqlite3.connect(self.here / "p.db")
        try:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return Counter(db.execute("SELECT * FROM projects"))
        finally:
            db.close()

    def states(self) -> list[str]:
        return [
            json.loads(path.read_text())["state"]
            for path in (self.here / "state" / "rows").glob("*/record.json")
        ]


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_call_then_all_or_nothing_and_an_undo(
    mode: str, step: int, zygote: Zygote
) -> None:
    """At every call, or to be quick at every eighth."""
    with memory_folder() as base:
        scene = Scene(base, mode, zygote)
        # once to its end: how many calls there are, and what is right
        whole = scene.run(APPLY)
        assert whole.code == 0, whole.said
        mended = scene.rows()
        assert mended != scene.damaged
        found = Counter[str]()
        for number in range(len(whole.seen.calls), 0, -step):
            scene.fresh()
            run = scene.run(APPLY, kill_at=number)
            assert run.seen.killed, number
            rows, states = scene.rows(), scene.states()
            assert rows in (scene.damaged, mended), (number, run.seen.calls)
            found["kills of apply"] += 1
            if rows == mended:
                found["after the commit"] += 1
                assert states in (["prepared"], ["applied"]), (number, states)
            if states:
                again = scene.run(UNDO)
                assert again.code in (0, 3), again.said
                assert scene.rows() == scene.damaged, number
            # and the next one is not in the way of anything
            assert scene.run(APPLY).code == 0
            assert scene.rows() == mended

        scene.fresh()
        assert scene.run(APPLY).code == 0
        scene.keep()
        whole = scene.run(UNDO)
        for number in range(len(whole.seen.calls), 0, -step):
            scene.fresh()
            run = scene.run(UNDO, kill_at=number)
            assert run.seen.killed, number
            assert scene.rows() in (scene.damaged, mended), number
            found["kills of undo"] += 1
            if scene.states() != ["undone"]:
                assert scene.run(UNDO).code in (0, 3)
            assert scene.rows() == scene.damaged
        print(mode, dict(found))
        assert found["after the commit"] > 0
