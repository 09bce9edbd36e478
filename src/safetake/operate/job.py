"""`safetake run JOB`: one job, once, now, the same from the daemon, cron, a timer or a CronJob.

Its locks are taken, then each attempt is a process of its own in a session of its own, so that a
hanging library, a crash or the kernel's out-of-memory killer costs an attempt and not the record
of it. The time limit is over all attempts. At its end, and when this process is told to end, the
attempt is asked to end as if by Ctrl-C, and killed with all that it started when it does not.
What may be better soon (locks, busy stores, storages) is tried again after a pause that doubles.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake import clock
from safetake.errors import SafetakeError, UsageError
from safetake.operate import joblocks
from safetake.operate.attempt import INTERRUPTED, TIMEOUT, Result, timed_out

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.configjobs import JobConfig

ATTEMPT = (sys.executable, "-m", "safetake.cli.attempt")
"""How an attempt is started; configuration, job, number, of how many and a descriptor follow."""
_ASK_S = 0.05


@dataclass(slots=True)
class Outcome:
    """What came of a job."""

    job: str
    kind: str
    started_ns: int
    ended_ns: int = 0
    exit_code: int = 0
    attempts: int = 0
    waited_s: float = 0.0
    """For locks."""
    error: str = ""
    hint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `safetake run JOB`."""
        return {
            "job": self.job,
            "kind": self.kind,
            "started": clock.go_time(self.started_ns),
            "ended": clock.go_time(self.ended_ns),
            "exit_code": self.exit_code,
            "attempts": self.attempts,
            "waited_seconds": round(self.waited_s, 3),
            "error": self.error,
            "hint": self.hint,
            "facts": self.facts,
        }


def chosen(config: Config, name: str) -> JobConfig:
    """The job of that name. Raises UsageError with the nearest right one."""
    from safetake.wording import nearest

    if name not in config.jobs:
        raise UsageError(
            f"there is no job {name!r} in the configuration{nearest(name, config.jobs)}",
            hint="" if config.jobs else "add a [jobs.NAME] section",
        )
    return config.jobs[name]


class JobRun:
    """One run of one job; `run` is called once, by the main thread."""

    def __init__(
        self,
        config: Config,
        path: Path,
        name: str,
        *,
        say: Callable[[str], None] = lambda text: None,
        command: Sequence[str] = ATTEMPT,
    ) -> None:
        self._config = config
        self._path = path.absolute()
        self._job = chosen(config, name)
        self._say = say
        self._command = command
        self._outcome = Outcome(name, self._job.kind, clock.now_ns())

    def run(self) -> Outcome:
        """Do it; whatever came of it is in the history when this returns.

        Raises nothing that `Outcome` can say.
        """
        outcome = self._outcome
        recorded = False
        began = time.monotonic()
        try:
            with joblocks.held(
                joblocks.folder(self._config),
                joblocks.needs(self._config, outcome.job, self._job),
                outcome.job,
                wait=self._job.wait,
                waiting=lambda who: self._say(f"waiting: {who}"),
            ) as descriptors:
                outcome.waited_s = time.monotonic() - began
                recorded = self._attempts(descriptors)
        except SafetakeError as error:
            outcome.exit_code, outcome.error, outcome.hint = (
                error.exit_code,
                str(error),
                error.hint,
            )
        except KeyboardInterrupt:
            outcome.exit_code, outcome.error = INTERRUPTED, "interrupted"
        outcome.ended_ns = clock.now_ns()
        if not recorded:
            self._remember()
        return outcome

    def _attempts(self, descriptors: list[int]) -> bool:
        """Try until it is done, or as often as it makes sense; whether it is in the history."""
        outcome, job = self._outcome, self._job
        end = time.monotonic() + job.timeout
        of = job.retries + 1
        for number in range(1, of + 1):
            outcome.attempts = number
            result = self._attempt(number, of, descriptors, end)
            outcome.exit_code, outcome.error, outcome.hint = (
                result.exit_code,
                result.error,
                result.hint,
            )
            outcome.facts = {**result.facts, "attempts": number}
            pause = job.retry_delay * 2 ** (number - 1)
            if not result.curable or number == of or time.monotonic() + pause >= end:
                return result.recorded
            self._say(f"attempt {number} of {of} failed: {result.error}; again in {pause:.0f} s")
            time.sleep(pause)
        raise AssertionError("the loop returns")

    def _attempt(self, number: int, of: int, descriptors: list[int], end: float) -> Result:
        """One attempt. Raises KeyboardInterrupt when it was interrupted and left no word of it."""
        lifeline_end, lifeline = os.pipe()
        process: subprocess.Popen[bytes] | None = None
        with tempfile.TemporaryFile() as file:
            words = [str(self._path), self._outcome.job, str(number), str(of), str(file.fileno())]
            try:
                process = subprocess.Popen(
                    [*self._command, *words],
                    stdin=lifeline_end,
                    stdout=sys.stderr.fileno(),
                    pass_fds=[file.fileno(), *descriptors],
                    start_new_session=True,
                )
                overdue = False
                try:
                    process.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    overdue = True
                    self._end(process, lifeline, TIMEOUT)
            except KeyboardInterrupt:
                if process is None or not self._end(process, lifeline, b"interrupted"):
                    raise
                result = Result.read(file)
                if result is None:
                    raise
                return Result(
                    INTERRUPTED, "interrupted", "", result.facts, recorded=result.recorded
                )
            finally:
                os.close(lifeline)
                os.close(lifeline_end)
                if process is not None:
                    _kill(process)
            result = Result.read(file)
        if overdue and (result is None or not result.recorded):
            error = timed_out(self._outcome.job, self._job.timeout)
            return Result(error.exit_code, str(error), error.hint)
        if result is None:
            return _without_words(process.returncode)
        return result

    def _end(self, process: subprocess.Popen[bytes], lifeline: int, why: bytes) -> bool:
        """Ask the attempt to end, and kill it when it does not; whether it ended by itself.

        A further interrupt meanwhile kills it at once.
        """
        with contextlib.suppress(BrokenPipeError):  # it ends already
            os.write(lifeline, why)
        try:
            process.wait(self._config.daemon.grace)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            _kill(process)
            return False
        return True

    def _remember(self) -> None:
        from safetake.operate.after import after_run
        from safetake.operate.history import History
        from safetake.operate.history.recorded import given_trigger, warn

        outcome = self._outcome
        history = History(self._config)
        try:
            record = history.append(
                outcome.kind,
                job=outcome.job,
                started_ns=outcome.started_ns,
                ended_ns=outcome.ended_ns,
                exit_code=outcome.exit_code,
                trigger=given_trigger(),
                error=outcome.error,
                hint=outcome.hint,
                facts=outcome.facts,
            )
        except SafetakeError as error:
            warn(f"this run is not in the history: {error}")
            return
        after_run(self._config, history, record)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """All that is left of an attempt: it is the first of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _without_words(code: int) -> Result:
    """An attempt that said nothing: killed, or crashed in a library."""
    if code < 0:
        name = signal.Signals(-code).name
        return Result(
            1,
            f"the job's process was ended by signal {name}",
            "SIGKILL may be the kernel, for want of memory: its log says so"
            if code == -signal.SIGKILL
            else "",
            curable=True,
        )
    return Result(1, f"the job's process ended with exit code {code} and without a word")
