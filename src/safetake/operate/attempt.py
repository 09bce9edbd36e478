"""One attempt at a job, in a process of its own that `operate.job` watches.

The process's standard input is its lifeline: a word on it says why it is to end, and its end says
that whoever watched is gone. Either ends the work as Ctrl-C does, so that locks are released. What
came of it is written to a file as JSON, and remembered in the history, unless another attempt will
be made.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from safetake.errors import (
    RepositoryLockedError,
    SafetakeError,
    SourceError,
    StorageError,
    UsageError,
)

if TYPE_CHECKING:
    from safetake.config import Config

CURABLE = (RepositoryLockedError, StorageError, SourceError)
"""What may be better in a minute: a lock, a busy or unreachable store, a storage."""
TIMEOUT = b"timeout"
INTERRUPTED = 130
ALONE_S = 60.0
"""How long an attempt has to end when whoever would kill it is gone."""


class JobTimeoutError(SafetakeError):
    """A job did not come to its end within its time limit."""


@dataclass(slots=True)
class Result:
    """What came of an attempt."""

    exit_code: int
    error: str = ""
    hint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    curable: bool = False
    """Whether another attempt makes sense."""
    recorded: bool = False
    """Whether it is in the history."""

    def write(self, file: BinaryIO) -> None:
        """Leave it for who watches."""
        file.write(json.dumps(asdict(self), default=str).encode())
        file.flush()

    @staticmethod
    def read(file: BinaryIO) -> Result | None:
        """What an attempt left; None when it left nothing."""
        file.seek(0)
        try:
            return Result(**json.loads(file.read()))
        except (ValueError, TypeError):
            return None


def timed_out(name: str, timeout: float) -> JobTimeoutError:
    """The failure of a job that took too long."""
    from safetake.wording import duration

    return JobTimeoutError(
        f"job {name} was ended: it took longer than its timeout of {duration(timeout)}",
        hint="find out what it waits for, or raise its `timeout`",
    )


class Lifeline:
    """Ends this process's work when its standard input says so, or ends."""

    def __init__(self, fd: int) -> None:
        self.reason = b""
        self._fd = fd
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def _watch(self) -> None:
        self.reason = os.read(self._fd, 64)
        os.kill(os.getpid(), signal.SIGTERM)
        if not self.reason:
            time.sleep(ALONE_S)
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(
    path: Path, name: str, number: int, of: int, lifeline: Lifeline, result: BinaryIO
) -> int:
    """Do the job of the configuration at `path` once. Returns the exit code."""
    try:
        found = _attempt(path, name, number, of, lifeline)
    except SafetakeError as error:
        found = _failed(error)
    except KeyboardInterrupt:
        found = Result(INTERRUPTED, "interrupted")
    found.write(result)
    return found.exit_code


def _failed(error: SafetakeError) -> Result:
    return Result(error.exit_code, str(error), error.hint, curable=isinstance(error, CURABLE))


def _attempt(path: Path, name: str, number: int, of: int, lifeline: Lifeline) -> Result:
    from safetake import configfile
    from safetake.connect import open_repository

    config = configfile.load(path)
    job = config.jobs.get(name)
    if job is None:
        raise UsageError(f"there is no job {name!r} in the configuration any more")
    from safetake.operate.history import recorded
    from safetake.operate.work import perform

    run = None
    try:
        with recorded(config, job.kind, job=name) as run:
            run.facts["attempts"] = number
            ping = _ping_start(config, name) if number == 1 else None
            try:
                perform(config, name, run, lambda: open_repository(config))
            except KeyboardInterrupt:
                if lifeline.reason == TIMEOUT:
                    raise timed_out(name, job.timeout) from None
                raise
            except CURABLE:
                run.wanted = number >= of
                raise
            finally:
                if ping is not None:
                    ping.join()  # before the word of how it ended; it takes bounded time
    except (SafetakeError, KeyboardInterrupt) as error:
        found = (
            _failed(error)
            if isinstance(error, SafetakeError)
            else Result(INTERRUPTED, "interrupted")
        )
        if run is not None:
            found.facts, found.recorded = run.facts, run.record is not None
        return found
    return Result(run.exit_code, run.error, run.hint, run.facts, recorded=run.record is not None)


def _ping_start(config: Config, name: str) -> threading.Thread | None:
    """Tell the job's dead man's switch, if it has one, while the work goes on."""
    if name not in config.notify.ping_env:
        return None
    from safetake.operate.notify import ping_start

    thread = threading.Thread(target=ping_start, args=(config, name), name="ping", daemon=True)
    thread.start()
    return thread
