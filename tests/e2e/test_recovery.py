"""The document's two disasters, end to end on the sample application, with the command line alone.

The services are stopped and started by commands of the configuration and gated on both health
endpoints. What came back is judged by what the load driver saw acknowledged, not by counts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from safetake.clock import parse_go_time
from tests.support import ctl
from tests.support.ports import free_port
from tests.support.sample_application import (
    EXAMPLES,
    RedisServer,
    Running,
    layout,
    running_load,
)

TARGETS = {"projects": 900.0, "vectors": 1800.0, "system": 3600.0, "partial": 300.0}
"""R13, seconds."""


class Site:
    """The application as its operator has it: four stores, two services, one configuration."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        from script_generator.settings import Settings
        from script_generator.web import Client

        self.folder, self.redis = folder, redis
        self.data = folder / "data"
        self.data.mkdir()
        ports = {"project-service": free_port(), "generation-service": free_port()}
        self.settings = Settings(
            database_url=f"sqlite:///{self.data / 'projects.db'}",
            chroma_path=str(self.data / "chroma"),
            redis_url=f"redis://127.0.0.1:{redis.port}/0",
            scripts_dir=str(self.data / "scripts"),
            project_service_url=f"http://127.0.0.1:{ports['project-service']}",
            generation_service_url=f"http://127.0.0.1:{ports['generation-service']}",
        )
        own = {name.upper(): str(getattr(self.settings, name)) for name in (
            "database_url", "chroma_path", "redis_url", "scripts_dir",
            "project_service_url", "generation_service_url",
        )}  # fmt: skip
        ours = filter(None, (str(EXAMPLES), os.environ.get("PYTHONPATH")))
        environment = {**own, "PYTHONPATH": os.pathsep.join(ours)}
        self.control = folder / "control"
        self.control.mkdir()
        toml = [
            f'[repository]\nlocation = "{folder / "repository"}"\npassword_env = "SITE_PASSWORD"',
            f'[restore]\nstate = "{folder / "state"}"',
            f'[sources.projects]\ntype = "sqlite"\npath = "{self.data / "projects.db"}"',
            f'[sources.vectors]\ntype = "chroma"\npath = "{self.data / "chroma"}"',
            f'[sources.queue]\ntype = "redis"\nurl = "redis://127.0.0.1:{redis.port}"',
            f'[sources.scripts]\ntype = "files"\npath = "{self.data / "scripts"}"',
            '[objectives.projects]\nrto = "15m"\npartial_rto = "5m"',
            '[objectives.vectors]\nrto = "30m"',
            '[objectives.system]\nrto = "60m"',
        ]
        for name, port in ports.items():
            told = {
                "command": [sys.executable, "-m", "script_generator", name, "--port", str(port)],
                "environment": environment,
            }
            (self.control / f"{name}.json").write_text(json.dumps(told))
            word = [sys.executable, ctl.__file__, str(self.control)]
            toml.append(
                f"[services.{name}]\n"
                f"stop = {json.dumps([*word, 'stop', name])}\n"
                f"start = {json.dumps([*word, 'start', name])}\n"
                f"running = {json.dumps([*word, 'running', name])}\n"
                f'health = {{url = "http://127.0.0.1:{port}/api/v1/health", interval = 0.1}}'
            )
        self.names = list(ports)
        self.config = folder / "safetake.toml"
        self.config.write_text("\n\n".join(toml) + "\n")
        self.environment = {**os.environ, **environment, "SITE_PASSWORD": "night shift"}
        self.services = Running(
            self.settings,
            Client(self.settings.project_service_url),
            Client(self.settings.generation_service_url),
            self.environment,
            [],
        )

    def safetake(self, *words: str, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "safetake", "--config", str(self.config), "--json", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode != code:  # pytest cuts what it shows of an assertion
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return json.loads(done.stdout)

    def service(self, verb: str) -> None:
        for name in self.names:
            assert ctl.main(self.control, verb, name) == 0

    def kill(self) -> None:
        """SIGKILL to both services, in the middle of whatever they do."""
        for name in self.names:
            if pid := ctl.running(self.control / f"{name}.pid"):
                os.kill(pid, signal.SIGKILL)

    def judge(self, journal: Path, cut: int, into: str) -> dict[str, Any]:
        """Compare the live stores, at rest, with what was acknowledged before the cut."""
        restored = self.folder / into
        self.redis.client.save()
        layout(self.settings, self.redis.folder, restored)
        done = subprocess.run(
            [sys.executable, "-m", "script_generator", "compare", "--restored", str(restored),
             "--journal", str(journal), "--cut-start-ns", str(cut), "--cut-end-ns", str(cut)],
            env=self.environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode in (0, 3), done.stderr
        shutil.rmtree(restored)
        verdict: dict[str, Any] = json.loads(done.stdout)
        return verdict


@pytest.fixture
def site(tmp_path: Path, redis_server: RedisServer) -> Iterator[Site]:
    with running_site(tmp_path, redis_server) as made:
        yield made


@contextmanager
def running_site(folder: Path, server: RedisServer) -> Iterator[Site]:
    """The application with empty stores, its services healthy, and an empty repository."""
    made = Site(folder, server)
    subprocess.run(
        [sys.executable, "-m", "script_generator", "init", "--sync-threshold", "100"],
        env=made.environment, check=True, capture_output=True,
    )  # fmt: skip
    made.safetake("init")
    made.service("start")
    try:
        for client in (made.services.projects, made.services.generation):
            wait_healthy(client)
        yield made
    finally:
        made.kill()


def wait_healthy(client: Any) -> None:
    import time

    from script_generator.errors import StoreError

    deadline = time.monotonic() + 60
    while True:
        try:
            assert client.get("/api/v1/health")["status"] == "ok"
            return
        except StoreError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def steps(outcome: dict[str, Any], title: str) -> str:
    lines = [f"{title}: {outcome['seconds']:.2f} s in all"]
    lines += [f"  {step['step']:<28} {step['seconds']:7.2f} s" for step in outcome["steps"]]
    return "\n".join(lines)


def test_total_loss(site: Site, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with running_load(site.services, journal, "--workers", "2") as load:
        load.wait_for(150)
        taken = site.safetake("backup")
        load.wait_for(load.lines() + 60)
        site.kill()
        site.redis.client.flushall()
        for path in site.data.iterdir():  # the volume is there, and empty
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    plan = site.safetake("restore", taken["id"], "--in-place", "--dry-run")
    assert plan["stop"] == site.names
    assert plan["rto_seconds"] == TARGETS["system"]
    assert not list(site.data.iterdir()), "a dry run changed something"
    outcome = site.safetake("restore", taken["id"], "--in-place", "--yes")
    print("\n" + steps(outcome, "total loss"))
    assert outcome["ended"] == "committed"
    assert outcome["seconds"] < TARGETS["system"]
    for client in (site.services.projects, site.services.generation):
        wait_healthy(client)
    site.service("stop")
    cut = parse_go_time(taken["time"])
    verdict = site.judge(journal, cut, "judged")
    assert verdict["problems"] == []
    assert not list(tmp_path.rglob(".safetake-restore-*"))
    assert site.safetake("restore", "--rollback", code=2)["error"]["message"]


def test_a_whole_system_restore_is_undone(site: Site, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with running_load(site.services, journal, "--workers", "2") as load:
        load.wait_for(100)
        taken = site.safetake("backup")
        load.wait_for(load.lines() + 60)
        load.end()
    site.service("stop")
    now = json.loads(journal.read_text().splitlines()[-1])
    site.service("start")
    outcome = site.safetake("restore", taken["id"], "--in-place", "--yes")
    assert outcome["ended"] == "committed"
    undone = site.safetake("restore", "--undo", "--yes")
    print("\n" + steps(undone, "undo"))
    site.service("stop")
    later = 2**62
    verdict = site.judge(journal, later, "judged")
    assert verdict["problems"] == [], now
    assert verdict["lost_items"] == 0


def test_partial_loss(site: Site, tmp_path: Path) -> None:
    """Rows, and files, of the newest hour vanish; more was written since the snapshot. Row by row
    everything comes back and nothing newer is lost; a whole-database restore would lose it."""
    import sqlite3
    import time

    journal = tmp_path / "journal.jsonl"
    with running_load(site.services, journal, "--workers", "2") as load:
        load.wait_for(150)
        stored_keys = {key.encode() for key in site.redis.client.scan_iter()}
        site.safetake("backup")
        load.wait_for(load.lines() + 60)
        load.end()
    database = sqlite3.connect(site.settings.database_path, timeout=30)
    before = database.execute("SELECT * FROM episodes ORDER BY id").fetchall()
    with database:
        lost = database.execute(
            "DELETE FROM episodes WHERE id IN (SELECT id FROM episodes ORDER BY id LIMIT 20)"
        ).rowcount
    assert lost == 20
    for path in sorted(Path(site.settings.scripts_dir).rglob("*.*"))[:5]:
        path.unlink()
    raw: Any = redis.Redis(port=site.redis.port)
    stored_keys.discard(b"script-generator:queue")  # it grew since: the old one would lose jobs
    kept = {key: raw.dump(key) for key in sorted(stored_keys) if raw.exists(key)}
    assert kept, "the snapshot has no key that is still there"
    raw.delete(*kept)
    plan = site.safetake("restore", "latest", "projects", "--in-place", "--dry-run")
    newer = sum(loss["newer"] for loss in plan["sources"]["projects"]["losses"])
    assert newer > 0, "the plan of a whole restore does not say what it would lose"
    started = time.monotonic()
    site.safetake("rows", "latest", "projects", "--apply", "--yes")
    spent = time.monotonic() - started
    assert database.execute("SELECT * FROM episodes ORDER BY id").fetchall() == before
    database.close()
    site.safetake("restore", "latest", "queue", "--in-place", "--keys", "*", "--yes")
    assert {key: raw.dump(key) for key in kept} == kept
    site.safetake("restore", "--undo", "--yes")
    assert not raw.exists(*kept), "the newest restore was that of the keys"
    site.safetake("restore", "latest", "queue", "--in-place", "--keys", "*", "--yes")
    raw.close()
    files = site.safetake("restore", "latest", "scripts", "--in-place", "--online", "--yes")
    print(f"\npartial loss: rows {spent:.2f} s\n" + steps(files, "files"))
    assert spent + files["seconds"] < TARGETS["partial"]
    site.service("stop")
    verdict = site.judge(journal, 2**62, "judged")
    assert verdict["problems"] == []
    assert verdict["lost_items"] == 0
