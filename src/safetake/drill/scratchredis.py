"""The drill's own Redis server: how it is started, and how the drill connects to it.

Where pods use it, it listens at the drill's address as well, and wants a password that is made for
this drill: the server reads it from a file, the drill's processes have it in their environment.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safetake.sources.redis.wire import Connection

PASSWORD = "SAFETAKE_DRILL_REDIS"
"""The environment variable with the password; without it there is none."""


def connection(port: int) -> Connection:
    """A connection from inside of the drill. Raises SourceError."""
    from safetake.sources.redis.wire import Address, Connection

    password = os.environ.get(PASSWORD) or None
    return Connection(Address("127.0.0.1", port, "", False, None, password))


def command(binary: str, port: int, folder: Path) -> list[str]:
    """The server on loopback, which writes nothing by itself."""
    return [
        binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
        "--save", "", "--appendonly", "no", "--daemonize", "no",
    ]  # fmt: skip


def reachable(command: list[str], address: str, file: Path, password: str) -> list[str]:
    """The same command for a server that also listens at `address`, with the password of `file`."""
    file.touch(mode=0o600)
    file.write_text(f"requirepass {password}\n", encoding="ascii")
    binary, *words = command
    if address != "127.0.0.1":
        place = words.index("127.0.0.1")
        words[place : place + 1] = ["127.0.0.1", address]
    return [binary, str(file), *words]


def new_password() -> str:
    """For one drill."""
    return secrets.token_hex(24)
