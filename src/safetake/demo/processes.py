"""Child processes of the demo: a log each, ended by their own pid, never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetake.errors import SafetakeError


class Processes:
    """The processes of one demo. `kill` ends whatever is still there.

    On Linux they end with us even when we are killed (more exactly: with the thread that started
    them). Elsewhere a demo that is killed with SIGKILL leaves them behind.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, **environment}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start `command` in a session of its own: Ctrl-C reaches only the demo, which ends all.

        Call it from the main thread.
        """
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    def run(
        self, name: str, command: Sequence[str], timeout: float, allowed: Sequence[int] = (0,)
    ) -> str:
        """Run `command` to its end; its stdout.

        Raises SafetakeError with its last words for an exit code that is not allowed.
        """
        try:
            done = subprocess.run(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SafetakeError(f"{name} did not end within {timeout:.0f} s") from None
        if done.returncode not in allowed:
            words = " ".join((done.stderr or done.stdout).split())[-500:]
            raise SafetakeError(f"{name} failed (exit code {done.returncode}): {words}")
        return done.stdout

    def wait_until(self, unready: Callable[[], str], timeout: float) -> None:
        """Poll until `unready` says nothing.

        Raises SafetakeError with its last words when time is up or a process ended by itself.
        """
        deadline = time.monotonic() + timeout
        while why := unready():
            self.check()
            if time.monotonic() > deadline:
                raise SafetakeError(f"after {timeout:.0f} s: {why}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises SafetakeError when a process has ended that nobody asked to."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise SafetakeError(f"{name} ended by itself: {self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """The end of a process's log, on one line."""
        log = (self._logs / f"{name}.log").read_text(errors="replace")
        return " ".join(log.split())[-300:] or "it said nothing"

    def end(self, name: str, timeout: float = 30.0) -> None:
        """Ask a process to end (SIGTERM) and wait; killed when it does not."""
        process = self._running.pop(name)
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            _kill(process)

    def kill(self, *names: str) -> None:
        """SIGKILL: no process can prepare for it. Without names: all."""
        for name in names or tuple(self._running):
            if process := self._running.pop(name, None):
                _kill(process)


def _end_with_parent() -> None:
    """In the child, before exec: have the kernel kill it when its parent dies."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, prctl(2)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
