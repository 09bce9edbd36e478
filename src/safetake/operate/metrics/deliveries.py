"""What became of the last attempts to publish: kept in the state folder, exported and shown.

A file that is lost or damaged only forgets how many failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.errors import SafetakeError

if TYPE_CHECKING:
    from safetake.config import Config

TEXTFILE, PUSHGATEWAY = "textfile", "pushgateway"
_WAIT_S = 5.0
_MAX_BYTES = 1 << 20


@dataclass(slots=True)
class Delivery:
    """One way to publish."""

    ok: bool = True
    time_ns: int = 0
    """Of the last attempt."""
    error: str = ""
    failures: int = 0
    """In all."""

    def tried(self, now_ns: int, error: str = "") -> None:
        """An attempt has ended; `error` is empty when it went through."""
        self.ok, self.time_ns, self.error = not error, now_ns, error[:500]
        self.failures += bool(error)


@dataclass(slots=True)
class Deliveries:
    """What is remembered."""

    ways: dict[str, Delivery] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    """Groups that are at the Pushgateway now."""

    def way(self, name: str) -> Delivery:
        """The one of that name, made when it is new."""
        return self.ways.setdefault(name, Delivery())


def folder(config: Config, *, create: bool = False) -> Path:
    """Where the state of this configuration's repository is kept. Raises SafetakeError."""
    from safetake.state import state_folder

    name = hashlib.sha256(os.fsencode(config.repository.location)).hexdigest()[:32]
    return state_folder(config.restore.state, "metrics", name, create=create)


def load(config: Config) -> Deliveries:
    """What is remembered, or nothing. Never raises."""
    try:
        with (folder(config) / "deliveries.json").open("rb") as file:
            return _deliveries(json.loads(file.read(_MAX_BYTES)))
    except (OSError, SafetakeError, ValueError, TypeError, KeyError, RecursionError):
        return Deliveries()


def _deliveries(document: Any) -> Deliveries:
    found = Deliveries(groups=[str(group) for group in document["groups"]])
    for name in (TEXTFILE, PUSHGATEWAY):
        if name in document["ways"]:
            way = document["ways"][name]
            found.ways[name] = Delivery(
                bool(way["ok"]), int(way["time_ns"]), str(way["error"]), int(way["failures"])
            )
    return found


def save(config: Config, deliveries: Deliveries) -> None:
    """Remember it. Raises OSError, SafetakeError."""
    from safetake.state import write_json

    write_json(folder(config, create=True) / "deliveries.json", asdict(deliveries))


@contextlib.contextmanager
def one_at_a_time(config: Config) -> Iterator[None]:
    """Keep other processes from publishing older numbers after ours; waits for a bounded time.

    Where there is no state folder, or another process hangs, nobody is kept out.
    """
    fd = None
    try:
        with contextlib.suppress(OSError, SafetakeError):
            path = folder(config, create=True) / "lock"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            _lock(fd)
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _lock(fd: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        else:
            return
