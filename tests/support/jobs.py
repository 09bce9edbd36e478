"""Jobs and daemons as real processes on a small real set-up."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safetake import configfile
from safetake.clock import now_ns
from safetake.config import Config
from safetake.operate.history import History, Record
from safetake.operate.timetable import timing
from safetake.repository import Repository, keys
from safetake.storage import LocalStorage

PASSWORD = "the password of the test"
PATIENCE_S = 200.0
BASE = """
[repository]
location = "repo"
password_file = "password"
[sources.projects]
type = "sqlite"
path = "projects.db"
[sources.scripts]
type = "files"
path = "scripts"
[restore]
state = "state"
"""


def until(there: Callable[[], Any], what: str, process: subprocess.Popen[Any] | None = None) -> Any:
    """What `there` gives, once it gives something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := there()):
        assert time.monotonic() < deadline, f"waited for {what} in vain"
        assert process is None or process.poll() is None, f"{what}: the process ended"
        time.sleep(0.05)
    return found


@dataclass
class Place:
    """A folder with two stores, a configuration and an empty repository."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SAFETAKE", "RESTIC"))
        }
        return {**kept, "HOME": str(self.folder), "TMPDIR": str(self.folder), "LC_ALL": "C.UTF-8"}

    @property
    def path(self) -> Path:
        return self.folder / "safetake.toml"

    @property
    def config(self) -> Config:
        return configfile.load(self.path)

    def configure(self, text: str) -> None:
        self.path.write_text(BASE + text)

    def records(self, *kinds: str) -> list[Record]:
        with Repository.open(LocalStorage(self.folder / "repo"), PASSWORD) as repository:
            found = History(self.config, repository).records()
        return [record for record in found if not kinds or record.kind in kinds]

    def ran_before(self, ago_s: float) -> None:
        """As if a daemon had known these jobs, and run each, so long ago."""
        config, at = self.config, now_ns() - int(ago_s * 1e9)
        history = History(config)
        jobs = {name: timing(job) for name, job in config.jobs.items() if job.schedule}
        history.append("daemon", started_ns=at, ended_ns=at, facts={"jobs": jobs})
        for name, job in config.jobs.items():
            history.append(job.kind, job=name, started_ns=at, ended_ns=at)

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "safetake", *words],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            **more,
        )

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, (words, process.returncode, out, err)
        assert "Traceback" not in out + err
        assert PASSWORD not in out + err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run("--json", *words, code=code).stdout)

    @contextlib.contextmanager
    def busy(self) -> Iterator[sqlite3.Connection]:
        """A writer that holds the database until the block ends, or it is rolled back."""
        writer = sqlite3.connect(self.folder / "projects.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        try:
            yield writer
        finally:
            writer.close()

    def repository_locks(self) -> list[str]:
        return [path.name for path in (self.folder / "repo" / "locks").iterdir()]

    @contextlib.contextmanager
    def daemon(self, name: str = "daemon", *words: str) -> Iterator[RunningDaemon]:
        log = self.folder / f"{name}.log"
        with log.open("w") as stderr:
            process = self.start("--json", "run", *words, stderr=stderr)
        running = RunningDaemon(process, log)
        try:
            yield running
        finally:
            if process.poll() is None:
                for event in running.events():
                    if event["event"] == "started":
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(event["pid"], signal.SIGTERM)
                process.kill()
                process.wait()


@dataclass
class RunningDaemon:
    """`safetake --json run` and what it says."""

    process: subprocess.Popen[str]
    log: Path

    def events(self) -> list[dict[str, Any]]:
        text = self.log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def wait_for(self, event: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The so-many-th event of that name with these fields."""

        def there() -> dict[str, Any] | None:
            found = [
                each
                for each in self.events()
                if each["event"] == event
                and all(each.get(name) == value for name, value in fields.items())
            ]
            return found[count - 1] if len(found) >= count else None

        found: dict[str, Any] = until(there, f"event {event} in {self.log}", self.process)
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def make_place(folder: Path) -> Place:
    """The set-up, with a repository whose key costs nothing to derive."""
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "one.txt").write_text("장면 1\n" * 100, encoding="utf-8")
    with contextlib.closing(sqlite3.connect(folder / "projects.db")) as db, db:
        db.execute("PRAGMA journal_mode=wal")
        db.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        db.executemany("INSERT INTO projects (name) VALUES (?)", [(f"p{i}",) for i in range(100)])
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "password").chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "SCRYPT_N", 2)
        patch.setattr(keys, "SCRYPT_P", 1)
        Repository.init(LocalStorage(folder / "repo"), PASSWORD)
    place = Place(folder)
    place.configure("")
    return place


def copy_place(template: Place, folder: Path) -> Place:
    """Another one like it."""
    shutil.copytree(template.folder, folder)
    return Place(folder)
