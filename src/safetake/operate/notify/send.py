"""Sending, in a process of its own and for a bounded time, whatever a network or a library does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetake.config import Config

SEND_S = 30.0
"""For all messages of one run together."""
PING_S = 10.0
_NO_ANSWER = "no answer in time"


def send(config: Config, work: Sequence[dict[str, Any]], timeout: float) -> list[str]:
    """Do the work (see `child`); for each, why it failed, or nothing. Never raises."""
    if not work:
        return []
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "safetake.operate.notify.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(config),
            start_new_session=True,
        )
    except OSError as error:
        return [f"no process could be started: {error.strerror}"] * len(work)
    with process:
        try:
            said, _ = process.communicate(json.dumps(list(work)).encode(), timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            said, _ = process.communicate()
        except BaseException:
            _kill(process)
            raise
    return _answers(said, len(work))


def _answers(said: bytes, count: int) -> list[str]:
    errors = [_NO_ANSWER] * count
    for line in said.splitlines():
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):  # cut off
            found = json.loads(line)
            errors[found["number"]] = str(found["error"])
    return errors


def _environment(config: Config) -> dict[str, str]:
    """Ours, without the passwords of repositories."""
    secret = {"SAFETAKE_PASSWORD", "RESTIC_PASSWORD", config.repository.password_env}
    secret |= {copy.password_env for copy in config.copies.values()}
    return {name: value for name, value in os.environ.items() if name not in secret}


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
