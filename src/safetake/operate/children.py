"""The processes in which the daemon's jobs run: `safetake run JOB`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from safetake.clock import now_ns
from safetake.operate.history.recorded import TRIGGER

_MAX_BYTES = 1 << 20
_MAX_LINES = 40


@dataclass(slots=True)
class Ended:
    """A run that is over."""

    exit_code: int
    outcome: dict[str, Any] | None
    """Its own words; None when it was killed before it could say any, and so is not recorded."""
    lines: list[str]
    """What it said on the way."""

    @property
    def error(self) -> str:
        """Why it failed; empty when it did not."""
        if self.outcome is not None:
            return str(self.outcome.get("error", ""))
        if self.exit_code < 0:
            return f"its process was ended by signal {signal.Signals(-self.exit_code).name}"
        return f"its process ended with exit code {self.exit_code} and without a word"


class Child:
    """One run of a job."""

    def __init__(self, config: Path, job: str) -> None:
        """Start it. Raises OSError when there is no process to be had."""
        self.job = job
        self.started_ns = now_ns()
        self._stdout: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it ended
        self._stderr: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "safetake", "--config", str(config), "--json", "run", job],
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            env={**os.environ, TRIGGER: "daemon"},
            start_new_session=True,  # Ctrl-C is for the daemon, which asks its children to end
        )

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def ended(self) -> Ended | None:
        """What came of it; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        with self._stdout, self._stderr:
            said = _text(self._stdout)
            lines = _text(self._stderr).splitlines()[-_MAX_LINES:]
        outcome: dict[str, Any] | None = None
        with contextlib.suppress(ValueError):
            found = json.loads(said)
            if isinstance(found, dict):
                failure = found.get("error")
                if isinstance(failure, dict):  # the command itself failed, before any run
                    lines.append(str(failure.get("message", "")))
                elif "job" in found:
                    outcome = found
        return Ended(code, outcome, lines)

    def ask_to_end(self) -> None:
        """As Ctrl-C does."""
        self._process.terminate()

    def kill(self) -> None:
        """Its own process sees that it is alone, and ends."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(_MAX_BYTES).decode(errors="replace")
