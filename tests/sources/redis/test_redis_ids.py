"""Ids in the names of keys: real servers, and dumps of them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.config import RedisConfig
from safetake.errors import SourceError
from safetake.sources.redis.ids import DumpKeys, KeyPattern, LiveKeys
from tests.support.redis_server import VERSIONS, TestServer, running

VERSION = "redis-7.0" if "redis-7.0" in VERSIONS else VERSIONS[0]


def config(server: TestServer, **more: Any) -> RedisConfig:
    return RedisConfig.model_validate({"type": "redis", "url": server.url, **more})


def filled(server: TestServer) -> set[str]:
    """Jobs in two databases, and keys that only look like some."""
    jobs = {f"e{number}" for number in range(2500)}
    with server.client() as client:
        client.mset({f"job:{one}": "x" for one in jobs})
        client.mset({"job:e1:lock": "x", "jobs:e9": "x", "job:": "x", "job:말": "x", "other": "x"})
        client.set(b"job:\xff\xfe", "x")
    with server.client(db=3) as client:
        client.set("job:three", "x")
    return jobs | {"말", "\udcff\udcfe", "three"}


@pytest.mark.parametrize("version", VERSIONS)
def test_keys_of_a_live_server(version: str, tmp_path: Path) -> None:
    with running(version, tmp_path) as server:
        wanted = filled(server)
        keys = LiveKeys(config(server), "job:{id}")
        assert set(keys.ids()) == wanted
        assert keys.among({"e1", "e9999", "three", "e1:lock", "말", "\udcff\udcfe", "\ud800"}) == {
            "e1",
            "three",
            "말",
            "\udcff\udcfe",
        }
        assert set(LiveKeys(config(server), "job:{id*}").ids()) == wanted | {"e1:lock"}
        assert set(LiveKeys(config(server), "job:{id}", 3).ids()) == {"three"}
        assert set(LiveKeys(config(server), "j?[b-c]s:{id}").ids()) == {"e9"}
        odd = LiveKeys(config(server), "j?[b-c]*:{id}")
        assert set(odd.ids()) == wanted | {"e9", "lock"}
        assert odd.among({"e9", "nine"}) == {"e9"}
        with server.client() as client:
            client.save()
        assert set(DumpKeys(tmp_path / "dump.rdb", "job:{id}").ids()) == wanted
        assert set(DumpKeys(tmp_path / "dump.rdb", "job:{id}", 3).ids()) == {"three"}


def test_keys_that_had_expired_are_not_in_a_dump(tmp_path: Path) -> None:
    with running(VERSION, tmp_path) as server:
        with server.client() as client:
            now = int(time.time() * 1000)
            client.set("job:1", "x", pxat=now + 60_000)
            client.set("job:2", "x", pxat=now + 120_000)
            client.save()
    dump = tmp_path / "dump.rdb"
    assert set(DumpKeys(dump, "job:{id}", at_ms=now + 90_000).ids()) == {"2"}
    assert DumpKeys(dump, "job:{id}", at_ms=now).among({"1", "3"}) == {"1"}


@pytest.mark.skipif("redis-7.0" not in VERSIONS, reason="needs key permissions of Redis 7")
def test_a_user_who_may_scan_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running("redis-7.0", tmp_path) as server:
        filled(server)
        with server.client() as client:
            rights = ["resetkeys", "~*", "-@all", "+info", "+select", "+scan"]
            client.execute_command("ACL", "SETUSER", "look", "on", ">geheim", *rights)
            client.execute_command("ACL", "SETUSER", "none", "on", ">geheim", "-@all", "+info")
        monkeypatch.setenv("PASSWORD_OF_REDIS", "geheim")
        user = config(server, username="look", password_env="PASSWORD_OF_REDIS")
        assert LiveKeys(user, "job:{id}").among({"e1", "nine"}) == {"e1"}
        none = config(server, username="none", password_env="PASSWORD_OF_REDIS")
        with pytest.raises(SourceError, match="NOPERM") as caught:
            list(LiveKeys(none, "job:{id}").ids())
        assert "+scan" in caught.value.hint
        assert "geheim" not in str(caught.value)


def test_a_node_of_a_cluster_is_not_asked(tmp_path: Path) -> None:
    with running(VERSION, tmp_path, "--cluster-enabled", "yes") as server:
        with pytest.raises(SourceError, match="cluster"):
            list(LiveKeys(config(server), "job:{id}").ids())


TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="*?[]\\{}", exclude_categories=["Cs"]),
    max_size=6,
)


@given(TEXT, TEXT, TEXT.filter(lambda one: one != "" and ":" not in one))
def test_the_key_of_an_id_has_that_id(before: str, after: str, one: str) -> None:
    pattern = KeyPattern(before + "{id}" + after)
    key = pattern.key_of(one)
    assert key == (before + one + after).encode()
    assert pattern.id_in(key) == one


@given(st.binary(max_size=8))
def test_every_key_of_a_wide_pattern_has_an_id_and_back(raw: bytes) -> None:
    pattern = KeyPattern("{id*}")
    one = pattern.id_in(raw)
    assert (one is None) == (raw == b"")
    if one is not None:
        assert pattern.key_of(one) == raw


@given(
    st.text("ab*?:[]^-", max_size=6), st.text("ab*?:[]^-", max_size=6), st.text("ab:x", max_size=8)
)
def test_any_pattern_can_be_asked(before: str, after: str, key: str) -> None:
    one = KeyPattern(before + "{id}" + after).id_in(key.encode())
    assert one is None or (one in key and re.fullmatch("[^:]+", one))
