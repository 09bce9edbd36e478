"""Drills beside a live application: what its clients feel, with and without one, in the same hour.

The sample application runs with real stores and is written to, `safetake run` rehearses a partial
and a total loss in turn, and `bench.probe` asks the application as a client would. A backup is
taken before each drill; what was asked meanwhile is counted by itself. With and without a drill
alternate within one run, so whatever the machine and the growing stores do is done to both.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.command import BenchError, remove
from bench.probe import KINDS
from bench.soak import PASSWORD, PASSWORD_ENV, STORES, repository, said
from safetake.clock import parse_go_time
from safetake.demo.application import (
    SERVICES,
    Application,
    Places,
    require_extras,
    sample_application,
)
from safetake.demo.processes import Processes, free_port

BACKUP_BEFORE_S = 20.0
EDGE_NS = 10**9
"""Around a drill's process. What is in there and not within its evidence is neither with nor
without: the process starts and ends, or it came to no evidence."""
WARM_S = 10.0
LAST_DRILL_S = 300.0
"""Then the drill that is under way is ended, and is neither with nor without."""
EVERY = (1, 2, 3, 5, 6, 10, 15)
SERVICE = """
[drill.services.{name}]
command = {command}
environment = {environment}
health = "http://127.0.0.1:{{port}}/api/v1/health"
"""
JOBS = """
[drill]
scratch = "scratch"
{drill}
[jobs.partial]
kind = "drill"
scenario = "partial-loss"
schedule = "*/{twice} * * * *"
retries = 0
catch_up = false
[jobs.total]
kind = "drill"
scenario = "total-loss"
schedule = "{every}-59/{twice} * * * *"
retries = 0
catch_up = false
"""

Span = tuple[int, int]
"""From and to, in nanoseconds since 1970."""


@dataclass(slots=True)
class Felt:
    """The requests of one kind in one sort of time."""

    milliseconds: array[float] = field(default_factory=lambda: array("d"))
    errors: int = 0


def measure(work: Path, minutes: float, every: int, priority: str) -> dict[str, Any]:
    """Run it; removes what it made. Raises BenchError when the set-up does not work."""
    if every not in EVERY:
        raise BenchError(f"--every must be one of {', '.join(map(str, EVERY))} minutes")
    require_extras()
    folder = work / "drills"
    remove(folder)
    for name in ("data", "logs", "scratch"):
        (folder / name).mkdir(parents=True)
    os.environ[PASSWORD_ENV] = PASSWORD
    processes = Processes(folder / "logs", {"PYTHONPATH": sample_application()})
    try:
        return _run(folder, processes, minutes, every, priority)
    finally:
        processes.kill()
        remove(folder)


def _run(
    folder: Path, processes: Processes, minutes: float, every: int, priority: str
) -> dict[str, Any]:
    data = folder / "data"
    places = Places(data / "projects.db", data / "chroma", data / "redis", data / "scripts")
    application = Application(processes, places)
    application.start_redis()
    application.create_stores()
    application.start_services()
    application.wait_healthy()
    (folder / "safetake.toml").write_text(_configuration(application, every, priority))
    said(folder, "init")
    application.start_load(folder / "journal", workers=2, pause=0.5)
    time.sleep(WARM_S)
    said(folder, "backup")  # the first one stores everything
    record = folder / "record"
    urls = [application.url(name) for name in SERVICES]
    processes.start("probe", [sys.executable, "-m", "bench.probe", *urls, str(record)])
    time.sleep(WARM_S)
    began = time.time_ns()
    log = folder / "logs" / "daemon.log"
    with log.open("wb") as stderr:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "safetake", "--json", "run"], cwd=folder, stderr=stderr
        )
    try:
        backups = list(_backups(folder, daemon, processes, minutes * 60, every * 60))
        _last_drill(daemon, log)
        processes.check()
        ended = time.time_ns()
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(90)
    finally:
        daemon.kill()
        daemon.wait()
    processes.end("probe", 40)
    load = application.end_load(folder / "logs")
    drills = json.loads(said(folder, "--json", "evidence", "list", "--kind", "drill"))
    spans = [(each["started_ns"], each["ended_ns"]) for each in drills]
    times = Times((began, ended), spans, backups, _runs(log, ended))
    return {
        "minutes": round((ended - began) / 60e9, 2),
        "every": every,
        "priority": priority,
        "exit_code": code,
        "drills": _drills(drills, times),
        "backups": len(backups),
        "backup_s_median": _median([(end - start) / 1e9 for start, end in backups]),
        **felt(record, times),
        "load": {**_written(folder / "journal", times), "account": load},
        "events": _problems(log),
        "evidence": json.loads(said(folder, "--json", "evidence", "verify")),
        **repository(folder),
        "load_average": os.getloadavg(),
    }


def _configuration(application: Application, every: int, priority: str) -> str:
    drill = f'priority = "{priority}"\n'
    names = {
        "DATABASE_URL": "sqlite:///{projects}",
        "CHROMA_PATH": "{vectors}",
        "REDIS_URL": "{queue}/0",
        "SCRIPTS_DIR": "{scripts}",
        "PROJECT_SERVICE_URL": "http://127.0.0.1:{port:project-service}",
        "GENERATION_SERVICE_URL": "http://127.0.0.1:{port:generation-service}",
        "PYTHONPATH": sample_application(),
    }
    environment = "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in names.items()) + "}"
    for name in SERVICES:
        words = [sys.executable, "-m", "script_generator", name, "--port", "{port}"]
        drill += SERVICE.format(name=name, command=json.dumps(words), environment=environment)
    stores = STORES.format(redis=application.redis_url, port=free_port())
    return stores + JOBS.format(drill=drill, every=every, twice=2 * every)


def _backups(
    folder: Path,
    daemon: subprocess.Popen[bytes],
    processes: Processes,
    seconds: float,
    every: float,
) -> Iterator[Span]:
    """Take one shortly before each drill until time is up; when each was taken."""
    until = time.monotonic() + seconds
    due = (time.time() + BACKUP_BEFORE_S) // every * every + every - BACKUP_BEFORE_S
    while time.monotonic() < until:
        time.sleep(0.5)
        processes.check()
        if daemon.poll() is not None:
            raise BenchError(f"the daemon ended with exit code {daemon.returncode}")
        if time.time() >= due:
            start = time.time_ns()
            said(folder, "backup")
            yield start, time.time_ns()
            due += every


def _last_drill(daemon: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the drill that is under way is over, or for LAST_DRILL_S."""
    until = time.monotonic() + LAST_DRILL_S
    while daemon.poll() is None and time.monotonic() < until:
        events = [event["event"] for event in _events(log)]
        if events.count("started") == events.count("done") + events.count("failed"):
            return
        time.sleep(0.2)


class Times:
    """What was going on at a moment."""

    def __init__(
        self, whole: Span, drills: list[Span], backups: list[Span], runs: list[Span]
    ) -> None:
        self.whole, self.drills = whole, sorted(drills)
        self._backups = backups
        self._edges = [(start - EDGE_NS, end + EDGE_NS) for start, end in runs]

    def sort(self, start_ns: int, end_ns: int) -> str:
        """`with` or `without` a drill, during a `backup`, at an `edge`, or `outside` of it all."""
        if not self.whole[0] <= start_ns <= self.whole[1]:
            return "outside"
        if any(start <= end_ns and start_ns <= end for start, end in self._backups):
            return "backup"
        if any(start <= start_ns <= end for start, end in self.drills):
            return "with"
        if any(start <= end_ns and start_ns <= end for start, end in self._edges):
            return "edge"
        return "without"

    def round(self, start_ns: int) -> int:
        """Number of the drill that this moment belongs to: it, and the pause before it."""
        return sum(1 for _, end in self.drills if end < start_ns)

    def seconds(self) -> dict[str, float]:
        """How long each sort of time was, by asking every tenth of a second."""
        found: dict[str, float] = {}
        for now in range(self.whole[0], self.whole[1], 10**8):
            name = self.sort(now, now)
            found[name] = round(found.get(name, 0.0) + 0.1, 1)
        return found


def _drills(documents: list[dict[str, Any]], times: Times) -> dict[str, Any]:
    took: dict[str, list[float]] = {}
    for each in documents:
        seconds = (each["ended_ns"] - each["started_ns"]) / 1e9
        took.setdefault(each["name"], []).append(round(seconds, 2))
    seconds = [each for one in took.values() for each in one]
    failed = [each for each in documents if each["verdict"] != "passed"]
    return {
        "count": len(documents),
        "passed": len(documents) - len(failed),
        "seconds": took,
        "seconds_median": _median(seconds),
        "seconds_most": max(seconds, default=None),
        "failures": [
            [*each["problems"], *(one for one in each["checks"] if not one["ok"])]
            for each in failed
        ],
        "time_s": times.seconds(),
    }


def felt(record: Path, times: Times) -> dict[str, Any]:
    """The probe's record, by sort of time and kind; 40 bytes for each request are held."""
    found: dict[tuple[str, str], Felt] = {}
    rounds: dict[tuple[int, str], array[float]] = {}
    with record.open(encoding="ascii") as lines:
        for line in lines:
            start_ns, micros, kind, status = map(int, line.split())
            sort = times.sort(start_ns, start_ns + micros * 1000)
            for name in (KINDS[kind], "all"):
                one = found.setdefault((sort, name), Felt())
                one.milliseconds.append(micros / 1000)
                one.errors += not 200 <= status < 300
            each = rounds.setdefault((times.round(start_ns), sort), array("d"))
            each.append(micros / 1000)
    names = ("all", *KINDS)
    application = {
        name: {
            sort: _account(found[sort, name])
            for sort in ("with", "without", "backup", "edge")
            if (sort, name) in found
        }
        for name in names
    }
    for by_sort in application.values():
        if "with" in by_sort and "without" in by_sort:
            by_sort["ratio"] = {
                key: round(by_sort["with"][key] / by_sort["without"][key], 3)
                for key in ("median_ms", "p95_ms", "p99_ms", "most_ms")
            }
    return {"application": application, "pairs": _pairs(rounds)}


def _account(felt: Felt) -> dict[str, float]:
    values = sorted(felt.milliseconds)

    def at(share: float) -> float:
        return round(values[min(len(values) - 1, int(share * len(values)))], 2)

    return {
        "requests": len(values),
        "errors": felt.errors,
        "error_rate": round(felt.errors / len(values), 6),
        "median_ms": at(0.5),
        "p95_ms": at(0.95),
        "p99_ms": at(0.99),
        "most_ms": round(values[-1], 2),
    }


def _pairs(rounds: dict[tuple[int, str], array[float]]) -> dict[str, Any]:
    """Each drill's latency to that of the pause before it: what drifts in an hour drops out."""
    medians, slow = [], []
    for number in sorted({number for number, _ in rounds}):
        busy, quiet = rounds.get((number, "with")), rounds.get((number, "without"))
        if busy and quiet:
            medians.append(_account(Felt(busy))["median_ms"] / _account(Felt(quiet))["median_ms"])
            slow.append(_account(Felt(busy))["p95_ms"] / _account(Felt(quiet))["p95_ms"])
    return {
        "count": len(medians),
        "median_ratios": [round(each, 3) for each in medians],
        "p95_ratios": [round(each, 3) for each in slow],
        "median_ratio": _median(medians),
        "p95_ratio": _median(slow),
    }


def _written(journal: Path, times: Times) -> dict[str, Any]:
    """The load driver's acknowledged requests, by sort of time."""
    counts: dict[str, int] = {}
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            if "of" in entry:
                sort = times.sort(entry["time_ns"], entry["time_ns"])
                counts[sort] = counts.get(sort, 0) + 1
    seconds = times.seconds()
    return {
        f"per_second_{sort}": round(counts.get(sort, 0) / seconds[sort], 2)
        for sort in ("with", "without", "backup")
        if seconds.get(sort)
    }


def _events(log: Path) -> list[dict[str, Any]]:
    events = []
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):  # a line that is being written
            events.append(json.loads(line))
    return events


def _runs(log: Path, ended: int) -> list[Span]:
    """When the daemon's jobs ran; until `ended` what had not ended by then."""
    running: dict[str, int] = {}
    runs = []
    for event in _events(log):
        at = parse_go_time(event["time"])
        if event["event"] == "started":
            running[event["job"]] = at
        elif event["event"] in ("done", "failed") and event["job"] in running:
            runs.append((running.pop(event["job"]), at))
    return runs + [(start, ended) for start in running.values()]


def _problems(log: Path) -> dict[str, Any]:
    events = _events(log)
    started = [event for event in events if event["event"] == "started"]
    return {
        "started": len(started),
        "different_times": len({parse_go_time(event["due"]) for event in started}),
        "missed": sum(event["count"] for event in events if event["event"] == "missed"),
        "failed": [event["text"] for event in events if event["event"] == "failed"][:50],
    }


def _median(values: list[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def table(answer: dict[str, Any]) -> str:
    """For people: what clients felt, and what the drills found."""
    drills, load = answer["drills"], answer["load"]
    time_s = drills["time_s"]
    lines = [
        f"{drills['count']} drills in {answer['minutes']} minutes, {drills['passed']} passed; "
        f"median {drills['seconds_median']} s, longest {drills['seconds_most']} s; "
        f"priority {answer['priority']}",
        f"seconds with a drill {time_s.get('with', 0)}, without {time_s.get('without', 0)}, "
        f"in backups {time_s.get('backup', 0)}, at edges {time_s.get('edge', 0)}",
        "",
        f"{'':<30}{'requests':>9}{'errors':>8}{'median':>9}{'p95':>9}{'p99':>9}{'max':>9} ms",
    ]
    for name, by_sort in answer["application"].items():
        for sort in ("without", "with"):
            if one := by_sort.get(sort):
                cells = f"{one['requests']:>9}{one['errors']:>8}"
                for key in ("median_ms", "p95_ms", "p99_ms", "most_ms"):
                    cells += f"{one[key]:>9.2f}"
                lines.append(f"{name if sort == 'without' else '':<21}{sort:<9}{cells}")
        if ratio := by_sort.get("ratio"):
            cells = "".join(f"{value:>8.2f}×" for value in ratio.values())
            lines.append(f"{'':<21}{'ratio':<9}{'':>17}{cells}")
    pairs = answer["pairs"]
    lines += [
        "",
        f"each drill to the pause before it ({pairs['count']}): median {pairs['median_ratio']}×, "
        f"p95 {pairs['p95_ratio']}×",
        f"load: {load.get('per_second_without')} writes a second without, "
        f"{load.get('per_second_with')} with; {load['account']['failed']} failed",
        f"evidence: {answer['evidence']['documents']} documents, "
        f"{'whole' if answer['evidence']['ok'] else answer['evidence']['problems']}; "
        f"restic check: {answer.get('restic_check', answer.get('restic'))}",
    ]
    return "\n".join(lines)
