"""A cron expression as Kubernetes reads it, which is not as Debian's cron does.

Both day fields: Debian's cron wants both to match when one of them begins with `*` (also `*/2`),
Kubernetes (robfig/cron) only when one of them is `*`. Kubernetes has no Sunday 7 and no `L`, `LW`
and `#`. What can not be said in Kubernetes is refused, never rendered as something else.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_STEP = re.compile(r"\*/\d{1,2}")
_SAME = re.compile(r"\d{1,2}-\d{1,2}|\d{1,2}(,\d{1,2})*")
_RUNS = 60


def kubernetes_schedule(expression: str) -> str:
    """The same moments, as a CronJob's `schedule`. Raises ValueError when it has no such."""
    from cronsim import CronSim

    words = expression.upper().split()
    if len(words) != 5:
        raise ValueError("a CronJob has five fields, from minutes on")
    parsed = CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
    if min(parsed.days) < 0 or any(isinstance(day, tuple) for day in parsed.weekdays):
        raise ValueError("a CronJob knows no L, LW and #")
    days = set(parsed.days)
    weekdays = {day % 7 for day in parsed.weekdays if isinstance(day, int)}
    every_day, every_weekday = len(days) == 31, len(weekdays) == 7
    day, weekday = _field(words[2], days), _field(words[4], weekdays, weekday=True)
    if parsed.day_and:
        if not every_day and not every_weekday:
            raise ValueError(
                "a CronJob can not ask for a day of the month and of the week together"
            )
        day, weekday = ("*" if every_day else day), ("*" if every_weekday else weekday)
    elif every_day or every_weekday:  # one of them is enough, and one always matches
        day = weekday = "*"
    return " ".join(
        [
            _field(words[0], set(parsed.minutes)),
            _field(words[1], set(parsed.hours)),
            day,
            _field(words[3], set(parsed.months)),
            weekday,
        ]
    )


def _field(text: str, numbers: set[int], *, weekday: bool = False) -> str:
    """As the user wrote it where both read it alike, else its numbers."""
    if text == "*" or (not weekday and _STEP.fullmatch(text)):
        return text
    if _SAME.fullmatch(text) and not (weekday and "7" in text):
        return text
    found: list[str] = []
    ordered = sorted(numbers)
    while ordered:
        end = 0
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        first, last = ordered[0], ordered[end]
        found.append(f"{first}-{last}" if end > 1 else f"{first},{last}" if end else str(first))
        del ordered[: end + 1]
    return ",".join(found)


def shortest_gap(expression: str) -> int:
    """Seconds between two runs, at least; a year when there is only one in sight."""
    from cronsim import CronSim

    runs = CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
    gap = timedelta(days=366)
    try:
        before = next(runs)
        for _ in range(_RUNS):
            after = next(runs)
            gap = min(gap, after - before)
            before = after
    except StopIteration:
        pass
    return int(gap.total_seconds())
