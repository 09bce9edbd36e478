"""The demo from beginning to end: build, load, snapshots, total loss, proof, recovery, comparison.

It uses safetake as a user does: the command line, in processes of their own, with --json. Nothing
of the live stores survives the loss; what comes back comes out of the repository alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetake.clock import parse_go_time
from safetake.demo.application import Application, Places, require_extras, sample_application
from safetake.demo.processes import Processes
from safetake.demo.report import DemoReport, Snapshot
from safetake.errors import SafetakeError

SNAPSHOTS = 3
WORKERS = 4
_COMMAND_TIMEOUT_S = 120.0
_CONFIG = '''\
[repository]
location = "{folder}/repository"
password_file = "{folder}/password"

[sources.projects]
type = "sqlite"
path = "{folder}/data/projects.db"

[[sources.projects.checks]]
name = "orphaned episodes"
sql = """
SELECT id FROM episodes e
WHERE NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = e.project_id)"""

[sources.vectors]
type = "chroma"
path = "{folder}/data/chroma"

[sources.queue]
type = "redis"
url = "{redis_url}"

[sources.scripts]
type = "files"
path = "{folder}/data/scripts"
'''


def run_demo(*, keep: bool, seconds: float, json: bool, echo: Callable[[str], None]) -> DemoReport:
    """Run the demo in a throw-away folder; every process that it started is ended.

    `seconds` is how long load is written before the disaster, at least; `keep` keeps the folder.
    Each step is told to `echo`, unless `json`. Raises SafetakeError when something needed is
    missing or a step fails; what came back wrong is in the report, not an error.
    """
    require_extras()
    tell: Callable[[str], None] = (lambda text: None) if json else echo
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="safetake-demo-")).resolve()
    try:
        report = _Story(folder, seconds, tell).run()
        report.kept = str(folder) if keep else ""
    except SafetakeError:
        if keep:
            tell(f"kept: {folder}")
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    report.seconds = time.monotonic() - started
    return report


class _Story:
    """The steps, in their order."""

    def __init__(self, folder: Path, seconds: float, tell: Callable[[str], None]) -> None:
        self._folder, self._seconds, self._tell = folder, seconds, tell
        self._data, self._restored = folder / "data", folder / "restored"
        self._logs, self._journal = folder / "logs", folder / "journal.jsonl"
        self._logs.mkdir()
        self._processes = Processes(
            self._logs,
            {"PYTHONPATH": sample_application(), "XDG_CACHE_HOME": str(folder / "cache")},
        )
        self._report = DemoReport()

    def run(self) -> DemoReport:
        """The whole story; ends every process, whatever happens."""
        try:
            application = self._build()
            self._snapshots_under_load(application)
            self._destroy(application)
            with ThreadPoolExecutor(2) as pool:  # most of a proof is one process's start
                list(pool.map(self._prove, self._report.snapshots))
            application, stores = self._recover()
            self._compare(application, stores)
        finally:
            self._processes.kill()
        return self._report

    def _build(self) -> Application:
        self._tell("Starting Redis and the sample application on real, empty stores …")
        data = self._data
        data.mkdir()
        places = Places(data / "projects.db", data / "chroma", data / "redis", data / "scripts")
        application = Application(self._processes, places)
        application.start_redis()
        application.create_stores()
        application.start_services()
        application.wait_healthy()
        config = _CONFIG.format(folder=self._folder, redis_url=application.redis_url)
        (self._folder / "safetake.toml").write_text(config)
        self._safetake("init")
        return application

    def _snapshots_under_load(self, application: Application) -> None:
        self._tell(f"Writing to all four stores with {WORKERS} workers …")
        application.start_load(self._journal, WORKERS)
        started = time.monotonic()
        for number in range(1, SNAPSHOTS + 1):
            self._load_until(started + self._seconds * number / (SNAPSHOTS + 1))
            self._tell(f"Snapshot {number} of {SNAPSHOTS}, under load …")
            self._snapshot()
        # what is acknowledged after the last cut is what a disaster loses: there has to be some
        pause = self._seconds / (SNAPSHOTS + 1)
        self._load_until(max(started + self._seconds, time.monotonic() + pause))

    def _load_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self._processes.check()

    def _snapshot(self) -> None:
        before = folder_bytes(self._folder / "repository")
        begun = time.monotonic()
        taken = self._safetake("backup")
        snapshot = Snapshot(
            id=taken["id"],
            time=taken["time"],
            backup_seconds=time.monotonic() - begun,
            barrier_ms=taken["barrier_ms"],
            skew_ms=taken["skew_ms"],
            source_bytes=sum(source["bytes"] for source in taken["sources"].values()),
            added_bytes=folder_bytes(self._folder / "repository") - before,
        )
        self._report.snapshots.append(snapshot)
        for name, source in taken["sources"].items():
            for unread in source["unread"]:
                self._problem(f"snapshot {snapshot.id[:8]}: {name}: not read: {unread}")
        if snapshot.skew_ms:
            self._problem(f"snapshot {snapshot.id[:8]} is not one moment: {snapshot.skew_ms} ms")

    def _prove(self, snapshot: Snapshot) -> None:
        self._tell(f"Opening every store of snapshot {snapshot.id[:8]} …")
        begun = time.monotonic()
        proof = self._safetake("verify", snapshot.id, "--level", "open")
        snapshot.verify_seconds = time.monotonic() - begun
        snapshot.rung = proof["rung"]
        checks = [c for source in proof["sources"].values() for c in source["checks"]]
        snapshot.not_asked = [c["name"] for c in checks if c["found"] == "not asked"]
        snapshot.checks = len(checks) - len(snapshot.not_asked)
        for problem in proof["problems"]:
            self._problem(f"snapshot {snapshot.id[:8]}: {problem}")

    def _destroy(self, application: Application) -> None:
        self._tell("Total loss: SIGKILL to Redis and both services, all their data deleted …")
        application.kill()
        shutil.rmtree(self._data)
        self._report.load = application.end_load(self._logs)

    def _recover(self) -> tuple[Application, dict[str, Any]]:
        self._tell("Recovering from the repository alone …")
        restored, newest = self._restored, self._report.snapshots[-1]
        with self._timed("safetake restore"):
            self._safetake("restore", newest.id, "--to", str(restored))
        application = Application(
            self._processes,
            Places(
                restored / "projects" / "projects.db",
                restored / "vectors",
                restored / "queue",
                restored / "scripts",
            ),
        )
        with self._timed("start Redis on it"):
            application.start_redis()
        with self._timed("start services until both are healthy"):
            application.start_services()
            stores = application.wait_healthy()
        return application, stores

    def _compare(self, application: Application, stores: dict[str, Any]) -> None:
        self._tell("Comparing with what the load driver saw acknowledged …")
        cut = parse_go_time(self._report.snapshots[-1].time)
        verdict = application.compare(self._restored, self._journal, (cut, cut))
        report = self._report
        report.stores = verdict["stores"]
        report.lost_items, report.lost_seconds = verdict["lost_items"], verdict["lost_seconds"]
        for problem in verdict["problems"]:
            self._problem(problem)
        held = {name: store["found"] + store["in_flight"] for name, store in report.stores.items()}
        counted = {
            "rows": stores["sqlite"]["projects"] + stores["sqlite"]["episodes"],
            "vectors": stores["chroma"]["vectors"],
            "files": stores["files"]["files"],
        }
        for name, count in counted.items():
            if count != held[name]:
                self._problem(
                    f"{name}: the application counts {count}, the comparison {held[name]}"
                )
        if "One more take".upper() not in application.write_and_read():
            self._problem("a script written after the recovery does not come back")

    def _problem(self, what: str) -> None:
        self._report.problems.append(what)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self._report.recovery[step] = time.monotonic() - begun

    def _safetake(self, command: str, *arguments: str) -> Any:
        """Run one command; its JSON. Raises SafetakeError with what it said, and its hint."""
        config = str(self._folder / "safetake.toml")
        words = [sys.executable, "-m", "safetake", "--config", config, "--json", command]
        name = f"safetake {command}"
        text = self._processes.run(
            name, [*words, *arguments], _COMMAND_TIMEOUT_S, allowed=range(256)
        )
        try:
            answer = json.loads(text)
        except ValueError:
            raise SafetakeError(f"{name} --json gave no JSON: {text[:200]!r}") from None
        if "error" in answer:
            raise SafetakeError(
                f"{name}: {answer['error']['message']}", hint=answer["error"]["hint"]
            )
        return answer


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
