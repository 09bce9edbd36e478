"""The jobs that the daemon has at work: started when nothing is in their way, reaped, asked to end.

The loop's thread alone uses it. What came of each run is told to `log`; what a run could not
remember by itself, because it was killed, and what was missed, is given to the clerk to write down.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake import clock
from safetake.operate import joblocks
from safetake.operate.children import Child, Ended
from safetake.operate.timetable import Entry, Timetable, timing
from safetake.operate.watch import Clerk
from safetake.wording import duration

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.schedule import Missed

Log = Callable[..., None]
"""`log(event, text, **fields)`: one event."""


class Runner:
    """Jobs as processes, by name."""

    def __init__(self, path: Path, config: Config, log: Log, clerk: Clerk) -> None:
        self.config = config
        self.children: dict[str, Child] = {}
        self.last: dict[str, tuple[int, int]] = {}
        """Job to when its last run of this daemon ended, and its exit code."""
        self._path = path
        self._log = log
        self._clerk = clerk

    def notice(self, timetable: Timetable) -> None:
        """Look what is due now, and tell what was missed."""
        now = clock.now_ns()
        for name, entry in timetable.entries.items():
            skipped = entry.notice(now)
            if skipped is not None:
                self._missed(name, entry, skipped)

    def _missed(self, name: str, entry: Entry, skipped: Missed) -> None:
        catching_up = entry.due is not None and entry.due.late
        runs = "1 run" if skipped.count == 1 else f"{skipped.count} runs"
        text = f"{runs} of job {name} missed, the first at {clock.go_time(skipped.first_ns)}"
        self._log(
            "missed",
            text + ("; catching up" if catching_up else ""),
            job=name,
            count=skipped.count,
        )
        facts = {
            "count": skipped.count,
            "first_ns": skipped.first_ns,
            "last_ns": skipped.last_ns,
            "first": clock.go_time(skipped.first_ns),
            "last": clock.go_time(skipped.last_ns),
            "caught_up": catching_up,
        }
        now = clock.now_ns()
        self._append("missed", name, skipped.first_ns, now, 1, text, facts)

    def start(self, timetable: Timetable) -> None:
        """Start what is due, as far as there is room and no other job is in the way."""
        at_work = [
            joblocks.needs(self.config, name, self.config.jobs[name])
            for name in self.children
            if name in self.config.jobs
        ]
        for entry in timetable.waiting():
            if len(self.children) >= self.config.daemon.concurrency:
                return
            wanted = joblocks.needs(self.config, entry.name, entry.job)
            if entry.name in self.children or any(
                joblocks.conflict(wanted, other) for other in at_work
            ):
                continue
            assert entry.due is not None
            due, entry.due = entry.due, None
            try:
                child = Child(self._path, entry.name)
            except OSError as error:
                self._log("trouble", f"job {entry.name} could not be started: {error.strerror}")
                entry.due = due
                return
            self.children[entry.name] = child
            at_work.append(wanted)
            late = (clock.now_ns() - due.at_ns - entry.jitter_ns) / 1e9
            self._log(
                "started",
                f"job {entry.name} started" + (f", {duration(late)} late" if late > 60 else ""),
                job=entry.name,
                pid=child.pid,
                due=clock.go_time(due.at_ns),
                late_seconds=round(late, 3),
            )

    def reap(self) -> None:
        """Look which have ended."""
        for name, child in list(self.children.items()):
            ended = child.ended()
            if ended is not None:
                del self.children[name]
                self._ended(name, child, ended)

    def _ended(self, name: str, child: Child, ended: Ended) -> None:
        now = clock.now_ns()
        for line in ended.lines:
            self._log("said", f"job {name}: {line}", job=name)
        error = ended.error
        code = ended.exit_code if ended.exit_code >= 0 else 1
        self.last[name] = (now, code)
        seconds = (now - child.started_ns) / 1e9
        if code == 0:
            text = f"job {name} done in {duration(seconds)}"
        else:
            text = f"job {name} failed after {duration(seconds)}: {error or f'exit code {code}'}"
        self._log(
            "done" if code == 0 else "failed",
            text,
            job=name,
            exit_code=code,
            seconds=round(seconds, 3),
        )
        if ended.outcome is None and name in self.config.jobs:
            kind = self.config.jobs[name].kind
            error = error or f"exit code {code}"
            self._append(kind, name, child.started_ns, now, code or 1, error, {})

    # ---------------------------------------------------------------- what the clerk is given

    def tell_overdue(self) -> None:
        """Have people told what did not run when it should have."""
        if not self._clerk.idle():
            return  # it is still being told
        config = self.config
        notify = config.notify
        if not (notify.urls or notify.urls_env or notify.urls_file or notify.ping_env):
            return

        def tell() -> None:
            from safetake.operate.history import History
            from safetake.operate.notify import tell_overdue

            tell_overdue(config, History(config))

        self._clerk.give(tell)

    def remember(self, what: str) -> None:
        """What the daemon itself did, and the jobs and times that it knows."""
        jobs = {name: timing(job) for name, job in self.config.jobs.items() if job.schedule}
        now = clock.now_ns()
        facts = {"event": what, "jobs": jobs, "pid": os.getpid()}
        self._append("daemon", "", now, now, 0, "", facts)

    def _append(
        self,
        kind: str,
        job: str,
        started_ns: int,
        ended_ns: int,
        code: int,
        error: str,
        facts: dict[str, Any],
    ) -> None:
        """A record in the state folder; the next job takes it to the repository."""
        config = self.config

        def append() -> None:
            from safetake.operate.after import after_run
            from safetake.operate.history import History

            history = History(config)
            record = history.append(
                kind,
                job=job,
                started_ns=started_ns,
                ended_ns=ended_ns,
                exit_code=code,
                trigger="daemon",
                error=error,
                facts=facts,
            )
            after_run(config, history, record)

        self._clerk.give(append)
