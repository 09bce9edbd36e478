"""Schedules against an oracle that walks through every minute of a year and looks at the clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.clock import go_time, parse_go_time
from safetake.operate.schedule import COUNT_LIMIT, Schedule, jitter_ns, missed

S = 10**9
YEAR = 2026
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Seoul"]
"""One hour in spring and autumn at different hours, half an hour, and never."""


@lru_cache(maxsize=1)
def walk(zone: str) -> list[tuple[int, datetime]]:
    """Every minute of the year: when, and what the clock on the wall shows."""
    start = int(datetime(YEAR, 1, 1, tzinfo=ZoneInfo(zone)).timestamp())
    place = ZoneInfo(zone)
    return [
        (at * S, datetime.fromtimestamp(at, place).replace(tzinfo=None, fold=0))
        for at in range(start, start + 365 * 86400, 60)
    ]


def oracle(
    minutes: list[tuple[int, datetime]], matches: Callable[[datetime], bool], hourly: bool
) -> list[int]:
    """The runs in these minutes, by looking at the clock in each."""
    if hourly:
        return [at for at, wall in minutes if matches(wall)]
    minute = timedelta(minutes=1)
    runs: list[int] = []
    latest = minutes[0][1] - minute
    for at, wall in minutes:
        due = False
        while latest < wall:  # one step, or all that was skipped; none in what is repeated
            latest += minute
            due = matches(latest) or due
        if due:
            runs.append(at)
    return runs


def year(schedule: Schedule) -> list[int]:
    moments = walk(schedule.zone)
    return list(schedule.between(moments[0][0] - 1, moments[-1][0]))


def times(runs: list[int]) -> list[str]:
    return [go_time(run) for run in runs]


EXPRESSIONS = [
    ("0 2 * * *", lambda w: w.hour == 2 and w.minute == 0),
    ("15,45 2,3 * * *", lambda w: w.hour in (2, 3) and w.minute in (15, 45)),
    ("0 */6 * * *", lambda w: w.hour % 6 == 0 and w.minute == 0),
    ("*/20 1-2 * * *", lambda w: w.hour in (1, 2) and w.minute % 20 == 0),
    ("30 * * * *", lambda w: w.minute == 30),
    ("*/30 * * * *", lambda w: w.minute % 30 == 0),
    ("30 1 * * 0", lambda w: w.weekday() == 6 and w.hour == 1 and w.minute == 30),
    ("0 4 9 * 1", lambda w: (w.hour, w.minute) == (4, 0) and (w.day == 9 or not w.weekday())),
    ("59 23 L * *", lambda w: (w + timedelta(days=1)).day == 1 and (w.hour, w.minute) == (23, 59)),
]  # fmt: skip


@pytest.mark.parametrize(
    "zone", [ZONES[0], *(pytest.param(zone, marks=pytest.mark.slow) for zone in ZONES[1:])]
)
def test_whole_years_are_as_the_clock_on_the_wall_says(zone: str) -> None:
    for expression, matches in EXPRESSIONS:
        schedule = Schedule(expression, zone)
        hourly = expression.split()[1] == "*"
        assert times(year(schedule)) == times(oracle(walk(zone), matches, hourly)), expression


@lru_cache(maxsize=3)
def changes(zone: str) -> list[list[tuple[int, datetime]]]:
    """The minutes of the days around each change of clocks."""
    minutes = walk(zone)
    jumps = [
        n
        for n in range(1, len(minutes))
        if minutes[n][1] - minutes[n - 1][1] != timedelta(minutes=1)
    ]
    return [minutes[n - 2 * 1440 : n + 2 * 1440] for n in jumps]


@settings(max_examples=25)
@given(
    zone=st.sampled_from(ZONES[:3]),
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.sets(st.integers(0, 4), min_size=1) | st.just(set(range(24))),
)
def test_any_times_around_the_changes(zone: str, minutes: set[int], hours: set[int]) -> None:
    fields = [",".join(map(str, sorted(each))) for each in (minutes, hours)]
    schedule = Schedule(f"{fields[0]} {fields[1]} * * *", zone)
    for window in changes(zone):
        runs = oracle(window, lambda w: w.hour in hours and w.minute in minutes, len(hours) == 24)
        assert list(schedule.between(window[0][0] - 1, window[-1][0])) == runs
        for earlier, at in pairwise(runs):
            assert (schedule.last(at), schedule.last(at - 1)) == (at, earlier)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("expression", ["30 2 * * *", "0 1 * * 0", "0 3 29 3 *", "5 0 * * 1-5"])
def test_daily_times_agree_with_cronsim(zone: str, expression: str) -> None:
    runs = CronSim(expression, datetime(YEAR, 1, 1, tzinfo=ZoneInfo(zone)))
    schedule = Schedule(expression, zone)
    at = int(datetime(YEAR, 1, 1, tzinfo=ZoneInfo(zone)).timestamp()) * S
    for _ in range(200):
        expected = int(next(runs).timestamp()) * S
        found = schedule.after(at)
        assert found == expected
        at = expected


def test_the_skipped_and_the_repeated_hour_by_name() -> None:
    def runs(expression: str, day: str, zone: str = "Europe/Berlin") -> list[str]:
        start = parse_go_time(f"{day}T00:00:00Z") - 2 * 3600 * S
        return [text[11:16] for text in times(list(Schedule(expression, zone).between(start, start + 25 * 3600 * S)))]  # fmt: skip # noqa: E501

    assert runs("30 2 * * *", "2026-03-29") == ["01:00"]  # 03:00, the first moment after it
    assert runs("0,30 2,3 * * *", "2026-03-29") == ["01:00", "01:30"]  # 3:00 and 3:30 of the wall
    assert runs("30 2 * * *", "2026-10-25") == ["00:30"]  # the first 02:30
    assert len(runs("30 * * * *", "2026-10-25")) == 25  # each hour that there is in 25 hours
    assert runs("30 2 * * *", "2026-03-29", "Asia/Seoul") == ["17:30"]


def test_a_start_in_the_second_of_two_equal_hours_does_not_go_back() -> None:
    second = parse_go_time("2026-10-25T01:40:00Z")  # 02:40, for the second time
    found = Schedule("45 2 * * *", "Europe/Berlin").after(second)
    assert found == parse_go_time("2026-10-26T01:45:00Z")


def test_a_day_that_never_was() -> None:
    """Samoa went from 29 to 31 December 2011."""
    noon = Schedule("0 12 * * *", "Pacific/Apia")
    since = parse_go_time("2011-12-29T23:00:00Z")  # 13:00 on the 29th
    assert noon.after(since) == parse_go_time("2011-12-30T10:00:00Z")  # the 31st begins
    assert noon.after(noon.after(since) or 0) == parse_go_time("2011-12-30T22:00:00Z")


def test_clocks_set_back_at_midnight() -> None:
    """Havana: at 01:00 it is 00:00 again; a run at 00:30 is one run."""
    runs = list(
        Schedule("30 0 * * *", "America/Havana").between(
            parse_go_time("2026-10-31T12:00:00Z"), parse_go_time("2026-11-02T12:00:00Z")
        )
    )
    assert times(runs) == ["2026-11-01T04:30:00Z", "2026-11-02T05:30:00Z"]


def test_what_is_rare_is_found() -> None:
    leap = Schedule("0 0 29 2 *")
    assert leap.after(parse_go_time("2026-01-01T00:00:00Z")) == parse_go_time(
        "2028-02-29T00:00:00Z"
    )
    assert leap.last(parse_go_time("2026-01-01T00:00:00Z")) == parse_go_time("2024-02-29T00:00:00Z")
    fifth_monday = Schedule("0 0 * 2 MON#5").after(parse_go_time("2026-01-01T00:00:00Z"))
    assert fifth_monday == parse_go_time("2044-02-29T00:00:00Z")


def test_jitter_is_stable_bounded_and_differs_between_hosts() -> None:
    found = {jitter_ns("nightly", f"host{n}", 600) for n in range(100)}
    assert len(found) == 100
    assert all(0 <= each < 600 * S for each in found)
    assert jitter_ns("nightly", "host1", 600) == jitter_ns("nightly", "host1", 600)
    assert jitter_ns("nightly", "host1", 0) == 0


def test_missed_runs_are_counted_between_two_moments() -> None:
    hourly = Schedule("0 * * * *")
    start = parse_go_time("2026-05-01T00:00:00Z")
    assert missed(hourly, start, start + 3599 * S) is None
    three = missed(hourly, start, start + 3 * 3600 * S)
    assert three is not None
    assert (three.count, three.first_ns, three.last_ns) == (
        3,
        start + 3600 * S,
        start + 3 * 3600 * S,
    )
    assert missed(hourly, start, start - 3600 * S) is None  # the clock was set back
    long = missed(Schedule("* * * * *"), start, start + 30 * 86400 * S)
    assert long is not None
    assert long.count == COUNT_LIMIT
    assert long.last_ns == start + 30 * 86400 * S


def test_utc_is_a_zone_like_any_other() -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    at = Schedule("0 2 * * *").after(int(start.timestamp()) * S)
    assert at == parse_go_time("2026-03-01T02:00:00Z")
