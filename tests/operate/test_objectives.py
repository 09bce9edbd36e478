"""When jobs are due and overdue, how old and how fast: by the history alone, on a given clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from safetake import configfile
from safetake.config import Config
from safetake.configjobs import JobConfig
from safetake.operate import objectives
from safetake.operate.history import History
from safetake.operate.timetable import timing
from tests.operate.metrics.support import DAY, HOUR, SECOND, START_NS, TOML, Clock, configured, ran

MIDNIGHT = START_NS // DAY * DAY
JOB = "sqlite-backup"
"""At 0, 6, 12 and 18 o'clock UTC."""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock(MIDNIGHT + HOUR)


def due(config: Config, clock: Clock) -> objectives.Due:
    records = History(config, now_ns=clock).records()
    found = objectives.due(JOB, config.jobs[JOB], records, clock.now)
    assert found is not None
    return found


def daemon(config: Config, clock: Clock, jobs: dict[str, JobConfig]) -> None:
    times = {name: timing(job) for name, job in jobs.items() if job.schedule}
    ran(config, clock, "daemon", facts={"event": "started", "jobs": times})


def test_due_is_the_first_time_after_the_last_run(config: Config, clock: Clock) -> None:
    ran(config, clock, "backup", JOB, seconds=100)
    assert due(config, clock).at_ns == MIDNIGHT + 6 * HOUR
    clock.now += 3 * DAY
    found = due(config, clock)
    assert found.at_ns == MIDNIGHT + 6 * HOUR, "nothing has run since"
    assert found.overdue_ns == found.at_ns + (300 + 2 * 100) * SECOND
    ran(config, clock, "backup", JOB, exit_code=1)
    assert due(config, clock).at_ns == MIDNIGHT + 3 * DAY + 6 * HOUR, "it ran, if not well"


def test_what_was_noticed_as_missed_is_due_no_more(config: Config, clock: Clock) -> None:
    ran(config, clock, "backup", JOB)
    clock.now += 8 * HOUR
    ran(config, clock, "missed", JOB)
    assert due(config, clock).at_ns == MIDNIGHT + 12 * HOUR


def test_a_job_that_is_new_has_missed_nothing(config: Config, clock: Clock) -> None:
    ran(config, clock, "check", "whole")
    clock.now += 30 * DAY
    assert due(config, clock).at_ns == MIDNIGHT + 30 * DAY + 6 * HOUR
    others = {name: job for name, job in config.jobs.items() if name != JOB}
    daemon(config, clock, others)
    clock.now += DAY
    daemon(config, clock, config.jobs)
    clock.now += 3 * DAY
    daemon(config, clock, config.jobs)
    found = due(config, clock)
    assert found.at_ns == MIDNIGHT + 31 * DAY + 6 * HOUR, "since a daemon knows it"
    assert found.overdue_ns == found.at_ns + (300 + 2 * 1800) * SECOND


def test_times_that_were_changed_count_from_then(config: Config, clock: Clock) -> None:
    daemon(config, clock, config.jobs)
    ran(config, clock, "backup", JOB)
    clock.now += 20 * DAY
    text = TOML.replace("0 */6 * * *", "15 * * * *")
    changed = configfile.parse(text, Path(config.repository.location).parent / "safetake.toml")
    daemon(changed, clock, changed.jobs)
    assert due(changed, clock).at_ns == MIDNIGHT + 20 * DAY + HOUR + 15 * 60 * SECOND


def test_jobs_by_hand_are_never_due(config: Config, clock: Clock) -> None:
    assert objectives.due("by-hand", config.jobs["by-hand"], [], clock.now) is None


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        ({"outcome": "committed"}, True),
        ({"outcome": "beside"}, True),
        ({"outcome": "rolled back"}, False),
    ],
)
def test_restores_that_were_taken_back_measure_nothing(
    config: Config, clock: Clock, facts: dict[str, Any], counts: bool
) -> None:
    more = {"sources": ["projects"], "seconds": 20.0, "bytes": 10**9}
    record = ran(config, clock, "restore", facts={**facts, **more})
    assert objectives.is_restore(record) == counts
    rate = objectives.restore_rate([record])
    assert (rate is not None) == counts
    if rate is not None:
        assert objectives.predicted_s(10**9, rate) == pytest.approx(25)
    assert objectives.predicted_s(10**9, None) is None, "nothing is predicted from nothing"


def test_growth_needs_a_day_and_says_when_it_is_full(config: Config, clock: Clock) -> None:
    ran(config, clock, "backup", JOB, facts={"added_bytes": 86400})
    history = History(config, now_ns=clock)
    assert objectives.growth(history.records(), clock.now) is None
    clock.now += 2 * DAY
    growth = objectives.growth(history.records(), clock.now)
    assert growth == pytest.approx(0.5, rel=1e-3)
    assert objectives.full_ns(1000, 0.5, clock.now) == clock.now + 2000 * SECOND
    for shrinking in (None, 0.0, -1.0, 1e-12):
        assert objectives.full_ns(10**12, shrinking, clock.now) is None
