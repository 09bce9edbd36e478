"""Health is true only when every store is there and right, and asking never makes a store."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from script_generator import generation_service, project_service, projects, vectors
from script_generator.errors import StoreError
from script_generator.jobs import MARKER
from script_generator.load import Driver, Stores
from script_generator.scripts import MARKER as SCRIPTS_MARKER
from script_generator.settings import Settings
from starlette.testclient import TestClient

HEALTH = "/api/v1/health"


def fill(settings: Settings, tmp_path: Path, count: int = 30) -> None:
    """Load through processes would be slower: the stores themselves, with index files written."""
    result = Driver(Stores(settings), tmp_path / "journal", workers=2, count=count).run()
    assert result.acknowledged["script"] == count, result.last_failure


def sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute(statement)


def zero_a_page(path: Path) -> None:
    sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(bytes(4096))


def replace_by_another(path: Path) -> None:
    projects.create(path.with_name("other.db"))
    path.with_name("other.db").replace(path)
    for end in ("-wal", "-shm"):  # else the old WAL would be replayed over the new database
        path.with_name(path.name + end).unlink()


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SQLITE: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (Path.unlink, "No such file"),
    "0 bytes": (lambda path: path.write_bytes(b""), "0 bytes"),
    "not a database": (lambda path: path.write_bytes(b"x" * 8192), "not a database"),
    "table dropped": (lambda path: sql(path, "DROP TABLE episodes"), "episodes is missing"),
    "column gone": (lambda path: sql(path, "ALTER TABLE projects DROP title"), "has columns"),
    "foreign": (lambda path: sql(path, "PRAGMA application_id = 1"), "not a database of this"),
    "page zeroed": (zero_a_page, "damaged|malformed"),
    "a folder": (into_folder, "unable to open|is a directory|directory|replaced"),
}


@pytest.mark.parametrize("running", [False, True], ids=["started on it", "while running"])
@pytest.mark.parametrize("damage", SQLITE)
def test_project_service_given_a_bad_database_answers_503(
    damage: str, running: bool, tmp_path: Path
) -> None:
    spoil, words = SQLITE[damage]
    settings = Settings(database_url=f"sqlite:///{tmp_path}/projects.db")
    path = settings.database_path
    projects.create(path)
    client = TestClient(project_service.application(settings))
    if running:
        created = client.post("/api/v1/projects", json={"id": "p", "title": "One"})
        assert created.status_code == 201
        assert client.get(HEALTH).status_code == 200

    spoil(path)
    answer = client.get(HEALTH)

    assert answer.status_code == 503, answer.json()
    store = answer.json()["stores"]["sqlite"]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(store["problem"])
    if damage == "deleted":
        refused = client.post("/api/v1/projects", json={"title": "acknowledged to nowhere"})
        assert refused.status_code == 503
        assert not path.exists()


def test_project_service_given_a_replaced_database_asks_for_a_restart(tmp_path: Path) -> None:
    settings = Settings(database_url=f"sqlite:///{tmp_path}/projects.db")
    projects.create(settings.database_path)
    application = project_service.application(settings)
    client = TestClient(application)
    assert client.post("/api/v1/projects", json={"title": "One"}).status_code == 201

    replace_by_another(settings.database_path)

    assert "restart" in client.get(HEALTH).json()["stores"]["sqlite"]["problem"]
    assert client.post("/api/v1/projects", json={"title": "Two"}).status_code == 503
    again = TestClient(project_service.application(settings))
    assert again.get(HEALTH).json()["stores"]["sqlite"] == {
        "ok": True,
        "projects": 0,
        "episodes": 0,
    }


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_create_given_a_database_refuses_to_touch_it(mode: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "projects.db"
    projects.create(path, mode)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == (mode,)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="exists already"):
        projects.create(path, mode)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["projects.db"]


def drop_collection(path: Path) -> None:
    sql(path / "chroma.sqlite3", "DELETE FROM collections")


def remove_index(path: Path) -> None:
    for header in path.glob("*/header.bin"):
        shutil.rmtree(header.parent)


def empty_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


CHROMA: dict[str, tuple[Callable[[Path], object], bool]] = {
    # (what happens, whether a service that has it open must see it too)
    "deleted": (shutil.rmtree, True),
    "emptied": (empty_folder, True),
    "0 bytes": (lambda path: (path / "chroma.sqlite3").write_bytes(b""), True),
    "not a database": (lambda path: (path / "chroma.sqlite3").write_bytes(b"x" * 8192), True),
    "collection gone": (drop_collection, False),
    "index gone": (remove_index, True),
}


@pytest.mark.parametrize("damage", CHROMA)
def test_generation_service_given_a_bad_chroma_folder_answers_503(
    damage: str, tmp_path: Path, settings: Settings
) -> None:
    spoil, seen_while_running = CHROMA[damage]
    fill(settings, tmp_path)
    path = Path(settings.chroma_path)
    elsewhere = tmp_path / "copy"
    shutil.copytree(path, elsewhere)  # Chroma keeps one client per path and process
    running = TestClient(generation_service.application(settings))
    assert running.get(HEALTH).status_code == 200

    if seen_while_running:
        spoil(path)
        answer = running.get(HEALTH)
        assert answer.status_code == 503, answer.json()
        assert answer.json()["stores"]["chroma"]["problem"].startswith(str(path))
        assert answer.json()["stores"]["redis"]["ok"] is True

    spoil(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    started = generation_service.application(replace(settings, chroma_path=str(elsewhere)))
    answer = TestClient(started).get(HEALTH)
    assert answer.status_code == 503, answer.json()
    assert answer.json()["stores"]["chroma"]["problem"].startswith(str(elsewhere))
    if damage in ("deleted", "emptied"):
        assert sorted(elsewhere.rglob("*")) == before, "asking for health made something"


def test_create_given_a_chroma_store_refuses_to_touch_it(settings: Settings) -> None:
    with pytest.raises(StoreError, match="already"):
        vectors.create(Path(settings.chroma_path))


def test_generation_service_given_a_bad_redis_answers_503(
    settings: Settings, redis_server: Any
) -> None:
    client = TestClient(generation_service.application(settings))
    assert client.get(HEALTH).status_code == 200

    def problem() -> str:
        answer = client.get(HEALTH)
        assert answer.status_code == 503
        return str(answer.json()["stores"]["redis"]["problem"])

    redis_server.client.set(MARKER, "of another version")
    assert "another version" in problem()
    redis_server.client.flushall()
    assert "missing" in problem()
    redis_server.kill()
    assert "127.0.0.1" in problem()


def spoil_scripts(settings: Settings, how: str) -> None:
    folder = Path(settings.scripts_dir)
    if how == "marker gone":
        (folder / SCRIPTS_MARKER).unlink()
    elif how == "marker changed":
        (folder / SCRIPTS_MARKER).write_text("something else")
    else:
        shutil.rmtree(folder)
        if how == "a file":
            folder.write_text("")


@pytest.mark.parametrize("how", ["marker gone", "marker changed", "deleted", "a file"])
def test_generation_service_given_a_bad_scripts_folder_answers_503(
    how: str, settings: Settings
) -> None:
    client = TestClient(generation_service.application(settings))
    assert client.get(HEALTH).status_code == 200
    spoil_scripts(settings, how)
    answer = client.get(HEALTH)
    assert answer.status_code == 503
    assert settings.scripts_dir in answer.json()["stores"]["files"]["problem"]
    assert Path(settings.scripts_dir).is_dir() == how.startswith("marker")
