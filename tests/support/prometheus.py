"""The real Prometheus, Alertmanager, Pushgateway and node_exporter, and a webhook that listens.

Each server is a plain process on a free port of the loopback, in a folder of its own, and is killed
at the end. A port that somebody took between asking and binding is tried again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port

PATIENCE_S = 60.0


def program(*names: str) -> str:
    """The first of the names that is installed; Debian's packages call some by another name."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.fail(f"{names[0]} is missing: apt-get install {names[0]}, or run `./dev test`")


def fetch(url: str, data: bytes | None = None, method: str | None = None) -> bytes:
    """The body of a good answer. Raises OSError."""
    request = urllib.request.Request(url, data=data, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


def until(answer: Callable[[], Any], what: str, patience: float = PATIENCE_S) -> Any:
    """The first answer that is true; fails when none is within the patience."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if found := answer():
                return found
        except (OSError, ValueError):
            pass
        if time.monotonic() > deadline:
            pytest.fail(f"after {patience:.0f} s: {what}")
        time.sleep(0.1)


@contextlib.contextmanager
def serving(
    folder: Path,
    words: Callable[[int], Sequence[str]],
    ready: str,
    environment: Mapping[str, str] | None = None,
    fixed: int | None = None,
) -> Iterator[str]:
    """A server that is up: its URL. `words` makes the command for a port (`fixed`, or any that is
    free); `ready` is a path that answers well when it is up."""
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in range(5):
        port = fixed or free_port()
        log = folder / f"log-{attempt}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(words(port)),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        url = f"http://127.0.0.1:{port}"

        def up(process: subprocess.Popen[bytes] = process, url: str = url) -> bool:
            if process.poll() is not None:
                return True
            fetch(url + ready)
            return True

        try:
            until(up, f"{words(port)[0]} is not ready: {log}")
            if process.poll() is not None:
                continue  # the port was taken, most likely
            yield url
            return
        finally:
            process.kill()
            process.wait()
    pytest.fail(log.read_text(errors="replace")[-2000:])


def pushgateway(folder: Path) -> contextlib.AbstractContextManager[str]:
    """A Pushgateway."""
    name = program("prometheus-pushgateway", "pushgateway")
    return serving(
        folder, lambda port: [name, f"--web.listen-address=127.0.0.1:{port}"], "/-/ready"
    )


def node_exporter(folder: Path, textfiles: Path) -> contextlib.AbstractContextManager[str]:
    """A node_exporter that only reads text files."""
    name = program("prometheus-node-exporter", "node_exporter")
    return serving(
        folder,
        lambda port: [
            name,
            f"--web.listen-address=127.0.0.1:{port}",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={textfiles}",
        ],
        "/",
    )


def alertmanager(folder: Path, webhook: str) -> contextlib.AbstractContextManager[str]:
    """An Alertmanager that hands everything on at once."""
    name = program("prometheus-alertmanager", "alertmanager")
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "global": {"resolve_timeout": "10s"},
        "route": {
            "receiver": "hook",
            "group_by": ["alertname"],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        },
        "receivers": [
            {"name": "hook", "webhook_configs": [{"url": webhook, "send_resolved": True}]}
        ],
    }
    (folder / "alertmanager.yml").write_text(json.dumps(config))
    return serving(
        folder,
        lambda port: [
            name,
            "--config.file=alertmanager.yml",
            "--storage.path=data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        "/-/ready",
    )


def prometheus(folder: Path, config: dict[str, Any]) -> contextlib.AbstractContextManager[str]:
    """A Prometheus; the configuration is written as JSON, which is YAML."""
    name = program("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(json.dumps(config))
    return serving(
        folder,
        lambda port: [
            name,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        "/-/ready",
    )


class Webhook:
    """What an Alertmanager has told: every alert in the order of arrival."""

    def __init__(self) -> None:
        self.url = ""
        self.told: list[dict[str, Any]] = []

    def state(self, name: str, **labels: str) -> str:
        """`firing` or `resolved` as it was told last; empty when nothing was."""
        said = ""
        for alert in list(self.told):
            have = alert["labels"]
            if have["alertname"] == name and labels.items() <= have.items():
                said = alert["status"]
        return str(said)

    def firing(self) -> set[str]:
        """Names of the alerts of which one was told last as firing."""
        last = {}
        for alert in list(self.told):
            last[json.dumps(alert["labels"], sort_keys=True)] = alert
        return {a["labels"]["alertname"] for a in last.values() if a["status"] == "firing"}


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    """A receiver that listens."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.told += json.loads(body)["alerts"]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
