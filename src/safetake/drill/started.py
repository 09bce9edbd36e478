"""The user's services inside of a drill: started, asked until they are well, stopped.

A process is the confined drill's own. A pod is not: whoever may make pods can reach production, so
the drill has neither the API's port nor a use for its credentials. It asks the process that started
it, one line of JSON there and one back, and can ask for nothing but the services of the plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from safetake.configdrill import DrillServiceConfig
from safetake.drill import health, processes
from safetake.errors import SafetakeError

ASKED = "pods "
"""What a line to the parent begins with."""


class Started(Protocol):
    """One service of the drill, whatever runs it."""

    def start(self) -> None:
        """Start it on the copies. Raises SafetakeError, OSError."""

    def until_well(self, contains: str) -> None:
        """Return when its health answers well, with `contains` in the answer.

        Raises SafetakeError that says what it answered instead.
        """

    def complaint(self, contains: str) -> str:
        """Start it where it should fail: why it is not well, or empty when it says that it is.

        Raises SafetakeError when it could not be tried.
        """

    def stop(self) -> None:
        """Return when nothing of it is left that has a file open. Raises SafetakeError."""

    def kill(self) -> None:
        """The same at the end of everything, without asking."""


class Process:
    """A process of the drill, from a description in `folder`."""

    def __init__(
        self, folder: Path, name: str, url: str, seconds: float, beside: Collection[str]
    ) -> None:
        self._folder, self._name, self._url, self._seconds = folder, name, url, seconds
        self._beside = beside
        """Names of all services: one may answer through another."""

    def start(self) -> None:
        """Its command."""
        processes.start(self._folder, self._name)

    def until_well(self, contains: str) -> None:
        """Its URL, which nobody may answer but the drill's services."""
        until(partial(health.unwell, self._url, contains), self._folder, self._name, self._seconds)
        groups = filter(None, (processes.running(self._folder, name) for name in self._beside))
        if stranger := health.stranger(self._url, groups):
            raise SafetakeError(stranger)

    def complaint(self, contains: str) -> str:
        """It may end, or not answer at all."""
        self.start()
        with contextlib.suppress(SafetakeError):
            until(partial(health.silent, self._url), self._folder, self._name, self._seconds)
        return health.unwell(self._url, contains)

    def stop(self) -> None:
        """SIGTERM."""
        if not processes.stop(self._folder, self._name):
            left = ", ".join(map(health.described, processes.members(self._folder, self._name)))
            raise SafetakeError(f"{self._name} did not stop: {left}")

    def kill(self) -> None:
        """SIGKILL."""
        processes.kill(self._folder, self._name)


class Parent:
    """The process that started the drill, on stdin and stdout."""

    def __init__(self) -> None:
        # what the drill starts must not read the answers
        self._answers: IO[str] = os.fdopen(os.dup(0), encoding="utf-8")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)

    def ask(self, verb: str, name: str, contains: str = "") -> str:
        """Have something done with a pod; what it said. Raises SafetakeError when it failed."""
        print(ASKED + json.dumps({"verb": verb, "service": name, "contains": contains}), flush=True)
        line = self._answers.readline() or '{"problem": "the drill was given up"}'
        answer = json.loads(line)
        if "problem" in answer:
            raise SafetakeError(str(answer["problem"]))
        return str(answer["said"])


class Pod:
    """A pod that the parent makes and removes, `drill.kubernetes`."""

    def __init__(self, name: str, parent: Parent) -> None:
        self._name, self._parent = name, parent

    def start(self) -> None:
        """Made, and ready."""
        self._parent.ask("start", self._name)

    def until_well(self, contains: str) -> None:
        """Its URL, asked from outside of the confinement: its port is one of production's."""
        self._parent.ask("well", self._name, contains)

    def complaint(self, contains: str) -> str:
        """Made, and asked until it answers anything."""
        return self._parent.ask("complaint", self._name, contains)

    def stop(self) -> None:
        """Removed, and gone."""
        self._parent.ask("stop", self._name)

    def kill(self) -> None:
        """The parent does it, whatever happens here."""


def started(
    services: Mapping[str, DrillServiceConfig], folder: Path, seconds: float
) -> dict[str, Started]:
    """Each service, as it is run. Touches nothing but stdin, where there are pods."""
    pods = [name for name, service in services.items() if service.kubernetes is not None]
    parent = Parent() if pods else None
    found: dict[str, Started] = {}
    for name, service in services.items():
        if parent is not None and name in pods:
            found[name] = Pod(name, parent)
        else:
            found[name] = Process(folder, name, service.health, seconds, list(services))
    return found


def until(ask: Callable[[], str], folder: Path, name: str, seconds: float) -> None:
    """Ask until the process answers with no complaint, while it runs. Raises SafetakeError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            complaint = ask()
        except (SafetakeError, OSError) as error:
            complaint = str(error)
        if not complaint:
            return
        if not processes.running(folder, name):
            complaint = f"it ended: {processes.last_words(folder, name)}"
            raise SafetakeError(f"{name} is not well: {complaint}")
        if time.monotonic() > deadline:
            raise SafetakeError(f"{name} is not well after {seconds:.0f} s: {complaint}")
        time.sleep(0.1)
