"""A good answer is believed only from who was started for it, and with the counts that are true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from safetake.drill import health, processes
from safetake.drill.items import Item
from safetake.drill.truth import Truth
from safetake.errors import SafetakeError
from tests.support.ports import free_port

ANSWERS = """
import http.server, os, signal, sys

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if self.path == "/bad" else 200)
        self.end_headers()
        bad = b"no such  table, password=s3cret\\n"
        self.wfile.write(bad if self.path == "/bad" else b'{"rows":3}')

if sys.argv[2] == "child" and os.fork():
    signal.pause()
if sys.argv[2] == "hides":
    signal.signal(signal.SIGTERM, lambda *_: os.setsid())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


@contextmanager
def answering(folder: Path, how: str) -> Iterator[int]:
    port = free_port()
    home = {"HOME": str(folder / "home")}
    command = [sys.executable, "-c", ANSWERS, str(port), how]
    # its parent is another process, so that it is no child that nobody waits for
    processes.describe(folder, "app", ["sh", "-c", '"$@" & wait', "sh", *command], home)
    processes.start(folder, "app")
    deadline = time.monotonic() + 30
    try:
        while health.silent(f"http://127.0.0.1:{port}/"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port
    finally:
        processes.kill(folder, "app")
        processes.sweep(folder / "home")


def test_who_answers(tmp_path: Path) -> None:
    with answering(tmp_path, "child") as port:
        url = f"http://127.0.0.1:{port}/"
        group = processes.running(tmp_path, "app")
        assert health.stranger(url, [group, 1]) == ""
        found = health.stranger(url, [1])
        assert found.startswith(f"port {port} is answered by process ")
        assert sys.executable in found
        assert "\n" not in found
        assert health.unwell(url, '"rows":3') == ""
        assert health.unwell(url, '"rows":4') == 'it answers without \'"rows":4\': {"rows":3}'
        assert health.unwell(url + "bad").startswith("503 ")
        assert health.unwell(url + "bad").endswith(": no such table, password=***")
        assert health.silent(url + "bad") == ""
        assert processes.stop(tmp_path, "app"), "what it started goes on"
        assert health.silent(url)
        assert health.unwell(url)


def test_what_hides_from_being_stopped_is_no_answer_and_is_swept(tmp_path: Path) -> None:
    with answering(tmp_path, "hides") as port:
        url = f"http://127.0.0.1:{port}/"
        assert processes.stop(tmp_path, "app")
        assert health.silent(url) == "", "it does not hide"
        assert "was not started for it" in health.stranger(url, [os.getpgid(0)])
        processes.sweep(tmp_path / "home")
        deadline = time.monotonic() + 10
        while not health.silent(url):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_an_answer_of_no_http_is_a_complaint(tmp_path: Path) -> None:
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], "
        "flush=True)\nwhile True: c = s.accept()[0]; c.recv(99); c.sendall(b'no\\n'); c.close()"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        url = f"http://127.0.0.1:{int(child.stdout.readline())}/"
        assert health.unwell(url)
        assert health.silent(url)
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("said", "wanted", "there"),
    [
        ('{"rows":12}', '"rows":12', True), ('{"rows":120}', '"rows":12', False),
        ('{"rows":12.5}', '"rows":12', False), ("there are 12.", "are 12", True),
        ("12 rows", "12 rows", True), ("112 rows", "12 rows", False),
        ("3.12 rows", "12 rows", False), ("120 and 12", "12", True), ("any", "", True),
        ("[12.0]", "12.0", True), ("a.b", "a+b", False),
    ],
)  # fmt: skip
def test_a_number_is_no_part_of_another(said: str, wanted: str, there: bool) -> None:
    assert health.holds(said, wanted) is there


def test_counts(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "t.db")
    truth.take("db", [Item("a", "1", b""), Item("a", "2", b""), Item("b", "1", b"")])
    text = json.dumps({"all": "{count:db}", "a": "{count:db/a}", "plain": "{x}"})
    assert json.loads(health.counted(text, truth)) == {"all": "3", "a": "2", "plain": "{x}"}
    with pytest.raises(SafetakeError, match=r"\{count:db/c\}: db has a, b"):
        health.counted("{count:db/c}", truth)
    shapes = [Item("table", "empty", b"", shape=True), Item("virtual table", "v", b"", shape=True)]
    truth.take("db", [*shapes, Item("a", "1", b"")])
    assert health.counted("{count:db/empty} {count:db/a} {count:queue/0}", truth) == "0 1 0"
    with pytest.raises(SafetakeError, match=r"\{count:db/v\}: db has"):
        health.counted("{count:db/v}", truth)
    assert health.unknown_counts("{count:db/a} {count:other} {x}", ["db"]) == ["{count:other}"]
