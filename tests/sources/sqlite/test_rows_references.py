"""Rows that refer to each other: brought back, taken back, and written to meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from safetake.sources.sqlite.rows.job import Report
from tests.support.repositories import memory_folder
from tests.support.rows import Ground

PROJECTS = "CREATE TABLE projects (id INTEGER PRIMARY KEY AUTOINCREMENT, name)"
EPISODES = (
    "CREATE TABLE episodes (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " project INTEGER REFERENCES projects(id) {action}, title)"
)
ROWS = (
    "INSERT INTO projects VALUES (1, 'a'), (2, 'b')",
    "INSERT INTO episodes VALUES (1, 1, 'x'), (2, 2, 'y')",
)
NAMES = (
    "CREATE TABLE names (k TEXT COLLATE NOCASE PRIMARY KEY, up TEXT REFERENCES names(k))",
    "CREATE TABLE uses (id INTEGER PRIMARY KEY AUTOINCREMENT, k TEXT REFERENCES names(k))",
    "INSERT INTO names VALUES ('Upper', NULL), ('below', 'upper')",
)


@pytest.fixture
def ground() -> Iterator[Ground]:
    with memory_folder() as folder:
        yield Ground(folder)


def tables(ground: Ground, *names: str) -> list[object]:
    return [ground.table(name) for name in names]


def test_an_undo_takes_back_a_parent_whose_children_go_back_to_none(ground: Ground) -> None:
    ground.sql(PROJECTS, EPISODES.format(action="ON DELETE SET NULL"), *ROWS)
    ground.capture()
    ground.sql("DELETE FROM projects WHERE id = 1", foreign_keys=True)
    now = tables(ground, "projects", "episodes")
    assert ground.left_out(ground.rows(apply=True, changed=True)) == {}
    assert ground.undo().skipped == 0
    assert tables(ground, "projects", "episodes") == now


def test_an_undo_leaves_a_parent_whose_child_was_written_since(ground: Ground) -> None:
    ground.sql(PROJECTS, EPISODES.format(action="ON DELETE SET NULL"), *ROWS)
    ground.capture()
    ground.sql("DELETE FROM projects", foreign_keys=True)
    ground.rows(apply=True, changed=True)
    ground.sql("UPDATE episodes SET title = 'since' WHERE id = 1")
    assert [row["reason"] for row in ground.undo().reasons] == [
        "it was written since", "rows of episodes refer to it now",
    ]  # fmt: skip
    assert ground.sql("SELECT id FROM projects") == [(1,)]
    ground.healthy()


def test_an_undo_leaves_a_parent_whose_child_cannot_be_changed_back(ground: Ground) -> None:
    ground.sql(PROJECTS, EPISODES.format(action=""), *ROWS)
    ground.sql("CREATE UNIQUE INDEX titles ON episodes (title)")
    ground.capture()
    ground.sql(
        "UPDATE episodes SET project = 2, title = 'now' WHERE id = 1",
        "DELETE FROM projects WHERE id = 1",
        foreign_keys=True,
    )
    ground.rows(apply=True, changed=True)
    ground.sql("INSERT INTO episodes VALUES (3, NULL, 'now')")  # the title that it had
    assert {row["table"]: row["reason"] for row in ground.undo().reasons} == {
        "episodes": "UNIQUE constraint failed: episodes.title",
        "projects": "rows of episodes refer to it now",
    }
    assert ground.sql("SELECT project FROM episodes WHERE id = 1") == [(1,)]
    ground.healthy()


def test_an_undo_makes_no_orphan_of_a_row_whose_parent_went_since(ground: Ground) -> None:
    ground.sql(PROJECTS, EPISODES.format(action=""), *ROWS)
    ground.capture()
    ground.sql("UPDATE episodes SET project = 2 WHERE id = 1")
    ground.rows(apply=True, changed=True)
    ground.sql(
        "DELETE FROM episodes WHERE id = 2", "DELETE FROM projects WHERE id = 2", foreign_keys=True
    )
    assert [row["reason"] for row in ground.undo().reasons] == [
        "its parent projects (id = 2) is not there"
    ]
    ground.healthy()


def test_an_undo_makes_an_orphan_again_that_was_one(ground: Ground) -> None:
    ground.sql(PROJECTS, EPISODES.format(action=""), *ROWS)
    ground.capture()
    ground.sql("UPDATE episodes SET project = 77 WHERE id = 1")
    now = tables(ground, "projects", "episodes")
    ground.rows(apply=True, changed=True)
    ground.healthy()
    assert ground.undo().skipped == 0
    assert tables(ground, "projects", "episodes") == now


def test_values_that_are_taken_over_are_given_back_in_the_reverse_order(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, code TEXT UNIQUE)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY AUTOINCREMENT, code TEXT REFERENCES a(code))",
        "INSERT INTO a VALUES (1, 'x'), (2, 'y')",
        "INSERT INTO b VALUES (1, 'x')",
    )
    ground.capture()
    ground.sql(
        "UPDATE b SET code = NULL",
        "UPDATE a SET code = 'z' WHERE id = 1",
        "DELETE FROM a WHERE id = 2",
        foreign_keys=True,
    )
    now = tables(ground, "a", "b")
    assert ground.left_out(ground.rows(apply=True, changed=True)) == {}
    assert ground.rows().wanted == 0
    assert ground.undo().skipped == 0
    assert tables(ground, "a", "b") == now


@pytest.mark.parametrize("shift", ["+ 1", "- 1"])
def test_unique_values_that_moved_go_back_and_forth(ground: Ground, shift: str) -> None:
    ground.sql("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, place INTEGER UNIQUE)")
    ground.many("INSERT INTO t VALUES (?, ?)", [(n, n) for n in range(1, 300)])
    ground.capture()
    before = ground.table("t")
    ground.sql(f"UPDATE t SET place = -(place {shift})", "UPDATE t SET place = -place")
    now = ground.table("t")
    assert ground.left_out(ground.rows(apply=True, changed=True)) == {}
    assert ground.table("t") == before
    assert ground.undo().skipped == 0
    assert ground.table("t") == now


def test_a_changed_row_whose_parent_cannot_come_back_is_left_out(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY AUTOINCREMENT, a INTEGER REFERENCES a(id))",
        "INSERT INTO a VALUES (1, 'taken'), (2, 'y')",
        "INSERT INTO b VALUES (1, 1), (2, 2)",
    )
    ground.capture()
    ground.sql(
        "UPDATE b SET a = NULL",
        "DELETE FROM a",
        "INSERT INTO a VALUES (9, 'taken')",
        foreign_keys=True,
    )
    assert ground.left_out(ground.rows(apply=True, changed=True)) == {
        "a id = 1": "UNIQUE constraint failed: a.v",
        "b id = 1": "its parent a (id = 1) is not there",
    }
    assert ground.sql("SELECT id, a FROM b ORDER BY id") == [(1, None), (2, 2)]
    ground.healthy()


def test_references_follow_the_collation_of_the_parent(ground: Ground) -> None:
    ground.sql(*NAMES)
    ground.capture()
    before = tables(ground, "names")
    ground.sql("DELETE FROM names")
    assert ground.left_out(ground.rows(apply=True)) == {}
    assert tables(ground, "names") == before
    ground.sql("INSERT INTO uses (k) VALUES ('BELOW')", foreign_keys=True)
    assert {row["reason"] for row in ground.undo().reasons} == {
        "rows of uses refer to it now", "rows of names refer to it now",
    }  # fmt: skip
    ground.healthy()


@pytest.mark.parametrize("changed", [False, True])
def test_given_an_id_used_again_after_the_comparison_then_no_child_comes_below(
    ground: Ground, changed: bool
) -> None:
    ground.sql(
        "CREATE TABLE p (id INTEGER PRIMARY KEY, name)",
        "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id), title)",
        "INSERT INTO p VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO c VALUES (1, 2, 'x'), (2, 2, 'y'), (3, 1, 'z')",
    )
    ground.capture()
    ground.sql(
        "UPDATE c SET p = NULL WHERE id = 1",
        "DELETE FROM c WHERE id = 2",
        "DELETE FROM p WHERE id = 2",
        foreign_keys=True,
    )

    def meanwhile(_report: Report) -> bool:
        ground.sql("INSERT INTO p (name) VALUES ('stranger')")
        assert ground.sql("SELECT max(id) FROM p") == [(2,)]
        return True

    report = ground.rows(apply=True, changed=changed, confirm=meanwhile)
    left = ground.left_out(report)
    assert left.pop("p id = 2") == "a row with its key was written since the comparison"
    assert set(left) == ({"c id = 1", "c id = 2"} if changed else {"c id = 2"})
    assert all("perhaps another row now" in reason for reason in left.values())
    assert ground.sql("SELECT count(*) FROM c WHERE p = 2") == [(0,)]


def test_an_undo_among_many_children_is_no_matter_of_minutes(ground: Ground) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)"
    ground.sql(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, up INTEGER REFERENCES t(id))",
        f"INSERT INTO t {numbers} SELECT i, i - 1 FROM n",
        "UPDATE t SET up = NULL WHERE id = 1",
    )
    ground.capture()
    ground.sql("DELETE FROM t WHERE id % 20 = 1")  # each the parent of one that stays
    now = ground.table("t")
    ground.rows(apply=True)
    ground.healthy()
    undone = ground.undo()
    assert (undone.inserted, undone.skipped) == ({"t": 5000}, 0)
    assert ground.table("t") == now
    assert undone.locked_ms < 10_000  # it was a minute: an index that was not used
