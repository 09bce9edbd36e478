"""The very commands that an operator types, run one at a time, their output kept.

Each is a process of its own with its output in files of the runbook's folder. It goes on by itself
when the runbook is killed; when the runbook is interrupted it is asked to end, and waited for, so
that a restore goes back in order.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from safetake.errors import SafetakeError

_TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    words: str
    code: int
    document: Any
    """What it printed, or None."""
    error: str
    hint: str
    seconds: float

    @property
    def told(self) -> bool:
        """Whether it gave its document, whatever that says."""
        return self.document is not None and not self.error


class Commands:
    """Runs `safetake` with one configuration."""

    def __init__(
        self,
        config_file: Path,
        folder: Path,
        show: Callable[[str], None],
        waiting: Callable[[float | None], None],
    ) -> None:
        """`show` gets each command, `waiting` the seconds that it is at work, None at its end."""
        self._config_file = config_file
        self._folder = folder
        self._show = show
        self._waiting = waiting

    def run(self, *words: str) -> Ran:
        """Run one to its end. Raises SafetakeError when it cannot be run at all."""
        shown = shlex.join(["safetake", *words])
        self._show(shown)
        number = len(list(self._folder.glob("command-*.json"))) + 1
        out = self._folder / f"command-{number:02d}.json"
        err = self._folder / f"command-{number:02d}.txt"
        started = time.monotonic()
        try:
            with _private(out) as stdout, _private(err) as errs:
                process = subprocess.Popen(
                    [sys.executable, "-m", "safetake", "--json",
                     "--config", str(self._config_file), *words],
                    stdin=subprocess.DEVNULL, stdout=stdout, stderr=errs,
                    start_new_session=True,
                    env={**os.environ, "SAFETAKE_TRIGGER": "runbook"},
                )  # fmt: skip
            try:
                code = self._end_of(process, started)
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                raise
            said = out.read_bytes()
            more = err.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError as error:
            raise SafetakeError(
                f"`{shown}` cannot be run: {error.strerror}",
                hint=f"look at {self._folder}, then `safetake runbook --resume`",
            ) from error
        finally:
            self._waiting(None)
        document = _parsed(said)
        failure = document.get("error") if isinstance(document, dict) else None
        error_text, hint = "", ""
        if isinstance(failure, dict):
            error_text, hint = str(failure.get("message", "")), str(failure.get("hint", ""))
        elif document is None:
            error_text = more[-1] if more else f"it ended with exit code {code}"
        return Ran(shown, code, document, error_text, hint, time.monotonic() - started)

    def _end_of(self, process: subprocess.Popen[bytes], started: float) -> int:
        while True:
            try:
                return process.wait(_TICK_S)
            except subprocess.TimeoutExpired:
                self._waiting(time.monotonic() - started)


def _private(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")  # noqa: PTH123


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
