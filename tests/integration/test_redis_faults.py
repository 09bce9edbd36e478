"""What breaks in the middle: servers that die, links that drop, full disks, our own death."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safetake.errors import BarrierTimeoutError, SourceError
from safetake.sources.redis import RedisSession, RedisSource, questions
from safetake.sources.redis.rdb import UnsupportedRdbError
from safetake.sources.redis.scratch import ScratchError, ScratchServer, find_binaries
from safetake.sources.redis.wire import ServerGoneError
from tests.support.memory_writer import MemoryRepository
from tests.support.ports import free_port
from tests.support.redis_server import running
from tests.support.redis_source import (
    capture,
    config,
    debug_options,
    entry,
    failed,
    parent_of,
    proven,
    restore,
    session,
)


def test_nobody_listens(tmp_path: Path) -> None:
    settings = config(f"redis://127.0.0.1:{free_port()}")
    with MemoryRepository() as repository:
        with pytest.raises(ServerGoneError, match="cannot connect") as caught:
            capture(settings, repository, tmp_path)
    assert "running" in caught.value.hint
    state = RedisSource("queue", settings).inspect()
    assert not state.ok
    assert state.problems


def test_something_else_listens(tmp_path: Path) -> None:
    code = "import http.server; http.server.HTTPServer(('127.0.0.1', {}),"
    port = free_port()
    other = subprocess.Popen(
        [sys.executable, "-c", code.format(port)
         + "http.server.BaseHTTPRequestHandler).serve_forever()"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        settings = config(f"redis://127.0.0.1:{port}")
        while "cannot connect" in (state := RedisSource("queue", settings).inspect()).summary:
            time.sleep(0.05)
        assert "Redis protocol" in state.summary
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("phase", ["prepared", "held", "released"])
def test_the_server_dies(phase: str, tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        server.client().set("k", 1)
        if phase == "held":
            # the cut was fixed: what was acknowledged before it is with us, or the capture fails
            try:
                captured = capture(config(server.url), repository, tmp_path, held=server.kill)
            except SourceError:
                return
            proven(captured, repository, tmp_path)
            return
        if phase == "released":
            captured = capture(config(server.url), repository, tmp_path, released=server.kill)
            proven(captured, repository, tmp_path)
            return
        with pytest.raises(SourceError):
            capture(config(server.url), repository, tmp_path, prepared=server.kill)


def hold_again_and_again(one: RedisSession, timeout: float) -> None:
    """Until it fails."""
    for _ in range(200):
        one.hold(timeout)
        one.release()
        time.sleep(0.02)


def test_a_dropped_link_says_why(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        with server.client() as client:
            client.set("k", 1)
            one = session(config(server.url), repository, tmp_path)
            one.prepare()
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            with pytest.raises(SourceError, match="link was lost") as caught:
                hold_again_and_again(one, 5)
            one.close()
    assert "client-output-buffer-limit" in caught.value.hint


def test_an_idle_control_connection_is_opened_again(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        with server.client() as client:
            client.set("k", 1)
            one = session(config(server.url), repository, tmp_path)
            one.prepare()
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            one.hold(5)
            one.release()
            assert one.capture().facts["keys"] == 1
            one.close()


def wait_until_silent(port: int) -> None:
    """Return when the server has stopped to answer: what was sent to it before has begun."""
    with socket.create_connection(("127.0.0.1", port)) as probe:
        probe.settimeout(0.1)
        while True:
            probe.sendall(b"PING\r\n")
            try:
                probe.recv(16)
            except TimeoutError:
                return


def test_a_busy_server_is_not_waited_for_without_end(tmp_path: Path) -> None:
    options = debug_options("redis-7.0")
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "a", *options) as server:
        server.client().set("k", 1)
        one = session(config(server.url), repository, tmp_path)
        one.prepare()
        with socket.create_connection(("127.0.0.1", server.port)) as sleeper:
            sleeper.sendall(b"DEBUG SLEEP 3\r\n")
            wait_until_silent(server.port)
            with pytest.raises(BarrierTimeoutError):
                hold_again_and_again(one, 0.3)
            assert sleeper.recv(16) == b"+OK\r\n"
        server.client().set("k", 2)  # nothing is held
        one.hold(10)  # and the next attempt works
        one.release()
        assert one.capture().facts["keys"] == 1
        one.close()


HOLDER = """
import sys, time
from pathlib import Path
from tests.support.memory_writer import MemoryRepository
from tests.support.redis_source import config, session
one = session(config(sys.argv[1]), MemoryRepository(), Path(sys.argv[2]))
one.prepare()
one.hold(5)
print("held", flush=True)
time.sleep(60)
"""


def test_our_sudden_death_in_the_hold_does_not_stop_the_writers(tmp_path: Path) -> None:
    with running("redis-7.0", tmp_path / "live") as server, server.client() as client:
        client.set("k", 1)
        root = Path(__file__).parents[2]
        ours = subprocess.Popen(
            [sys.executable, "-c", HOLDER, server.url, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=root,
        )
        assert ours.stdout is not None
        assert ours.stdout.readline() == b"held\n"
        os.kill(ours.pid, signal.SIGKILL)
        ours.wait()
        ours.stdout.close()
        client.set("k", 2)  # waits for the pause to end by itself; 120 s is the client's patience
        assert client.get("k") == b"2"


def test_a_failover_between_is_noticed(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        with server.client() as client:
            client.set("k", 1)
            one = session(config(server.url), repository, tmp_path)
            one.prepare()
            client.execute_command("REPLICAOF", "127.0.0.1", free_port())
            client.execute_command("REPLICAOF", "NO", "ONE")
            with pytest.raises(SourceError):
                one.hold(5)
            client.set("k", 2)  # not held
            one.close()


def test_a_full_scratch_disk(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        server.client().set("k", "v" * 1000)
        one = session(config(server.url), repository, tmp_path)
        (one._folder).mkdir()
        (one._folder / "base.rdb").symlink_to("/dev/full")
        with pytest.raises(SourceError, match="No space left") as caught:
            one.prepare()
        assert "TMPDIR" in caught.value.hint
        one.close()


def test_a_parent_that_cannot_be_read_is_not_built_upon(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        server.client().set("k", "v" * 1000)
        first = capture(config(server.url), repository, tmp_path)
        for blob in repository.blobs:
            repository.blobs[blob] = b"damaged"
        parent = parent_of(first, repository)
        again = capture(config(server.url), repository, tmp_path, parent=parent)
        assert any("cannot be built upon" in note for note in again.notes)
        assert again.method == "replication"
        assert again.facts["keys"] == 1


def test_unlogged_changes_are_noticed_and_heal(tmp_path: Path) -> None:
    """DEBUG POPULATE is not replicated: continuing from the parent would miss it for ever."""
    options = debug_options("redis-7.0")
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "a", *options) as server:
        with server.client() as client:
            client.set("k", 1)
            first = capture(config(server.url), repository, tmp_path)
            client.execute_command("DEBUG", "POPULATE", 10)
        parent = parent_of(first, repository)
        second = capture(config(server.url), repository, tmp_path, parent=parent)
        assert second.unread
        parent = parent_of(second, repository)
        third = capture(config(server.url), repository, tmp_path, parent=parent)
        assert not third.unread
        assert third.facts["keys"] == 11
        proven(third, repository, tmp_path)


def test_a_scratch_server_never_stays(tmp_path: Path) -> None:
    binary = find_binaries()[0]
    (tmp_path / "dump.rdb").write_bytes(b"REDIS0009 this is no RDB")
    with pytest.raises(ScratchError, match="did not load"):
        ScratchServer(binary, tmp_path, appendonly=False, databases=16)
    (tmp_path / "dump.rdb").unlink()
    pids = []

    def interrupted() -> None:
        with ScratchServer(binary, tmp_path, appendonly=False, databases=16) as server:
            pids.append(server.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_damaged_dump_is_never_called_good(tmp_path: Path) -> None:
    """Every bit flip is found: the CRC guards the file, whatever the parser makes of it."""
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        with server.client() as client:
            client.mset({f"k{i}": i for i in range(30)})
            client.rpush("list", *range(50))
        captured = capture(config(server.url), repository, tmp_path)
        folder = restore(captured.node, repository, tmp_path / "restored")
        good = (folder / "dump.rdb").read_bytes()
        for position in range(0, len(good), 3):
            bad = bytearray(good)
            bad[position] ^= 1 << position % 8
            (folder / "dump.rdb").write_bytes(bad)
            assert failed(questions(folder, entry(captured))), position
        (folder / "dump.rdb").write_bytes(good[:-20])
        assert failed(questions(folder, entry(captured)))
        (folder / "dump.rdb").unlink()
        assert failed(questions(folder, entry(captured)))


def test_a_dump_from_the_future_is_stored_uncounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UnsupportedRdbError("RDB: unknown type 99")

    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        server.client().set("k", "v")
        with monkeypatch.context() as patch:
            patch.setattr("safetake.sources.redis.cutfile.canonicalise", refuse)
            captured = capture(config(server.url), repository, tmp_path)
        assert captured.facts["keys"] is None
        assert any("unknown type 99" in note for note in captured.notes)
        folder = proven(captured, repository, tmp_path)
        bad = bytearray((folder / "dump.rdb").read_bytes())
        bad[20] ^= 1
        (folder / "dump.rdb").write_bytes(bad)
        assert failed(questions(folder, entry(captured)))


def test_a_loading_server_is_not_copied(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    with running("redis-7.0", folder) as server, server.client() as client:
        client.mset({f"k{i}": "v" * 100 for i in range(2000)})
        client.save()
    slow = ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"]
    with MemoryRepository() as repository:
        with running("redis-7.0", folder, *slow, wait=False) as server:
            settings = config(server.url)
            while "cannot connect" in (state := RedisSource("queue", settings).inspect()).summary:
                time.sleep(0.02)
            assert "loading" in state.summary
            with pytest.raises(SourceError, match="loading"):
                capture(settings, repository, tmp_path)


KEEPER = """
import sys, time
from pathlib import Path
from safetake.sources.redis.scratch import ScratchServer, find_binaries
server = ScratchServer(find_binaries()[0], Path(sys.argv[1]), appendonly=False, databases=16)
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_a_scratch_server_ends_when_we_are_killed(tmp_path: Path) -> None:
    ours = subprocess.Popen([sys.executable, "-c", KEEPER, str(tmp_path)], stdout=subprocess.PIPE)
    assert ours.stdout is not None
    pid = int(ours.stdout.readline())
    os.kill(ours.pid, signal.SIGKILL)
    ours.wait()
    ours.stdout.close()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)
