"""A CronJob runs when the configuration says: its schedule is read as robfig/cron reads it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from safetake.operate.kubernetes.cron import kubernetes_schedule, shortest_gap

RANGES = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]


def robfig(field: str, low: int, high: int) -> tuple[set[int], bool]:
    """Numbers of a field and whether it counts as a star, by the rules of robfig/cron v3."""
    numbers: set[int] = set()
    star = False
    for part in field.split(","):
        span, _, step = part.partition("/")
        every = int(step) if step else 1
        assert every > 0
        if span in ("*", "?"):
            first, last = low, high
            star = star or every == 1
        elif "-" in span:
            first, last = (int(word) for word in span.split("-"))
        else:
            first = int(span)
            last = high if step else first
        assert low <= first <= last <= high, field
        numbers |= set(range(first, last + 1, every))
    return numbers, star


def robfig_runs(schedule: str, month: int, day: int, weekday: int) -> bool:
    days, any_day = robfig(schedule.split()[2], 1, 31)
    months, _ = robfig(schedule.split()[3], 1, 12)
    weekdays, any_weekday = robfig(schedule.split()[4], 0, 6)
    both = [day in days, weekday in weekdays]
    return month in months and (all(both) if any_day or any_weekday else any(both))


def debian_runs(parsed: CronSim, month: int, day: int, weekday: int) -> bool:
    both = [
        day in parsed.days,
        weekday in parsed.weekdays or (weekday == 0 and 7 in parsed.weekdays),
    ]
    return month in parsed.months and (all(both) if parsed.day_and else any(both))


def field(low: int, high: int, words: list[str]) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    span = st.tuples(number, number).map(lambda two: "-".join(two))
    plain = st.one_of(number, span, st.just("*"), st.sampled_from(words or ["*"]))
    stepped = st.tuples(plain, st.integers(1, 9).map(str)).map(lambda two: "/".join(two))
    return st.lists(plain | stepped, min_size=1, max_size=3).map(",".join) | st.just("*")


EXPRESSIONS = st.tuples(
    field(0, 59, []),
    field(0, 23, []),
    field(1, 31, ["L", "LW"]),
    field(1, 12, ["JAN", "dec", "mar-MAY"]),
    field(0, 7, ["SUN", "mon-FRI", "5L", "MON#2", "7"]),
).map(" ".join)


@settings(max_examples=100)
@given(EXPRESSIONS)
@example("0 */6 * * *")
@example("0 0 */2 * 1")
@example("0 0 1-31 * 1")
@example("0 0 * * 5-7")
@example("0 0 1 * */2")
@example("5-5/7 * * * *")
@example("0 0 *,5 * 1")
def test_the_rendered_schedule_means_the_same(expression: str) -> None:
    try:
        parsed = CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
        schedule = kubernetes_schedule(expression)
    except CronSimError:
        assume(False)
    except ValueError:
        assert any(letter in expression for letter in "L#") or "*" in expression
        return
    minutes, hours, *_ = schedule.split()
    assert robfig(minutes, 0, 59)[0] == set(parsed.minutes)
    assert robfig(hours, 0, 23)[0] == set(parsed.hours)
    for month in (1, 2, 12):
        for day in range(1, 32):
            for weekday in range(7):
                expected = debian_runs(parsed, month, day, weekday)
                assert robfig_runs(schedule, month, day, weekday) == expected, schedule


@pytest.mark.parametrize(
    ("expression", "schedule"),
    [
        ("0 */6 * * *", "0 */6 * * *"),
        ("0 2 * * *", "0 2 * * *"),
        ("0 0,12 1 */2 *", "0 0,12 1 */2 *"),
        ("30 3 * * 7", "30 3 * * 0"),
        ("30 3 * * mon-fri", "30 3 * * 1-5"),
        ("0 0 1-31 * 1", "0 0 * * *"),
        ("0 0 1 jan *", "0 0 1 1 *"),
    ],
)
def test_what_both_read_alike_stays_as_it_was_written(expression: str, schedule: str) -> None:
    assert kubernetes_schedule(expression) == schedule


@pytest.mark.parametrize("expression", ["0 0 L * *", "0 0 * * 5L", "0 0 * * 1#2", "0 0 */2 * 1"])
def test_what_a_cronjob_can_not_say_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="a CronJob"):
        kubernetes_schedule(expression)


def test_gaps() -> None:
    assert shortest_gap("0 */6 * * *") == 6 * 3600
    assert shortest_gap("* * * * *") == 60
    assert shortest_gap("0 0 29 2 *") == 366 * 86400
