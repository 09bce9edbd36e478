"""The health gate against real HTTP servers that answer badly in every way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from safetake.config import ServiceConfig
from safetake.errors import ServiceError
from safetake.services.health import Observation, Report, ask, gate
from safetake.services.httpget import MAX_BODY

Answer = Callable[[BaseHTTPRequestHandler], None]


def says(code: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


class Site:
    """Answers path `/x` with `answers["/x"]`, in order; the last one for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                left = site.answers[self.path]
                (left.pop(0) if len(left) > 1 else left[0])(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def section(**health: Any) -> ServiceConfig:
    quick = {"interval": 0.01, "timeout": 20}
    return ServiceConfig.model_validate({"health": {**quick, **health}})


def entered(**services: ServiceConfig) -> tuple[Report, list[tuple[str, str]]]:
    seen: list[tuple[str, str]] = []
    return gate(services, lambda name, text: seen.append((name, text))), seen


def test_good_answers_in_a_row_are_needed(site: Site) -> None:
    good, bad = says(200, b'{"status": "ok"}'), says(503, b"starting")
    site.answers["/"] = [bad, good, bad, good, good]
    report, seen = entered(web=section(url=site.url + "/", successes=2, contains='"ok"'))
    report.must_be_well()
    (health,) = report.services
    assert [o.ok for o in health.observations] == [False, True, False, True, True]
    assert seen[0] == ("web", "503 starting")
    assert seen[-1] == ("web", '200 {"status": "ok"} (2 of 2)')
    assert report.as_dict()["services"][0]["observations"][0]["text"] == "503 starting"


def test_all_are_asked_at_once_and_every_sick_one_is_named(site: Site, tmp_path: Path) -> None:
    site.answers["/"] = [says(200)]
    site.answers["/sick"] = [says(500, b"password=s3cr3t redis://a:s3cr3t@h down")]
    mark = tmp_path / "mark"
    report, _ = entered(
        well=section(url=site.url + "/"),
        sick=section(url=site.url + "/sick", timeout=0.2),
        gone=section(url="http://127.0.0.1:1/", timeout=0.2),
        told=section(command=["sh", "-c", f"test -e {mark} || {{ touch {mark}; exit 1; }}"]),
        failing=section(command=["sh", "-c", "echo no >&2; exit 4"], timeout=0.2),
        unasked=ServiceConfig(),
    )
    ok = {h.name: h.ok for h in report.services}
    assert ok == {
        "well": True,
        "sick": False,
        "gone": False,
        "told": True,
        "failing": False,
        "unasked": False,
    }
    with pytest.raises(ServiceError) as error:
        report.must_be_well()
    message = str(error.value)
    assert "sick after" in message
    assert "gone after" in message
    assert "exit code 4: no" in message
    assert "unasked" not in message
    assert "s3cr3t" not in message + str(report.as_dict())


def test_nothing_to_ask_is_well() -> None:
    report, seen = entered(a=ServiceConfig())
    assert report.ok
    assert seen == []
    assert not report.services[0].asked


def test_a_redirect_is_followed_on_its_own_host_only(site: Site) -> None:
    site.answers["/a"] = [says(302, Location="/b")]
    site.answers["/b"] = [says(200, b"here")]
    site.answers["/round"] = [says(302, Location="/round")]
    other = Site()
    other.answers["/"] = [says(200)]
    site.answers["/away"] = [says(302, Location=other.url + "/")]

    def text(path: str) -> tuple[bool, str]:
        how = section(url=site.url + path).health
        assert how is not None
        saw = ask("web", how)
        return saw.ok, saw.text

    assert text("/a") == (True, "200 here")
    assert text("/away") == (False, "302: redirects to another place, 127.0.0.1")
    assert text("/round") == (False, "redirects more than 3 times")
    assert other.asked == []
    other.server.shutdown()
    other.server.server_close()


def test_an_answer_without_end_is_cut(site: Site) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            return

    site.answers["/"] = [endless]
    how = section(url=site.url + "/", contains="y").health
    assert how is not None
    saw = ask("web", how)
    assert not saw.ok
    assert len(saw.text) < 300 < MAX_BODY


def test_an_answer_that_drips_is_late(site: Site) -> None:
    ended = threading.Event()

    def dripping(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not ended.wait(0.05):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return

    site.answers["/"] = [dripping]
    how = section(url=site.url + "/", answer_timeout=0.5).health
    assert how is not None
    wanted = "no whole answer within 0.5 s: 200, a body without an end"
    assert wanted in asked_until(wanted, lambda: [ask("web", how)])
    ended.set()


def asked_until(wanted: str, again: Callable[[], list[Observation]]) -> list[str]:
    """What was seen, at last `wanted`: on a busy machine time may be over a step earlier, too."""
    seen: list[str] = []
    deadline = time.monotonic() + 60
    while wanted not in seen and time.monotonic() < deadline:
        found = again()
        assert not any(one.ok for one in found)
        seen += [one.text for one in found]
    assert all(text.startswith("no whole answer within 0.5 s: ") for text in seen)
    return seen


@pytest.mark.parametrize(
    ("scheme", "first", "drip", "saw"),
    [
        ("http", b"", b"", "connected, no whole header"),
        ("http", b"HTTP/1.1 200 OK\r\nX: ", b"x", "connected, no whole header"),
        ("http", b"", b"HTTP/1.1 100 Continue\r\n\r\n", "connected, no whole header"),
        (
            "http",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
            "200, a body without an end",
        ),
        (
            "http",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            b"x",
            "200, a body without an end",
        ),
        (
            "https",
            b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb",
            b"\x00",
            "connected, no end of TLS's handshake",
        ),
    ],
    ids=["silence", "header", "informational", "chunked", "size of a chunk", "TLS"],
)
def test_whatever_drips_the_gate_ends_and_says_how_far_it_came(
    scheme: str, first: bytes, drip: bytes, saw: str
) -> None:
    """Each byte is in time for a timeout of one read: all of them together were without an end."""
    ended = threading.Event()
    closed = threading.Semaphore(0)

    class Dripping(BaseRequestHandler):
        def handle(self) -> None:
            try:
                self.request.recv(65536)
                self.request.sendall(first)
                while not ended.wait(0.05):
                    self.request.sendall(drip)
            except OSError:
                closed.release()

    server = ThreadingTCPServer(("127.0.0.1", 0), Dripping)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"{scheme}://127.0.0.1:{server.server_address[1]}/"

    def enter() -> list[Observation]:
        report, _ = entered(web=section(url=url, answer_timeout=0.5, timeout=0.4))
        return report.services[0].observations

    try:
        wanted = f"no whole answer within 0.5 s: {saw}"
        assert wanted in asked_until(wanted, enter)
        if drip:  # the connection is not left to the server, nor the thread that reads it
            assert closed.acquire(timeout=20)
            deadline = time.monotonic() + 20
            while any(thread.name == "question" for thread in threading.enumerate()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


def test_the_environment_s_proxy_is_not_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    site.answers["/"] = [says(204)]
    report, _ = entered(web=section(url=site.url + "/"))
    assert report.ok


def test_each_question_has_a_connection_of_its_own(site: Site) -> None:
    """A process that is about to end would go on to answer on one that is kept."""
    ports: list[int] = []

    def remember(handler: BaseHTTPRequestHandler) -> None:
        ports.append(handler.client_address[1])
        assert handler.headers["Connection"] == "close"
        says(200)(handler)

    site.answers["/"] = [remember]
    entered(web=section(url=site.url + "/", successes=3))
    assert len(set(ports)) == 3


def test_the_last_question_comes_at_the_deadline(site: Site) -> None:
    begun = time.monotonic()

    def late(handler: BaseHTTPRequestHandler) -> None:
        says(200 if time.monotonic() - begun > 0.3 else 503)(handler)

    site.answers["/"] = [late]
    report, _ = entered(web=section(url=site.url + "/", interval=60, timeout=0.4, successes=1))
    assert report.ok
