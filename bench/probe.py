"""What an application's clients feel: `python -m bench.probe PROJECTS GENERATION RECORD`.

Asks in turn, one request every 50 ms, until SIGTERM: both health endpoints, an episode, a search
in the vectors, a new project. Each kind has a thread of its own, so a slow answer delays no other
kind, and a request that had to wait for the one before it has waited: its latency counts from when
it was due. Each is a line in RECORD: start (ns since 1970), microseconds, kind, status (0: no
answer).
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import quote, urlsplit

EVERY_S = 0.05
KINDS = ("health of projects", "health of generation", "read", "search", "write")
API = "/api/v1"
WORDS = quote("a quiet promise at dawn")


class Asker:
    """One kind of request over one kept-alive connection."""

    def __init__(self, url: str, method: str, path: str, body: str | None = None) -> None:
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self._request = (method, path, body, {"Content-Type": "application/json"})

    def ask(self) -> tuple[int, bytes]:
        """(status, answer); status 0 when there was none."""
        try:
            self._connection.request(*self._request)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, HTTPException):
            self._connection.close()
            return 0, b""


def _prepare(projects: str, generation: str) -> str:
    """An episode with a script, which is read again and again; its id."""

    def made(url: str, path: str, body: dict[str, str]) -> str:
        status, answer = Asker(url, "POST", API + path, json.dumps(body)).ask()
        if status != 201:
            raise SystemExit(f"{url}{path} answered {status}")
        return str(json.loads(answer).get("id", ""))

    project = made(projects, "/projects", {"title": "A probe"})
    words = {"title": "A probe", "synopsis": "It asks every so often."}
    episode = made(projects, f"/projects/{project}/episodes", words)
    made(generation, "/generate", {"episode_id": episode})
    return episode


def main(projects: str, generation: str, record: Path) -> None:
    """Ask until told to stop."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set())
    episode = _prepare(projects, generation)
    askers = (
        Asker(projects, "GET", f"{API}/health"),
        Asker(generation, "GET", f"{API}/health"),
        Asker(projects, "GET", f"{API}/episodes/{episode}"),
        Asker(generation, "GET", f"{API}/search?q={WORDS}"),
        Asker(projects, "POST", f"{API}/projects", json.dumps({"title": "A probe"})),
    )
    began = time.monotonic() + 0.5
    with record.open("w", encoding="ascii") as lines:

        def work(kind: int, asker: Asker) -> None:
            due = began + kind * EVERY_S
            ended = 0.0
            while not stopping.wait(max(0.0, due - time.monotonic())):
                now = time.monotonic()
                start = due if ended > due else now
                started_ns = time.time_ns() - int((now - start) * 1e9)
                status, _ = asker.ask()
                ended = time.monotonic()
                # one write of one line: the lines of several threads do not mix
                lines.write(f"{started_ns} {(ended - start) * 1e6:.0f} {kind} {status}\n")
                due += len(KINDS) * EVERY_S

        threads = [
            threading.Thread(target=work, args=each, daemon=True) for each in enumerate(askers)
        ]
        for thread in threads:
            thread.start()
        stopping.wait()
        for thread in threads:
            thread.join(35)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
