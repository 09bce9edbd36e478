"""When a job runs: cron expressions in a zone of the IANA database, with summer time done right.

The dialect is that of `cronsim` (Debian's cron); the instants are worked out here, from the zone's
own rules. Two rules for the days on which clocks change:

- A schedule of every hour (`*` or all 24 in the hour field) goes by real time: it runs in each hour
  that there is, twice in one that is repeated, and never in one that is skipped.
- Any other names times of the clock on the wall, and each of them is one run: what falls into the
  skipped hour runs once, at the first moment after it (several such times together are one run),
  and what falls into the repeated hour runs the first time only.

All moments are nanoseconds since the epoch; "now" is always given, never asked for.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from cronsim import CronSim

_S = 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HORIZON_DAYS = 366 * 40
"""29 February on a Monday comes every 28 years, but for 2100."""
_DAY = timedelta(days=1)
_DAYS_KEPT = 8
COUNT_LIMIT = 10_000
"""More missed runs than this are not counted one by one."""


@dataclass(frozen=True)
class Schedule:
    """A cron expression of five fields and the zone that it is meant in. Both were checked."""

    expression: str
    zone: str = "UTC"

    @cached_property
    def _fields(self) -> CronSim:
        from cronsim import CronSim

        return CronSim(self.expression, datetime(2026, 1, 1, tzinfo=UTC))

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.zone)

    @cached_property
    def hourly(self) -> bool:
        """Whether it runs in every hour, and so goes by real time."""
        return len(self._fields.hours) == 24

    def after(self, ns: int) -> int | None:
        """The first run later than `ns`; None when there is none within 40 years."""
        day = self._local_date(ns) - _DAY  # the night may have been set back
        for n in range(_HORIZON_DAYS):
            found = self._later(day + n * _DAY, ns)
            if found is not None:
                # where clocks are set back at midnight the next day may begin before this one ends
                next_day = self._later(day + (n + 1) * _DAY, ns)
                return found if next_day is None else min(found, next_day)
        return None

    def last(self, ns: int) -> int | None:
        """The newest run at or before `ns`; None when there is none within 40 years."""
        day = self._local_date(ns) + _DAY
        for n in range(_HORIZON_DAYS):
            found = self._earlier(day - n * _DAY, ns)
            if found is not None:
                day_before = self._earlier(day - (n + 1) * _DAY, ns)
                return found if day_before is None else max(found, day_before)
        return None

    def between(self, after_ns: int, until_ns: int) -> Iterator[int]:
        """Every run later than `after_ns` and not later than `until_ns`, in order."""
        at = self.after(after_ns)
        while at is not None and at <= until_ns:
            yield at
            at = self.after(at)

    def _later(self, day: date, ns: int) -> int | None:
        runs = self._day(day)
        at = bisect_right(runs, ns)
        return runs[at] if at < len(runs) else None

    def _earlier(self, day: date, ns: int) -> int | None:
        runs = self._day(day)
        at = bisect_right(runs, ns)
        return runs[at - 1] if at else None

    def _local_date(self, ns: int) -> date:
        return datetime.fromtimestamp(ns // _S, self._zone).date()

    @cached_property
    def _known(self) -> dict[date, list[int]]:
        return {}

    def _day(self, day: date) -> list[int]:
        """The runs that are named by times of one day of the calendar, in order."""
        runs = self._known.get(day)
        if runs is None:
            if len(self._known) >= _DAYS_KEPT:
                self._known.clear()
            runs = self._known[day] = sorted(self._work_out(day))
        return runs

    def _work_out(self, day: date) -> set[int]:
        cron = self._fields
        if day.month not in cron.months or not cron.match_day(day):
            return set()
        midnight = datetime(day.year, day.month, day.day)
        times = [(hour, minute) for hour in cron.hours for minute in cron.minutes]
        around = {
            (midnight + timedelta(hours=hour)).replace(tzinfo=self._zone).utcoffset()
            for hour in range(-12, 37, 6)
        }
        if len(around) == 1:  # no change of clocks is near: 1440 runs in a millisecond
            start = _ns(midnight.replace(tzinfo=self._zone))
            return {start + (hour * 60 + minute) * 60 * _S for hour, minute in times}
        return {
            at
            for hour, minute in times
            for at in self._instants(midnight.replace(hour=hour, minute=minute))
        }

    def _instants(self, wall: datetime) -> Iterator[int]:
        """When the clock on the wall shows `wall`, or what stands for it when it never does."""
        first = wall.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
        second = wall.replace(tzinfo=self._zone, fold=1).astimezone(UTC)
        if first == second:
            yield _ns(first)
        elif first < second:  # repeated
            yield _ns(first)
            if self.hourly:
                yield _ns(second)
        elif not self.hourly:  # skipped
            yield _ns(self._change(second, first))

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The moment between the two at which the zone's clocks are set."""
        new = after.astimezone(self._zone).utcoffset()
        low, high = 0, int((after - before).total_seconds())
        while high - low > 1:
            middle = (low + high) // 2
            moment = before + timedelta(seconds=middle)
            if moment.astimezone(self._zone).utcoffset() == new:
                high = middle
            else:
                low = middle
        return before + timedelta(seconds=high)


def _ns(moment: datetime) -> int:
    between = moment - _EPOCH
    return (between.days * 86400 + between.seconds) * _S


def jitter_ns(job: str, host: str, most_s: float) -> int:
    """The delay of a job on a host, below `most_s`: always the same one, so that a start's time
    says whether it was late, and hosts with one configuration do not all start together."""
    share = int.from_bytes(hashlib.sha256(f"{job}\0{host}".encode()).digest()[:6], "big") / 2**48
    return int(share * most_s * _S)


@dataclass(frozen=True, slots=True)
class Missed:
    """Runs that nothing answered."""

    count: int
    """At most COUNT_LIMIT."""
    first_ns: int
    last_ns: int


def missed(schedule: Schedule, since_ns: int, now_ns: int) -> Missed | None:
    """The runs later than `since_ns` and not later than `now_ns`; None when there is none."""
    first = schedule.after(since_ns)
    if first is None or first > now_ns:
        return None
    count = 0
    last = first
    for at in schedule.between(since_ns, now_ns):
        count, last = count + 1, at
        if count == COUNT_LIMIT:
            last = schedule.last(now_ns) or at
            break
    return Missed(count, first, last)
