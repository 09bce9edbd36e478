"""The daemon for half an hour: a snapshot a minute of all four stores under load.

The sample application runs with real stores and is written to, `safetake run` takes the snapshots,
and its /metrics is scraped as Prometheus would. Judged at the end: whether the daemon's memory
grows, whether every minute had its run and when that began, and whether `restic check --read-data`
finds the repository whole.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bench.command import BenchError, remove
from safetake.clock import now_ns, parse_go_time
from safetake.demo.application import Application, Places, require_extras, sample_application
from safetake.demo.processes import Processes, free_port

PASSWORD = "soak"
SAMPLE_S = 5.0
SCRAPE_S = 15.0
WARM_S = 120.0
"""Until then the daemon may grow: it has not yet done everything once."""
PASSWORD_ENV = "SAFETAKE_SOAK_PASSWORD"
STORES = """
[repository]
location = "repository"
password_env = "SAFETAKE_SOAK_PASSWORD"
[sources.projects]
type = "sqlite"
path = "data/projects.db"
[sources.vectors]
type = "chroma"
path = "data/chroma"
[sources.queue]
type = "redis"
url = "{redis}"
[sources.scripts]
type = "files"
path = "data/scripts"
[restore]
state = "state"
[daemon]
listen = "127.0.0.1:{port}"
"""
JOB = """
[jobs.everything]
kind = "backup"
schedule = "* * * * *"
"""


def measure(work: Path, minutes: float) -> dict[str, Any]:
    """Run it; removes what it made. Raises BenchError when the set-up does not work."""
    require_extras()
    folder = work / "soak"
    remove(folder)
    (folder / "data").mkdir(parents=True)
    (folder / "logs").mkdir()
    os.environ[PASSWORD_ENV] = PASSWORD
    processes = Processes(folder / "logs", {"PYTHONPATH": sample_application()})
    try:
        return _run(folder, processes, minutes)
    finally:
        processes.kill()
        remove(folder)


def _run(folder: Path, processes: Processes, minutes: float) -> dict[str, Any]:
    data = folder / "data"
    places = Places(data / "projects.db", data / "chroma", data / "redis", data / "scripts")
    application = Application(processes, places)
    application.start_redis()
    application.create_stores()
    application.start_services()
    application.wait_healthy()
    port = free_port()
    stores = STORES.format(redis=application.redis_url, port=port)
    (folder / "safetake.toml").write_text(stores + JOB)
    said(folder, "init")
    said(folder, "run", "everything")  # the first one stores everything
    application.start_load(folder / "journal", workers=2, pause=0.5)
    log = folder / "logs" / "daemon.log"
    with log.open("wb") as stderr:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "safetake", "--json", "run"], cwd=folder, stderr=stderr
        )
    try:
        samples = _watch(daemon, port, minutes * 60)
        processes.check()
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(90)
    finally:
        daemon.kill()
        daemon.wait()
    load = application.end_load(folder / "logs")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return {
        "minutes": minutes,
        "exit_code": code,
        **_memory(samples),
        **_punctuality(events),
        **repository(folder),
        "written_meanwhile": load,
        "load_average": os.getloadavg(),
    }


def _watch(daemon: subprocess.Popen[bytes], port: int, seconds: float) -> list[tuple[float, int]]:
    """(seconds, resident bytes) until time is up."""
    began = scraped = time.monotonic()
    samples: list[tuple[float, int]] = []
    time.sleep(2)  # it is Python alone until then
    while time.monotonic() - began < seconds:
        if daemon.poll() is not None:
            raise BenchError(f"the daemon ended with exit code {daemon.returncode}")
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        samples.append((time.monotonic() - began, int(resident.split()[1]) * 1024))
        if time.monotonic() - scraped >= SCRAPE_S:
            scraped = time.monotonic()
            _scrape(port)
        time.sleep(SAMPLE_S)
    return samples


def _scrape(port: int) -> None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise BenchError(f"/metrics does not answer: {error}") from error


def _memory(samples: list[tuple[float, int]]) -> dict[str, Any]:
    warm = [(at, size) for at, size in samples if at >= WARM_S] or samples
    times, sizes = [at for at, _ in warm], [size for _, size in warm]
    slope = statistics.linear_regression(times, sizes).slope if len(warm) > 2 else 0.0
    third = max(1, len(sizes) // 3)
    return {
        "rss_mb_first": round(samples[0][1] / 1e6, 2),
        "rss_mb_warm": round(sizes[0] / 1e6, 2),
        "rss_mb_last": round(sizes[-1] / 1e6, 2),
        "rss_mb_most": round(max(sizes) / 1e6, 2),
        "rss_mb_first_third": round(statistics.fmean(sizes[:third]) / 1e6, 2),
        "rss_mb_last_third": round(statistics.fmean(sizes[-third:]) / 1e6, 2),
        "rss_kb_per_minute": round(slope * 60 / 1e3, 2),
    }


def _punctuality(events: list[dict[str, Any]]) -> dict[str, Any]:
    started = [event for event in events if event["event"] == "started"]
    due = sorted({parse_go_time(event["due"]) // 10**9 for event in started})
    late = [event["late_seconds"] for event in started]
    leads = next(parse_go_time(e["time"]) for e in events if e["event"] == "leader") // 10**9
    expected = range(leads // 60 * 60 + 60, now_ns() // 10**9, 60)
    ended = next(parse_go_time(e["time"]) for e in events if e["event"] == "stopping") // 10**9
    done = [event["seconds"] for event in events if event["event"] == "done"]
    return {
        "expected": sum(1 for at in expected if at < ended - 1),
        "started": len(started),
        "different_times": len(due),
        "done": len(done),
        "failed": sum(1 for event in events if event["event"] == "failed"),
        "missed": sum(event["count"] for event in events if event["event"] == "missed"),
        "late_s_median": statistics.median(late) if late else None,
        "late_s_most": max(late, default=None),
        "late_s_last_ten": [round(each, 2) for each in late[-10:]],
        "run_s_median": statistics.median(done) if done else None,
        "run_s_most": max(done, default=None),
        "events": [
            event["text"]
            for event in events
            if event["event"] not in ("started", "done", "running", "listening", "leader")
        ][:50],
    }


def repository(folder: Path) -> dict[str, Any]:
    """What is in the folder's repository, and what stock restic says of it."""
    snapshots = json.loads(said(folder, "--json", "snapshots"))
    restic = shutil.which("restic")
    if restic is None:
        return {"snapshots": len(snapshots), "restic": "not installed"}
    done = subprocess.run(
        [restic, "-r", "repository", "--no-cache", "check", "--read-data"],
        cwd=folder,
        env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        check=False,
    )
    size = sum(path.stat().st_size for path in (folder / "repository").rglob("*") if path.is_file())
    return {
        "snapshots": len(snapshots),
        "repository_mb": round(size / 1e6, 1),
        "locks": len(list((folder / "repository" / "locks").iterdir())),
        "restic_check": done.returncode,
        "restic_said": done.stdout.strip().splitlines()[-1:],
    }


def said(folder: Path, *words: str) -> str:
    """What the command said on stdout. Raises BenchError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "safetake", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"safetake {' '.join(words)}: {done.stderr[-500:]}")
    return done.stdout
