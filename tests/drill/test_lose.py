"""A loss is what it says: it takes something, what is lost comes back by its name, and what no
snapshot has is not expected back."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from safetake.configscenario import LossConfig
from safetake.drill.items import Item, rows
from safetake.drill.lose import add_newer, lose, pattern
from safetake.drill.truth import Truth
from safetake.errors import SafetakeError
from safetake.sources.files.exclude import Exclusions
from tests.cli.conftest import Workplace
from tests.drill.test_scenarios import LOST, configured, drilled, failed, found
from tests.support.redis_server import running

SCENARIO = LOST + "lose = [{{source = {!r}, {}}}]\n"


@pytest.fixture
def workplace(workplace: Workplace) -> Workplace:
    """One whose drills do not give way to other tests."""
    configured(workplace, '[drill]\npriority = "normal"\n')
    return workplace


def note(document: dict[str, Any], words: str) -> list[str]:
    return [one for one in document["notes"] if words in one]


@pytest.mark.parametrize(
    "sql", ["DELETE FROM projects", "SELECT 1; DELETE FROM projects WHERE id > 90"]
)
def test_what_is_newer_and_lost_by_a_statement_is_not_expected_back(
    workplace: Workplace, sql: str
) -> None:
    configured(workplace, SCENARIO.format("projects", f"sql = '{sql}'"))
    document = drilled(workplace)
    assert note(document, "projects: the loss also took 1 of what is newer than the snapshot")


def test_what_is_newer_and_spoilt_stays_so(tmp_path: Path) -> None:
    truths = plain, before, lost, after = [Truth(tmp_path / f"{i}.db") for i in range(4)]
    plain.take("a", [Item("t", "1", b"1"), Item("t", "2", b"2")])
    before.take("a", [Item("t", n, n.encode()) for n in "12345"])  # 3 to 5 are newer
    lost.take("a", [Item("t", "2", b"x"), Item("t", "3", b"3"), Item("t", "4", b"x")])
    assert before.concede(plain, lost, "a") == 2
    after.take(
        "a", [Item("t", n, d) for n, d in zip("1234", (b"1", b"2", b"3", b"x"), strict=True)]
    )
    assert not before.compare(after, "a")
    lost.take("a", [])
    assert before.compare(lost, "a").missing == 4
    for truth in truths:
        truth.close()


@pytest.mark.parametrize(
    ("source", "way", "told"),
    [
        ("projects", 'sql = "DELETE FROM projects WHERE id < 0"', "nothing is lost by sql = "),
        (
            "projects",
            'sql = "UPDATE projects SET name = name"',
            "it changed rows to what they were",
        ),
        ("scripts", 'files = "*.md"', "nothing is lost by files = '*.md'"),
    ],
)
def test_a_loss_that_takes_nothing_ends_the_drill(
    workplace: Workplace, source: str, way: str, told: str
) -> None:
    configured(workplace, SCENARIO.format(source, way))
    said, document = failed(workplace)
    assert f"something was lost: {told}" in said
    assert document["steps"][-1]["name"] == "loss: see that it is real"
    assert not note(document, "--yes"), "something was recovered"


def test_a_loss_that_takes_nothing_is_not_hidden_by_another(workplace: Workplace) -> None:
    configured(
        workplace,
        LOST + 'lose = [{source = "scripts", files = "one*"}, {source = "scripts", files = "x"}]\n',
    )
    assert "something was lost: nothing is lost by files = 'x'" in failed(workplace)[0]


def test_statements_that_can_not_be_run(workplace: Workplace) -> None:
    configured(workplace, SCENARIO.format("projects", 'sql = "DELETE FROM nothing"'))
    assert "the loss of projects can not be made: near" in failed(workplace)[0]


def test_a_statement_is_of_one_database(tmp_path: Path) -> None:
    for name in "ab":
        with sqlite3.connect(tmp_path / name) as db:
            db.execute("CREATE TABLE t (a)")
        db.close()
    sql = f"ATTACH '{tmp_path / 'b'}' AS b; DROP TABLE b.t"
    with pytest.raises(SafetakeError, match="too many attached databases"):
        lose(LossConfig(source="a", sql=sql), "sqlite", tmp_path / "a", 0, {})


@pytest.mark.slow
def test_a_queue_that_is_empty_loses_nothing(workplace: Workplace, tmp_path: Path) -> None:
    with running("redis-7.0", tmp_path / "redis") as server:
        configured(
            workplace,
            '[sources.queue]\ntype = "redis"\nmay_be_empty = true\n'
            f'url = "redis://127.0.0.1:{server.port}"\n',
        )
        workplace.run("backup")
    for scenario in ("partial-loss", "total-loss"):
        document = drilled(workplace, scenario=scenario)
        assert note(document, "queue is empty: nothing can be lost of it")
        said, _ = failed(workplace, "queue", scenario=scenario)
        assert said == "something was lost: there is nothing in it"


def test_tables_without_row_numbers_lose_their_newest_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE s (a TEXT, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID")
        db.executemany("INSERT INTO s VALUES (?, ?)", [(f"n{i}", i) for i in range(20)])
        db.execute("CREATE TABLE one (k INTEGER PRIMARY KEY CHECK (k < 0)) WITHOUT ROWID")
        db.execute("INSERT INTO one VALUES (-1)")
    db.close()
    truth, after = Truth(tmp_path / "b"), Truth(tmp_path / "n")
    old, without = add_newer("sqlite", path, 0)
    assert without.startswith("one (CHECK")
    truth.take("a", rows(path))
    assert lose(LossConfig(source="a", share=0.1), "sqlite", path, 0, old).items == 3
    after.take("a", rows(path))
    found = truth.compare(after, "a")
    assert set(found.examples) == {f"s {row} is missing" for row in ("n8, 8", "n9, 9")} | {
        "one -1 is missing"
    }


NAMES = ["a[1].txt", "!x", "#y", "star*", "b\\c", "what?", "z ", os.fsdecode(b"\xff")]


def test_a_pattern_names_one_file() -> None:
    for name in (*NAMES, "one/two"):
        these = Exclusions([pattern(name)])
        assert these.match(name, folder=False)
        assert not these.match(f"below/{name}", folder=False)
        assert not any(these.match(other, folder=False) for other in NAMES if other != name)


@pytest.mark.slow
def test_files_of_every_name_come_back(workplace: Workplace) -> None:
    for name in NAMES:
        (workplace.folder / "scripts" / name).write_text(name, errors="surrogateescape")
    workplace.run("backup")
    configured(workplace, SCENARIO.format("scripts", "files = '*'"))
    document = drilled(workplace)
    assert found(document, "something was lost").startswith(f"{len(NAMES) + 2} missing")


@pytest.mark.slow
def test_more_files_than_a_command_can_name(workplace: Workplace) -> None:
    for number in range(30_000):
        (workplace.folder / "scripts" / f"{number:05}-{'a' * 80}").touch()
    workplace.run("backup")
    configured(workplace, SCENARIO.format("scripts", "files = '*'"))
    assert found(drilled(workplace), "something was lost").startswith("30002 missing")
