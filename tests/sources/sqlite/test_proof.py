"""A damaged or different copy is never called good."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from safetake.model import Check
from safetake.sources.sqlite import questions
from tests.sources.sqlite.support import capture, database
from tests.support.memory_writer import MemoryRepository, entry_of, materialise


@pytest.fixture
def restored(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = database(tmp_path / "projects.db")
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        materialise(repository, captured.node, tmp_path / "out")
    orphans = "SELECT id FROM episodes WHERE project_id NOT IN (SELECT id FROM projects)"
    checks = [{"name": "orphaned episodes", "sql": orphans}]
    return tmp_path / "out", entry_of(captured) | {"checks": checks}


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if not check.ok}


def test_a_good_copy_answers_every_question(restored: tuple[Path, dict[str, Any]]) -> None:
    checks = questions(*restored)
    assert failed(checks) == set()
    assert [check.name for check in checks] == [
        "not empty",
        "size",
        "content",
        "integrity_check",
        "foreign_key_check",
        "page_size",
        "page_count",
        "user_version",
        "application_id",
        "schema",
        "row counts",
        "row hashes",
        "check: orphaned episodes",
    ]


def edit(sql: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = apsw.Connection(str(path))
        connection.execute(sql).fetchall()
        connection.close()

    return change


def zero_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[5 * 4096 : 6 * 4096] = bytes(4096)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (Path.unlink, {"not empty"}),
        (lambda path: path.write_bytes(b""), {"not empty", "size", "content"}),
        (lambda path: path.write_bytes(b"x" * 8192), {"size", "content"}),
        (lambda path: path.write_bytes(path.read_bytes()[:-4096]), {"size", "content"}),
        (zero_page, {"content", "integrity_check"}),
        (edit("DELETE FROM episodes WHERE id = 3"), {"content", "row counts", "row hashes"}),
        (edit("UPDATE episodes SET script = 'x' WHERE id = 3"), {"content", "row hashes"}),
        (edit("CREATE INDEX more ON episodes(script)"), {"size", "content", "schema"}),
        (edit("PRAGMA user_version = 9"), {"content", "user_version"}),
        (
            edit("UPDATE episodes SET project_id = 99999 WHERE id = 1"),
            {"content", "foreign_key_check", "check: orphaned episodes", "row hashes"},
        ),
    ],
)
def test_each_damage_is_found(
    restored: tuple[Path, dict[str, Any]], damage: Callable[[Path], object], names: set[str]
) -> None:
    folder, entry = restored
    damage(folder / "projects.db")
    assert failed(questions(folder, entry)) >= names


def test_no_bit_flip_passes_and_none_raises(restored: tuple[Path, dict[str, Any]]) -> None:
    folder, entry = restored
    path = folder / "projects.db"
    good = path.read_bytes()
    chooser = random.Random(11)
    places = [*range(100), *(chooser.randrange(len(good)) for _ in range(100))]
    for place in places:
        data = bytearray(good)
        data[place] ^= 1 << chooser.randrange(8)
        path.write_bytes(data)
        assert failed(questions(folder, entry))
        for leftover in folder.glob("projects.db-*"):
            leftover.unlink()


def test_a_check_of_the_user_cannot_write_and_a_wrong_one_fails(
    restored: tuple[Path, dict[str, Any]],
) -> None:
    folder, entry = restored
    before = (folder / "projects.db").read_bytes()
    entry["checks"] = [
        {"name": "writes", "sql": "DELETE FROM episodes RETURNING id"},
        {"name": "attaches", "sql": "ATTACH '/tmp/x' AS x"},
        {"name": "typo", "sql": "SELEC 1"},
        {"name": "many", "sql": "SELECT * FROM episodes"},
    ]
    checks = {check.name: check for check in questions(folder, entry)}
    for name in ("writes", "attaches", "typo"):
        assert not checks[f"check: {name}"].ok
        assert "cannot ask" in checks[f"check: {name}"].detail
    assert len(checks["check: many"].found) == 10
    assert (folder / "projects.db").read_bytes() == before


def test_a_large_database_has_no_row_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetake.sources.sqlite.facts.ROW_HASHES_UP_TO", 1000)
    path = database(tmp_path / "projects.db")
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        materialise(repository, captured.node, tmp_path / "out")
    assert captured.facts["row_hashes"] is None
    assert captured.facts["foreign_key_violations"] is None
    checks = questions(tmp_path / "out", entry_of(captured))
    assert failed(checks) == set()
    assert "row hashes" not in {check.name for check in checks}


def test_what_only_the_application_knows_is_said_to_be_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "projects.db"
    connection = apsw.Connection(str(path))
    connection.create_collation("hangul", lambda a, b: (a > b) - (a < b))
    connection.execute("CREATE TABLE names(n TEXT COLLATE hangul PRIMARY KEY) WITHOUT ROWID")
    connection.execute("INSERT INTO names VALUES ('가')")
    connection.close()
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        materialise(repository, captured.node, tmp_path / "out")
    checks = questions(tmp_path / "out", entry_of(captured))
    assert failed(checks) == set()
    assert any("not asked" in check.name and "hangul" in check.name for check in checks)
