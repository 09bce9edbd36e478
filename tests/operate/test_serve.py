"""The small HTTP server, asked by real clients."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest

from safetake.errors import ConfigError
from safetake.operate.serve import MAX_CONNECTIONS, Answer, Cached, Page, Server, address


@contextlib.contextmanager
def served(**pages: Page) -> Iterator[tuple[str, int]]:
    server = Server("127.0.0.1:0", {f"/{name}": page for name, page in pages.items()})
    try:
        yield address(server.place)
    finally:
        server.close()


def ask(place: tuple[str, int], path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(*place, timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def hello() -> Answer:
    return Answer(b"hello\n")


def test_a_page_its_headers_and_head() -> None:
    with served(x=hello, bad=lambda: Answer(b"no\n", ok=False)) as place:
        answer, body = ask(place, "/x?with=query")
        assert (answer.status, body) == (200, b"hello\n")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Python" not in answer.headers["Server"]
        answer, body = ask(place, "/x", "HEAD")
        assert (answer.status, body) == (200, b"")
        assert ask(place, "/bad")[0].status == 503


@pytest.mark.parametrize("path", ["/", "/y", "/x/", "/../x", "/%2e%2e/etc/passwd"])
def test_nothing_else_is_there(path: str) -> None:
    with served(x=hello) as place:
        assert ask(place, path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(method: str) -> None:
    with served(x=hello) as place:
        answer, _ = ask(place, "/x", method)
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"


def test_garbage_does_not_end_it() -> None:
    with served(x=hello) as place:
        for words in (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /x HTTP/9.9\r\n\r\n"):
            with socket.create_connection(place) as client:
                client.sendall(words)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1024):
                    pass
        assert ask(place, "/x")[0].status == 200


def test_more_connections_than_it_serves_are_closed() -> None:
    with served(x=hello) as place, contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(place)) for _ in range(MAX_CONNECTIONS)
        ]
        with socket.create_connection(place) as one_more:
            one_more.settimeout(60)
            with contextlib.suppress(ConnectionResetError):
                assert one_more.recv(1) == b""
        for each in idle:
            each.close()
        for _ in range(100):
            with contextlib.suppress(OSError):  # until their threads have seen it
                if ask(place, "/x")[0].status == 200:
                    return
        pytest.fail("it serves nobody any more")


def test_a_port_in_use_is_a_clear_error() -> None:
    with served(x=hello) as (host, port), pytest.raises(ConfigError, match="in use") as caught:
        Server(f"{host}:{port}", {})
    assert "listen" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:9760", ("127.0.0.1", 9760)),
        ("[::1]:1", ("::1", 1)),
        (":80", ("0.0.0.0", 80)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_addresses(text: str, place: tuple[str, int]) -> None:
    assert address(text) == place


@pytest.mark.parametrize("text", ["x", "1.2.3.4", "host:port", "h:70000", "::1:80", "h:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="listen"):
        address(text)


def test_a_slow_page_is_worked_out_once_and_the_last_one_given_meanwhile() -> None:
    first, others, calls = threading.Event(), threading.Event(), []

    def work() -> bytes:
        calls.append(1)
        number = len(calls)
        (first if number == 1 else others).wait(60)
        return b"%d" % number

    page = Cached(work, "text/plain", fresh=0.0, patience=0.05)
    assert [page().ok for _ in range(3)] == [False] * 3
    assert len(calls) == 1
    first.set()
    while not page().ok:
        pass
    assert [page().body for _ in range(2)] == [b"1"] * 2  # however long the next one takes
    others.set()


def test_a_page_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    answers = iter([b"", b"good"])

    def work() -> bytes:
        answer = next(answers)
        if not answer:
            raise SystemExit  # ends the thread that works, and nothing else
        return answer

    page = Cached(work, "text/plain", fresh=60.0, patience=60.0)
    assert not page().ok
    assert page().body == b"good"
