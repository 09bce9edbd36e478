"""Makes a live server's data durable, in the forms that the server is set up to keep.

With an append-only file a rewrite is asked for and waited for: until one has succeeded after a
handover, a restart would bring the old data back. With save points a BGSAVE. A server that is set
up to keep nothing stays so, and that is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from safetake.errors import RestoreError
from safetake.model import Progress
from safetake.sources.redis.settings import live_config
from safetake.sources.redis.wire import Connection, ServerRefusal

NOTHING = "nothing: the server is set up to keep no data on disk"
_SECONDS = 3600.0
_TRIES = 3


def persist(connection: Connection, info: Callable[[], dict[str, str]], progress: Progress) -> str:
    """Wait until the data of now is on disk; returns what keeps it. Raises RestoreError."""
    if info().get("aof_enabled") == "1":
        _run(connection, info, progress, "BGREWRITEAOF", "aof_last_bgrewrite_status")
        return "append-only file"
    if live_config(connection, "save"):
        _run(connection, info, progress, "BGSAVE", "rdb_last_bgsave_status")
        return "dump file"
    return NOTHING


def healthy(info: dict[str, str]) -> str:
    """What is wrong with the server's persistence, or empty."""
    if info.get("aof_enabled") == "1":
        if info.get("aof_last_bgrewrite_status") != "ok":
            return "the last rewrite of the append-only file failed"
        if info.get("aof_last_write_status", "ok") != "ok":
            return "the append-only file cannot be written"
    elif info.get("rdb_last_bgsave_status") != "ok":
        return "the last BGSAVE failed"
    return ""


def _run(
    connection: Connection,
    info: Callable[[], dict[str, str]],
    progress: Progress,
    command: str,
    status: str,
) -> None:
    said = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(0.2 * attempt)
        _wait(info, progress)
        try:
            connection.call(command)
        except ServerRefusal as refusal:
            said = str(refusal)  # somebody else's child began just now
            continue
        time.sleep(0.01)
        found = _wait(info, progress)
        if found.get(status) == "ok":
            return
        said = f"{status} is {found.get(status)}"
    raise RestoreError(
        f"{connection.address} cannot keep the restored data on its disk: {command}: {said}",
        hint="see the server's log (disk full, fork failed)",
    )


def _wait(info: Callable[[], dict[str, str]], progress: Progress) -> dict[str, str]:
    """Until no child of the server works."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        found = info()
        busy = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        if all(found.get(name, "0") == "0" for name in busy):
            return found
        progress("redis", 0, 0)
        time.sleep(0.05)
    raise RestoreError("the server's BGSAVE or BGREWRITEAOF does not end")
