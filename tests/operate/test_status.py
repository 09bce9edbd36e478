"""What `status` says of real repositories and of histories with a past; "now" is given."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safetake.config import Config
from safetake.operate import after
from safetake.operate.history import History, Record, recorded
from safetake.operate.history.record import make
from safetake.operate.objectives import is_part, restore_rate
from safetake.operate.status import Status, look
from safetake.proof.verify import verify
from safetake.repository import Repository
from safetake.snapshots import find_snapshot
from tests.support.repositories import (
    database,
    new_repository,
    restic,
    snapshot,
    sqlite_source,
)

SECOND = 10**9
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOW = 1_795_000_000 * SECOND


def configuration(folder: Path, **more: Any) -> Config:
    return Config.model_validate(
        {
            "repository": {"location": str(folder / "repo")},
            "restore": {"state": str(folder / "state")},
            "sources": {
                "projects": {"type": "sqlite", "path": str(folder / "projects.db")},
                "scripts": {"type": "files", "path": str(folder / "scripts")},
            },
            **more,
        }
    )


def at(now_ns: int) -> Callable[[], int]:
    return lambda: now_ns


def remember(
    config: Config, kind: str, ended_ns: int, *, seconds: float = 10, **more: Any
) -> Record:
    history = History(config, now_ns=at(ended_ns))
    return history.append(kind, started_ns=ended_ns - round(seconds * SECOND), **more)


def backup(config: Config, ended_ns: int, **facts: Any) -> Record:
    sizes = {name: {"bytes": 1_000_000} for name in config.sources}
    return remember(
        config, "backup", ended_ns, facts={"snapshot": "a" * 64, "sources": sizes, **facts}
    )


def status(config: Config, now_ns: int = NOW) -> Status:
    return look(config, History(config, now_ns=at(now_ns)), reachable="not asked")


def test_the_age_by_rung_is_of_real_snapshots(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    database(tmp_path / "projects.db")
    source = sqlite_source("projects", tmp_path / "projects.db")
    config = configuration(tmp_path, objectives={"projects": {"rpo": "6h"}})
    snapshot(repository, source)
    opened = find_snapshot(repository, "latest")
    assert verify(repository, config, opened, "open").ok
    database(tmp_path / "projects.db")
    snapshot(repository, source)
    newest = find_snapshot(repository, "latest")

    def asked(now_ns: int) -> Status:
        return look(config, History(config, repository, now_ns=at(now_ns)))

    found = asked(newest.time_ns + 6 * HOUR)
    projects = found.sources["projects"]
    assert projects.newest_ns["stored"] == newest.time_ns
    assert projects.newest_ns["opened"] == projects.newest_ns["read back"] == opened.time_ns
    assert projects.rpo_met(found.now_ns) is True
    assert found.exit_code == 0
    found = asked(newest.time_ns + 6 * HOUR + SECOND)
    assert found.broken == ["projects: 6 h 00 m may be lost, and the RPO is 6 h 00 m"]
    assert found.exit_code == 1
    restic(tmp_path / "repo", "forget", newest.id)
    found = asked(newest.time_ns)
    assert found.sources["projects"].newest_ns["stored"] == opened.time_ns
    assert found.sources["scripts"].age_s(NOW) is None


def test_a_damaged_snapshot_is_no_snapshot(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    database(tmp_path / "projects.db")
    snapshot(repository, sqlite_source("projects", tmp_path / "projects.db"))
    config = configuration(tmp_path, objectives={"projects": {"rpo": "6h"}})
    for pack in (tmp_path / "repo" / "data").glob("*/*"):
        content = bytearray(pack.read_bytes())
        content[len(content) // 3] ^= 1
        pack.write_bytes(content)
    newest = find_snapshot(repository, "latest")
    fresh = Repository.open(repository.storage, "correct horse 말")
    assert not verify(fresh, config, newest, "read").ok
    found = look(config, History(config, fresh, now_ns=at(newest.time_ns + SECOND)))
    assert found.sources["projects"].damaged
    assert any("was found damaged" in text for text in found.warnings)
    assert found.broken == ["projects: there is no snapshot, and the RPO is 6 h 00 m"]


def test_a_restore_is_measured_and_predicted_from_what_was_measured(tmp_path: Path) -> None:
    config = configuration(
        tmp_path,
        objectives={
            "projects": {"rto": "1m", "partial_rto": "10s"},
            "system": {"rto": "30s"},
        },
    )
    backup(config, NOW - HOUR)
    found = status(config)
    assert found.sources["projects"].predicted_s is None
    assert found.sources["projects"].rto_met() is None
    assert found.rate == ""
    assert found.exit_code == 0
    facts = {"rung": "opened", "bytes": 10_000_000, "seconds": 10.0, "snapshot": "a" * 64}
    remember(config, "verify", NOW - 50 * 60 * SECOND, facts=facts)
    found = status(config)
    assert found.sources["projects"].predicted_s == pytest.approx(6)
    assert found.rate == "976.6 KiB/s, measured by 1 opened proof"
    assert found.sources["projects"].newest_ns["opened"] > 0
    whole = {"action": "in place", "outcome": "committed", "bytes": 2_000_000, "seconds": 58.0}
    remember(config, "restore", NOW - 40 * 60 * SECOND, facts={**whole, "sources": ["projects"]})
    part = {"action": "keys", "outcome": "done", "seconds": 2.0, "sources": ["projects"]}
    remember(config, "restore", NOW - 30 * 60 * SECOND, facts=part)
    gone = {**whole, "outcome": "rolled back", "seconds": 500.0, "sources": ["projects"]}
    remember(config, "restore", NOW - 20 * 60 * SECOND, facts=gone, exit_code=1)
    found = status(config)
    projects = found.sources["projects"]
    assert projects.measured_s == 58
    assert projects.partial_measured_s == 2
    assert projects.rto_met() is True
    assert found.system is not None
    assert found.system.measured_s is None
    assert found.rate.endswith("1 restore and 1 opened proof")
    both = {**whole, "seconds": 31.0, "sources": ["projects", "scripts"]}
    remember(config, "restore", NOW - 10 * 60 * SECOND, facts=both)
    rows = {"action": "apply", "outcome": "done", "seconds": 11.0, "sources": ["projects"]}
    remember(config, "rows", NOW - 9 * 60 * SECOND, facts=rows)
    found = status(config)
    assert found.system is not None
    assert found.system.measured_s == 31
    assert [text.split(",")[0] for text in found.broken] == [
        "projects: bringing parts back took 11 s",
        "system: a restore took 31 s and is expected to take 37 s"
        if found.system.predicted_s and found.system.predicted_s > 30
        else "system: a restore took 31 s",
    ]


def test_what_a_record_claims_is_not_believed(tmp_path: Path) -> None:
    """Facts of any shape: others may have written the records."""
    config = configuration(tmp_path, objectives={"projects": {"rto": "1m", "rpo": "1h"}})
    for n, value in enumerate([None, "x", -1, 1e308, [], {}, {"projects": 5}, ["projects"], True]):
        facts = dict.fromkeys(
            ("snapshot", "snapshots", "sources", "bytes", "seconds", "rung", "added_bytes",
             "freed_bytes", "action", "outcome"), value,
        )  # fmt: skip
        for kind in ("backup", "verify", "restore", "rows", "drill", "prune", "missed"):
            remember(config, kind, NOW - n * HOUR, facts=facts, job="x")
    found = status(config)
    json.dumps(found.as_dict())


def test_growth_and_when_it_is_full(tmp_path: Path) -> None:
    new_repository(tmp_path / "repo")
    config = configuration(tmp_path)
    for day in range(10, 0, -1):
        backup(config, NOW - day * DAY, added_bytes=1 << 50)
    remember(config, "prune", NOW - HOUR, facts={"freed_bytes": 5 << 50})
    found = status(config)
    assert found.growth_per_day == pytest.approx((10 - 5) * (1 << 50) / 10, rel=0.01)
    assert found.full_ns is not None
    assert any("will be full in" in text for text in found.warnings)
    young = configuration(tmp_path / "young")
    backup(young, NOW - HOUR, added_bytes=1000)
    assert status(young).growth_per_day is None


def test_jobs_their_last_run_and_the_next(tmp_path: Path) -> None:
    jobs = {
        "hourly": {"kind": "backup", "schedule": "0 * * * *"},
        "proof": {"kind": "verify", "schedule": "0 3 * * *", "timezone": "Asia/Seoul"},
        "by-hand": {"kind": "check"},
    }
    config = configuration(tmp_path, jobs=jobs)
    first = remember(config, "backup", NOW - 5 * HOUR, job="hourly")
    remember(config, "backup", NOW - 4 * HOUR, job="hourly", exit_code=1, error="the disk is full")
    found = {job.name: job for job in status(config).jobs}
    hourly = found["hourly"]
    assert hourly.last is not None
    assert (hourly.last.exit_code, hourly.last_good_ns) == (1, first.ended_ns)
    assert hourly.next_ns is not None
    assert NOW < hourly.next_ns <= NOW + HOUR
    assert hourly.next_ns % HOUR == 0
    assert hourly.overdue
    assert found["proof"].next_ns is not None
    assert found["proof"].next_ns % DAY == 18 * HOUR  # 03:00 in Seoul
    assert found["by-hand"].next_ns is None
    assert not found["by-hand"].overdue
    warnings = status(config).warnings
    assert "job hourly is overdue" in warnings
    assert "job hourly failed: the disk is full" in warnings
    remember(config, "backup", NOW - SECOND, job="hourly")
    assert not any("hourly" in text for text in status(config).warnings)


def test_what_is_unsafe_is_told(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repo")
    (tmp_path / "scripts").mkdir()
    config = configuration(tmp_path)
    warnings = " ".join(status(config).warnings)
    assert "on the same volume as projects, scripts" in warnings
    assert "no second copy" in warnings
    elsewhere = configuration(
        tmp_path,
        repository={"location": "/dev/shm/safetake-not-there"},
        copies={"offsite": {"location": str(tmp_path / "gone")}},
    )
    there = Path("/dev/shm")
    if there.is_dir() and os.stat(there).st_dev != tmp_path.stat().st_dev:  # noqa: PTH116
        warnings = " ".join(status(elsewhere).warnings)
        assert "same volume" not in warnings
        assert "no second copy" not in warnings
        assert "copy offsite cannot be reached" in warnings
    History(config).append("backup", started_ns=1)
    found = look(config, History(config, repository, now_ns=at(NOW)))
    assert "1 records of the history are not in the repository yet" in found.warnings
    restores = tmp_path / "state" / "restores" / "r1"
    restores.mkdir(parents=True)
    (restores / "plan.json").write_text("{}")
    assert any("begun and not ended" in text for text in status(config).warnings)


def test_what_was_not_delivered_is_told_and_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOBODY", "json://127.0.0.1:9/geheim")
    config = configuration(
        tmp_path,
        metrics={"textfile": str(tmp_path / "none" / "x.prom")},
        notify={"urls_env": "NOBODY"},
        jobs={"sound": {"kind": "check"}},
    )
    with recorded(config, "check", job="sound", trigger="timer") as run:
        run.exit_code, run.error = 1, "damaged"
    said = capsys.readouterr().err
    assert "warning: metrics: " in said
    assert "warning: notifications: " in said
    assert "geheim" not in said
    warnings = " ".join(status(config, NOW).warnings)
    assert "metrics did not reach the textfile" in warnings
    assert "notifying by json failed" in warnings
    assert "geheim" not in warnings
    (record,) = History(config).records()
    assert record.exit_code == 1
    found = status(config).as_dict()["history"]
    assert found == {"records": 1, "heads": [record.id], "unpushed": 1}


def test_nothing_of_what_follows_a_run_reaches_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    config = configuration(tmp_path, metrics={"textfile": str(tmp_path / "x.prom")})
    monkeypatch.setattr(after, "_publish", broken)
    with recorded(config, "check"):
        pass
    assert capsys.readouterr().err == "warning: metrics: a mistake of ours\n"


def test_parts_say_nothing_of_the_whole() -> None:
    facts = {"action": "records", "outcome": "done", "bytes": 5, "seconds": 1.0}
    record = make([], kind="restore", started_ns=0, ended_ns=1, host="h", user="u", facts=facts)
    assert is_part(record)
    assert restore_rate([record]) is None
