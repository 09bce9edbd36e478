"""Spans of the calendar and the buckets of a zone, counted exactly as restic (Go) counts them.

A span is taken off in local time: years and months first, days that the month does not have run
over into the next one (31 March less one month is 3 March), then days, then hours of 60 minutes.
A local time that a change of clocks left out, or made twice, is resolved as Go's `time.Date` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

_SPAN = re.compile(r"(?=\d)(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_LAST_DAY = date(9999, 12, 31).toordinal()

ALWAYS = -(1 << 63)
"""Before every snapshot."""


def local(ns: int, zone: tzinfo) -> datetime:
    """The whole second in the zone; at the two ends of the calendar, in UTC."""
    moment = _EPOCH + timedelta(seconds=ns // 10**9)
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment


def _offset(second: int, zone: tzinfo) -> int:
    """Seconds that the zone is ahead of UTC at a second since the epoch."""
    ahead = local(second * 10**9, zone).utcoffset()
    return 0 if ahead is None else round(ahead.total_seconds())


@dataclass(frozen=True, slots=True)
class Span:
    """`24h`, `30d`, `12w`, `12m`, `1y6m`."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: str) -> Span:
        """Raises ValueError."""
        match = _SPAN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text[:40]!r} is no span of the calendar")
        years, months, weeks, days, hours = (int(number or 0) for number in match.groups())
        return cls(years, months, weeks * 7 + days, hours)

    def __bool__(self) -> bool:
        return bool(self.years or self.months or self.days or self.hours)

    def __str__(self) -> str:
        """As restic writes it: weeks are days."""
        parts = ((self.years, "y"), (self.months, "m"), (self.days, "d"), (self.hours, "h"))
        return "".join(f"{count}{unit}" for count, unit in parts if count) or "0h"

    def before(self, ns: int, zone: tzinfo) -> int:
        """Nanoseconds since the epoch, this span before `ns`; ALWAYS when no calendar has it."""
        there = local(ns, zone)
        months = (there.year - self.years) * 12 + there.month - 1 - self.months
        if months < 12:
            return ALWAYS
        day = date(months // 12, months % 12 + 1, 1).toordinal() + there.day - 1 - self.days
        if not 366 < day <= _LAST_DAY:
            return ALWAYS
        clock = there.hour * 3600 + there.minute * 60 + there.second
        second = (day - _EPOCH_DAY) * 86400 + clock
        # the offset of the second as if it were UTC, then that of what this makes of it
        second -= _offset(second - _offset(second, zone), zone)
        return (second - self.hours * 3600) * 10**9 + ns % 10**9


def hour(moment: datetime) -> str:
    """`2026-11-22 21h`. An hour that clocks go through twice is one, as it is to restic."""
    return f"{day(moment)} {moment.hour:02d}h"


def day(moment: datetime) -> str:
    """`2026-11-22`."""
    return f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}"


def week(moment: datetime) -> str:
    """`2026-W47`: ISO weeks begin on Monday."""
    year, number, _ = moment.isocalendar()
    return f"{year:04d}-W{number:02d}"


def month(moment: datetime) -> str:
    """`2026-11`."""
    return f"{moment.year:04d}-{moment.month:02d}"


def year(moment: datetime) -> str:
    """`2026`."""
    return f"{moment.year:04d}"
