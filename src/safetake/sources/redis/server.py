"""What a server says about itself in INFO, in the few words that the other modules need."""

from __future__ import annotations

import re
from dataclasses import dataclass

from safetake.errors import SourceError
from safetake.sources.redis.wire import Connection

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """One server: its family (`redis` or `valkey`) and what INFO says."""

    info: dict[str, str]

    @classmethod
    def ask(cls, connection: Connection) -> Server:
        """Raises SourceError, also for a Sentinel and for a server that is still loading."""
        server = cls(parse_info(connection.call("INFO")))
        if server.info.get("redis_mode") == "sentinel" or "redis_version" not in server.info:
            raise SourceError(
                f"{connection.address} is no data server (a Sentinel or a proxy?)",
                hint="give the address of the Redis node itself",
            )
        if server.info.get("loading") == "1":
            raise SourceError(
                f"{connection.address} is still loading its data",
                hint="run again when it is ready",
            )
        return server

    @property
    def family(self) -> str:
        return "valkey" if self.info.get("server_name") == "valkey" else "redis"

    @property
    def version_text(self) -> str:
        return self.info.get("valkey_version") or self.info.get("redis_version", "0")

    @property
    def version(self) -> Version:
        return parse_version(self.version_text)

    @property
    def is_replica(self) -> bool:
        return self.info.get("role") == "slave"

    @property
    def is_cluster(self) -> bool:
        return "cluster" in (self.info.get("redis_mode"), self.info.get("server_mode"))

    @property
    def keyspace(self) -> dict[str, dict[str, int]]:
        return parse_keyspace(self.info)


def parse_version(text: str) -> Version:
    """`7.0.15` → (7, 0, 15); what is no number ends it."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


def parse_info(raw: bytes) -> dict[str, str]:
    """INFO's `name:value` lines."""
    lines = raw.decode("utf-8", "replace").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
    return {pair[0]: pair[1] for pair in pairs}


def parse_keyspace(info: dict[str, str]) -> dict[str, dict[str, int]]:
    """INFO keyspace as `{"0": {"keys": 5, "expires": 1}}`."""
    found = {}
    for name, value in info.items():
        if re.fullmatch(r"db\d+", name):
            fields = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
            found[name[2:]] = {
                "keys": int(fields.get("keys", 0)),
                "expires": int(fields.get("expires", 0)),
            }
    return found
