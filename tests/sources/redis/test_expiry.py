"""Relative expiries of a Redis 6 stream become absolute; nothing else changes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.sources.redis.expiry import Receipts, rewrite
from safetake.sources.redis.stream import extract
from safetake.sources.redis.wire import encode


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ([b"EXPIRE", b"k", b"10"], [b"PEXPIREAT", 1, b"11000"]),
        ([b"pexpire", b"k", b"10"], [b"PEXPIREAT", 1, b"1010"]),
        ([b"SETEX", b"k", b"2", b"v"], [b"SET", 1, 3, b"PXAT", b"3000"]),
        ([b"SET", b"k", None, b"PX", b"5"], [0, 1, 2, b"PXAT", b"1005"]),
        ([b"SET", b"k", b"v", b"KEEPTTL"], None),
        ([b"SET", b"px", b"5"], None),
        ([b"EXPIRE", b"k", b"x"], None),
    ],
)
def test_given_a_command_rewrite_returns_the_absolute_form(
    command: list[bytes | None], expected: list[bytes | int] | None
) -> None:
    assert rewrite(command, 1000) == expected


@given(
    st.lists(
        st.tuples(st.sampled_from(["SET", "EXPIRE", "DEL", "PING"]), st.binary(max_size=200)),
        max_size=20,
    )
)
def test_given_any_stream_only_expiries_differ(commands: list[tuple[str, bytes]]) -> None:
    import tempfile

    receipts = Receipts()
    stream, kept = b"", b""
    for name, drawn in commands:
        value = b"v:" + drawn.replace(b"PX", b"px")  # a value that is no word of a command
        if name == "SET":
            stream += encode("SET", "k", value, "PX", 500)
        elif name == "EXPIRE":
            stream += encode("EXPIRE", value, 7)
        else:
            stream += encode(name, value)
        receipts.add(len(stream))
    moments = {receipts.at(end) for end in range(1, len(stream) + 1)} if stream else {0}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "s", Path(folder) / "t"
        source.write_bytes(stream)
        extract(source, len(stream), target, 0, receipts)
        kept = target.read_bytes()
    assert kept.startswith(encode("SELECT", 0))
    assert b"\r\nPX\r\n" not in kept.replace(b"PXAT", b"")
    assert kept.count(b"PXAT") >= sum(name == "SET" for name, _ in commands)
    assert kept.count(b"PEXPIREAT") >= sum(name == "EXPIRE" for name, _ in commands)
    assert all(abs(moment - time.time() * 1000) < 60_000 for moment in moments if moment)
