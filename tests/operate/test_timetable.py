"""Every time of a schedule is answered once: by a run, or told as missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.clock import parse_go_time
from safetake.config import Config
from safetake.configfile import parse
from safetake.configjobs import JobConfig
from safetake.operate.history.record import Record, make
from safetake.operate.schedule import Schedule
from safetake.operate.timetable import ON_TIME_NS, Entry, Timetable, answered, timing

S = 10**9
NOON = parse_go_time("2026-05-01T12:00:00Z")


def job(schedule: str = "*/5 * * * *", **more: object) -> JobConfig:
    return JobConfig.model_validate({"kind": "check", "schedule": schedule, **more})


def entry(noticed_ns: int = NOON, **more: object) -> Entry:
    return Entry("check", job(**more), "host", noticed_ns)  # type: ignore[arg-type]


def take(one: Entry) -> int | None:
    """Start what is due; the time that it answers."""
    due, one.due = one.due, None
    return None if due is None else due.at_ns


def test_on_time_is_a_run_and_nothing_missed() -> None:
    one = entry()
    assert one.notice(NOON + 299 * S) is None
    assert one.due is None
    assert one.notice(NOON + 300 * S) is None
    assert take(one) == NOON + 300 * S
    assert one.notice(NOON + 301 * S) is None
    assert one.due is None
    assert one.next_ns == NOON + 600 * S


@pytest.mark.parametrize("catch_up", [True, False])
def test_a_machine_that_slept_has_missed_and_catches_up_once(catch_up: bool) -> None:
    one = entry(catch_up=catch_up)
    found = one.notice(NOON + (3 * 300 + 120) * S)
    assert found is not None
    assert (found.count, found.first_ns, found.last_ns) == (3, NOON + 300 * S, NOON + 900 * S)
    assert take(one) == (NOON + 900 * S if catch_up else None)
    assert one.notice(NOON + 1100 * S) is None
    assert one.due is None


def test_woken_up_on_time_only_the_older_ones_are_missed() -> None:
    one = entry()
    found = one.notice(NOON + (3 * 300 + 10) * S)
    assert found is not None
    assert (found.count, found.last_ns) == (2, NOON + 600 * S)
    assert one.due is not None
    assert not one.due.late


def test_what_waits_is_replaced_by_the_next_time_and_told() -> None:
    one = entry()
    assert one.notice(NOON + 300 * S) is None
    found = one.notice(NOON + 600 * S)
    assert found is not None
    assert (found.count, found.first_ns) == (1, NOON + 300 * S)
    assert take(one) == NOON + 600 * S


def test_a_clock_that_is_set_back_a_little_starts_nothing_twice() -> None:
    one = entry()
    one.notice(NOON + 300 * S)
    take(one)
    assert one.notice(NOON + 290 * S) is None
    assert one.due is None
    assert one.notice(NOON + 305 * S) is None
    assert one.due is None


def test_a_clock_that_was_years_ahead_does_not_stop_the_jobs() -> None:
    one = entry()
    one.notice(NOON + 400 * 86400 * S)
    take(one)
    assert one.notice(NOON + 10 * S) is None
    assert one.notice(NOON + 300 * S) is None
    assert take(one) == NOON + 300 * S


def test_the_delay_shifts_starts_and_is_not_late() -> None:
    one = entry(jitter=200)
    assert one.jitter_ns > 0
    assert one.notice(NOON + 300 * S + one.jitter_ns - 1) is None
    assert one.due is None
    assert one.notice(NOON + 300 * S + one.jitter_ns) is None
    assert one.due is not None
    assert not one.due.late


@given(
    steps=st.lists(st.integers(1, 2000), min_size=1, max_size=40),
    starts=st.lists(st.booleans(), min_size=40, max_size=40),
    catch_up=st.booleans(),
)
def test_every_time_is_answered_exactly_once(
    steps: list[int], starts: list[bool], catch_up: bool
) -> None:
    one = entry(catch_up=catch_up)
    now, runs, missed = NOON, 0, 0
    for step, start in zip(steps, starts, strict=False):
        now += step * S
        found = one.notice(now)
        missed += found.count if found is not None else 0
        if start and one.due is not None:
            runs += not one.due.late  # a late one stands for times that were told as missed
            one.due = None
    waiting = one.due is not None and not one.due.late
    times = list(Schedule("*/5 * * * *").between(NOON, now))
    assert runs + missed + waiting == len(times)


# ------------------------------------------------------------------------------- with a history


def config(*jobs: str) -> Config:
    text = '[repository]\nlocation = "r"\n[sources.s]\ntype = "files"\npath = "s"\n'
    return parse(text + "".join(jobs), Path("/nowhere/safetake.toml"))


CHECK = '[jobs.check]\nkind = "check"\nschedule = "0 * * * *"\n'


def record(kind: str, at: int, name: str = "", **facts: object) -> Record:
    return make(
        (), kind=kind, job=name, started_ns=at, ended_ns=at, host="h", user="u", facts=facts
    )


def daemon(at: int, of: Config) -> Record:
    return record("daemon", at, jobs={name: timing(each) for name, each in of.jobs.items()})


def test_missed_runs_count_from_the_last_start() -> None:
    known = config(CHECK)
    records = [daemon(NOON, known), record("check", NOON + 3600 * S, "check")]
    since = answered(known, records, [])
    assert since == {"check": NOON + 3600 * S}
    table = Timetable(known, "host", NOON + 5 * 3600 * S + 120 * S, since)
    found = table.entries["check"].notice(NOON + 5 * 3600 * S + 120 * S)
    assert found is not None
    assert found.count == 4


def test_what_was_told_as_missed_is_not_told_again() -> None:
    known = config(CHECK)
    told = record("missed", NOON + 9000 * S, "check", last_ns=NOON + 7200 * S)
    assert answered(known, [daemon(NOON, known), told], []) == {"check": NOON + 7200 * S}


def test_a_job_that_never_ran_counts_from_the_daemon_that_knew_it() -> None:
    known = config(CHECK)
    assert answered(known, [daemon(NOON, known)], []) == {"check": NOON}


def test_new_jobs_changed_times_and_running_ones_have_missed_nothing() -> None:
    before = config(CHECK)
    records = [daemon(NOON, before), record("check", NOON, "check")]
    changed = config(CHECK.replace("0 *", "30 *"))
    assert answered(changed, records, []) == {}
    assert answered(before, [], []) == {}
    assert answered(before, records, ["check"]) == {}


def test_a_record_from_the_future_does_not_stop_a_job() -> None:
    known = config(CHECK)
    table = Timetable(known, "host", NOON, {"check": NOON + 10**6 * S})
    assert table.entries["check"].next_ns == NOON + 3600 * S


def test_reloading_keeps_what_did_not_change() -> None:
    other = '[jobs.other]\nkind = "check"\nschedule = "0 0 * * *"\n'
    table = Timetable(config(CHECK), "host", NOON, {})
    table.entries["check"].notice(NOON + 3600 * S)
    table.reload(config(CHECK + "retries = 7\n", other), NOON + 3600 * S)
    assert [waiting.name for waiting in table.waiting()] == ["check"]
    assert table.entries["check"].job.retries == 7
    assert "other" in table.entries
    table.reload(config(other), NOON + 3600 * S)
    assert list(table.entries) == ["other"]


def test_a_minute_is_on_time() -> None:
    one = entry()
    assert one.notice(NOON + 300 * S + ON_TIME_NS) is None
    assert one.due is not None
    assert not one.due.late
