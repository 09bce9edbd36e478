"""Keys out of a snapshot into a live server: what comes back, what never goes, and the way back."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.errors import ConfigError, RestoreError
from safetake.sources.redis import keys as keys_module
from safetake.sources.redis.keys import Keys, KeysReport
from safetake.sources.redis.live import LiveKey, read_keys
from safetake.sources.redis.pattern import compile_pattern
from safetake.sources.redis.rdb import RdbFile
from safetake.sources.redis.server import Server
from safetake.sources.redis.undofile import UndoFile, take_back
from safetake.sources.redis.values import all_expired, content_digest, memory_of
from safetake.sources.redis.wire import Address, Connection
from tests.sources.redis.test_restore_online import fill, spoil
from tests.support import redis_source
from tests.support.memory_writer import MemoryRepository
from tests.support.redis_server import VERSIONS, TestServer, running

ONE = "redis-7.0" if "redis-7.0" in VERSIONS else VERSIONS[0]
BEGIN = {"source": "queue"}


class Case:
    """A live server, and a dump of what it held."""

    def __init__(self, server: TestServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.client: Any = server.client()
        self.number = 0

    def capture(self) -> None:
        with MemoryRepository() as repository:
            settings = redis_source.config(self.server.url)
            captured = redis_source.capture(settings, repository, self.folder)
            self.staged = redis_source.restore(captured.node, repository, self.folder / "staged")

    def connect(self) -> Connection:
        return Connection(Address.of(redis_source.config(self.server.url)))

    def run(
        self, *patterns: str, db: int | None = None, changed: bool = False, dry_run: bool = False
    ) -> KeysReport:
        with self.connect() as connection:
            found = Keys(
                self.staged / "dump.rdb",
                connection,
                patterns,
                db,
                changed=changed,
                progress=lambda *_: None,
            )
            if dry_run:
                return found.run(None)
            self.number += 1
            self.undo = self.folder / f"{self.number}.undo"
            with UndoFile(self.undo, BEGIN) as undo:
                return found.run(undo)

    def take_back(self) -> Any:
        with self.connect() as connection:
            return take_back(self.undo, connection)

    def digest(self) -> str:
        return redis_source.debug_digest(self.server)


@pytest.fixture(params=VERSIONS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    version = request.param
    options = redis_source.debug_options(version)
    with running(version, tmp_path / "live", *options) as server:
        yield Case(server, tmp_path)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Case]:
    with running(ONE, tmp_path / "live", *redis_source.debug_options(ONE)) as server:
        yield Case(server, tmp_path)


def test_the_missing_come_back_and_with_changed_all_is_exact(case: Case) -> None:
    fill(case.server)
    exact = case.digest()
    case.capture()
    spoil(case.server)
    spoilt = case.digest()
    looked = case.run(changed=True, dry_run=True)
    assert (looked.missing, looked.changed) == (4, 1)
    assert case.digest() == spoilt
    report = case.run()
    assert (report.missing, report.changed, report.complete) == (4, 1, True)
    assert case.client.get("key:1") == b"changed"
    assert case.client.get("new") == b"1"
    assert case.client.xinfo_groups("stream")[0]["pending"] == 1
    assert case.take_back().removed == 4
    assert case.digest() == spoilt
    report = case.run(changed=True)
    assert (report.missing, report.changed, report.complete) == (4, 1, True)
    again = case.run(changed=True)
    assert (again.missing, again.changed) == (0, 0)
    case.client.delete("new")
    case.server.client(2).flushdb()
    assert case.digest() == exact


def test_patterns_and_databases(one: Case) -> None:
    one.client.mset({"a:1": 1, "a:2": 2, "b:1": 3})
    one.server.client(4).mset({"a:1": 4})
    one.capture()
    one.client.flushall()
    one.run("a:*", db=0)
    assert sorted(one.client.keys()) == [b"a:1", b"a:2"]
    assert not one.server.client(4).keys()
    one.run("b:[12]", "a:?")
    assert len(one.client.keys()) == 3
    assert one.server.client(4).get("a:1") == b"4"


def test_a_database_that_the_live_server_does_not_have_is_named(one: Case, tmp_path: Path) -> None:
    one.client.set("a", 1)
    one.server.client(12).set("b", 1)
    one.capture()
    with running(ONE, tmp_path / "small", "--databases", "4") as small:
        one.server = small
        with pytest.raises(RestoreError, match="database 12") as error:
            one.run()
        assert "databases 13" in error.value.hint
        assert small.client().get("a") == b"1"


def test_a_past_expiry_never_deletes_a_live_key(one: Case) -> None:
    over = time.time() + 4  # long after the capture
    one.client.set("key", "old", px=4000)
    one.client.set("soon", "old", px=8000)
    one.capture()
    one.client.set("key", "live")
    one.client.set("soon", "live")
    payload, when = one.client.dump("key"), int(time.time() * 1000)
    redis_source.wait_past(over)
    report = one.run(changed=True)
    assert (report.expired, report.changed) == (2, 0)
    assert one.client.mget("key", "soon") == [b"live", b"live"]
    # the naive way: OK, and the live key is gone
    assert one.client.restore("key", when, payload, replace=True, absttl=True) == b"OK"
    assert one.client.get("key") is None


def test_a_clock_that_runs_past_in_between_costs_no_live_key(
    one: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.client.set("key", "old", px=700)
    one.capture()
    one.client.set("key", "live", px=500_000)
    monkeypatch.setattr(keys_module, "MARGIN_MS", 0)
    restore = Keys._restore

    def late(self: Keys, *arguments: Any) -> Any:
        time.sleep(1)
        return restore(self, *arguments)

    monkeypatch.setattr(Keys, "_restore", late)
    one.run(changed=True)
    assert one.client.get("key") == b"live"
    assert one.client.pttl("key") > 400_000


@pytest.mark.parametrize("version", [v for v in ("redis-8.2", "valkey-9") if v in VERSIONS])
def test_fields_of_a_hash_that_expired_since(version: str, tmp_path: Path) -> None:
    with running(version, tmp_path / "live") as server:
        case = Case(server, tmp_path)
        client = case.client
        for name in ("all", "all gone", "part", "part gone"):
            client.hset(name, mapping={"f": "1"} if "all" in name else {"f": "1", "g": "2"})
            client.execute_command("HPEXPIRE", name, 4000, "FIELDS", 1, "f")
        over = time.time() + 4  # long after the capture
        client.hset("later", mapping={"f": "1", "g": "2"})
        client.execute_command("HEXPIRE", "later", 1000, "FIELDS", 1, "f")
        case.capture()
        redis_source.wait_past(over)
        client.delete("all", "part", "part gone")
        for name in ("all", "part"):
            client.hset(name, "live", "precious")
        looked = case.run(dry_run=True)
        assert (looked.missing, looked.changed, looked.same, looked.expired) == (1, 1, 1, 2)
        report = case.run(changed=True)
        assert (report.missing, report.changed, report.expired) == (1, 1, 2)
        assert report.complete
        assert client.hgetall("all") == {b"live": b"precious"}
        assert not client.exists("all gone")
        assert client.hgetall("part") == client.hgetall("part gone") == {b"g": b"2"}
        client.execute_command("HPERSIST", "later", "FIELDS", 1, "f")
        assert case.run(dry_run=True).changed == 1
        assert case.run(changed=True).changed == 1
        assert client.execute_command("HTTL", "later", "FIELDS", 1, "f")[0] > 900


def test_a_stream_that_changed_is_told_from_one_in_an_older_form(tmp_path: Path) -> None:
    with running("redis-6.2", tmp_path / "old") as old, running(ONE, tmp_path / "live") as new:
        case = Case(old, tmp_path)
        for name in ("same", "added", "acknowledged"):
            case.client.xadd(name, {"a": 1})
            case.client.xadd(name, {"a": 2})
            case.client.xgroup_create(name, "group", 0)
            case.client.xreadgroup("group", "consumer", {name: ">"}, count=1)
        case.capture()
        case.server = new
        assert case.run().missing == 3
        client: Any = new.client()
        client.xadd("added", {"a": 3})
        client.xack("acknowledged", "group", client.xrange("acknowledged")[0][0])
        looked = case.run(dry_run=True)
        assert (looked.same, looked.changed) == (1, 2)
        report = case.run(changed=True)
        assert (report.changed, report.complete) == (2, True)
        assert client.xlen("added") == 2
        assert client.xpending("acknowledged", "group")["pending"] == 1


def test_no_other_key_is_evicted_to_make_room(one: Case) -> None:
    one.client.mset({f"old:{n}": "x" * 5000 for n in range(500)})
    one.capture()
    one.client.flushall()
    one.client.mset({f"new:{n}": "x" * 5000 for n in range(500)})
    used = int(one.client.info("memory")["used_memory"])
    one.client.config_set("maxmemory", used + (1 << 20))
    one.client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(RestoreError, match="evict") as error:
        one.run()
    assert "maxmemory" in error.value.hint
    assert len(one.client.keys("new:*")) == 500
    one.client.config_set("maxmemory", 2 * used + (8 << 20))
    report = one.run()
    assert (report.missing, report.evicted, report.complete) == (500, 0, True)
    assert len(one.client.keys()) == 1000


def test_a_value_that_is_longer_than_the_server_takes_is_named(tmp_path: Path) -> None:
    with running(ONE, tmp_path / "live", "--proto-max-bulk-len", "1mb") as server:
        case = Case(server, tmp_path)
        case.client.rpush("long", *[os.urandom(1000) for _ in range(2000)])
        case.client.mset({"a": 1, "z": 2})
        case.capture()
        case.client.flushall()
        report = case.run()
        assert (report.missing, report.complete) == (2, False)
        assert re.match(r"long: its 2\d+ bytes are more than the server takes", report.refused[0])
        assert sorted(case.client.keys()) == [b"a", b"z"]


def test_a_key_that_is_written_meanwhile_is_looked_at_again(
    one: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.client.set("key", "old")
    one.capture()
    one.client.set("key", "live")
    keep = UndoFile.keep
    writes = iter(range(3))

    def and_write(self: UndoFile, *arguments: Any) -> None:
        keep(self, *arguments)
        if (number := next(writes, None)) is not None:
            one.client.set("key", f"live {number}")

    monkeypatch.setattr(UndoFile, "keep", and_write)
    assert one.run(changed=True).complete
    assert one.client.get("key") == b"old"
    one.take_back()
    assert one.client.get("key") == b"live 2"
    monkeypatch.setattr(
        UndoFile, "keep", lambda self, *a: (keep(self, *a), one.client.append("key", "x"))
    )
    report = one.run(changed=True)
    assert report.busy == ["key"]
    assert (one.client.get("key") or b"").startswith(b"live 2xxx")


def test_what_was_written_since_stays_when_it_is_taken_back(one: Case) -> None:
    one.client.mset({"a": 1, "b": 2, "c": 3})
    one.client.set("session", "x", ex=1000)
    one.capture()
    one.client.delete("a", "b", "session")
    one.client.set("c", "changed", px=300_000)
    when = one.client.pexpiretime("c")
    one.run(changed=True)
    one.client.set("b", "since")
    one.client.expire("session", 2000)  # it is used again
    found = one.take_back()
    assert found.kept == ["b", "session"]
    assert one.client.mget("a", "b", "c") == [None, b"since", b"changed"]
    assert one.client.pexpiretime("c") == when
    assert one.client.ttl("session") > 1500
    found = one.take_back()
    assert (found.kept, found.already) == (["b", "session"], 2)
    with pytest.raises(RestoreError, match="no undo file"):
        take_back(one.staged / "dump.rdb", one.connect())


SCRIPT = """
import os, signal, sys
from pathlib import Path
from safetake.config import RedisConfig
from safetake.sources.redis.keys import Keys
from safetake.sources.redis.undofile import UndoFile
from safetake.sources.redis.wire import Address, Connection
url, dump, undo, number = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
send, count = Connection.send, [0]
def counted(self, data):
    count[0] += 1
    if count[0] * 2 - 1 == number:
        os.kill(os.getpid(), signal.SIGKILL)
    send(self, data)
    if count[0] * 2 == number:
        os.kill(os.getpid(), signal.SIGKILL)
Connection.send = counted
connection = Connection(Address.of(RedisConfig.model_validate({"type": "redis", "url": url})))
with UndoFile(undo, {"source": "queue"}) as file:
    Keys(dump, connection, [], None, changed=True, progress=lambda *_: None).run(file)
"""


def test_killed_anywhere_it_can_go_on_or_be_taken_back(one: Case) -> None:
    fill(one.server)
    one.capture()
    one.client.delete("new")
    spoil(one.server)
    spoilt = one.digest()
    kills = 0
    for number in range(1, 200, 5):
        undo = one.folder / f"killed{number}.undo"
        child = subprocess.run(
            [
                *(sys.executable, "-c", SCRIPT, one.server.url),
                *(str(one.staged / "dump.rdb"), str(undo), str(number)),
            ],
            env={**os.environ, "PYTHONPATH": "src"},
        )
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        kills += 1
        if number % 2:
            one.run(changed=True)
            assert one.run(changed=True, dry_run=True).missing == 0
            if one.undo.exists():
                one.take_back()
        one.undo = undo
        if undo.exists():
            one.take_back()
        assert one.digest() == spoilt, number
    print(f"{kills} kills")
    assert kills > 3


# -- values and patterns ----------------------------------------------------------------------


def test_content_is_the_same_in_every_encoding(case: Case) -> None:
    """Each value twice: in a server's small form, and grown beyond it and shrunk again."""
    client = case.client
    words = [
        b"a",
        b"12",
        b"-5",
        b"x" * 300,
        b"70000",
        b"-3000000000",
        b"",
        b"x" * 70,
        b"128",
        b"5000",
    ]
    client.rpush("list", *words)
    client.sadd("set", *words)
    client.sadd("ints", 1, -70000, 1 << 40)
    client.hset("hash", mapping={word: word for word in words})
    client.zadd("zset", dict(zip(words, (1, -2.5, 3e300, 0, 7), strict=False)))
    client.set("text", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
    client.set("number", 123456)
    names = [name.decode() for name in client.scan_iter()]
    before = _digests(case, names)
    for name in ("set", "ints"):
        more = [f"more{i}" for i in range(2000)]
        client.sadd(name, *more)
        client.srem(name, *more)
    client.hset("hash", mapping={f"more{i}": i for i in range(2000)})
    client.hdel("hash", *[f"more{i}" for i in range(2000)])
    client.zadd("zset", {f"more{i}": i for i in range(2000)})
    client.zrem("zset", *[f"more{i}" for i in range(2000)])
    after = _digests(case, names)
    assert {name: found[1] for name, found in before.items()} == {
        name: found[1] for name, found in after.items()
    }
    assert None not in [found[1] for found in before.values()]
    assert len({found[1] for found in before.values()}) == len(names)
    assert before["ints"][0] != after["ints"][0]  # another encoding indeed
    client.sadd("set", "one more")
    client.zadd("zset", {"a": 9})
    assert all(_digests(case, [n])[n][1] != before[n][1] for n in ("set", "zset"))


def _digests(case: Case, names: list[str]) -> dict[str, tuple[int, bytes | None]]:
    with case.connect() as connection:
        server = Server.ask(connection)
        found: list[LiveKey] = list(read_keys(connection, server, [n.encode() for n in names]))
    return {live.key.decode(): (live.type, content_digest(live.type, live.body)) for live in found}


@given(st.sampled_from(range(27)), st.binary(max_size=60), st.sampled_from(("REDIS", "VALKEY")))
def test_any_value_has_a_digest_or_none(kind: int, body: bytes, magic: str) -> None:
    assert len(content_digest(kind, body, magic, 10**12) or bytes(16)) == 16
    assert all_expired(kind, body, magic, 10**12) in (True, False)
    assert memory_of(bytes((kind,)) + body + bytes(10)) >= 0


@given(st.text("ab*?[]-c", max_size=8), st.text("abc-", max_size=6))
def test_patterns_are_as_globs(pattern: str, text: str) -> None:
    if "[" in pattern or "]" in pattern:
        compile_pattern(pattern.encode())
        return
    ours = compile_pattern(pattern.encode()).fullmatch(text.encode()) is not None
    assert ours == fnmatch.fnmatchcase(text, pattern)


def test_patterns_are_as_the_servers(one: Case) -> None:
    names = ["a", "b", "ab", "a-", "]", "a]", "^", "*", "a*b", "a\nb", "[", "\\"]
    one.client.mset(dict.fromkeys(names, 1))
    for pattern in [
        "*",
        "a?",
        "[ab]",
        "[^a]",
        "[b-a]",
        "a\\*b",
        "[\\]]",
        "[a",
        "[",
        "\\",
        "a*b",
        "[]",
        "[^]",
    ]:
        theirs = {name.decode() for name in one.client.keys(pattern)}
        ours = {n for n in names if compile_pattern(pattern.encode()).fullmatch(n.encode())}
        assert ours == theirs, pattern


def test_a_password_file_that_is_no_text_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"gehe\xffim")
    found = redis_source.config("redis://127.0.0.1:1", password_file=tmp_path / "password")
    with pytest.raises(ConfigError, match="UTF-8") as error:
        Address.of(found)
    assert "gehe" not in str(error.value) + error.value.hint


def test_the_undo_file_is_private_and_whole(one: Case) -> None:
    one.client.set("a", "old")
    one.capture()
    one.client.set("a", "new")
    one.run(changed=True)
    assert one.undo.stat().st_mode & 0o777 == 0o600
    begin, first, *_ = [json.loads(line) for line in one.undo.read_bytes().splitlines()]
    assert begin["source"] == "queue"
    assert first["db"] == 0
    with one.undo.open("ab") as file:
        file.write(b'{"db": 0, "ke')  # torn: it was not acted upon
    assert one.take_back().put_back == 1
    assert one.client.get("a") == b"new"
    with RdbFile(one.staged / "dump.rdb") as dump:
        assert len(list(dump.records())) == 1
