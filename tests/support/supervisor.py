"""What systemd is to a machine: it outlives whoever asks it to start or stop a service.

`commands(name)` gives a service's `stop`, `start` and `running` for the configuration. A command
returns when it was done. One that is killed half-way was asked for, or was not.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

_ASK = 'echo "$1 $2" >control; read answer <answer; test "$answer" = done'


class Program(Protocol):
    """One service."""

    def start(self) -> None:
        """Returns when it answers."""

    def stop(self) -> None:
        """Returns when it is gone. Nothing is done when it does not run."""


class Supervisor:
    """Use as a context; programs run from `up` to `down`, and end with the context."""

    def __init__(self, folder: Path) -> None:
        self.programs: dict[str, Program] = {}
        self._folder = folder
        self._control, self._answer = folder / "control", folder / "answer"
        folder.mkdir(parents=True)
        os.mkfifo(self._control)
        os.mkfifo(self._answer)
        self._orders = os.open(self._control, os.O_RDWR | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._busy = False
        self._forget = threading.Event()
        self._ended = False
        self.failed: list[str] = []
        """What programs raised."""

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended = True
        os.write(self._orders, b"\n")
        self._forget.set()
        self._thread.join()
        os.close(self._orders)
        for name in self.programs:
            self.down(name)

    def commands(self, name: str) -> dict[str, list[str]]:
        """For `[services.NAME]`."""
        ask = ["/bin/sh", "-c", f"cd {self._folder} && {_ASK}", "ask"]
        return {
            "stop": [*ask, name, "down"],
            "start": [*ask, name, "up"],
            "running": ["/usr/bin/test", "-e", str(self._flag(name))],
        }

    def is_up(self, name: str) -> bool:
        """Whether it was started last."""
        return self._flag(name).exists()

    def up(self, name: str) -> None:
        """Start it."""
        self.programs[name].start()
        self._flag(name).touch()

    def down(self, name: str) -> None:
        """Stop it."""
        self.programs[name].stop()
        self._flag(name).unlink(missing_ok=True)

    def settle(self) -> None:
        """After whoever asked was killed: what was asked for is done, and nobody is answered."""
        self._forget.set()
        while select.select([self._orders], [], [], 0)[0] or self._busy:
            time.sleep(0.001)
        self._forget.clear()

    def _flag(self, name: str) -> Path:
        return self._folder / f"{name}.up"

    def _work(self) -> None:
        for order in self._lines():
            name, _, wanted = order.partition(" ")
            try:
                (self.up if wanted == "up" else self.down)(name)
                self._say(b"done\n")
            except Exception as error:  # noqa: BLE001 - told to the test, whatever it was
                self.failed.append(f"{order}: {error!r}")
                self._say(b"failed\n")

    def _lines(self) -> Iterator[str]:
        while True:
            select.select([self._orders], [], [])
            self._busy = True
            for line in os.read(self._orders, 4096).decode().split("\n"):
                if self._ended:
                    return
                if line:
                    yield line
            self._busy = False

    def _say(self, answer: bytes) -> None:
        while not self._forget.is_set():
            with contextlib.suppress(OSError):  # nobody listens yet
                there = os.open(self._answer, os.O_WRONLY | os.O_NONBLOCK)
                os.write(there, answer)
                os.close(there)
                return
            time.sleep(0.0005)
