"""A cron expression as systemd says it: the same moments, except in nights when clocks change.

Then systemd goes by its own rules (systemd.time(7)); the daemon goes by those of `schedule`.
"""

from __future__ import annotations

from datetime import UTC, datetime

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def events(expression: str, zone: str) -> list[str]:
    """Values of `OnCalendar=`; several mean any of them. Raises ValueError where systemd has none.

    The expression was checked.
    """
    from cronsim import CronSim

    cron = CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
    if any(isinstance(day, tuple) for day in cron.weekdays):
        raise ValueError("systemd knows no `L` and `#` with days of the week")
    if CronSim.LAST_WEEKDAY in cron.days:
        raise ValueError("systemd knows no `LW`")
    days = {day for day in cron.days if isinstance(day, int)}
    weekdays = {day % 7 for day in cron.weekdays if isinstance(day, int)}
    months = _some(cron.months, 12)
    clock = f"{_some(cron.hours, 24)}:{_some(cron.minutes, 60)}:00 {zone}"
    last = CronSim.LAST in days
    dates = [f"*-{months}~01"] if last else []
    if days - {CronSim.LAST}:
        dates.append(f"*-{months}-{_some(days - {CronSim.LAST}, 31)}")
    named = ",".join(_DAYS[day] for day in sorted(weekdays)) if len(weekdays) < 7 else ""
    if cron.day_and or not named:
        return [f"{named} {date} {clock}".strip() for date in dates]
    either = [f"{date} {clock}" for date in dates]
    return [*either, f"{named} *-{months}-* {clock}"]


def _some(numbers: set[int], of: int) -> str:
    """`*`, or the numbers as a list."""
    if len(numbers) == of:
        return "*"
    return ",".join(f"{number:02d}" for number in sorted(numbers))
