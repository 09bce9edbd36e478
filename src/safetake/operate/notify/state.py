"""What is remembered between runs: problems that were told, messages that wait, how it went.

One JSON file in the state folder for each repository, changed under a lock that is never held while
something is sent. A file that is lost or damaged costs a message told twice, nothing else.
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

FAILURE, RECOVERY, OVERDUE, DIGEST = "failure", "recovery", "overdue", "digest"
MAX_WAITING = 100
_LOCK_S = 5.0
_MAX_BYTES = 4 << 20


@dataclass(slots=True)
class Problem:
    """Something that lasts."""

    since_ns: int
    told_ns: int = 0
    """0: nobody was told (the event is not wanted)."""
    runs: int = 0
    """How many failed in a row."""
    missed: bool = False
    """Runs were missed: only a run ends it."""


@dataclass(slots=True)
class Waiting:
    """A message that has not reached everybody."""

    event: str
    key: str
    title: str
    body: str
    level: str
    """Apprise's: failure, warning, success, info."""
    made_ns: int
    to: list[str] = field(default_factory=list)
    """Keys of the targets that do not have it yet."""
    tries: int = 0
    next_ns: int = 0


@dataclass(slots=True)
class Way:
    """How delivery by one scheme goes."""

    ok: bool = True
    time_ns: int = 0
    """Of the last attempt."""
    delivered_ns: int = 0
    delivered: int = 0
    failures: int = 0
    """Attempts that failed, in all."""
    error: str = ""

    def tried(self, now_ns: int, error: str) -> None:
        """An attempt has ended; `error` is empty when it went through."""
        self.ok, self.time_ns, self.error = not error, now_ns, error[:300]
        if error:
            self.failures += 1
        else:
            self.delivered, self.delivered_ns = self.delivered + 1, now_ns


@dataclass(slots=True)
class Known:
    """All that is remembered."""

    problems: dict[str, Problem] = field(default_factory=dict)
    waiting: list[Waiting] = field(default_factory=list)
    ways: dict[str, Way] = field(default_factory=dict)
    digest_ns: int = 0
    """The newest digest was made."""
    watched_ns: int = 0
    """Since when somebody looks for what is overdue."""
    dropped: int = 0
    """Messages that were given up."""

    def way(self, name: str) -> Way:
        """Made when it is new."""
        return self.ways.setdefault(name, Way())

    def wait(self, message: Waiting) -> None:
        """Add a message; it takes the place of an older one about the same that nobody has got."""
        for old in self.waiting:
            same = (old.event, old.key) == (message.event, message.key) and old.tries > 0
            if same and set(old.to) >= set(message.to):
                self.waiting.remove(old)
                break
        self.waiting.append(message)
        while len(self.waiting) > MAX_WAITING:
            del self.waiting[0]
            self.dropped += 1


def folder(config: Config, *, create: bool = False) -> Path:
    """Where the state of this configuration's repository is kept. Raises SafetakeError."""
    from safetake.state import state_folder

    name = hashlib.sha256(os.fsencode(config.repository.location)).hexdigest()[:32]
    return state_folder(config.restore.state, "notify", name, create=create)


def load(config: Config) -> Known:
    """What is remembered, or nothing. Never raises."""
    try:
        with (folder(config) / "state.json").open("rb") as file:
            return _known(json.loads(file.read(_MAX_BYTES)))
    except (OSError, SafetakeError, ValueError, TypeError, KeyError, AttributeError):
        return Known()
    except RecursionError:
        return Known()


def _known(document: Any) -> Known:
    return Known(
        {str(key): Problem(**one) for key, one in document["problems"].items()},
        [Waiting(**one) for one in document["waiting"]],
        {str(name): Way(**one) for name, one in document["ways"].items()},
        int(document["digest_ns"]),
        int(document["watched_ns"]),
        int(document["dropped"]),
    )


@contextlib.contextmanager
def changing(config: Config) -> Iterator[Known]:
    """Read, change, write durably. Where there is no state folder, only this run knows it.

    Raises SafetakeError when it could not be written, after the block.
    """
    fd = None
    try:
        with contextlib.suppress(OSError, SafetakeError):
            path = folder(config, create=True) / "lock"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            _lock(fd)
        known = load(config)
        yield known
        _save(config, known)
    finally:
        if fd is not None:
            os.close(fd)


def _save(config: Config, known: Known) -> None:
    from safetake.state import write_json

    try:
        write_json(folder(config, create=True) / "state.json", asdict(known))
    except OSError as error:
        raise SafetakeError(
            f"what was told cannot be remembered: {error.strerror}",
            hint="free space in the state folder, or set `state` in [restore]",
        ) from error


def _lock(fd: int) -> None:
    """For a bounded time: two messages are better than none."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        else:
            return
