"""The two services as processes, the order of their writes, and the load driver against them."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from script_generator.compare import Cut, compare
from script_generator.errors import BadRequestError, ConflictError, NotFoundError, StoreError
from script_generator.journal import read_journal
from script_generator.load import Driver, Services
from script_generator.settings import Settings
from script_generator.web import Client
from script_generator.writing import embed, write_script

from tests.support.sample_application import Running, layout, running_load


def test_a_script_is_written_row_vector_file_queue_entry(
    services: Running, redis_server: Any
) -> None:
    """Each store in turn is broken: what comes before it is written all the same."""
    settings, projects, generation = services.settings, services.projects, services.generation
    projects.post("/api/v1/projects", {"id": "p", "title": "The Last Winter"})

    def add(episode_id: str) -> str:
        body = {"id": episode_id, "title": "Pilot", "synopsis": "Snow falls on the set."}
        assert projects.post("/api/v1/projects/p/episodes", body)["project_id"] == "p"
        return write_script(episode_id, "Pilot", "Snow falls on the set.")

    def vectors() -> int:
        return int(health(generation)["stores"]["chroma"]["vectors"])

    scripts = Path(settings.scripts_dir)
    with pytest.raises(NotFoundError):
        generation.post("/api/v1/generate", {"episode_id": "nobody"})
    assert (vectors(), list(scripts.glob("*/*")), redis_server.client.dbsize()) == (0, [], 1)

    text = add("e1")
    answer = generation.post("/api/v1/generate", {"episode_id": "e1"})
    assert (scripts / answer["file"]).read_text() == text
    assert generation.get("/api/v1/scripts/e1") == {
        "episode_id": "e1",
        "script": text,
        "from": "cache",
    }
    assert generation.get("/api/v1/search?q=snow")[0]["episode_id"] == "e1"
    assert generation.get("/api/v1/jobs/e1")["state"] == "queued"
    assert redis_server.client.llen("script-generator:queue") == 1
    generation.post("/api/v1/generate", {"episode_id": "e1"})
    assert redis_server.client.llen("script-generator:queue") == 1, "queued once"
    redis_server.client.delete("script-generator:cache:e1")
    assert generation.get("/api/v1/scripts/e1")["from"] == "file"

    add("e2")
    away = scripts.with_name("away")
    scripts.rename(away)
    with pytest.raises(StoreError, match="scripts"):
        generation.post("/api/v1/generate", {"episode_id": "e2"})
    away.rename(scripts)
    assert vectors() == 2, "the vector is before the file"
    assert not redis_server.client.exists("script-generator:job:e2"), "the queue is after the file"

    text = add("e3")
    redis_server.kill()
    with pytest.raises(StoreError, match="redis://"):
        generation.post("/api/v1/generate", {"episode_id": "e3"})
    assert (scripts / "p" / "e3.txt").read_text() == text, "the file is before the queue"

    chroma = Path(settings.chroma_path)
    shutil.rmtree(chroma)
    add("e4")
    with pytest.raises(StoreError, match="chroma"):
        generation.post("/api/v1/generate", {"episode_id": "e4"})
    assert not (scripts / "p" / "e4.txt").exists(), "the file is after the vector"
    services.processes[0].kill()
    services.processes[0].wait()
    with pytest.raises(StoreError, match="does not answer"):
        generation.post("/api/v1/generate", {"episode_id": "e4"})


def health(client: Client) -> Any:
    return client.get("/api/v1/health")


def test_requests_given_nonsense_are_refused_and_change_nothing(services: Running) -> None:
    projects, generation = services.projects, services.generation
    projects.post("/api/v1/projects", {"id": "p", "title": "One"})
    refused: list[tuple[Client, str, dict[str, Any], type[Exception]]] = [
        (projects, "/api/v1/projects", {"id": "p", "title": "again"}, ConflictError),
        (projects, "/api/v1/projects", {"title": "  "}, BadRequestError),
        (projects, "/api/v1/projects", {"title": 3}, BadRequestError),
        (projects, "/api/v1/projects/no/episodes", {"title": "t", "synopsis": "s"}, ConflictError),
        (
            projects,
            "/api/v1/projects/p/episodes",
            {"title": "t", "synopsis": "s", "number": "1"},
            BadRequestError,
        ),
        (generation, "/api/v1/generate", {}, BadRequestError),
    ]
    for client, path, body, kind in refused:
        with pytest.raises(kind):
            client.post(path, body)
    assert projects.get("/api/v1/projects/p")["episodes"] == []
    assert [row["id"] for row in projects.get("/api/v1/projects")] == ["p"]
    with pytest.raises(NotFoundError):
        projects.get("/api/v1/projects/nobody")
    with pytest.raises(NotFoundError):
        generation.get("/api/v1/scripts/nobody")
    with pytest.raises(BadRequestError):
        generation.get("/api/v1/search?q=")


def test_a_killed_application_keeps_everything_that_its_load_driver_saw_acknowledged(
    services: Running, tmp_path: Path, redis_server: Any
) -> None:
    settings, journal = services.settings, tmp_path / "journal.jsonl"
    with running_load(services, journal) as load:
        load.wait_for(300)
        services.kill()
        load.end()
    redis_server.client.save()
    restored = layout(settings, redis_server.folder, tmp_path / "restored")

    end = time.time_ns()
    verdict = compare(restored, journal, Cut(end, end))

    assert verdict.ok, verdict.problems()
    records = read_journal(journal)
    done = [record for record in records if record.acknowledged_ns]
    scripts = sum(record.kind == "script" for record in done)
    assert scripts > 20
    assert len(records) > len(done), "requests were under way when it was killed"
    for store in ("vectors", "files"):
        assert verdict.stores[store].expected == verdict.stores[store].found == scripts
    assert verdict.stores["keys"].found == 3 * scripts
    assert verdict.stores["rows"].found == len(done) - scripts
    assert verdict.lost_items == 0


def test_load_driver_given_services_that_are_down_counts_failures(
    settings: Settings, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    result = Driver(Services(settings), journal, workers=2, seconds=0.3).run()
    assert result.failed > 1
    assert "does not answer" in result.last_failure
    assert all(record.acknowledged_ns is None for record in read_journal(journal))


def test_settings_given_flags_and_environment_prefer_flags() -> None:
    environment = {"DATABASE_URL": "sqlite:////data/a.db", "CACHE_SECONDS": "5", "PORT": "1"}
    loaded = Settings.load(environment, scripts_dir="/s", database_url=None)
    assert loaded.database_path == Path("/data/a.db")
    assert (loaded.scripts_dir, loaded.cache_seconds) == ("/s", 5)
    assert Settings.load({}, database_url="x/y.db").database_path == Path("x/y.db")
    with pytest.raises(BadRequestError, match="whole number"):
        Settings.load({"CACHE_SECONDS": "soon"})
    with pytest.raises(BadRequestError, match="no SQLite"):
        _ = Settings.load({"DATABASE_URL": "postgresql://x"}).database_path


def test_embed_given_the_same_text_gives_the_same_normalised_vector() -> None:
    text = write_script("e", "A Title", "Synopsis — 한 컷 더")
    assert text == write_script("e", "A Title", "Synopsis — 한 컷 더")
    assert embed(text) == embed(text)
    assert abs(sum(value * value for value in embed(text)) - 1) < 1e-6
    assert embed(text) != embed(write_script("f", "A Title", "Synopsis — 한 컷 더"))
    # the algorithm is part of the data format: journals outlive a process
    assert embed("one more take").tobytes().hex().count("00000000") > 100
