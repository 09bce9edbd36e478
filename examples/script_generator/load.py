"""The load driver: several workers write to all four stores and remember what was acknowledged.

Over HTTP it uses the services as a client would; directly it opens the stores itself, which needs
both services to be stopped (Chroma's embedded client wants the folder for itself).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from threading import Event, Lock, Thread
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

from .errors import ApplicationError
from .generation_service import Generator
from .journal import Journal, Kind
from .projects import ProjectStore
from .settings import Settings
from .web import Client

EPISODES_PER_PROJECT = 8


class Target(Protocol):
    """Where the load goes. Each call returns when acknowledged, or raises ApplicationError."""

    def add_project(self, row: dict[str, Any]) -> dict[str, Any]: ...

    def add_episode(self, row: dict[str, Any]) -> dict[str, Any]: ...

    def generate(self, row: dict[str, Any]) -> dict[str, Any]: ...


class Services:
    """The two services over HTTP."""

    def __init__(self, settings: Settings) -> None:
        self._projects = Client(settings.project_service_url)
        self._generation = Client(settings.generation_service_url)

    def add_project(self, row: dict[str, Any]) -> dict[str, Any]:
        return dict(self._projects.post("/api/v1/projects", row))

    def add_episode(self, row: dict[str, Any]) -> dict[str, Any]:
        project = quote(row["project_id"], safe="")
        return dict(self._projects.post(f"/api/v1/projects/{project}/episodes", row))

    def generate(self, row: dict[str, Any]) -> dict[str, Any]:
        return dict(self._generation.post("/api/v1/generate", {"episode_id": row["id"]}))


class Stores:
    """The four stores themselves, in this process."""

    def __init__(self, settings: Settings) -> None:
        self._projects = ProjectStore(settings.database_path)
        self._generator = Generator(settings)

    def add_project(self, row: dict[str, Any]) -> dict[str, Any]:
        return self._projects.add_project(row["title"], row["id"])

    def add_episode(self, row: dict[str, Any]) -> dict[str, Any]:
        return self._projects.add_episode(
            row["project_id"],
            row["title"],
            row["synopsis"],
            episode_id=row["id"],
            number=row["number"],
        )

    def generate(self, row: dict[str, Any]) -> dict[str, Any]:
        return self._generator.generate(row)


@dataclass(slots=True)
class Result:
    """What a run of the driver did."""

    seconds: float = 0.0
    acknowledged: dict[Kind, int] = field(
        default_factory=lambda: {"project": 0, "episode": 0, "script": 0}
    )
    failed: int = 0
    """Requests without an acknowledgement: whether they were done is not known."""
    last_failure: str = ""
    longest_ms: dict[Kind, float] = field(
        default_factory=lambda: {"project": 0.0, "episode": 0.0, "script": 0.0}
    )
    """The longest time that a worker waited for one acknowledgement."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Driver:
    """Writes with `workers` threads until `stop`, `count` scripts are done or time is up."""

    def __init__(
        self,
        target: Target,
        journal_path: Path,
        *,
        workers: int = 4,
        seconds: float | None = None,
        count: int | None = None,
        pause: float = 0.0,
    ) -> None:
        self._target, self._path = target, journal_path
        self._workers, self._seconds, self._pause = workers, seconds, pause
        self._left = count
        self._stopping = Event()
        self._lock = Lock()
        self._run = uuid4().hex[:8]
        self._result = Result()

    def stop(self) -> None:
        """Let each worker end after the request that it is at. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> Result:
        """Write until told to stop. What a target refuses or loses is counted, not raised."""
        journal = Journal(self._path)
        started = time.monotonic()
        threads = [
            Thread(target=self._work, args=(journal, number), name=f"load-{number}")
            for number in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if self._seconds is not None and time.monotonic() - started >= self._seconds:
                self.stop()
            time.sleep(0.02)
        journal.close()
        self._result.seconds = time.monotonic() - started
        return self._result

    def _work(self, journal: Journal, worker: int) -> None:
        random = Random(f"{self._run}-{worker}")
        item = 0
        while not self._stopping.is_set():
            project = {"id": f"{self._run}-p{worker}-{item:06d}", "title": _title(random)}
            if not self._ask(journal, "project", project, self._target.add_project):
                continue
            for number in range(1, EPISODES_PER_PROJECT + 1):
                if self._stopping.is_set() or not self._claim():
                    return
                item += 1
                episode = {
                    "id": f"{self._run}-e{worker}-{item:06d}",
                    "project_id": project["id"],
                    "number": number,
                    "title": _title(random),
                    "synopsis": f"{_title(random)}. {_title(random)} — 그리고 한 컷 더.",
                }
                if self._ask(journal, "episode", episode, self._target.add_episode):
                    self._ask(journal, "script", episode, self._target.generate)
                self._stopping.wait(self._pause)
            item += 1

    def _claim(self) -> bool:
        with self._lock:
            if self._left is None:
                return True
            self._left -= 1
            return self._left >= 0

    def _ask(
        self,
        journal: Journal,
        kind: Kind,
        row: dict[str, Any],
        send: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> bool:
        request = journal.request(kind, row["id"], row)
        started = time.monotonic()
        try:
            answer = send(row)
        except ApplicationError as error:
            with self._lock:
                self._result.failed += 1
                self._result.last_failure = str(error)
            self._stopping.wait(0.05)  # not a busy loop against a service that is down
            return False
        journal.acknowledge(request, answer)
        took = (time.monotonic() - started) * 1000
        with self._lock:
            self._result.acknowledged[kind] += 1
            self._result.longest_ms[kind] = max(self._result.longest_ms[kind], took)
        return True


def _title(random: Random) -> str:
    first = ("The Last", "A Second", "Our Quiet", "No", "Every", "The Hidden", "One More")
    second = ("Winter", "Broadcast", "Promise", "Bridge", "Daughter", "Take", "Letter", "Signal")
    third = ("in Seoul", "at Dawn", "of the River", "Again", "Without a Name", "for Mother")
    return " ".join(map(random.choice, (first, second, third)))
