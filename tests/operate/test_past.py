"""What is boiled down says the same as the whole history, at every moment and in every order."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.config import Config
from safetake.operate import objectives
from safetake.operate.history import History, Record
from safetake.operate.past import Counts, View, view
from tests.operate.metrics.support import DAY, HOUR, Clock, configured, ran

RUN = st.sampled_from(
    [
        ("backup", "sqlite-backup"),
        ("backup", "by-hand"),
        ("backup", ""),
        ("verify", "proof"),
        ("check", "whole"),
        ("integrity", "sound"),
        ("prune", "tidy"),
        ("restore", ""),
        ("rows", ""),
        ("missed", "sqlite-backup"),
        ("copy", "away"),
    ]
)
SOURCES = st.sampled_from([["projects"], ["scripts"], ["projects", "scripts"]])
STEP = st.tuples(
    RUN,
    SOURCES,
    st.sampled_from([0, 0, 0, 1, 3]),
    st.integers(1, 10**9),
    st.sampled_from([HOUR, 5 * HOUR, DAY, 3 * DAY, 20 * DAY]),
    st.booleans(),
)


def facts(kind: str, sources: list[str], number: int) -> dict[str, Any]:
    if kind == "backup":
        sizes = {name: {"bytes": number} for name in sources}
        return {"snapshot": f"{number:064x}", "added_bytes": number, "sources": sizes}
    if kind == "verify":
        rung = "opened" if number % 2 else "read back"
        return {"rung": rung, "bytes": number, "seconds": 2.0, "sources": sources, "problems": 0}
    if kind == "prune":
        return {"freed_bytes": number}
    if kind == "missed":
        return {"count": number % 3 + 1}
    if kind in ("restore", "rows"):
        return {"sources": sources, "bytes": number, "seconds": 1.5, "outcome": "committed"}
    return {"sources": sources, "findings": [], "errors": number % 2}


def whole(history: History) -> View:
    records = history.records()
    counts: dict[str, Counts] = {}
    for record in records:
        if record.job:
            counts.setdefault(record.job, Counts()).take(record)
    begin_ns = min((record.started_ns for record in records), default=0)
    return View(records, records, counts, begin_ns)


def says(config: Config, seen: View, now_ns: int) -> dict[str, Any]:
    """Everything that is asked of a history by who asks for the newest."""

    def newest(**wanted: Any) -> str | None:
        def fits(record: Record) -> bool:
            return all(getattr(record, name) == value for name, value in wanted.items())

        return next((record.id for record in reversed(seen.records) if fits(record)), None)

    kinds = ("backup", "verify", "check", "integrity", "prune", "restore", "rows", "copy")
    return {
        "counts": seen.counts,
        "begin": seen.begin_ns,
        "states": objectives.source_states(config, seen.records, None),
        "rate": objectives.restore_rate(seen.records),
        "kinds": {kind: newest(kind=kind) for kind in kinds},
        "good": {kind: newest(kind=kind, ok=True) for kind in kinds},
        "jobs": {name: newest(job=name, kind=job.kind) for name, job in config.jobs.items()},
        "due": {
            name: objectives.due(name, job, seen.records, now_ns)
            for name, job in config.jobs.items()
        },
    }


@settings(max_examples=25)
@given(steps=st.lists(STEP, max_size=30))
def test_it_says_the_same_as_the_whole_history(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = configured(Path(folder))
        clock = Clock()
        history = History(config, now_ns=clock)
        for (kind, job), sources, code, number, pause, looked in steps:
            ran(config, clock, kind, job, exit_code=code, facts=facts(kind, sources, number))
            clock.now += pause
            if looked:  # and what was boiled down is used from now on
                expected = says(config, whole(history), clock.now)
                assert says(config, view(history), clock.now) == expected
        expected = says(config, whole(history), clock.now)
        for _ in range(2):
            assert says(config, view(history), clock.now) == expected


def test_measurements_stay_however_old(tmp_path: Path) -> None:
    """Restores without a size, of each source, in full and in part; and twenty rates."""
    config, clock = configured(tmp_path), Clock()
    history = History(config, now_ns=clock)
    for number, sources in enumerate((["projects"], ["scripts"]), 1):
        for kind in ("restore", "rows"):
            took = {"sources": sources, "seconds": number, "outcome": "committed"}
            ran(config, clock, kind, facts=took)
    for number in range(1, 60, 2):
        ran(config, clock, "verify", "proof", facts=facts("verify", ["projects"], number))
    clock.now += 300 * DAY
    ran(config, clock, "restore", exit_code=1)
    clock.now += 5 * DAY
    expected = says(config, whole(history), clock.now)
    assert says(config, view(history), clock.now) == expected
    states = expected["states"]
    assert [states[name].measured_s for name in ("projects", "scripts")] == [1, 2]
    assert [states[name].partial_measured_s for name in ("projects", "scripts")] == [1, 2]
    assert expected["rate"].proofs == objectives.RATES_FROM


def test_growth_is_that_of_the_last_month(tmp_path: Path) -> None:
    config, clock = configured(tmp_path), Clock()
    history = History(config, now_ns=clock)
    for day in range(60):
        added = 10**9 if day < 25 else 1000
        ran(config, clock, "backup", "sqlite-backup", facts={"added_bytes": added})
        ran(config, clock, "prune", "tidy", facts={"freed_bytes": 100})
        clock.now += DAY
        view(history)
    growth = objectives.growth(view(history).growing, clock.now)
    assert growth == pytest.approx(900 / 86400, rel=0.05)
    assert growth == pytest.approx(objectives.growth(history.records(), clock.now), rel=0.05)


def test_years_are_not_read_again(tmp_path: Path) -> None:
    config, clock = configured(tmp_path), Clock()
    history = History(config, now_ns=clock)
    for _ in range(200):
        ran(config, clock, "backup", "sqlite-backup", facts=facts("backup", ["projects"], 5))
        clock.now += DAY
    assert len(view(history).records) < 12
    assert view(history).counts["sqlite-backup"].runs == 200
    asked: list[int] = []
    records = history.records

    def watched(*, since_ns: int = 0) -> list[Record]:
        asked.append(since_ns)
        return records(since_ns=since_ns)

    history.records = watched  # type: ignore[method-assign]
    view(history)
    assert clock.now - asked[0] < 4 * DAY
    clock.now += 31 * DAY
    view(history)
    assert asked[1] == 0, "once a month everything is read, and what came late is taken in"


def test_a_cache_that_is_damaged_or_of_another_time_is_made_again(tmp_path: Path) -> None:
    config, clock = configured(tmp_path), Clock()
    history = History(config, now_ns=clock)
    ran(config, clock, "backup", "sqlite-backup")
    clock.now += 5 * DAY
    expected = view(history)
    path = history.local().folder / "past.json"
    good = json.loads(path.read_text())
    for damage in (
        b"",
        b"[]",
        b"\xff",
        json.dumps({**good, "format": 99}).encode(),
        json.dumps({**good, "records": [{"id": 3}]}).encode(),
        json.dumps({**good, "counts": {"a": {"b": 1}}}).encode(),
        json.dumps({**good, "until_ns": clock.now + DAY}).encode(),
        json.dumps({**good, "made_ns": clock.now + DAY}).encode(),
    ):
        path.write_bytes(damage)
        assert view(history) == expected
        assert json.loads(path.read_text())["records"] == good["records"]
    assert history.verify() == [], "it is no part of the chain"


def test_without_runs(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert view(History(config, now_ns=Clock())) == View()
    assert not (tmp_path / "state").exists()
