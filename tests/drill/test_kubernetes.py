"""Drills whose services are pods, against an emulated API with a real client: the pods run as real
processes on the copies, and every call is compared with the permissions that are rendered."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from safetake import configfile
from safetake.drill.isolation import network_policy
from safetake.services.rbac import manifests, to_yaml
from tests.cli.conftest import Workplace
from tests.drill.kubelet import CLAIM, DRILL, PRODUCTION, DrillCluster
from tests.services.cluster import Call, serving
from tests.support.redis_server import free_port

SERVICE = """
import http.server, os, socket, sqlite3, sys
from urllib.parse import urlsplit

def redis(url, *words):
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 5) as connection:
        for command in (["AUTH", parts.password], words):
            connection.sendall(" ".join(command).encode() + b"\\r\\n")
            said = connection.recv(1000).decode().strip()
        return said

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        db = sqlite3.connect("file:" + os.environ["DATABASE"] + "?mode=ro", uri=True)
        said = "rows: %d" % db.execute("SELECT count(*) FROM projects").fetchone()
        db.close()
        if "REDIS" in os.environ:
            said += " keys " + redis(os.environ["REDIS"], "DBSIZE")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(said.encode())

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.fixture
def cluster(workplace: Workplace) -> Iterator[DrillCluster]:
    cluster = DrillCluster()
    with serving(cluster, workplace.folder) as kubeconfig:
        workplace.environment["KUBECONFIG"] = str(kubeconfig)
        cluster.volume = workplace.folder / "volume"
        (cluster.volume / "drills").mkdir(parents=True)
        yield cluster
        for process in cluster.processes.values():
            process.kill()
            process.wait()


def template(port: int, program: str = SERVICE) -> dict[str, Any]:
    """As production has it: with everything that a drill must leave behind."""
    return {
        "serviceAccountName": "project",
        "hostNetwork": True,
        "initContainers": [{"name": "migrate", "image": "app:1"}],
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"runAsUser": 4711, "fsGroup": 4711, "runAsNonRoot": True},
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "project-service-data"}},
            {"name": "keys", "secret": {"secretName": "keys"}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "containers": [
            {
                "name": "app",
                "image": "app:1",
                "command": [sys.executable, "-c", program],
                "args": [str(port)],
                "env": [
                    {"name": "DATABASE", "value": "/data/projects.db"},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ],
                "envFrom": [{"secretRef": {"name": "keys"}}],
                "lifecycle": {"postStart": {"exec": {"command": ["sign-on"]}}},
                "livenessProbe": {"httpGet": {"path": "/", "port": port}},
                "ports": [{"containerPort": port, "hostPort": port}],
                "resources": {"limits": {"memory": "512Mi"}},
                "securityContext": {"privileged": True, "readOnlyRootFilesystem": True},
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "keys", "mountPath": "/keys"},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
    }


def configured(place: Workplace, cluster: DrillCluster, **changes: str) -> None:
    """A service of a pod that is well when it sees the 100 rows of the snapshot."""
    keys = {
        "source_namespace": PRODUCTION,
        "contains": "rows: 100",
        "environment": '{DATABASE = "{projects}"}',
        "health": "http://{host}:{port}/health",
        "kubernetes": "deployment/web",
        "start_timeout": "20",
        **changes,
    }
    with (place.folder / "safetake.toml").open("a") as file:
        file.write(
            f'[drill]\nscratch = "{cluster.volume / "drills"}"\n'
            f"start_timeout = {keys['start_timeout']}\n"
            f'[drill.kubernetes]\nnamespace = "{DRILL}"\ncontext = "it"\n'
            f'source_namespace = "{keys["source_namespace"]}"\n'
            f'[drill.services.web]\nkubernetes = "{keys["kubernetes"]}"\nuses = ["projects"]\n'
            f'environment = {keys["environment"]}\nhealth = "{keys["health"]}"\n'
            f'contains = "{keys["contains"]}"\n'
        )


def ready(place: Workplace, cluster: DrillCluster, program: str = SERVICE, **changes: str) -> None:
    """Everything that a drill needs is there, and nothing more is allowed."""
    configured(place, cluster, **changes)
    cluster.workload("web", template(free_port(), program))
    cluster.claim()
    cluster.policy(network_policy(section(place), DRILL))
    cluster.own_pod(cluster.volume / "drills", "drills")
    cluster.granted = granted(place)


def config(place: Workplace) -> Any:
    path = place.folder / "safetake.toml"
    return configfile.parse(path.read_text(), path)


def section(place: Workplace) -> Any:
    return config(place).drill.kubernetes


def granted(place: Workplace) -> set[tuple[str, Call]]:
    """What the rendered YAML allows, taken apart again."""
    found: set[tuple[str, Call]] = {("", ("create", "", "selfsubjectaccessreviews", ""))}
    text = to_yaml(manifests({}, "safetake", drill=config(place).drill))
    for document in yaml.safe_load_all(text):
        validate(document, "1.31", strict=True)
        for rule in document.get("rules", []) if document["kind"] == "Role" else []:
            for verb in rule["verbs"]:
                for group in rule["apiGroups"]:
                    for what in rule["resources"]:
                        for name in rule.get("resourceNames", [""]):
                            call = (verb, group, what, name)
                            found.add((document["metadata"]["namespace"], call))
    return found


def used(cluster: DrillCluster) -> set[tuple[str, Call]]:
    """The permissions that the calls needed."""
    names = {"deployments", "persistentvolumeclaims"}
    return {
        (where, (verb, group, what, name if what in names else ""))
        for where, (verb, group, what, name) in cluster.places
        if what != "selfsubjectaccessreviews"
    }


def failed(place: Workplace, *words: str) -> dict[str, Any]:
    document: dict[str, Any] = place.json("drill", *words, code=1)
    assert document["verdict"] == "failed"
    return document


def copies_were_made(cluster: DrillCluster) -> bool:
    """Whether a drill got as far as its first pod; what it leaves is nothing in any case."""
    assert [p.name for p in (cluster.volume / "drills").iterdir() if p.is_dir()] == []
    return bool(cluster.made)


def test_services_run_as_pods_on_the_copies(workplace: Workplace, cluster: DrillCluster) -> None:
    ready(workplace, cluster)
    document = workplace.json("drill", "total-loss")
    assert document["verdict"] == "passed"
    names = {check["name"] for check in document["checks"]}
    assert {"web is well before the loss", "web is well after the recovery"} <= names
    assert workplace.json("snapshots")[-1]["rung"] == "app-checked"
    assert cluster.left() == []
    # exactly what is rendered was needed; and of production nothing but the workload was read
    assert used(cluster) == granted(workplace) - {
        ("", ("create", "", "selfsubjectaccessreviews", ""))
    }
    of_production = {call for where, call in cluster.places if where == PRODUCTION}
    assert of_production == {("get", "apps", "deployments", "web")}
    first, second = cluster.made
    validate(first, "1.31", strict=True)
    assert first["metadata"]["name"] != second["metadata"]["name"]
    text = json.dumps(first)
    for left_behind in (
        *("keys", "TOKEN", "project-service-data", "registry", "sign-on", "migrate"),
        *("hostNetwork", "hostPort", "4711", '"privileged"', "livenessProbe"),
    ):
        assert left_behind not in text
    spec, (container,) = first["spec"], first["spec"]["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["activeDeadlineSeconds"] == 7200
    assert spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] == {
        "nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-7"]}]}
        ]
    }
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert (container["image"], container["resources"]) == (
        "app:1",
        {"limits": {"memory": "512Mi"}},
    )
    assert container["env"] == [{"name": "DATABASE", "value": "/drill/projects/projects.db"}]
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [m["mountPath"] for m in container["volumeMounts"]] == ["/tmp", "/drill"]
    found = {check["name"]: check["found"] for check in document["checks"]}
    assert "network plugin" in found["services could connect to nothing but the drill"]
    assert CLAIM in found["services ran on the drill's own volume"]
