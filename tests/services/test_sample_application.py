"""Both services of the sample application: stopped and started by commands, gated on their health,
switched to another database, and shown on the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from script_generator.settings import Settings

from safetake import configfile
from safetake.config import Config
from safetake.errors import ServiceError
from safetake.services import build_all, users
from safetake.services.health import gate
from tests.examples.conftest import redis_server, settings
from tests.support import ctl
from tests.support.sample_application import EXAMPLES

__all__ = ["redis_server", "settings"]

NAMES = {"project-service": "project_service_url", "generation-service": "generation_service_url"}


@pytest.fixture
def config(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """A configuration file; the services are stopped."""
    place = tmp_path / "services"
    place.mkdir()
    words = [sys.executable, ctl.__file__, str(place)]
    env_file = place / "project.env"
    env_file.write_text(f"DATABASE_URL={settings.database_url}\n")
    text = f"""
[repository]
location = "{tmp_path}/repository"
[sources.projects]
type = "sqlite"
path = "{settings.database_path}"
[sources.scripts]
type = "files"
path = "{settings.scripts_dir}"
[services.project-service.switch.projects]
setting = "DATABASE_URL"
value = "sqlite:///{{path}}"
env_file = "{env_file}"
"""
    for name, key in NAMES.items():
        url = getattr(settings, key)
        own = {k.upper(): str(v) for k, v in asdict(settings).items() if k != "database_url"}
        serve = f"{sys.executable} -m script_generator {name} --port {urlsplit(url).port}"
        script = f"set -a; . {env_file}; exec {serve}"  # as systemd reads an EnvironmentFile
        (place / f"{name}.json").write_text(
            json.dumps(
                {
                    "command": ["sh", "-c", script],
                    "environment": {**own, "PYTHONPATH": str(EXAMPLES)},
                }
            )
        )
        ways = {verb: [*words, verb, name] for verb in ("stop", "start", "running")}
        text += f"[services.{name}]\n"
        text += 'uses = ["projects"]\n' if name == "project-service" else ""
        text += "".join(f"{verb} = {json.dumps(way)}\n" for verb, way in ways.items())
        text += f"""[services.{name}.health]
url = "{url}/api/v1/health"
contains = '"status":"ok"'
interval = 0.1
timeout = 60
"""
    file = tmp_path / "safetake.toml"
    file.write_text(text)
    yield file
    for pid_file in place.glob("*.pid"):
        if pid := ctl.running(pid_file):
            os.kill(pid, 9)


def safetake(config: Path, *words: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "safetake", "--config", str(config), "--json", "services", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def test_stopped_started_switched_and_asked(
    config: Path, settings: Settings, tmp_path: Path
) -> None:
    loaded: Config = configfile.load(config)
    assert users(loaded, "projects") == ["project-service", "generation-service"]
    assert users(loaded, "scripts") == ["generation-service"]
    services = build_all(loaded)
    code, checked = safetake(config, "check")
    assert (code, checked) == (0, {"ok": True, "services": {name: [] for name in services}})
    assert safetake(config, "status")[0] == 1

    for service in services.values():
        service.start({"running": True})
    gate(loaded.services).must_be_well()
    code, shown = safetake(config, "status")
    assert code == 0
    assert [(s["running"], s["health"]) for s in shown] == [(True, True)] * 2

    # without its database a service starts, and is not well: the gate says why
    project = services["project-service"]
    was = project.state()
    project.stop(was)
    other = tmp_path / "other.db"
    project.switch("projects", project.value("projects", other))
    project.start(was)
    health = loaded.services["project-service"]
    sick = health.model_copy(
        update={"health": health.health.model_copy(update={"timeout": 3})}  # type: ignore[union-attr]
    )
    with pytest.raises(ServiceError, match=r"project-service after .*503 .*unavailable"):
        gate({"project-service": sick}).must_be_well()

    # the database of now, beside, and the service switched to it
    project.stop(was)
    shutil.copy(settings.database_path, other)
    project.start(was)
    gate({"project-service": health}).must_be_well()

    for service in services.values():
        service.stop(service.state())
    code, shown = safetake(config, "status", "project-service")
    assert code == 1
    assert [(s["running"], s["health"]) for s in shown] == [(False, False)]
    assert safetake(config, "status", "project-servic")[1]["error"]["exit_code"] == 2
    assert "no service runs on Kubernetes" in safetake(config, "rbac")[1]["error"]["message"]


def test_rbac_on_the_command_line_is_yaml(tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "safetake.toml"
    file.write_text(
        '[repository]\nlocation = "r"\n[services.a]\nkubernetes = "deployment/a"\n'
        'namespace = "ai-script-generator"\n'
    )
    command = [sys.executable, "-m", "safetake", "services", "rbac", "--account", "backup"]
    done = subprocess.run(
        [*command, "--config", str(file)], capture_output=True, text=True, check=True
    )
    documents = list(yaml.safe_load_all(done.stdout))
    assert [d["kind"] for d in documents] == ["ServiceAccount", "Role", "RoleBinding"]
    assert documents[0]["metadata"] == {"name": "backup", "namespace": "ai-script-generator"}
    assert safetake(file, "rbac", "--account", "backup")[1] == documents


def test_the_how_to_is_valid(tmp_path: Path) -> None:
    import re

    text = (Path(__file__).parents[2] / "docs" / "how-to" / "services.md").read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    base = '[repository]\nlocation = "r"\n[sources.projects]\ntype = "sqlite"\npath = "p"\n'
    for block in blocks:
        assert configfile.parse(base + block, tmp_path / "safetake.toml").services
