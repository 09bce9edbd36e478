"""Keys of a live server as DUMP gives them, many in one round trip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safetake.sources.redis.server import Server
from safetake.sources.redis.values import FOOTER
from safetake.sources.redis.wire import Connection, ServerRefusal

CLOCK_MS = 2_000
"""Redis 6 tells the time that is left only: expiries that are so close are equal."""


@dataclass(frozen=True, slots=True)
class LiveKey:
    """One key of the selected database."""

    key: bytes
    payload: bytes
    """All that DUMP answered."""
    expire_ms: int | None
    """Milliseconds since the epoch; good to a second on Redis 6."""

    @property
    def type(self) -> int:
        """The RDB type of the value."""
        return self.payload[0]

    @property
    def body(self) -> bytes:
        """The value as an RDB holds it, without its type."""
        return self.payload[1:-FOOTER]


def same_expiry(one: int | None, other: int | None) -> bool:
    """Whether two expiries are the same moment, as far as Redis 6 tells it."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= CLOCK_MS


def server_ms(connection: Connection) -> int:
    """The server's clock. Raises SourceError."""
    seconds, micros = connection.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def read_keys(connection: Connection, server: Server, keys: Sequence[bytes]) -> Iterator[LiveKey]:
    """Those of the keys that exist. Raises SourceError."""
    if not keys:
        return
    modern = server.family == "valkey" or server.version >= (7,)
    ask = "PEXPIRETIME" if modern else "PTTL"
    now = 0 if modern else server_ms(connection)
    commands: list[tuple[str | bytes | int, ...]] = []
    for key in keys:
        commands += [("DUMP", key), (ask, key)]
    answers = connection.pipeline(commands)
    for index, key in enumerate(keys):
        payload, expire = answers[2 * index], answers[2 * index + 1]
        for answer in (payload, expire):
            if isinstance(answer, ServerRefusal):
                raise answer
        if payload is not None and expire != -2:
            yield LiveKey(key, payload, None if expire < 0 else expire + now)
