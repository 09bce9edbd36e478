"""What goes wrong with a Redis, done to real servers: named; and a sound one is left in peace."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.config import RedisConfig
from safetake.findings import Asked
from safetake.sources.redis import soundness
from tests.integrity.support import ask, by_check, wrong
from tests.support.redis_server import BINARIES, VERSIONS, TestServer, running

VERSION = "redis-7.0" if BINARIES["redis-7.0"] else VERSIONS[0]
SAVES = ("--save", "3600 1 300 100")


def config(server: TestServer | str, **more: Any) -> RedisConfig:
    url = server if isinstance(server, str) else server.url
    return RedisConfig.model_validate({"type": "redis", "url": url, **more})


def asked(server: TestServer, tmp_path: Path, **more: Any) -> Asked:
    return ask(config(server, **more), tmp_path / "scratch")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TestServer]:
    with running(VERSION, tmp_path / "redis", *SAVES) as found:
        with found.client() as client:
            client.mset({f"job:{n}": "x" * 100 for n in range(50)})
            client.set("short", "lived", ex=1000)
        yield found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_sound_server_answers_well(version: str, tmp_path: Path) -> None:
    with running(version, tmp_path / "redis", *SAVES, "--appendonly", "yes") as server:
        with server.client() as client:
            client.set("a", 1)
            client.bgrewriteaof()
        found = asked(server, tmp_path)
        assert wrong(found) == {}
        assert found.facts["keys"] == 1
        assert found.facts["latency_ms"] > 0
        assert {"last save succeeded", "append-only file is written", "memory is left"} <= set(
            by_check(found)
        )
        assert all(finding.asked for finding in found.findings)


def test_a_save_that_fails_is_named(server: TestServer, tmp_path: Path) -> None:
    with server.client() as client:
        (server.folder / "dump.rdb").mkdir()  # nothing can be renamed onto it
        client.bgsave()
        while client.info("persistence")["rdb_bgsave_in_progress"]:
            time.sleep(0.01)
    found = wrong(asked(server, tmp_path))
    assert list(found) == ["last save succeeded"]
    assert "refuses every write" in found["last save succeeded"].detail
    with server.client() as client:
        client.config_set("stop-writes-on-bgsave-error", "no")
    assert "refuses" not in wrong(asked(server, tmp_path))["last save succeeded"].detail


@pytest.mark.skipif(BINARIES["redis-7.0"] is None, reason="the folder's names are those of 7")
def test_an_append_only_file_that_is_not_rewritten_is_named(
    server: TestServer, tmp_path: Path
) -> None:
    def rewritten() -> None:
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.01)

    with server.client() as client:
        client.config_set("appendonly", "yes")
        rewritten()
        for number in range(2, 5):  # nothing can be renamed onto a folder
            (server.folder / "appendonlydir" / f"appendonly.aof.{number}.base.rdb").mkdir()
        client.bgrewriteaof()
        rewritten()
    assert list(wrong(asked(server, tmp_path))) == ["append-only file is rewritten"]


def test_nothing_kept_on_disk_is_a_warning(tmp_path: Path) -> None:
    with running(VERSION, tmp_path / "redis") as server:
        with server.client() as client:
            client.set("a", 1)
        found = wrong(asked(server, tmp_path))
        assert {(check, finding.level) for check, finding in found.items()} == {
            ("keeps its data on disk", "warning")
        }


def test_a_save_that_does_not_come_is_named(server: TestServer) -> None:
    info = {"rdb_changes_since_last_save": "200", "rdb_last_save_time": "0"}
    late = soundness._overdue({**info, "server_time_usec": str(10**9 * 1000)}, "300 100", "r")
    assert not late.ok
    assert "200 changes" in late.detail
    at = {**info, "rdb_last_save_time": "1000", "server_time_usec": str(1400 * 10**6)}
    assert soundness._overdue(at, "300 100", "r").ok
    assert soundness._overdue(info, "300 201", "r").ok
    assert soundness._overdue(info, "", "r").ok
    assert soundness._overdue({**info, "rdb_bgsave_in_progress": "1"}, "300 100", "r").ok
    assert not soundness._overdue(info, None, "r").asked


def test_full_memory_and_thrown_away_keys_are_named(server: TestServer, tmp_path: Path) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "1mb")
        found = wrong(asked(server, tmp_path))
        assert found["memory is left"].level == "error"
        assert "every write is refused" in found["memory is left"].detail
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.05))
        assert wrong(asked(server, tmp_path))["memory is left"].level == "warning"
        client.config_set("maxmemory", "500mb")
        assert wrong(asked(server, tmp_path)) == {}
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert list(wrong(asked(server, tmp_path))) == ["keeps what it was given"]


def test_links_of_replicas_are_watched(server: TestServer, tmp_path: Path) -> None:
    with running(VERSION, tmp_path / "replica", *SAVES) as replica, replica.client() as client:
        client.replicaof("127.0.0.1", server.port)
        while client.info("replication")["master_link_status"] != "up":
            time.sleep(0.02)
        assert wrong(asked(replica, tmp_path)) == {}
        assert asked(server, tmp_path).facts["replicas"] == 1
        server.kill()
        while client.info("replication")["master_link_status"] == "up":
            time.sleep(0.02)
        assert list(wrong(asked(replica, tmp_path))) == ["link to the master"]
    gone = wrong(asked(server, tmp_path))
    assert list(gone) == ["answers"]
    assert "cannot connect" in gone["answers"].detail


def test_an_empty_server_is_an_error_unless_it_may_be(tmp_path: Path) -> None:
    with running(VERSION, tmp_path / "redis", *SAVES) as server:
        assert list(wrong(asked(server, tmp_path))) == ["has keys"]
        assert wrong(asked(server, tmp_path, may_be_empty=True)) == {}


def test_the_dump_on_disk_is_read(server: TestServer, tmp_path: Path) -> None:
    missing = by_check(asked(server, tmp_path, data=server.folder))
    assert not missing["dump.rdb on the server's disk"].asked
    with server.client() as client:
        client.save()
    good = by_check(asked(server, tmp_path, data=server.folder))["dump.rdb on the server's disk"]
    assert good.ok
    assert good.detail == "51 keys"
    path = server.folder / "dump.rdb"
    data = bytearray(path.read_bytes())
    data[data.index(b"job:") + 1] ^= 1
    path.write_bytes(data)
    assert "dump.rdb on the server's disk" in wrong(asked(server, tmp_path, data=server.folder))
    os.truncate(path, len(data) // 2)
    assert "dump.rdb on the server's disk" in wrong(asked(server, tmp_path, data=server.folder))


def test_a_user_that_may_only_ask_info_leaves_questions_unasked(
    server: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "safetake", "on", ">pw", "-@all", "+info")
    monkeypatch.setenv("REDIS_PW", "pw")
    found = asked(server, tmp_path, username="safetake", password_env="REDIS_PW")
    assert wrong(found) == {}
    assert not by_check(found)["no save is overdue"].asked
    assert "CONFIG GET" in by_check(found)["settings"].detail


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"password_env": "REDIS_PW"}, "password"),
        ({"username": "x", "password_env": "NONE"}, "NONE"),
    ],
)
def test_a_server_that_refuses_us_is_an_error(
    server: TestServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, str],
    said: str,
) -> None:
    monkeypatch.setenv("REDIS_PW", "wrong")
    found = wrong(asked(server, tmp_path, **more))
    assert list(found) == ["answers"]
    assert said in found["answers"].detail
    assert "wrong" not in found["answers"].detail.replace("WRONGPASS", "")
