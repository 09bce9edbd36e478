"""Restores of a whole live server: exact, durable, and in one of two states after every kill."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from safetake.errors import RefusedError, RestoreError
from safetake.model import CaptureContext
from safetake.sources.redis import RedisSource, exchange
from safetake.sources.redis.keys import Keys
from safetake.sources.redis.settings import Login, Settings
from safetake.sources.redis.undofile import UndoFile, take_back
from safetake.sources.redis.wire import Address, Connection
from tests.support import redis_restoring, redis_source
from tests.support.memory_writer import MemoryRepository
from tests.support.redis_restoring import good, make_plan, open_plan, switch, switch_back
from tests.support.redis_server import VERSIONS, TestServer, running

ONE = "redis-7.0" if "redis-7.0" in VERSIONS else VERSIONS[0]


def fill(server: TestServer) -> None:
    """Some of every kind, in three databases."""
    client = server.client()
    pipe = client.pipeline()
    for i in range(300):
        pipe.set(f"key:{i}", i)
    pipe.set("later", 1, ex=5000)
    pipe.set("big", b"x" * 300_000)
    pipe.hset("hash", mapping={f"field{i}": i for i in range(1000)})
    pipe.hset("small", mapping={"a": 1})
    pipe.sadd("numbers", *range(900))
    pipe.sadd("words", *[f"word{i}" for i in range(700)])
    pipe.zadd("scores", {f"m{i}": i / 7 for i in range(300)})
    pipe.rpush("list", *range(500), "x" * 5000)
    pipe.execute()
    client.xadd("stream", {"a": 1})
    client.xgroup_create("stream", "group", 0)
    client.xreadgroup("group", "consumer", {"stream": ">"})
    server.client(3).set("three", "x")
    server.client(9).set("nine", "x", ex=5000)
    if server.version != "redis-6.2":
        client.function_load(
            "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
        )


def spoil(server: TestServer) -> None:
    """What happened since: lost, changed, new."""
    client = server.client()
    client.delete("hash", "stream", "key:7", "list")
    client.set("key:1", "changed")
    client.set("new", 1)
    server.client(2).set("two", "x")
    if server.version != "redis-6.2":
        client.function_flush()


class Story:
    """A server that was captured, and then went on."""

    def __init__(self, server: TestServer, repository: MemoryRepository, folder: Path) -> None:
        self.server, self.repository, self.folder = server, repository, folder
        fill(server)
        self.new = redis_source.debug_digest(server)
        self.captured = redis_source.capture(redis_source.config(server.url), repository, folder)
        spoil(server)
        self.old = redis_source.debug_digest(server)

    def plan(self, mode: str = "online", **config: Any) -> Path:
        return make_plan(self.captured, self.repository, self.folder, self.server, mode, **config)

    def digest(self) -> str:
        return redis_source.debug_digest(self.server)

    def outline(self, plan: Path, mode: str = "") -> Any:
        restorer, work = open_plan(plan)
        return restorer.outline(work.entry, mode, {}, self.repository, self.captured.node)


@contextlib.contextmanager
def story(
    version: str, folder: Path, *options: str, password: str | None = None
) -> Iterator[Story]:
    options = (*redis_source.debug_options(version), *options)
    with MemoryRepository() as repository:
        with running(version, folder / "live", *options, password=password) as server:
            yield Story(server, repository, folder)


@pytest.mark.parametrize("version", VERSIONS)
def test_exact_and_back(version: str, tmp_path: Path) -> None:
    with story(version, tmp_path) as one:
        plan = one.plan()
        outline = one.outline(plan)
        assert outline.mode == "online"
        loss = {found.what: found for found in outline.losses}
        first = loss["keys of database 0"]
        assert (first.newer, first.missing, first.changed) == (1, 4, 1)
        assert first.examples == ["new"]
        assert loss["keys of database 2"].newer == 1
        restorer, work = open_plan(plan)
        good(restorer.check_staged(work))
        before = one.server.client().config_get("*")
        switch(plan)
        assert one.digest() == one.new
        if version != "redis-6.2":
            assert one.server.client().function_list()
        switch(plan)  # once more changes nothing
        assert one.digest() == one.new
        switch_back(plan)
        assert one.digest() == one.old
        assert one.server.client().config_get("*") == before
        one.server.client().set("still", "writable")


def test_killed_anywhere_ends_in_one_of_two_states(tmp_path: Path) -> None:
    kill_everywhere(ONE, tmp_path, range(3, 1000, 37))


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_killed_everywhere_ends_in_one_of_two_states(version: str, tmp_path: Path) -> None:
    kill_everywhere(version, tmp_path, range(1, 1000))


def kill_everywhere(version: str, folder: Path, numbers: range) -> None:
    kills = 0
    with story(version, folder) as one:
        one.server.client().config_set("repl-diskless-sync-delay", 1)
        settings = one.server.client().config_get("*")
        first = one.plan()
        for number in numbers:
            plan = redis_restoring.again(first)
            if not redis_restoring.killed_at(plan, number):
                break
            kills += 1
            (switch if number % 4 < 2 else switch_back)(plan)
            assert one.digest() == (one.new if number % 4 < 2 else one.old), number
            one.server.client().set("written", number)  # a master that may be written again
            one.server.client().delete("written")
            switch_back(plan)
            assert one.digest() == one.old, number
            assert one.server.client().config_get("*") == settings, number
        one.server.client().flushall()
    print(f"{version}: {kills} kills")
    assert kills


def test_the_room_that_is_needed_is_not_the_data_s_alone(tmp_path: Path) -> None:
    with story(ONE, tmp_path) as one:
        one.server.client().config_set("maxmemory-policy", "allkeys-lru")
        restorer, work = open_plan(one.plan())
        (room,) = [check for check in restorer.check_staged(work) if "maxmemory" in check.name]
        info = one.server.client().info()
        assert room.found > info["used_memory_startup"] + info["repl_backlog_size"]
        limit = room.found - info["repl_backlog_size"] // 2  # enough for the data alone
        one.server.client().config_set("maxmemory", limit)
        assert not all(check.ok for check in restorer.check_staged(work))


@pytest.mark.parametrize("version", VERSIONS)
def test_durable_under_an_append_only_file(version: str, tmp_path: Path) -> None:
    with story(version, tmp_path, "--appendonly", "yes") as one:
        plan = one.plan()
        switch(plan)
        assert open_plan(plan)[1].notes["kept"] == "append-only file"
        one.server.kill()
        again = ["--appendonly", "yes"]
        assert redis_source.digest_after_restore(version, one.server.folder, *again) == one.new


def test_durable_with_save_points(tmp_path: Path) -> None:
    with story(ONE, tmp_path) as one:
        one.server.client().config_set("save", "3600 1")
        plan = one.plan()
        switch(plan)
        assert open_plan(plan)[1].notes["kept"] == "dump file"
        one.server.kill()
        assert redis_source.digest_after_restore(ONE, one.server.folder) == one.new


def test_no_write_falls_between_the_safety_snapshot_and_the_switch(tmp_path: Path) -> None:
    with story(ONE, tmp_path) as one:
        restorer, work = open_plan(one.plan())
        stop, count, refused = threading.Event(), [0], [0]

        def write() -> None:
            client = one.server.client()
            while not stop.is_set():
                try:
                    client.incr("counter")
                    count[0] += 1
                except redis.exceptions.ReadOnlyError:
                    refused[0] += 1

        thread = threading.Thread(target=write)
        thread.start()
        scratch = tmp_path / "safety"
        scratch.mkdir()
        source = RedisSource("queue", redis_source.config(one.server.url))
        session = source.session(CaptureContext(one.repository, None, scratch))
        try:
            session.prepare()
            session.hold(10.0)
            session.release()
            assert restorer.take_over(work, session)
            written = count[0]
            captured = session.capture()
            assert count[0] <= written + 1  # one answer may have been on its way
            counter = int(one.server.client().get("counter") or 0)
            restorer.switch(work)
        finally:
            stop.set()
            restorer.let_go(work)
            thread.join()
            session.close()
        good(restorer.confirm(work))
        target = redis_source.restore(captured.node, one.repository, tmp_path / "saved")
        with running(ONE, target) as saved:
            assert int(saved.client().get("counter") or 0) == counter
        restorer.finish(work, committed=True)


def test_writes_after_the_cut_are_found_out_although_writers_were_held(tmp_path: Path) -> None:
    with story(ONE, tmp_path) as one:
        restorer, work = open_plan(one.plan())
        scratch = tmp_path / "safety"
        scratch.mkdir()
        source = RedisSource("queue", redis_source.config(one.server.url))
        session = source.session(CaptureContext(one.repository, None, scratch))
        try:
            session.prepare()
            session.hold(10.0)
            session.release()
            assert restorer.take_over(work, session)
            one.server.client().client_unpause()  # another backup ends its own pause, and ours
            one.server.client().set("late", 1)
            session.capture()
            with pytest.raises(RestoreError, match="after the safety snapshot"):
                restorer.switch(work)
        finally:
            session.close()
        assert not restorer.touched(work)
        restorer.finish(work, committed=False)
        assert one.server.client().get("late") == b"1"


def test_a_server_that_cannot_reach_us_keeps_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LINK_SECONDS", 1.0)
    monkeypatch.setattr(Settings, "login", lambda self: Login("", "right", ours=True))
    monkeypatch.setattr(Settings, "apply", lambda self, login, same_host: None)
    with story(ONE, tmp_path) as one:
        plan = one.plan()
        with pytest.raises(RestoreError, match="cannot reach this machine"):
            switch(plan)
        restorer, work = open_plan(plan)
        assert work.notes["attempts"]
        assert not restorer.touched(work)
        one.server.client().set("written", "since")
        one.server.client().delete("written")
        switch_back(plan)
        assert one.digest() == one.old


def test_the_servers_own_password_for_masters_is_used_and_kept(tmp_path: Path) -> None:
    options = ["--masterauth", 'a word " \\ 말', "--masteruser", "someone"]
    with story(ONE, tmp_path, *options, "--replica-read-only", "no") as one:
        plan = one.plan()
        switch(plan)
        assert one.digest() == one.new
        found = one.server.client().config_get("master*")
        assert found["masterauth"] == options[1]
        assert "a word" not in plan.read_text()
        assert one.server.client().config_get("replica-read-only")["replica-read-only"] == "no"


def test_keys_that_expired_since_are_not_brought_back(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running(ONE, tmp_path / "live") as server:
        client = server.client()
        client.set("short", 1, px=1500)
        client.set("long", 1, px=500_000)
        when = client.pexpiretime("long")
        captured = redis_source.capture(redis_source.config(server.url), repository, tmp_path)
        client.flushall()
        client.set("short", "again")
        plan = make_plan(captured, repository, tmp_path, server)
        threading.Event().wait(1.6)
        switch(plan)
        assert client.keys() == [b"long"]
        assert client.pexpiretime("long") == when


@pytest.mark.parametrize("version", [v for v in ("redis-8.2", "valkey-9") if v in VERSIONS])
def test_fields_that_expired_since_are_not_brought_back(version: str, tmp_path: Path) -> None:
    with MemoryRepository() as repository, running(version, tmp_path / "live") as server:
        client: Any = server.client()
        for name, gone, left in (
            ("all", 3, 0),
            ("large", 600, 0),
            ("part", 3, 1),
            ("more", 600, 1),
        ):
            client.hset(name, mapping={f"f{i}": i for i in range(gone + left)})
            fields = [f"f{i}" for i in range(gone)]
            client.execute_command("HPEXPIRE", name, 4000, "FIELDS", gone, *fields)
        over = time.time() + 4  # long after the capture
        client.set("key", 1)
        captured = redis_source.capture(redis_source.config(server.url), repository, tmp_path)
        assert captured.facts["keys"] == 5
        redis_source.wait_past(over)
        client.flushall()
        client.set("new", 1)
        plan = make_plan(captured, repository, tmp_path, server)
        restorer, work = open_plan(plan)
        loss = restorer.outline(work.entry, "", {}, repository, captured.node).losses[0]
        assert (loss.newer, loss.missing) == (1, 3)
        switch(plan)
        assert sorted(client.keys()) == [b"key", b"more", b"part"]
        assert client.hgetall("part") == {b"f3": b"3"}
        assert client.hgetall("more") == {b"f600": b"600"}
        switch_back(plan)
        assert client.keys() == [b"new"]


@pytest.mark.parametrize(
    ("trap", "said"),
    [
        (["REPLICAOF", "127.0.0.1", "1"], "is a replica"),
        (["CONFIG", "SET", "maxmemory", "1000"], "maxmemory"),
        (["CLIENT", "SETNAME", "sentinel-0123-cmd"], "Sentinel"),
    ],
)
def test_traps_are_refused(trap: list[str], said: str, tmp_path: Path) -> None:
    with story(ONE, tmp_path) as one:
        held = one.server.client(single_connection_client=True)
        call: Any = held.execute_command
        call(*trap)
        with pytest.raises(RefusedError, match=said):
            one.outline(one.plan())
        assert one.digest() == one.old
        held.close()


def test_versions_databases_and_rights_are_refused(tmp_path: Path) -> None:
    with story(ONE, tmp_path, "--databases", "12") as one:
        plan = one.plan()
        restorer, work = open_plan(plan)
        facts = dict(work.entry["facts"])
        for wrong, said in (
            ({"version": "99.0.0"}, "older server does not"),
            ({"family": "valkey", "version": "9.1.0", "magic": "VALKEY"}, "each other's"),
            ({"databases": {"12": {"keys": 1, "expires": 0}}}, "12 databases only"),
            ({"types": {"module": 1}}, "keys of a module"),
        ):
            entry = {**work.entry, "facts": {**facts, **wrong}}
            with pytest.raises(RefusedError, match=said):
                restorer.outline(entry, "", {}, one.repository, one.captured.node)
        client: Any = one.server.client()
        client.execute_command(
            "ACL", "SETUSER", "weak", "on", "nopass", "+@all", "-replicaof", "~*", "&*"
        )
        with pytest.raises(RefusedError) as caught:
            one.outline(one.plan(username="weak", password_env="HOME"))
        assert "+replicaof" in caught.value.hint
        client.execute_command("ACL", "SETUSER", "weak", "-@all", "+info", "+psync", "+replconf")
        with pytest.raises(RefusedError) as caught:
            one.outline(one.plan(username="weak", password_env="HOME"))
        assert "+replicaof" in caught.value.hint
    with pytest.raises(RefusedError, match="connect"):
        one.outline(plan)


def test_a_cluster_node_is_refused(tmp_path: Path) -> None:
    with MemoryRepository() as repository, running(ONE, tmp_path / "one") as plain:
        plain.client().set("a", 1)
        captured = redis_source.capture(redis_source.config(plain.url), repository, tmp_path)
        with running(ONE, tmp_path / "live", "--cluster-enabled", "yes") as server:
            restorer, work = open_plan(make_plan(captured, repository, tmp_path, server))
            with pytest.raises(RefusedError, match="cluster"):
                restorer.outline(work.entry, "", {}, repository, captured.node)


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("version", ["redis-6.2", ONE])
def test_a_snapshot_in_append_only_form(version: str, mode: str, tmp_path: Path) -> None:
    options = [*redis_source.debug_options(version), "--appendonly", "yes"]
    with MemoryRepository() as repository, running(version, tmp_path / "live", *options) as server:
        fill(server)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("safetake.sources.redis.cutfile.fitting", lambda *_: [])
            captured = redis_source.capture(
                redis_source.config(server.url),
                repository,
                tmp_path,
                prepared=lambda: server.client().set("in the tail", 1),
            )
        assert captured.facts["form"] == "aof"
        exact = redis_source.debug_digest(server)
        spoil(server)
        plan = make_plan(captured, repository, tmp_path, server, mode)
        restorer, work = open_plan(plan)
        good(restorer.check_staged(work))
        outline = restorer.outline(work.entry, mode, {}, repository, captured.node)
        assert outline.losses[0].unknown
        if mode == "offline":
            server.client().shutdown(nosave=True)
            server.process.wait()
        switch(plan)
        if mode == "online":
            assert redis_source.debug_digest(server) == exact
            server.kill()
        found = redis_source.digest_after_restore(version, server.folder, "--appendonly", "yes")
        assert found == exact


@pytest.mark.parametrize("version", [v for v in VERSIONS if v != "redis-6.2"])
def test_the_documented_rights_are_enough(version: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "restore-redis.md").read_text()
    whole, keys = (
        [word for line in lines for word in line.split() if word[0] in "+~"]
        for lines in (
            re.findall(r"^- a user that may: `(.*?)`.*?`(.*?)`", page, re.M | re.S)[0],
            re.findall(r"^The user needs `(.*?)` and the keys \(`(.*?)`", page, re.M)[0],
        )
    )
    with story(version, tmp_path) as one:
        client: Any = one.server.client()
        client.execute_command("ACL", "SETUSER", "who", "on", "nopass", "-@all", *whole)
        plan = one.plan(username="who", password_env="HOME")
        assert not one.outline(plan).losses[0].unknown
        switch(plan)
        assert one.digest() == one.new
        switch_back(plan)
        client.execute_command("ACL", "SETUSER", "few", "on", "nopass", "-@all", *keys)
        settings = redis_source.config(one.server.url, username="few", password_env="HOME")
        dump = plan.parent / "new" / "queue" / "dump.rdb"
        with Connection(Address.of(settings)) as connection:
            with UndoFile(tmp_path / "undo", {"source": "queue"}) as undo:
                found = Keys(
                    dump, connection, [], None, changed=True, progress=lambda *_: None
                ).run(undo)
            assert (found.missing, found.changed, found.complete) == (4, 1, True)
            assert take_back(tmp_path / "undo", connection).removed == 4
        assert one.digest() == one.old
