"""Real stores for the sample application: a Redis server per test, folders of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from script_generator import projects, scripts, vectors
from script_generator.jobs import JobStore
from script_generator.settings import Settings

from tests.support.ports import free_port
from tests.support.sample_application import (
    RedisServer,
    Running,
    running_redis,
    running_services,
)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, redis_server: RedisServer) -> Settings:
    """The four stores, made and empty; the index files are written after every 20 vectors."""
    made = Settings(
        database_url=f"sqlite:///{tmp_path}/projects.db",
        chroma_path=str(tmp_path / "chroma"),
        redis_url=f"redis://127.0.0.1:{redis_server.port}/0",
        scripts_dir=str(tmp_path / "scripts"),
        project_service_url=f"http://127.0.0.1:{free_port()}",
        generation_service_url=f"http://127.0.0.1:{free_port()}",
    )
    projects.create(made.database_path)
    vectors.create(Path(made.chroma_path), sync_threshold=20)
    scripts.create(Path(made.scripts_dir))
    JobStore(made.redis_url).create()
    return made


@pytest.fixture
def services(settings: Settings) -> Iterator[Running]:
    with running_services(settings) as running:
        yield running
