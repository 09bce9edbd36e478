"""`safetake run`: starts jobs when they are due, for years.

One loop, one thread: it never touches a repository, a store or a network. Each job is a process of
its own (`children`), so that this one neither grows nor falls with them. What may hang is done
beside (`watch`), pages are answered by `serve`, and who of several daemons starts jobs is decided
by `leader`. The loop sleeps in short slices by the steady clock and looks at the wall clock in
each: a machine that slept or a clock that was set is met at the next look.

What is promised when this process dies: jobs that run go on and remember themselves; a daemon that
starts later finds in the history what was missed meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake import clock
from safetake.errors import SafetakeError
from safetake.hostname import host_name
from safetake.operate import joblocks
from safetake.operate.pages import Pages
from safetake.operate.runner import Log, Runner
from safetake.operate.timetable import Timetable, answered
from safetake.operate.watch import Clerk, Lookout

if TYPE_CHECKING:
    from safetake.config import Config

SLICE_S = 1.0
_LOOK_AT_FILE_S = 5.0
_TELL_OVERDUE_S = 60.0
_STEP_S = 5.0
_STILL_S = 60.0


class Daemon:
    """The scheduler. `run` returns when it was asked to end."""

    def __init__(self, path: Path, log: Log, *, listen: str | None = None) -> None:
        """Check everything that must be right from the start.

        Raises ConfigError, WrongPasswordError, RepositoryMissingError, StorageError.
        """
        from safetake.connect import open_repository

        self._path = path.absolute()
        self._log = log
        self._digest = _digest(self._path)
        self.config = _load(self._path)
        self._listen = self.config.daemon.listen if listen is None else listen
        self.host = host_name()
        self.started_ns = clock.now_ns()
        self.timetable: Timetable | None = None
        """Only while this daemon leads."""
        self.ticked = time.monotonic()
        self._asked_to_end = 0
        self._asked_to_reload = False
        self._wake_end, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lookout = Lookout(self.config, open_repository(self.config), self.wake)
        self._clerk = Clerk(lambda text: log("trouble", text))
        self.runner = Runner(self._path, self.config, log, self._clerk)
        self._role = ""
        self._trouble = ""
        self._changed = self._digest

    # ---------------------------------------------------------------- what pages ask

    @property
    def lookout(self) -> Lookout:
        """What is known of the repository and of the other daemons."""
        return self._lookout

    def wake(self) -> None:
        """Have the loop look at once; from any thread."""
        with contextlib.suppress(BlockingIOError):  # it will look anyway
            os.write(self._wake, b"w")

    # ---------------------------------------------------------------- the loop

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit code. Raises ConfigError."""
        with contextlib.ExitStack() as stack:
            if self._listen:
                pages = Pages(self, self._listen)
                stack.callback(pages.close)
                self._log("listening", f"listening on http://{pages.place}/", place=pages.place)
            stack.enter_context(self._signals())
            self._say_started()
            self._lookout.start()
            try:
                self._loop()
            finally:
                self._end()
        return 0

    def _loop(self) -> None:
        looked = told = time.monotonic()
        wall, steady = clock.now_ns(), self._lookout.candidate.clock()
        while not self._asked_to_end:
            self.ticked = now = time.monotonic()
            wall, steady = self._clock_steps(wall, steady)
            if self._asked_to_reload:
                self._asked_to_reload = False
                self._reload()
            elif now - looked >= _LOOK_AT_FILE_S:
                looked = now
                self._look_at_file()
            self.runner.reap()
            if not self._lookout.alive():
                raise SafetakeError(
                    "the daemon lost sight of the repository by a mistake of ours",
                    hint="it ends so that it can be started again; please report it",
                )
            self._follow_role()
            if self.timetable is not None:
                self.runner.notice(self.timetable)
                self.runner.start(self.timetable)
                if now - told >= _TELL_OVERDUE_S:
                    told = now
                    self.runner.tell_overdue()
            self._sleep(self._until_next())

    def _until_next(self) -> float:
        """Seconds until the next start, at most one slice."""
        entries = () if self.timetable is None else self.timetable.entries.values()
        now = clock.now_ns()
        ahead = [(entry.next_ns - now) / 1e9 for entry in entries if entry.next_ns is not None]
        return min([SLICE_S, *(left for left in ahead if left > 0)])

    def _sleep(self, seconds: float) -> None:
        if select.select([self._wake_end], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_end, 4096)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def end(_number: int, _frame: object) -> None:
            self._asked_to_end += 1

        def reload(_number: int, _frame: object) -> None:
            self._asked_to_reload = True

        wanted = {signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: reload}
        before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        before_fd = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _clock_steps(self, wall: int, steady: float) -> tuple[int, float]:
        """Tell when the wall clock went otherwise than the steady one."""
        new_wall, new_steady = clock.now_ns(), self._lookout.candidate.clock()
        step = (new_wall - wall) / 1e9 - (new_steady - steady)
        if abs(step) > _STEP_S:
            how = "forward" if step > 0 else "back"
            self._log("clock", f"the clock was set {how} by {abs(step):.0f} s", seconds=step)
        if new_steady - steady > _STILL_S:
            slept = new_steady - steady
            self._log("slept", f"the machine stood still for {slept:.0f} s", seconds=slept)
        return new_wall, new_steady

    # ---------------------------------------------------------------- who leads

    def _follow_role(self) -> None:
        candidate = self._lookout.candidate
        role = candidate.role
        if candidate.trouble != self._trouble:
            self._trouble = candidate.trouble
            if self._trouble:
                self._log("repository", f"the repository does not answer: {self._trouble}")
            else:
                self._log("repository", "the repository answers again")
        if role == "leader" and self.timetable is None:
            records = self._lookout.records
            if records is None:
                return  # it is being read
            self._lookout.wants_records, self._lookout.records = False, None
            try:
                running = joblocks.running(self.config)
            except SafetakeError as error:
                self._log("trouble", str(error))
                running = set()
            self.timetable = Timetable(
                self.config,
                self.host,
                clock.now_ns(),
                answered(self.config, records, running),
            )
            self.runner.remember("leads")
            self._log("leader", "this daemon leads: it starts the jobs", **self._next())
        elif role == "follower" and self.timetable is not None:
            self.timetable = None
            self._lookout.records, self._lookout.wants_records = None, True
            who = f": {candidate.leader} does" if candidate.leader else ""
            self._log("follower", f"this daemon leads no more{who}")
        elif role == "follower" and self._role != role and candidate.leader:
            self._log(
                "follower",
                f"another daemon leads ({candidate.leader}); this one waits to take over",
            )
        if role != "follower" or candidate.leader:
            self._role = role

    # ---------------------------------------------------------------- configuration

    def _look_at_file(self) -> None:
        found = _digest(self._path)
        if found not in (self._changed, self._digest):
            self._log(
                "changed",
                f"{self._path} has changed: jobs that start use it, their times follow at SIGHUP",
            )
        self._changed = found

    def _reload(self) -> None:
        digest = _digest(self._path)
        try:
            config = _load(self._path)
        except SafetakeError as error:
            self._log("reload-failed", f"the configuration is wrong, the old one stays: {error}")
            return
        fixed = [
            words
            for words, before, after in (
                ("[repository]", self.config.repository, config.repository),
                ("[daemon] listen", self.config.daemon.listen, config.daemon.listen),
                ("[daemon] lease", self.config.daemon.lease, config.daemon.lease),
            )
            if before != after
        ]
        if fixed:
            self._log(
                "reload-failed",
                f"{', '.join(fixed)} changed: restart the daemon for that; the old "
                "configuration stays",
            )
            return
        self.config, self._digest, self._changed = config, digest, digest
        self._lookout.config = self.runner.config = config
        if self.timetable is not None:
            self.timetable.reload(config, clock.now_ns())
            self.runner.remember("reloaded")
        self._log("reloaded", "the configuration was read again", **self._next())

    def _next(self) -> dict[str, Any]:
        if self.timetable is None:
            return {}
        return {
            "next": {
                name: clock.go_time(entry.next_ns)
                for name, entry in sorted(self.timetable.entries.items())
                if entry.next_ns is not None
            }
        }

    # ---------------------------------------------------------------- begin and end

    def _say_started(self) -> None:
        from safetake import __version__

        scheduled = [name for name, job in self.config.jobs.items() if job.schedule]
        self._log(
            "running",
            f"safetake {__version__}, process {os.getpid()}: {len(scheduled)} jobs with a schedule",
            jobs=scheduled,
            pid=os.getpid(),
        )
        if not scheduled:
            self._log("idle", f"{self._path} has no job with a schedule: there is nothing to start")

    def _end(self) -> None:
        """Ask the jobs to end, wait, kill; lead no more."""
        grace, children = self.config.daemon.grace, self.runner.children
        self._log("stopping", f"stopping: {len(children)} jobs are asked to end")
        self.timetable = None
        for child in children.values():
            child.ask_to_end()
        end = time.monotonic() + grace + 5  # a job gives its own process the grace
        while children and time.monotonic() < end and self._asked_to_end < 2:
            self.runner.reap()
            self._sleep(0.1)
        for name, child in children.items():
            self._log("killed", f"job {name} did not end and is killed", job=name)
            child.kill()
        end = time.monotonic() + 5
        while children and time.monotonic() < end:
            self.runner.reap()
            self._sleep(0.05)
        self.runner.remember("stopped")
        self._lookout.close(5.0)
        self._clerk.close(5.0)
        self._log("stopped", "stopped")


def _load(path: Path) -> Config:
    from safetake import configfile

    return configfile.load(path)


def _digest(path: Path) -> str:
    """Of the file's content; empty while it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
