"""Redis and Valkey: one exact moment by replication, cut at the barrier in milliseconds.

The user that safetake logs in as needs no key permission at all, and not the server's disk::

    ACL SETUSER safetake on >PASSWORD resetkeys -@all
        +psync +replconf +info +client|pause +client|unpause

For the marked fallback (`method = "scan"`: SCAN and DUMP, not one moment)::

    ACL SETUSER safetake on >PASSWORD resetkeys %R~* -@all +info +select +scan +dump +pexpiretime

(Redis 6.2: `~*` instead of `%R~*`, and `+pttl +time` instead of `+pexpiretime`; functions are
included where `+function|dump` is allowed.)

While a backup by replication runs, the server counts one replica more, which matters to
`min-replicas-to-write` only: WAIT never counts on it, and FAILOVER never picks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.errors import SafetakeError
from safetake.model import CaptureContext, SourceState
from safetake.sources.redis.proof import questions
from safetake.sources.redis.session import RedisSession

if TYPE_CHECKING:
    from safetake.config import RedisConfig

__all__ = ["RedisSession", "RedisSource", "questions"]


class RedisSource:
    """A Redis or Valkey server, 6.2 or newer. Constructing touches nothing."""

    type = "redis"
    hold_rank = 40

    def __init__(self, name: str, config: RedisConfig) -> None:
        self.name = name
        self.config = config

    def inspect(self) -> SourceState:
        """Log in and read INFO. Never raises SourceError."""
        from safetake.sources.redis.server import Server
        from safetake.sources.redis.wire import Address, Connection

        try:
            with Connection(Address.of(self.config)) as connection:
                server = Server.ask(connection)
        except SafetakeError as error:
            return SourceState(False, str(error), problems=[(str(error), error.hint)])
        keys = sum(entry["keys"] for entry in server.keyspace.values())
        problems = []
        if not keys and not self.config.may_be_empty:
            problems.append(("the server holds no key", "may_be_empty = true accepts that"))
        if server.is_replica:
            problems.append(
                ("the node is a replica: its writers cannot be held", "give the master's address")
            )
        if server.is_cluster:
            problems.append(
                ("the node is one of a cluster: it has its own slots only", "add every master")
            )
        size = server.info.get("used_memory_dataset") or server.info.get("used_memory") or "0"
        return SourceState(
            ok=bool(keys) or self.config.may_be_empty,
            summary=f"{server.family} {server.version_text}, {keys} keys",
            bytes=int(size) if size.isdigit() else 0,
            details={"role": server.info.get("role", ""), "keyspace": server.keyspace},
            problems=problems,
        )

    def session(self, context: CaptureContext) -> RedisSession:
        """Start a capture."""
        return RedisSession(self.name, self.config, context)
