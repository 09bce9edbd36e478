"""The command stream: exact cuts, nothing but data, and clean errors."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.errors import SafetakeError, SourceError
from safetake.sources.redis.server import parse_info, parse_keyspace, parse_version
from safetake.sources.redis.stream import extract
from safetake.sources.redis.wire import Address, encode
from tests.support.redis_source import config

PING = encode("PING")
SET = encode("SET", "k", "v")


def test_only_data_is_kept_and_the_database_is_known(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(
        PING + encode("select", 3) + SET + encode("REPLCONF", "GETACK", "*") + PING
        + encode("PUBLISH", "c", "m") + encode("SELECT", 11) + encode("DEL", "k") + PING + SET
    )  # fmt: skip
    end = (tmp_path / "stream").stat().st_size - len(SET)
    tail = extract(tmp_path / "stream", end, tmp_path / "tail", 5)
    assert (tail.commands, tail.database, tail.highest) == (2, 11, 11)
    wanted = encode("SELECT", 5) + encode("select", 3) + SET + encode("SELECT", 11)
    assert (tmp_path / "tail").read_bytes() == wanted + encode("DEL", "k")


def test_pings_are_no_change(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(PING * 3)
    tail = extract(tmp_path / "stream", 3 * len(PING), tmp_path / "tail", 4)
    assert (tail.commands, tail.database) == (0, 4)


@pytest.mark.parametrize("short", [1, 5, len(SET) - 1])
def test_a_cut_inside_a_command_is_an_error(short: int, tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(SET + SET)
    with pytest.raises(SourceError):
        extract(tmp_path / "stream", 2 * len(SET) - short, tmp_path / "tail")


def test_a_cut_inside_a_transaction_is_an_error(tmp_path: Path) -> None:
    data = encode("MULTI") + SET
    (tmp_path / "stream").write_bytes(data + encode("EXEC"))
    with pytest.raises(SourceError):
        extract(tmp_path / "stream", len(data), tmp_path / "tail")


@given(st.binary(max_size=200))
def test_noise_is_a_source_error_or_commands(noise: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "stream").write_bytes(SET + noise)
        try:
            extract(folder / "stream", len(SET) + len(noise), folder / "tail")
        except SafetakeError:
            return


def test_info_is_read() -> None:
    info = parse_info(b"# Server\r\nredis_version:7.0.15\r\ndb0:keys=5,expires=1,avg_ttl=3\r\n")
    assert info["redis_version"] == "7.0.15"
    assert parse_keyspace(info) == {"0": {"keys": 5, "expires": 1}}
    assert parse_version("9.1.2-rc1") == (9, 1, 2)
    assert parse_version("unstable") == (0,)


def test_an_address_never_shows_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    address = Address.of(config("rediss://[::1]:7000/3", username="someone", password_env="SECRET"))
    assert address.password == "hunter2"
    assert f"{address} {address!r}" == "rediss://[::1]:7000 Address(rediss://[::1]:7000)"
    assert str(Address.of(config("unix:///run/a%20b.sock?db=2"))) == "unix:///run/a b.sock"
