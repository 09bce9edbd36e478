"""A restore in place whose Deployment does not come up on the restored data goes back by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.cluster import Cluster, running_cluster

TOML = """
[sources.scripts]
type = "files"
path = "scripts"

[services.web]
kubernetes = "deployment/web"
namespace = "ns"
context = "it"
start_timeout = 2
stop_timeout = 20

[restore]
state = "state"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path) as (cluster, _):
        cluster.add("deployments", "web")
        yield cluster


def safetake(place: Path, *words: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "safetake", "--json", *words],
        cwd=place,
        env={**os.environ, "KUBECONFIG": str(place / "kubeconfig"), "SAFETAKE_PASSWORD": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, its configuration and its snapshot."""
    place = tmp_path_factory.mktemp("template")
    (place / "scripts").mkdir()
    for number in range(20):
        (place / "scripts" / str(number)).write_text("old")
    (place / "safetake.toml").write_text('[repository]\nlocation = "repository"\n' + TOML)
    assert safetake(place, "init")[0] == 0
    assert safetake(place, "backup")[0] == 0
    return place


@pytest.fixture
def scripts(template: Path, tmp_path: Path) -> Path:
    """The folder, and what became of it since its snapshot."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    scripts = tmp_path / "scripts"
    for number in range(10):
        (scripts / str(number)).write_text("new")
    (scripts / "5").unlink()
    return scripts


def content(scripts: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in scripts.iterdir()}


def test_pods_that_never_get_ready_on_the_restored_data_lead_back(
    cluster: Cluster, scripts: Path, tmp_path: Path
) -> None:
    before = content(scripts)
    pods = set(cluster.pods())
    seen: list[str] = []

    def crashes() -> str:
        seen.append((scripts / "0").read_text())
        return "CrashLoopBackOff" if seen[-1] == "old" else ""

    cluster.crashes = crashes
    code, said = safetake(tmp_path, "restore", "latest", "scripts", "--in-place", "--yes")
    assert code == 1
    message = said["error"]["message"]
    assert "deployment/web in ns: not ready after 2 s: 0 of 3 pods are ready" in message
    assert "CrashLoopBackOff (exit code 1)" in message
    assert content(scripts) == before
    assert len(cluster.pods()) == 3
    assert not pods & set(cluster.pods())
    assert cluster.raw("deployments", "web")["status"]["readyReplicas"] == 3
    assert seen[:3] == ["old"] * 3  # the pods did start on the restored data
    code, listed = safetake(tmp_path, "restore", "--list")
    assert (code, [each["ended"] for each in listed]) == (0, ["rolled back"])


def test_pods_that_come_up_commit(cluster: Cluster, scripts: Path, tmp_path: Path) -> None:
    code, said = safetake(tmp_path, "restore", "latest", "scripts", "--in-place", "--yes")
    assert code == 0, said
    assert set(content(scripts).values()) == {"old"}
    assert cluster.raw("deployments", "web")["status"]["readyReplicas"] == 3


def test_pods_that_do_not_end_are_told_before_anything_changed(
    cluster: Cluster, scripts: Path, tmp_path: Path
) -> None:
    toml = (tmp_path / "safetake.toml").read_text()
    (tmp_path / "safetake.toml").write_text(toml.replace("stop_timeout = 20", "stop_timeout = 2"))
    before = content(scripts)
    cluster.stuck = True
    code, said = safetake(tmp_path, "restore", "latest", "scripts", "--in-place", "--yes")
    assert code == 1
    assert "still has pods 2 s after its stop" in said["error"]["message"]
    assert content(scripts) == before
    assert cluster.raw("deployments", "web")["spec"]["replicas"] == 3
