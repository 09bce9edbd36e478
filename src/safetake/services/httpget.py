"""One question over HTTP, whose answer is there in time or is late, whatever the server does.

The timeouts of HTTP libraries are those of one read: a server that sends a byte each second is
never late for them, and nothing at all bounds the search for an address. So the question is put in
a thread of its own. When the time is up nobody waits for it any more, and its connection is cut,
which ends it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetake.services.process import excerpt

if TYPE_CHECKING:
    import httpx

HEADERS = {"Connection": "close", "Accept-Encoding": "identity"}
MAX_BODY = 1 << 16
MAX_HOPS = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, or why nothing did."""

    ok: bool
    """A whole answer, 2xx."""
    words: str
    """For people, without passwords: the status and the text's beginning, or what was wrong."""
    text: str = ""
    """The first MAX_BODY bytes of it."""


def get(url: str, timeout: float) -> Answer:
    """Ask on a fresh connection; redirects are followed on the same host.

    Returns within `timeout` seconds; how far the server came is said when it was late. What the
    network or the server does is an answer, and no error.
    """
    import httpx

    # Made here: the time that this takes is not the server's. No proxy and no password file of the
    # environment: it is our own service that is asked.
    client = httpx.Client(trust_env=False, timeout=timeout, headers=HEADERS)
    question = _Question(timeout)
    thread = threading.Thread(target=question.ask, args=(client, url), daemon=True, name="question")
    thread.start()
    thread.join(timeout)
    return question.over()


class _Question:
    """What the thread that asks and the one that waits know of each other."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._late = False
        self._answer: Answer | BaseException | None = None
        self._connection: socket.socket | None = None
        self._seen = "no connection"

    def over(self) -> Answer:
        """The answer, or that there was none until now; then the connection is cut."""
        with self._lock:
            if isinstance(self._answer, BaseException):
                raise self._answer
            if self._answer is not None:
                return self._answer
            self._late = True
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
            return Answer(False, f"no whole answer within {self._timeout:.1f} s: {self._seen}")

    def ask(self, client: httpx.Client, url: str) -> None:
        """In a thread; ends soon after `over`."""
        import httpx

        found: Answer | BaseException
        try:
            with client:
                found = self._follow(client, httpx.URL(url))
        except httpx.TimeoutException:
            return  # as late as `over` says
        except _Late:
            return
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            found = Answer(False, excerpt(f"{type(error).__name__}: {error}", 200))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            found = error
        with self._lock:
            self._answer = found

    def _follow(self, client: httpx.Client, url: httpx.URL) -> Answer:
        for _ in range(MAX_HOPS + 1):
            with client.stream("GET", url, extensions={"trace": self._came_to}) as answer:
                code = answer.status_code
                self._saw(f"{code}, a body without an end")
                body = b""
                for piece in answer.iter_raw():
                    body += piece
                    if len(body) >= MAX_BODY:
                        break
                if answer.is_redirect and answer.next_request is not None:
                    there = answer.next_request.url
                    if (there.scheme, there.host, there.port) != (url.scheme, url.host, url.port):
                        return Answer(False, f"{code}: redirects to another place, {there.host}")
                    url = there
                    continue
            text = body[:MAX_BODY].decode("utf-8", "replace")
            beginning = excerpt(text[:2000], 2000)[:200]
            return Answer(answer.is_success, f"{code} {beginning}".strip(), text)
        return Answer(False, f"redirects more than {MAX_HOPS} times")

    def _came_to(self, event: str, info: dict[str, Any]) -> None:
        """Called by the library at each turn."""
        what, _, state = event.rpartition(".")
        if state == "complete" and what in ("connection.connect_tcp", "connection.start_tls"):
            with self._lock:
                self._connection = info["return_value"].get_extra_info("socket")
                if self._late:
                    info["return_value"].close()
        if event in _SEEN:
            self._saw(_SEEN[event])

    def _saw(self, what: str) -> None:
        """Raises _Late: there was perhaps no connection yet that could be cut."""
        with self._lock:
            if self._late:
                raise _Late
            self._seen = what


class _Late(Exception):
    """Nobody waits for the answer."""


_SEEN = {
    "connection.connect_tcp.started": "no connection",
    "connection.connect_tcp.complete": "connected",
    "connection.start_tls.started": "connected, no end of TLS's handshake",
    "http11.send_request_headers.started": "connected, the question was not taken",
    "http11.receive_response_headers.started": "connected, no whole header",
}
