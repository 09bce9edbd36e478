"""What the order of a restore may ask of an application process, whatever runs it.

A service says what it is now (`state`), is stopped, and is started again to what it was: the state
is journalled before the stop, so that a process that knows nothing else can start it. Nothing here
changes data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from safetake.errors import ServiceError

State = dict[str, Any]
"""JSON-able. `running` is True or False, or None where that can not be asked; the rest is the
service's own (`replicas` …)."""

POLL = 0.5
"""Seconds between two looks at a service that is stopping or starting."""


class Service(Protocol):
    """One application process. Constructing touches nothing. Every method raises ServiceError."""

    name: str

    def describe(self) -> str:
        """What runs it, in a few words: `systemd unit project.service`."""

    @property
    def can_stop(self) -> bool:
        """Whether it can be stopped and started at all; else only its health is asked."""

    def state(self) -> State:
        """What it is now. Changes nothing."""

    def stop(self, state: State) -> None:
        """Returns when its processes are gone; nothing is done when it did not run.

        Raises ServiceError when it is still there after `stop_timeout`: it may then be half
        stopped, and `start` brings it back.
        """

    def start(self, state: State) -> None:
        """Back to `state`; returns when that is reached. What did not run stays stopped."""

    def restart(self) -> None:
        """Fresh processes with the data of now, without a pause where what runs it can do that."""

    def value(self, source: str, path: Path) -> str:
        """What the setting of a source has to be for its new file."""

    def current(self, source: str) -> str:
        """The setting of a source now. It may hold a password: for the journal, not for logs."""

    def switch(self, source: str, value: str) -> None:
        """Set it; read back before this returns. Fresh processes see it, running ones need not."""

    def problems(self) -> list[tuple[str, str]]:
        """What would fail in a restore, each with a hint. Changes nothing, never raises
        ServiceError."""


def wait_until(
    done: Callable[[], bool], timeout: float, late: Callable[[], ServiceError], poll: float = POLL
) -> None:
    """Ask `done` until it says yes. Raises what `late` makes after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = min(0.05, poll)
    while not done():
        left = deadline - time.monotonic()
        if left <= 0:
            raise late()
        time.sleep(min(pause, left))
        pause = min(pause * 2, poll)


def was_running(state: Mapping[str, Any]) -> bool:
    """Whether the service has to be brought back; an unknown state counts as running."""
    return state.get("running") is not False
