"""What a schedule and the rules come to over a year: snapshots taken on time, pruned on time.

Nothing is opened or read. Pins keep more than is shown, and a run that fails keeps less.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from safetake.clock import go_time
from safetake.errors import UsageError
from safetake.operate.retention import policy
from safetake.operate.retention.policy import Rules
from safetake.operate.schedule import Schedule

if TYPE_CHECKING:
    from safetake.config import Config

_LOOKS = (1, 7, 30, 90, 180, 365, 730, 1825, 3650)
_MAX_SNAPSHOTS = 1_000_000


@dataclass(slots=True)
class Simulated:
    """What becomes of one job's snapshots."""

    job: str
    schedule: str
    timezone: str
    rules: str
    taken: int = 0
    looks: list[dict[str, Any]] = field(default_factory=list)
    """At the end of some days: `day`, `kept`, `oldest`."""
    kept: list[tuple[int, list[str]]] = field(default_factory=list)
    """At the end: time and reasons, the newest first."""

    @property
    def by_rule(self) -> dict[str, int]:
        """How many are kept at the end, each under the finest rule that keeps it."""
        counts: dict[str, int] = {}
        for _, reasons in self.kept:
            rule = reasons[0].split()[0] if reasons else "since the last prune"
            counts[rule] = counts.get(rule, 0) + 1
        return counts

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "job": self.job,
            "schedule": self.schedule,
            "timezone": self.timezone,
            "rules": self.rules,
            "taken": self.taken,
            "by_rule": self.by_rule,
            "days": self.looks,
            "kept": [{"time": go_time(ns), "reasons": reasons} for ns, reasons in self.kept],
        }


def simulate(config: Config, *, days: int, now_ns: int) -> list[Simulated]:
    """Every scheduled backup job over so many days from now. Raises UsageError without one."""
    jobs = {name: job for name, job in config.jobs.items() if job.kind == "backup" and job.schedule}
    if not jobs:
        raise UsageError(
            "no backup job has a schedule: there is nothing to simulate",
            hint='give a job of kind "backup" a schedule, such as `schedule = "0 */6 * * *"`',
        )
    end = now_ns + days * 86400 * 10**9
    zone = ZoneInfo(config.retention.timezone)
    prunes = sorted(
        {
            ns
            for job in config.jobs.values()
            if job.kind == "prune" and job.schedule
            for ns in Schedule(job.schedule, job.timezone).between(now_ns, end)
        }
        or set(range(now_ns + 86400 * 10**9, end + 1, 86400 * 10**9))
    )
    found = []
    for name, job in jobs.items():
        assert job.schedule is not None
        rules = Rules.of(config.retention.jobs.get(name, config.retention))
        one = Simulated(name, job.schedule, job.timezone, str(rules))
        looks = [now_ns + day * 86400 * 10**9 for day in _LOOKS if day < days] + [end]
        kept: dict[str, int] = {}
        backups = Schedule(job.schedule, job.timezone).between(now_ns, end)
        floor = round(config.retention.floor * 1e9)
        for ns, what in heapq.merge(
            ((ns, 0) for ns in backups), ((ns, 1) for ns in prunes), ((ns, 2) for ns in looks)
        ):
            if what == 0:
                one.taken += 1
                kept[str(ns)] = ns
                if one.taken > _MAX_SNAPSHOTS:
                    raise UsageError(
                        f"job {name} takes more than {_MAX_SNAPSHOTS:,} snapshots in {days} days",
                        hint="give fewer --days",
                    )
            elif what == 1 and kept:
                verdict = policy.apply(kept.items(), rules, zone, ns)
                kept = {
                    key: time
                    for key, time in kept.items()
                    if key in verdict.kept or ns - time < floor
                }
            elif what == 2:
                one.looks.append(
                    {
                        "day": (ns - now_ns) // (86400 * 10**9),
                        "kept": len(kept),
                        "oldest": go_time(min(kept.values())) if kept else None,
                    }
                )
        reasons = policy.apply(kept.items(), rules, zone, end).kept
        one.kept = [
            (kept[key], reasons.get(key, [])) for key in sorted(kept, key=lambda k: -kept[k])
        ]
        found.append(one)
    return found
