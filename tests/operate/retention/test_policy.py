"""The rules of retention: restic's, to the letter, in any zone, and never more than they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.configjobs import KeepConfig
from safetake.operate.retention.calendar import ALWAYS, Span
from safetake.operate.retention.policy import Rules, apply

NEW_YORK, BERLIN, SEOUL = map(ZoneInfo, ("America/New_York", "Europe/Berlin", "Asia/Seoul"))


def ns(text: str, zone: ZoneInfo | None = None) -> int:
    moment = datetime.fromisoformat(text)
    return round(moment.replace(tzinfo=zone or UTC).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("span", "zone", "time", "before"),
    [
        ("24h", UTC, "2026-11-22T21:00", "2026-11-21T21:00"),
        ("30d", UTC, "2026-03-01T00:00", "2026-01-30T00:00"),
        ("12w", UTC, "2026-11-22T21:00", "2026-08-30T21:00"),
        ("12m", UTC, "2024-02-29T10:00", "2023-03-01T10:00"),
        ("1m", UTC, "2026-03-31T10:00", "2026-03-03T10:00"),
        ("1m", UTC, "2026-01-15T10:00", "2025-12-15T10:00"),
        ("1y6m", UTC, "2026-11-22T21:00", "2025-05-22T21:00"),
        ("1d12h", UTC, "2026-11-22T21:00", "2026-11-21T09:00"),
    ],
)
def test_a_span_is_taken_off_the_calendar(
    span: str, zone: ZoneInfo, time: str, before: str
) -> None:
    assert Span.parse(span).before(ns(time), zone) == ns(before)


def test_days_are_days_and_hours_are_hours_where_the_clocks_change() -> None:
    after = ns("2026-03-08T12:00", NEW_YORK)  # clocks went forward in the night
    assert Span.parse("1d").before(after, NEW_YORK) == ns("2026-03-07T12:00", NEW_YORK)
    assert Span.parse("24h").before(after, NEW_YORK) == ns("2026-03-07T11:00", NEW_YORK)
    # 02:30 was left out that night, and was twice in Berlin on 25 October: as Go resolves them
    gap = Span.parse("1d").before(ns("2026-03-09T02:30", NEW_YORK), NEW_YORK)
    assert gap == ns("2026-03-08T06:30")
    twice = Span.parse("1d").before(ns("2026-10-26T02:30", BERLIN), BERLIN)
    assert twice == ns("2026-10-25T01:30")


@pytest.mark.parametrize("span", ["9999y", "120000m", "4000000d", "999999999w"])
def test_a_span_longer_than_the_calendar_keeps_everything(span: str) -> None:
    assert Span.parse(span).before(ns("2026-11-22T21:00"), BERLIN) == ALWAYS


def kept(times: list[str], now: str = "2027-01-01T00:00", **rules: str) -> list[str]:
    """The times that stay, in UTC, oldest first."""
    named = [(text, ns(text)) for text in times]
    verdict = apply(named, Rules.of(KeepConfig(**rules)), UTC, ns(now))
    assert set(verdict.kept).isdisjoint(verdict.gone)
    assert {*verdict.kept, *verdict.gone} == set(times)
    return [text for text in times if text in verdict.kept]


def test_the_last_of_each_bucket_is_kept() -> None:
    times = ["2026-11-20T01:00", "2026-11-20T23:00", "2026-11-21T05:00", "2026-11-22T03:00"]
    assert kept(times, daily="30d") == times[1:]
    assert kept(times, weekly="12w") == times[3:]
    assert kept(times, within="2d") == times[1:]
    assert kept(times, hourly="24h", daily="1d") == times[2:]


def test_without_a_rule_everything_is_kept() -> None:
    times = ["2020-11-20T01:00", "2026-11-20T23:00"]
    assert kept(times) == times
    assert kept(times, hourly="0h") == times


def test_it_is_counted_back_from_the_newest_and_not_from_today() -> None:
    times = ["2026-01-01T00:00", "2026-01-01T12:00", "2026-01-02T00:00"]
    assert kept(times, now="2036-01-01T00:00", hourly="24h") == times[1:]


def test_a_clock_that_was_ahead_is_not_counted_back_from() -> None:
    times = ["2026-11-20T01:00", "2026-11-21T01:00", "2031-01-01T00:00"]
    assert kept(times, now="2026-11-21T02:00", daily="7d") == times
    assert kept(times, now="2032-11-21T02:00", daily="7d") == times[2:]


def test_iso_weeks_belong_to_the_year_of_their_thursday() -> None:
    # 30 December 2024 is in week 1 of 2025; 3 January 2027 is in week 53 of 2026
    times = ["2024-12-29T00:00", "2024-12-30T00:00", "2025-01-05T23:00", "2025-01-06T00:00"]
    assert kept(times, weekly="52w") == [times[0], *times[2:]]


def test_what_is_told_of_those_that_stay_and_go() -> None:
    times = ["2024-11-20T23:00", "2026-10-20T01:00", "2026-11-20T01:00", "2026-11-20T23:00"]
    rules = Rules.of(KeepConfig(daily="7d", monthly="12m"))
    verdict = apply([(text, ns(text)) for text in times], rules, UTC, ns("2027-01-01T00:00"))
    assert verdict.kept == {
        times[3]: ["daily 2026-11-20", "monthly 2026-11"],
        times[1]: ["monthly 2026-10"],
    }
    assert verdict.gone == {
        times[2]: f"2026-11-20 is kept by {times[3][:8]}",
        times[0]: "older than daily 7d, monthly 12m",
    }


# ------------------------------------------------------------------------------- what always holds

SPANS = st.sampled_from(["1h", "24h", "3d", "30d", "12w", "1m", "12m", "2y", "1y6m"])
NAMES = ("within", "hourly", "daily", "weekly", "monthly", "yearly")
RULES = st.dictionaries(st.sampled_from(NAMES), SPANS, min_size=1)
ZONES = st.sampled_from([UTC, NEW_YORK, BERLIN, SEOUL, ZoneInfo("Australia/Lord_Howe")])
START = datetime(2024, 1, 1, tzinfo=UTC)
TIMES = st.lists(
    st.builds(
        lambda days, minutes: round((START + timedelta(days, minutes * 60)).timestamp()) * 10**9,
        st.integers(0, 1200),
        st.integers(0, 1440),
    ),
    min_size=1,
    max_size=80,
    unique=True,
)
NOW = ns("2030-01-01T00:00")


def ids(times: list[int], rules: dict[str, str], zone: ZoneInfo) -> set[int]:
    named = [(f"{time}", time) for time in times]
    return {int(name) for name in apply(named, Rules.of(KeepConfig(**rules)), zone, NOW).kept}


@given(TIMES, RULES, RULES, ZONES)
def test_more_rules_never_remove_more(
    times: list[int], few: dict[str, str], more: dict[str, str], zone: ZoneInfo
) -> None:
    assert ids(times, few, zone) <= ids(times, {**more, **few}, zone)


@given(TIMES, RULES, ZONES)
def test_pruning_twice_removes_nothing_more(
    times: list[int], rules: dict[str, str], zone: ZoneInfo
) -> None:
    once = ids(times, rules, zone)
    assert ids(sorted(once), rules, zone) == once


@given(TIMES, RULES, ZONES)
def test_the_newest_always_stays(times: list[int], rules: dict[str, str], zone: ZoneInfo) -> None:
    assert max(times) in ids(times, rules, zone)


@given(TIMES, st.sampled_from(NAMES), st.integers(1, 300), st.integers(1, 300), ZONES)
def test_a_longer_span_never_removes_more(
    times: list[int], name: str, one: int, other: int, zone: ZoneInfo
) -> None:
    short, long = sorted((one, other))
    assert ids(times, {name: f"{short}d"}, zone) <= ids(times, {name: f"{long}d"}, zone)


@given(
    TIMES, st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["24h", "30d", "12w"])), ZONES
)
def test_pruned_every_day_or_only_once_comes_to_the_same(
    times: list[int], rules: dict[str, str], zone: ZoneInfo
) -> None:
    """Of days only: with months of different lengths a span may reach back less far a day later."""
    there: set[int] = set()
    for time in sorted(times):
        there = ids(sorted(there | {time}), rules, zone)
    assert there == ids(times, rules, zone)
