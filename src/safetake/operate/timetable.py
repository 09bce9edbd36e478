"""Which jobs are due, and which runs were missed: arithmetic over "now", without waiting.

A time of the schedule is *noticed* once. On time (within a minute) it is a run; later, because the
machine slept or nothing ran, it is missed, and caught up with by one run, where the job says so.
While a job waits or runs, one further time is kept for it; any before that one are missed. Clocks
that are set back by more than a minute make times come again, as real time does go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetake.operate.schedule import Missed, Schedule, jitter_ns, missed

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.configjobs import JobConfig
    from safetake.operate.history import Record

ON_TIME_NS = 60 * 10**9
"""A start later than this after its time, because nobody looked, is a missed run."""


@dataclass(slots=True)
class Due:
    """A run that is to be started."""

    at_ns: int
    """The time of the schedule that it answers."""
    late: bool
    """It catches up with missed runs."""


class Entry:
    """One job with a schedule."""

    def __init__(self, name: str, job: JobConfig, host: str, noticed_ns: int) -> None:
        assert job.schedule is not None
        self.name = name
        self.job = job
        self.schedule = Schedule(job.schedule, job.timezone)
        self.jitter_ns = jitter_ns(name, host, job.jitter)
        self.due: Due | None = None
        self._noticed_ns = noticed_ns
        self._next_ns = self.schedule.after(noticed_ns)

    @property
    def next_ns(self) -> int | None:
        """When it will be due, the delay included."""
        return None if self._next_ns is None else self._next_ns + self.jitter_ns

    def notice(self, now_ns: int) -> Missed | None:
        """Look whether it is due; what was missed is told once."""
        now = now_ns - self.jitter_ns
        if now < self._noticed_ns - ON_TIME_NS:  # the clock was set back
            self._noticed_ns = now
            self._next_ns = self.schedule.after(now)
        if self._next_ns is None or now < self._next_ns:
            return None
        found = missed(self.schedule, self._noticed_ns, now)
        assert found is not None  # the next one is among them
        on_time = now - found.last_ns <= ON_TIME_NS
        skipped = found.count - on_time
        first = found.first_ns
        last = self.schedule.last(found.last_ns - 1) if on_time else found.last_ns
        if on_time or self.job.catch_up:
            if self.due is not None and not self.due.late:
                skipped += 1
                first = self.due.at_ns
            self.due = Due(found.last_ns, late=not on_time)
        self._noticed_ns = found.last_ns
        self._next_ns = self.schedule.after(found.last_ns)
        return Missed(skipped, first, last or first) if skipped else None


class Timetable:
    """All jobs with a schedule."""

    def __init__(self, config: Config, host: str, now_ns: int, answered: Mapping[str, int]) -> None:
        """`answered`: until when the times of a job are accounted for; without it, until now."""
        self._host = host
        self.entries = {
            name: Entry(name, job, host, min(answered.get(name, now_ns), now_ns))
            for name, job in config.jobs.items()
            if job.schedule is not None
        }

    def reload(self, config: Config, now_ns: int) -> None:
        """Go by another configuration; a job whose times did not change stays where it is."""
        before = self.entries
        self.entries = {}
        for name, job in config.jobs.items():
            if job.schedule is None:
                continue
            old = before.get(name)
            if old is not None and timing(old.job) == timing(job):
                old.job = job
                self.entries[name] = old
            else:
                self.entries[name] = Entry(name, job, self._host, now_ns)

    def waiting(self) -> list[Entry]:
        """Those that are due, the longest first."""
        return sorted(
            (entry for entry in self.entries.values() if entry.due is not None),
            key=lambda entry: (entry.due.at_ns if entry.due else 0, entry.name),
        )


def timing(job: JobConfig) -> str:
    """What decides when a job runs, in words; empty for one without a schedule."""
    return "" if job.schedule is None else f"{job.schedule} {job.timezone} {job.jitter:g}"


def answered(config: Config, records: Iterable[Record], running: Iterable[str]) -> dict[str, int]:
    """Until when the times of each job are accounted for, by the history.

    Only of jobs that the newest daemon knew with the same times: nobody has missed the runs of a
    job that is new, or the times that it did not have then. Those that run now count as started.
    """
    known: dict[str, str] = {}
    since: dict[str, int] = {}
    known_ns = 0
    for record in records:
        if record.kind == "daemon" and isinstance(record.facts.get("jobs"), dict):
            known, known_ns = record.facts["jobs"], record.ended_ns
        elif record.kind == "missed":
            until = record.facts.get("last_ns")
            if isinstance(until, int):
                since[record.job] = max(since.get(record.job, 0), until)
        elif record.job:
            since[record.job] = max(since.get(record.job, 0), record.started_ns)
    found = {
        name: since.get(name, known_ns)
        for name, job in config.jobs.items()
        if known.get(name) == timing(job)
    }
    for name in running:
        found.pop(name, None)
    return found
