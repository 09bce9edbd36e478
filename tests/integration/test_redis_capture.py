"""Captures of real servers of all versions, proven by loading them into fresh ones of the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from safetake.errors import SafetakeError, SourceError
from safetake.sources.redis import RedisSource, questions
from safetake.sources.redis.scratch import find_binaries, fitting
from safetake.sources.redis.session import RedisSession
from safetake.sources.redis.wire import Address, Connection, ServerSilentError
from tests.support import redis_bank
from tests.support.memory_writer import MemoryRepository
from tests.support.redis_server import VERSIONS, TestServer, running
from tests.support.redis_source import (
    capture,
    config,
    debug_digest,
    debug_options,
    digest_after_restore,
    entry,
    failed,
    parent_of,
    proven,
    restore,
    session,
)

every_version = pytest.mark.parametrize("version", VERSIONS)
SOON = 1_000_000
"""Seconds of a time to live that no test outlives."""


def fill(server: TestServer) -> None:
    """A value of every type and encoding, in three databases, some with a time to live."""
    for db in (0, 3, 15):
        with server.client(db) as c:
            for i in range(40):
                c.set(f"string:{i}", "v" * i * 40)
                c.set(f"number:{i}", i * 1_000_003 - 77)
            c.set("k" * 700, "long key")
            c.set(b"\x00\xff\r\n'\"", "odd key")
            c.set("123456", "number key", ex=SOON)
            c.rpush("list", *range(3000))
            c.rpush("list:wide", "a" * 9000, "b", "c" * 20)
            c.sadd("set:ints", *range(30))
            c.sadd("set", *(f"m{i}" for i in range(900)))
            c.zadd("zset", {"a": 1.5, "b": -2})
            c.zadd("zset:big", {f"m{i}": i / 7 for i in range(500)} | {"i": float("inf")})
            c.hset("hash", mapping={"f": "v"})
            c.hset("hash:big", mapping={f"f{i}": i for i in range(900)})
            c.expire("hash:big", SOON)
            for i in range(250):
                c.xadd("stream", {"n": i, "text": "t" * (i % 50)})
            c.xgroup_create("stream", "workers", 0)
            c.xreadgroup("workers", "one", {"stream": ">"}, count=40)
            c.xreadgroup("workers", "two", {"stream": ">"}, count=7)
            first = c.xrange("stream", count=3)
            c.xack("stream", "workers", first[0][0])
            c.xdel("stream", first[2][0])
            c.pfadd("hyperloglog", *range(200))
            c.setbit("bits", 70_001, 1)
            if server.version in ("redis-8.2", "valkey-9"):
                c.hset("hash:ttl", mapping={"a": 1, "b": 2})
                c.execute_command("HEXPIRE", "hash:ttl", SOON, "FIELDS", 1, "a")
                c.hset("hash:ttl:big", mapping={f"f{i}": i for i in range(900)})
                c.execute_command("HEXPIRE", "hash:ttl:big", SOON, "FIELDS", 2, "f1", "f3")
            if server.version == "redis-8.2":
                c.execute_command("VADD", "vectors", "VALUES", 3, 1, 2, 3, "element")
    if server.version != "redis-6.2":
        with server.client() as c:
            c.function_load("#!lua name=lib\nredis.register_function('f', function() return 7 end)")


@every_version
def test_all_types_come_back_exactly(version: str, tmp_path: Path) -> None:
    seen: list[str] = []
    with MemoryRepository() as repository:
        with running(version, tmp_path / "live", *debug_options(version)) as server:
            fill(server)

            def late_writes() -> None:
                with server.client(3) as c:
                    c.rpush("list", "late")
                    c.xreadgroup("workers", "two", {"stream": ">"}, count=3)
                    c.eval("redis.call('set', 'from script', 1) redis.call('incr', 'n')", 0)
                    c.getex("number:3", ex=SOON)
                    c.publish("channel", "message")
                with server.client(9) as c:
                    c.set("new database", 1)

            captured = capture(
                config(server.url),
                repository,
                tmp_path,
                prepared=late_writes,
                held=lambda: seen.append(debug_digest(server)),
                released=lambda: server.client().set("after", 1),
            )
        assert captured.one_moment
        assert captured.method == "replication"
        assert captured.unread == captured.notes == []
        assert captured.facts["functions"] == (0 if version == "redis-6.2" else 1)
        restored = proven(captured, repository, tmp_path)
        assert digest_after_restore(version, restored) == seen[0]


@every_version
def test_bank_always_adds_up(version: str, tmp_path: Path) -> None:
    bank_campaign(version, tmp_path, snapshots=3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@every_version
def test_bank_fifty_snapshots(version: str, tmp_path: Path) -> None:
    bank_campaign(version, tmp_path, snapshots=50)


def bank_campaign(version: str, folder: Path, snapshots: int) -> None:
    """Snapshots under load: each is exactly the moment of its hold, and keeps every invariant.

    Every second one may build on the one before; the others start afresh.
    """
    with MemoryRepository() as repository, running(version, folder / "live") as server:
        redis_bank.open_accounts(server.port)
        with redis_bank.at_work(server.port, folder / "journal") as journal:
            parent = None
            for number in range(snapshots):
                held: list[int] = []
                before: list[int] = []

                def look(held: list[int] = held, before: list[int] = before) -> None:
                    with server.client() as client:
                        held.append(int(client.get("sequence") or 0))
                        # nothing commits in the hold: asked twice, the answer is the same
                        assert held[0] == int(client.get("sequence") or 0)
                    before.append(redis_bank.acknowledged(journal))

                captured = capture(config(server.url), repository, folder, parent=parent, held=look)
                assert captured.unread == captured.notes == []
                assert captured.one_moment
                restored = proven(captured, repository, folder)
                with running(version, restored) as copy:
                    sequence = redis_bank.verify(copy.port)
                assert sequence == held[0]
                assert before[0] in (sequence, sequence - 1)  # the answer may be on its way
                parent = parent_of(captured, repository) if number % 2 == 0 else None


@every_version
def test_nothing_written_costs_nothing(version: str, tmp_path: Path) -> None:
    with MemoryRepository() as repository, running(version, tmp_path / "live") as server:
        with server.client() as client:
            client.mset({f"k{i}": "v" * 100 for i in range(5000)})
        first = capture(config(server.url), repository, tmp_path)
        stored = repository.stored_bytes
        parent = parent_of(first, repository)
        again = capture(config(server.url), repository, tmp_path, parent=parent)
        if version != "redis-6.2":  # whose expiries are relative, so it is not resumed
            assert again.method == "replication, unchanged"
        assert again.facts["digest"] == first.facts["digest"]
        assert repository.stored_bytes == stored
        proven(again, repository, tmp_path)
        with server.client() as client:
            client.set("k17", "changed")
        third = capture(
            config(server.url), repository, tmp_path, parent=parent_of(again, repository)
        )
        assert repository.stored_bytes - stored < 150_000  # of about 550 000
        proven(third, repository, tmp_path)


def test_equal_data_from_another_process_is_stored_once(tmp_path: Path) -> None:
    """Restarted, a server has another hash seed and another order of keys."""
    with MemoryRepository() as repository:
        stored = []
        for name in ("one", "two"):
            with running("redis-7.0", tmp_path / name) as server, server.client() as client:
                for i in range(20_000):
                    client.set(f"k{i}", "v" * 20) if i % 4000 == 0 else None
                client.mset({f"key:{i}": f"value {i}" for i in range(20_000)})
                capture(config(server.url), repository, tmp_path)
                stored.append(repository.stored_bytes)
        assert stored[1] == stored[0]


@every_version
def test_times_to_live_are_absolute_and_expired_keys_do_not_come_back(
    version: str, tmp_path: Path
) -> None:
    with MemoryRepository() as repository:
        with running(version, tmp_path / "live") as server, server.client() as client:
            client.set("for ever", 1)
            client.set("later", 1, pxat=int(time.time() * 1000) + SOON * 1000)
            client.set("soon", 1, px=4000)
            captured = capture(config(server.url), repository, tmp_path)
            assert captured.facts["databases"] == {"0": {"keys": 3, "expires": 2}}
            while client.exists("soon"):
                time.sleep(0.05)
            left = client.pttl("later")
        # its proof still holds after the key has expired
        restored = proven(captured, repository, tmp_path)
        with running(version, restored) as copy, copy.client() as client:
            assert sorted(client.keys()) == [b"for ever", b"later"]
            assert 0 <= left - client.pttl("later") < 60_000


@every_version
def test_disk_based_synchronisation(version: str, tmp_path: Path) -> None:
    options = ["--repl-diskless-sync", "no"]
    with MemoryRepository() as repository, running(version, tmp_path / "a", *options) as server:
        with server.client() as client:
            client.mset({f"k{i}": "v" * 50 for i in range(3000)})
        captured = capture(
            config(server.url),
            repository,
            tmp_path,
            prepared=lambda: server.client().set("late", 1),
        )
        assert captured.facts["keys"] == 3001
        proven(captured, repository, tmp_path)


@every_version
def test_without_a_binary_the_cut_is_kept_in_append_only_form(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    with MemoryRepository() as repository:
        with running(version, tmp_path / "live", *debug_options(version)) as server:
            fill(server)
            with monkeypatch.context() as patch:
                patch.setattr("safetake.sources.redis.cutfile.fitting", lambda *_: [])
                captured = capture(
                    config(server.url),
                    repository,
                    tmp_path,
                    prepared=lambda: server.client(5).set("late", "x"),
                    held=lambda: seen.append(debug_digest(server)),
                )
        assert captured.facts["form"] == "aof"
        assert captured.one_moment
        assert any("append-only form" in note for note in captured.notes)
        assert captured.fingerprint == {}
        restored = proven(captured, repository, tmp_path)
        assert digest_after_restore(version, restored, "--appendonly", "yes") == seen[0]
        # the base alone is not the cut
        other = restore(captured.node, repository, tmp_path / "other")
        tail = next(p for p in sorted(other.rglob("*")) if p.name.endswith((".incr.aof", "y.aof")))
        tail.write_bytes(tail.read_bytes()[:-3])
        assert failed(questions(other, entry(captured)))


def test_a_newer_server_does_not_fold_what_the_older_could_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = [binary for binary in find_binaries() if binary.version[0] == 8]
    assert fitting("redis", (7, 0, 15)) != newer
    assert all(binary.version[:2] >= (7, 0) for binary in fitting("redis", (7, 0, 15)))
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        server.client().set("k", 1)
        with monkeypatch.context() as patch:
            patch.setattr("safetake.sources.redis.cutfile.fitting", lambda *_: newer)
            captured = capture(
                config(server.url),
                repository,
                tmp_path,
                prepared=lambda: server.client().set("late", 1),
            )
        assert captured.facts["form"] == "aof"
        assert captured.facts["rdb_version"] == 10
        assert any("another RDB version" in note for note in captured.notes)
        proven(captured, repository, tmp_path)


@every_version
def test_fallback_by_scan_is_marked(version: str, tmp_path: Path) -> None:
    with MemoryRepository() as repository:
        with running(version, tmp_path / "live", *debug_options(version)) as server:
            fill(server)
            digest = debug_digest(server)
            captured = capture(config(server.url, method="scan"), repository, tmp_path)
        assert not captured.one_moment
        assert captured.method == "scan"
        assert any("not one moment" in note for note in captured.notes)
        restored = proven(captured, repository, tmp_path)
        assert digest_after_restore(version, restored) == digest


def test_big_values_stream_through(tmp_path: Path) -> None:
    with MemoryRepository(keep=False) as repository, running("redis-7.0", tmp_path / "a") as server:
        with server.client() as client:
            client.set("big", b"0123456789abcdef" * (5 << 20))  # 80 MiB
            client.rpush("list", *(b"x" * 100_000 for _ in range(100)))
        captured = capture(config(server.url), repository, tmp_path)
        assert captured.facts["keys"] == 2
        assert repository.submitted_bytes == captured.bytes


def test_a_server_without_keys(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        with pytest.raises(SourceError, match="no key") as caught:
            capture(config(server.url), repository, tmp_path)
        assert "may_be_empty" in caught.value.hint
        assert not RedisSource("queue", config(server.url)).inspect().ok
        captured = capture(config(server.url, may_be_empty=True), repository, tmp_path)
        proven(captured, repository, tmp_path)


def test_a_replica_is_marked(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "m") as master:
        redis_bank.open_accounts(master.port)
        follow = ["--replicaof", f"127.0.0.1 {master.port}"]
        with running("redis-7.0", tmp_path / "r", *follow) as replica:
            with replica.client() as client:
                while client.info("replication")["master_link_status"] != "up":
                    time.sleep(0.02)
            with redis_bank.at_work(master.port, tmp_path / "journal"):
                captured = capture(config(replica.url), repository, tmp_path)
        assert not captured.one_moment
        assert any("is a replica" in note for note in captured.notes)
        restored = proven(captured, repository, tmp_path)
        with running("redis-7.0", restored) as copy:
            redis_bank.verify(copy.port)  # still one moment of the replica


def set_when_up(client: redis.Redis, key: str) -> None:
    """A new cluster answers CLUSTERDOWN until it has seen its slots."""
    deadline = time.monotonic() + 30
    while True:
        try:
            client.set(key, 1)
        except redis.ResponseError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


@pytest.mark.parametrize("version", [v for v in VERSIONS if v in ("redis-8.2", "valkey-9")])
def test_a_cluster_node(version: str, tmp_path: Path) -> None:
    options = ["--cluster-enabled", "yes", *debug_options(version)]
    with MemoryRepository() as repository:
        with running(version, tmp_path / "live", *options) as server, server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            for i in range(500):
                set_when_up(client, f"k{i}")
            captured = capture(config(server.url), repository, tmp_path)
        assert any("cluster" in note for note in captured.notes)
        assert captured.facts["keys"] == 500
        proven(captured, repository, tmp_path)


def test_hold_again_gives_the_newer_cut(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        one: RedisSession = session(config(server.url), repository, tmp_path)
        with server.client() as client:
            client.set("a", 1)
            one.prepare()
            first = one.hold(5)
            one.release()
            one.release()
            client.set("b", 1)
            second = one.hold(5)
            one.release()
        captured = one.capture()
        one.close()
        one.close()
        assert second.fixed_ns > first.fixed_ns
        assert captured.facts["keys"] == 2


def test_writers_are_held_and_readers_are_not(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        with server.client() as client:
            client.set("a", 1)
            one = session(config(server.url), repository, tmp_path)
            one.prepare()
            one.hold(5)
            assert client.get("a") == b"1"
            impatient = Connection(Address.of(config(server.url)), timeout=0.2)
            with impatient, pytest.raises(ServerSilentError):
                impatient.call("SET", "a", 2)
            one.release()
            client.set("a", 3)
            one.close()


@every_version
def test_nobody_takes_us_for_a_replica_that_has_the_data(version: str, tmp_path: Path) -> None:
    with MemoryRepository() as repository, running(version, tmp_path / "live") as server:
        with server.client() as client:
            client.set("a", 1)
            one = session(config(server.url), repository, tmp_path)
            one.prepare()
            client.set("a", 2)
            assert client.execute_command("WAIT", 1, 1200) == 0  # longer than we acknowledge
            one.close()


def test_a_hold_that_outlived_its_pause_is_no_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetake.sources.redis.session.PAUSE_SECONDS", 0.05)
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "live") as server:
        server.client().set("a", 1)
        with pytest.raises(SafetakeError, match="no cut"):
            capture(config(server.url), repository, tmp_path, held=lambda: time.sleep(0.1))
