"""Expiries of keys set between the RDB and the cut, which so come out of the command stream.

Redis before 7.0 sends `SET … EX`, SETEX and EXPIRE to replicas as they were given: relative. When
they are carried out later than they were sent, the keys live longer by that time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.memory_writer import MemoryRepository, materialise
from tests.support.redis_server import VERSIONS, running
from tests.support.redis_source import capture, config


@pytest.mark.parametrize("version", VERSIONS)
def test_a_key_set_with_an_expiry_before_the_cut_keeps_its_moment(
    version: str, tmp_path: Path
) -> None:
    with running(version, tmp_path / "live", "--repl-diskless-sync-delay", "0") as server:
        client: Any = server.client()
        expected: dict[bytes, float] = {}

        def write() -> None:
            client.set("set", "1", ex=1000)
            client.psetex("psetex", 1_000_000, "1")
            client.set("expire", "1")
            client.expire("expire", 1000)
            for key in (b"set", b"psetex", b"expire"):
                expected[key] = time.time() + client.pttl(key) / 1000

        client.set("before", "1")
        with MemoryRepository() as repository:
            captured = capture(
                config(server.url),
                repository,
                tmp_path,
                prepared=write,
                released=lambda: time.sleep(3),
            )
            materialise(repository, captured.node, tmp_path / "out")
    dump = next((tmp_path / "out").rglob("dump.rdb"))
    with running(version, dump.parent, "--save", "") as again:
        restored: Any = again.client()
        for key, moment in expected.items():
            assert time.time() + restored.pttl(key) / 1000 == pytest.approx(moment, abs=1.0), key
