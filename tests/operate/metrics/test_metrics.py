"""What is exported, out of a real repository and a real history; promtool judges it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from safetake.config import Config
from safetake.operate.history import History
from safetake.operate.metrics import DaemonState, render
from safetake.operate.metrics import deliveries as published
from safetake.operate.metrics.deliveries import Deliveries
from safetake.operate.metrics.families import METRICS, Samples
from safetake.operate.notify import state as notifications
from safetake.proof.verify import verify
from safetake.repository import Repository
from safetake.snapshots import find_snapshot
from tests.operate.metrics.support import (
    DAY,
    HOUR,
    SECOND,
    START_NS,
    Clock,
    configured,
    promtool,
    ran,
    value,
    values,
)
from tests.support.repositories import (
    database,
    files_source,
    new_repository,
    snapshot,
    sqlite_source,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return new_repository(tmp_path / "repo")


def backup_facts(**more: object) -> dict[str, object]:
    return {
        "snapshot": "ab" * 32,
        "barrier_ms": 12.5,
        "skew_ms": 0.0,
        "added_bytes": 5_000_000,
        "sources": {"projects": {"bytes": 600_000_000}, "scripts": {"bytes": 1000}},
        **more,
    }


def everything(config: Config, clock: Clock, repository: Repository, folder: Path) -> None:
    """Two days in which each kind of job ran, and a restore."""
    database(folder / "projects.db")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "one.txt").write_text("장면 1")
    taken = snapshot(
        repository,
        sqlite_source("projects", folder / "projects.db"),
        files_source("scripts", folder / "scripts"),
    )
    verify(repository, config, find_snapshot(repository, taken.id), "open")
    ran(config, clock, "backup", "sqlite-backup", facts=backup_facts(), repository=repository)
    clock.now += DAY
    proof = {"rung": "opened", "bytes": 120_000_000, "seconds": 4.0, "problems": []}
    ran(config, clock, "verify", "proof", facts=proof)
    ran(config, clock, "check", "whole", facts={"errors": [], "bytes": 5})
    found = [
        {"source": "projects", "check": "orphaned episodes", "level": "error", "ids": ["7"]},
        {"source": "projects", "check": 'odd "name"\n', "level": "warning"},
        {"source": "scripts", "check": "drift", "level": "not asked"},
    ]
    facts = {"sources": ["projects", "scripts"], "findings": found}
    ran(config, clock, "integrity", "sound", facts=facts, exit_code=1, error="not sound")
    ran(config, clock, "prune", "tidy", facts={"freed_bytes": 1_000_000})
    ran(config, clock, "copy", "away", facts={"copied": 1})
    restored = {"sources": ["projects"], "seconds": 42.0, "outcome": "committed"}
    ran(config, clock, "restore", facts=restored)
    ran(config, clock, "rows", facts={**restored, "action": "apply", "seconds": 3.0})
    with notifications.changing(config) as known:
        known.way("slack").tried(clock.now, "secret-in-error")
    ran(config, clock, "missed", "sqlite-backup", facts={"count": 3})
    clock.now += DAY


DAEMON = DaemonState(START_NS, leader=True, running=frozenset({"proof"}))


def test_everything_is_exported_and_promtool_finds_no_fault(
    config: Config, clock: Clock, repository: Repository, tmp_path: Path
) -> None:
    everything(config, clock, repository, tmp_path)
    new_repository(tmp_path / "offsite")
    config = configured(tmp_path, '[metrics]\ntextfile = "x.prom"\n')
    known = Deliveries()
    known.way("textfile").tried(START_NS)
    published.save(config, known)
    history = History(config, repository, now_ns=clock)
    text = render(config, history, daemon=DAEMON)
    assert promtool("check", "metrics", given=text) == ""
    found = values(text)

    assert found["backup_job_success"] == {(("job", "sqlite-backup"),): 1}
    ended = START_NS / SECOND
    assert value(found, "backup_last_success_timestamp", job="sqlite-backup") == ended
    assert value(found, "backup_last_success_timestamp", job="by-hand") == 0

    newest = find_snapshot(repository, "latest").time_ns / SECOND
    for source in ("projects", "scripts", "system"):
        for rung in ("stored", "read_back", "opened"):
            name = "safetake_source_snapshot_timestamp_seconds"
            assert value(found, name, source=source, rung=rung) == pytest.approx(newest, abs=1e-3)
    assert set(found["safetake_source_damaged"].values()) == {0}
    rpo = {(("source", "projects"),): 6 * 3600, (("source", "system"),): 24 * 3600}
    assert found["safetake_source_rpo_seconds"] == rpo
    assert value(found, "safetake_source_rto_seconds", source="projects") == 900
    assert value(found, "safetake_source_partial_rto_seconds", source="projects") == 300
    assert value(found, "safetake_source_restore_measured_seconds", source="projects") == 42
    parts = "safetake_source_partial_restore_measured_seconds"
    assert value(found, parts, source="projects") == 3
    # 30 MB a second were measured
    name = "safetake_source_restore_predicted_seconds"
    assert value(found, name, source="projects") == pytest.approx(25)
    assert value(found, name, source="system") == pytest.approx(25, abs=0.01)
    assert value(found, "safetake_source_rto_seconds", source="system") == 3600

    job = {"job_name": "sqlite-backup", "kind": "backup"}
    assert value(found, "safetake_job_missed_total", **job) == 3
    assert value(found, "safetake_job_runs_total", **job) == 1
    assert value(found, "safetake_job_last_duration_seconds", **job) == 10
    assert value(found, "safetake_job_running", **job) == 0
    assert value(found, "safetake_job_running", job_name="proof", kind="verify") == 1
    assert value(found, "safetake_job_last_exit_code", job_name="sound", kind="integrity") == 1
    assert value(found, "safetake_backup_barrier_seconds", job_name="sqlite-backup") == 0.0125

    for place in ("main", "offsite"):
        assert value(found, "safetake_repository_reachable", repository=place) == 1
        assert value(found, "safetake_repository_bytes", repository=place) > 100
        free = value(found, "safetake_repository_filesystem_free_bytes", repository=place)
        size = value(found, "safetake_repository_filesystem_size_bytes", repository=place)
        assert 0 < free <= size
    assert value(found, "safetake_repository_snapshots", repository="main") == 1
    growth = value(found, "safetake_repository_growth_bytes_per_second")
    assert growth == pytest.approx(4_000_000 / (2 * 86400 + 10))
    assert value(found, "safetake_check_errors") == 0
    assert value(found, "safetake_proof_problems") == 0
    assert value(found, "safetake_prune_freed_bytes") == 1_000_000
    assert value(found, "safetake_drill_last_timestamp_seconds") == ended + 86400
    assert value(found, "safetake_restore_interrupted") == 0

    findings = "safetake_integrity_findings"
    assert value(found, findings, source="projects", level="error") == 1
    assert value(found, findings, source="projects", level="warning") == 1
    assert value(found, findings, source="scripts", level="error") == 0
    assert value(found, findings, source="scripts", level="not_asked") == 1
    checks = {dict(labels)["check"] for labels in found["safetake_integrity_failed_check"]}
    assert checks == {"orphaned episodes", 'odd "name"\\n'}
    assert value(found, "safetake_publish_success", way="textfile") == 1
    assert value(found, "safetake_daemon_leader") == 1

    unseen = METRICS.keys() - found.keys()
    assert (
        unseen
        <= {
            "safetake_system_rpo_seconds",
            "safetake_notification_success",
            "safetake_notification_failures_total",
            "safetake_repository_full_timestamp_seconds",
        }
        | set()
    )


def test_the_same_after_a_restart(
    config: Config, clock: Clock, repository: Repository, tmp_path: Path
) -> None:
    """Another process, and another machine that has the repository only, say the same of jobs."""
    everything(config, clock, repository, tmp_path)
    history = History(config, repository, now_ns=clock)
    first = values(render(config, history, daemon=DAEMON))
    again = values(render(config, History(config, repository, now_ns=clock), daemon=DAEMON))
    assert first.keys() == again.keys()
    sizes = {name for name in first if "bytes" in name}
    for name in first.keys() - sizes:
        assert first[name] == again[name], name


def test_failures_are_counted_until_a_success(config: Config, clock: Clock) -> None:
    history = History(config, now_ns=clock)
    job = {"job_name": "sqlite-backup", "kind": "backup"}

    def seen(name: str) -> float:
        return value(values(render(config, history)), name, **job)

    text = values(render(config, history))
    assert "backup_job_success" not in text, "what never ran has neither failed nor succeeded"
    assert seen("safetake_job_consecutive_failures") == 0
    for count, code in ((1, 1), (2, 3)):
        clock.now += HOUR
        ran(config, clock, "backup", "sqlite-backup", exit_code=code, error="no store")
        assert seen("safetake_job_consecutive_failures") == count
        assert seen("safetake_job_last_exit_code") == code
        success = values(render(config, history))["backup_job_success"]
        assert success == {(("job", "sqlite-backup"),): 0}
    clock.now += HOUR
    ran(config, clock, "backup", "sqlite-backup", facts=backup_facts())
    assert seen("safetake_job_consecutive_failures") == 0
    assert seen("safetake_job_failures_total") == 2
    assert seen("safetake_job_runs_total") == 3
    assert seen("safetake_job_last_success_timestamp_seconds") == clock.now / SECOND


def test_without_the_repository_the_history_answers(config: Config, clock: Clock) -> None:
    """An RPO that is breached does not fall silent because the repository is gone."""
    ran(config, clock, "backup", "sqlite-backup", facts=backup_facts(), seconds=10)
    clock.now += DAY
    found = values(render(config, History(config, now_ns=clock)))
    name = "safetake_source_snapshot_timestamp_seconds"
    assert value(found, name, source="projects", rung="stored") == START_NS / SECOND - 10
    rungs = {dict(labels)["rung"] for labels in found[name]}
    assert rungs == {"stored"}, "nothing is said of rungs that nobody could read"
    assert "safetake_source_damaged" not in found
    assert value(found, "safetake_repository_reachable", repository="main") == 0
    assert "safetake_repository_bytes" not in found


def test_a_damaged_snapshot_is_no_snapshot(
    config: Config, clock: Clock, repository: Repository, tmp_path: Path
) -> None:
    database(tmp_path / "projects.db")
    source = sqlite_source("projects", tmp_path / "projects.db")
    good = snapshot(repository, source)
    packs = {path for path in (tmp_path / "repo" / "data").rglob("*") if path.is_file()}
    database(tmp_path / "projects.db", 300)
    bad = snapshot(repository, source)
    for path in (tmp_path / "repo" / "data").rglob("*"):
        if path.is_file() and path not in packs:
            path.chmod(0o600)
            path.write_bytes(bytes(path.stat().st_size))
    assert not verify(repository, config, find_snapshot(repository, bad.id), "read").ok
    found = values(render(config, History(config, repository, now_ns=clock)))
    name = "safetake_source_snapshot_timestamp_seconds"
    stored = value(found, name, source="projects", rung="stored")
    assert stored == pytest.approx(good.time_ns / SECOND, abs=1e-3)
    assert value(found, "safetake_source_damaged", source="projects") == 1


def test_an_interrupted_restore_shows_and_its_journal_is_not_touched(
    config: Config, clock: Clock, tmp_path: Path
) -> None:
    from safetake.recovery import journal as journals

    restores = tmp_path / "state" / "restores"
    restores.mkdir(parents=True)
    journal = journals.create(restores, "0123456789abcdef", {"time": "x"})
    journal.begin("stage")
    path = journal.folder / "journal"
    path.write_bytes(path.read_bytes() + b"0000 torn")
    before = path.read_bytes()
    history = History(config, now_ns=clock)

    def seen() -> float:
        return value(values(render(config, history)), "safetake_restore_interrupted")

    with journals.working(restores):
        assert seen() == 0, "somebody is at work on it"
    (restores / "lock").write_text("4194304")  # no such process
    assert seen() == 1
    assert path.read_bytes() == before
    journals.load(journal.folder).end("rolled back")
    assert seen() == 0


def test_cardinality_is_bounded_by_the_configuration(config: Config, clock: Clock) -> None:
    findings = [
        {"source": "projects", "check": f"check {n} " + "x" * 500, "level": "error"}
        for n in range(300)
    ]
    facts = {"sources": ["projects"], "findings": findings}
    ran(config, clock, "integrity", "sound", facts=facts, exit_code=1)
    for n in range(300):
        ran(config, clock, "backup", f"gone-{n}", facts={})
    text = render(config, History(config, now_ns=clock))
    assert len(text.splitlines()) < 400
    assert max(map(len, text.splitlines())) < 300
    assert b"gone-" not in text


def test_labels_hold_no_words_of_errors_and_no_places(
    config: Config, clock: Clock, tmp_path: Path
) -> None:
    ran(config, clock, "backup", "sqlite-backup", exit_code=1, error="secret-in-error", hint="h")
    facts = {"sources": ["projects"], "findings": []}
    ran(config, clock, "integrity", "sound", facts={**facts, "detail": "secret-in-facts"})
    with notifications.changing(config) as known:
        known.way("slack").tried(clock.now, "secret-in-delivery")
    text = render(config, History(config, now_ns=clock), daemon=DAEMON).decode()
    assert "secret" not in text
    assert str(tmp_path) not in text


def test_only_known_names_with_their_labels() -> None:
    samples = Samples()
    with pytest.raises(KeyError):
        samples.put("safetake_unheard_of", 1)
    with pytest.raises(KeyError):
        samples.put("backup_job_success", 1, job="a", instance="b")
    samples.put("backup_job_success", None, job="a")
    assert samples.text() == b""


def test_names_hold_their_unit() -> None:
    for metric in METRICS.values():
        if metric.name.startswith("safetake_") and "timestamp" in metric.name:
            assert metric.name.endswith("_timestamp_seconds")
        assert metric.kind == "counter" or not metric.name.endswith("_total")
        assert "job" not in metric.labels or metric.name.startswith("backup_")
        assert metric.help.rstrip().endswith(".")


def test_the_reference_lists_every_metric() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", page, re.MULTILINE)
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert listed == {metric.name: (metric.kind, metric.labels) for metric in METRICS.values()}
    assert [name for name, _, _ in rows] == list(METRICS)
