"""A very small HTTP server: a few pages that the daemon answers from memory.

GET and HEAD only, exact paths only, one answer for each connection, at most MAX_CONNECTIONS at a
time and SECONDS for each: whoever is slow or comes in numbers is cut off, never served at the cost
of the rest. What is slow to work out is worked out beside (`Cached`), so that no request waits for
a repository that hangs.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from safetake.errors import ConfigError

MAX_CONNECTIONS = 16
SECONDS = 10.0
TEXT = "text/plain; charset=utf-8"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A page."""

    body: bytes
    ok: bool = True
    """False: 503."""
    type: str = TEXT


Page = Callable[[], Answer]


def address(listen: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[::1]:port` or `:port` (all). Raises ConfigError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or (":" in host) != ("[" in host):
        raise ConfigError(
            f"[daemon] listen: {listen[:100]!r} is no host:port",
            hint="write 127.0.0.1:9760, 0.0.0.0:9760 or [::1]:9760",
        )
    return host.strip("[]") or "0.0.0.0", int(port)


class Server:
    """Serves pages from now on, in threads, until `close`."""

    def __init__(self, listen: str, pages: Mapping[str, Page]) -> None:
        """Raises ConfigError when the address cannot be used."""
        host, port = address(listen)
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._server = _Server(family, (host, port), pages)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen}: {error.strerror or error}",
                hint="another daemon may run here; change [daemon] listen, or make it empty",
            ) from error
        bound = self._server.server_address[1]
        self.place = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
        threading.Thread(
            target=self._server.serve_forever, args=(0.5,), name="http", daemon=True
        ).start()

    def close(self) -> None:
        """Serve no more; what is being answered is cut off."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, family: int, place: tuple[str, int], pages: Mapping[str, Page]) -> None:
        self.address_family = family
        self.pages = pages
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(place, _Handler)

    def process_request(self, request: object, client_address: object) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        try:
            super().process_request(request, client_address)  # type: ignore[arg-type]
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        # a timeout of the socket alone would let somebody send a byte now and then for ever
        end = threading.Timer(SECONDS, _cut, (request,))
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asked went away: nothing to tell."""


def _cut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server_version = "safetake"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = SECONDS

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _refuse(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, Answer(b"GET and HEAD only\n"), Allow="GET, HEAD")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _answer(self, *, body: bool) -> None:
        assert isinstance(self.server, _Server)
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self._send(HTTPStatus.NOT_FOUND, Answer(b"there is no such page\n"), body=body)
            return
        answer = page()
        status = HTTPStatus.OK if answer.ok else HTTPStatus.SERVICE_UNAVAILABLE
        self._send(status, answer, body=body)

    def _send(self, status: HTTPStatus, answer: Answer, *, body: bool = True, **more: str) -> None:
        self.send_response(status)
        length = str(len(answer.body))
        headers = {"Content-Type": answer.type, "Content-Length": length, **_HEADERS, **more}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are no events of the daemon."""


class Cached:
    """A page that may be slow: worked out by one thread at a time, and kept for `fresh` seconds.

    While that takes longer than `patience`, the last one is given, however old it is.
    """

    def __init__(
        self, work: Callable[[], bytes], type_: str, fresh: float, patience: float
    ) -> None:
        self._work = work
        self._type = type_
        self._fresh = fresh
        self._patience = patience
        self._lock = threading.Lock()
        self._done: threading.Event | None = None
        self._body: bytes | None = None
        self._made = 0.0

    def __call__(self) -> Answer:
        """The page."""
        with self._lock:
            body = self._body
            if body is not None and time.monotonic() - self._made < self._fresh:
                return Answer(body, type=self._type)
            if self._done is None:
                self._done = threading.Event()
                threading.Thread(target=self._make, name="page", daemon=True).start()
            done = self._done
        done.wait(self._patience)
        body = self._body
        if body is None:
            return Answer(b"not ready yet\n", ok=False)
        return Answer(body, type=self._type)

    def _make(self) -> None:
        try:
            self._body = self._work()
            self._made = time.monotonic()
        finally:
            with self._lock:
                done, self._done = self._done, None
            assert done is not None
            done.set()
