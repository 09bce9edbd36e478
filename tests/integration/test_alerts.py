"""The whole chain for real: a broken store, the daemon, Prometheus, Alertmanager, a webhook.

The rules are the real file with every `for` divided by 300; Prometheus asks and judges each second,
and the daemon works its page out anew each second instead of every fifteen. Nothing else differs
from what a user runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from safetake import configfile
from safetake.operate.history import History
from safetake.operate.timetable import timing
from tests.support.prometheus import (
    PATIENCE_S,
    Webhook,
    alertmanager,
    fetch,
    prometheus,
    serving,
    until,
    webhook,
)
from tests.support.repositories import PASSWORD, new_repository

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "safetake.rules.yml"
FASTER = 300
RPO_S = 15
DAEMON = """
import sys
import safetake.operate.pages as pages
pages.FRESH_S = 1.0
from safetake.cli import main
sys.exit(main())
"""
Told = tuple[str, dict[str, str]]
FAILED: Told = ("BackupFailed", {"job": "sqlite-backup"})
BREACHED: Told = ("SafetakeRpoBreached", {"source": "projects"})
MISSED: Told = ("SafetakeJobMissed", {"job_name": "whole"})
DOWN: Told = ("SafetakeDown", {})


def faster_rules() -> str:
    """The rules with every `for` divided, at least a second."""
    seconds = {"s": 1, "m": 60, "h": 3600}

    def divided(match: re.Match[str]) -> str:
        span = int(match[2]) * seconds[match[3]]
        return f"{match[1]}{max(1, span // FASTER)}s"

    text = RULES.read_text(encoding="utf-8")
    changed, count = re.subn(r"^( +for: )(\d+)([smh])$", divided, text, flags=re.MULTILINE)
    assert count == text.count("- alert:")
    return changed


class Place:
    """A store, a repository and a configuration; commands run as a user types them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "projects.db"
        self.environment = {
            **{n: v for n, v in os.environ.items() if not n.startswith(("SAFETAKE", "RESTIC"))},
            "HOME": str(folder),
            "SAFETAKE_PASSWORD": PASSWORD,
            "SAFETAKE_CONFIG": str(folder / "safetake.toml"),
        }
        new_repository(folder / "repo")
        with sqlite3.connect(self.database) as db:
            db.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT)")
            db.executemany("INSERT INTO projects (name) VALUES (?)", [("장면",)] * 500)
        db.close()
        five_minutes_ago = datetime.fromtimestamp(time.time() - 300, UTC).minute
        (folder / "safetake.toml").write_text(
            f"""
[repository]
location = "repo"
[sources.projects]
type = "sqlite"
path = "projects.db"
[jobs.sqlite-backup]
kind = "backup"
retries = 0
[jobs.whole]
kind = "check"
schedule = "{five_minutes_ago} * * * *"
catch_up = false
[objectives.projects]
rpo = {RPO_S}
[restore]
state = "state"
"""
        )

    def run(self, *words: str, code: int = 0) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "safetake", *words],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)

    def remember_a_daemon_of_ten_minutes_ago(self) -> None:
        """It knew the schedule, ran the job, and was gone when the job was due again."""
        config = configfile.load(self.folder / "safetake.toml")
        then = time.time_ns() - 600 * 10**9
        history = History(config, now_ns=lambda: then)
        jobs = {name: timing(job) for name, job in config.jobs.items() if job.schedule}
        history.append("daemon", started_ns=then, facts={"event": "started", "jobs": jobs})
        history.append("check", job="whole", started_ns=then, facts={"errors": 0})

    def daemon(self, port: int | None = None) -> contextlib.AbstractContextManager[str]:
        """`safetake run`, killed at the end: its URL."""
        return serving(
            self.folder / "daemon",
            lambda port: [sys.executable, "-c", DAEMON, "run", "--listen", f"127.0.0.1:{port}"],
            "/metrics",
            self.environment,
            port,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as listening:
        yield listening


def told(hook: Webhook, what: Told, state: str) -> None:
    name, labels = what
    until(
        lambda: hook.state(name, **labels) == state,
        f"{name} was not told as {state}; told was: {json.dumps(hook.told)[-2000:]}",
    )


def described(hook: Webhook, name: str) -> str:
    return next(
        str(alert["annotations"]["description"])
        for alert in hook.told
        if alert["labels"]["alertname"] == name
    )


def configuration(folder: Path, manager: str, target: str) -> dict[str, Any]:
    """Prometheus that asks one target each second, and tells one Alertmanager."""
    (folder / "rules.yml").write_text(faster_rules(), encoding="utf-8")

    def at(url: str) -> list[dict[str, list[str]]]:
        return [{"targets": [url.removeprefix("http://")]}]

    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yml")],
        "alerting": {"alertmanagers": [{"static_configs": at(manager)}]},
        "scrape_configs": [
            {"job_name": "safetake", "honor_labels": True, "static_configs": at(target)}
        ],
    }


def test_what_is_broken_is_told_until_it_is_mended(
    place: Place, hook: Webhook, tmp_path: Path
) -> None:
    place.run("run", "sqlite-backup")
    place.remember_a_daemon_of_ten_minutes_ago()
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(alertmanager(tmp_path / "alertmanager", hook.url))
        with place.daemon() as daemon:
            config = configuration(tmp_path, manager, daemon)
            server = stack.enter_context(prometheus(tmp_path / "prometheus", config))
            seen = f"{server}/api/v1/query?query=backup_job_success"
            until(lambda: b',"1"]' in fetch(seen), "no backup is seen to succeed")
            assert not hook.firing() & {"BackupFailed", "SafetakeDown"}

            # broken for real
            place.database.write_bytes(b"\xff" * place.database.stat().st_size)
            place.run("run", "sqlite-backup", code=1)
            told(hook, FAILED, "firing")
            assert "sqlite-backup" in described(hook, "BackupFailed")
            told(hook, BREACHED, "firing")
            assert f"objective is {RPO_S}s." in described(hook, "SafetakeRpoBreached")
            told(hook, MISSED, "firing")

            # mended with what the runbook says
            place.run("restore", "latest", "projects", "--in-place", "--yes")
            place.run("run", "whole")
            until_resolved(place, hook, [FAILED, BREACHED, MISSED])
        # killed
        told(hook, DOWN, "firing")
        with place.daemon(int(daemon.rpartition(":")[2])):
            told(hook, DOWN, "resolved")


def until_resolved(place: Place, hook: Webhook, waiting: list[Told]) -> None:
    """Back up again and again, as its schedule would."""
    deadline = time.monotonic() + PATIENCE_S
    while waiting:
        place.run("run", "sqlite-backup")
        waiting = [
            (name, labels) for name, labels in waiting if hook.state(name, **labels) != "resolved"
        ]
        assert time.monotonic() < deadline, (waiting, hook.told)


def test_the_rules_are_the_real_ones() -> None:
    real = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    ours = yaml.safe_load(faster_rules())
    for config in (real, ours):
        for group in config["groups"]:
            for rule in group["rules"]:
                del rule["for"]
    assert real == ours
