"""Drills whose services are pods, against an emulated API with a real client: the pods run as real
processes on the copies, and every call is compared with the permissions that are rendered."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate

from safetake import configfile
from safetake.drill import podstatus, scratchredis
from safetake.drill.isolation import network_policy, open_ways, pod_labels
from safetake.drill.kubernetes import LOCK, prepared
from safetake.drill.twin import EPHEMERAL, Twin, allowed_ports
from safetake.errors import ConfigError, RefusedError, SafetakeError, ServiceError, UsageError
from safetake.services.rbac import manifests, to_yaml
from safetake.sources.redis.wire import Address, Connection, ServerRefusal
from tests.cli.conftest import Workplace
from tests.drill.kubelet import CLAIM, CLAIMS, DRILL, POLICIES, PRODUCTION, DrillCluster
from tests.services.cluster import PODS, Call, serving, workload_resource
from tests.support.ports import free_port
from tests.support.redis_server import BINARIES, running

KINDS = {"projects": "sqlite", "scripts": "files"}
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
                "resources": {"limits": {"memory": "512Mi"}, "claims": [{"name": "gpu"}]},
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
            f'[drill]\npriority = "normal"\nscratch = "{cluster.volume / "drills"}"\n'
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


@pytest.fixture
def inside(
    workplace: Workplace, cluster: DrillCluster, monkeypatch: pytest.MonkeyPatch
) -> Workplace:
    """The same in this process, for what needs no whole drill."""
    monkeypatch.setenv("KUBECONFIG", workplace.environment["KUBECONFIG"])
    ready(workplace, cluster)
    return workplace


def looked_at(place: Workplace, unconfined: bool = False) -> Any:
    return prepared(config(place), KINDS, unconfined)


def seen(place: Workplace, pods: Any) -> None:
    """Copies, as a drill lays them out."""
    folder = config(place).drill.scratch / "copies"
    (folder / "data" / "projects").mkdir(parents=True)
    shutil.copy(place.folder / "projects.db", folder / "data" / "projects")
    twin = Twin(folder, {"projects": str(folder / "data" / "projects" / "projects.db")}, {}, {})
    pods.see(twin, KINDS)


def test_services_run_as_pods_on_the_copies(workplace: Workplace, cluster: DrillCluster) -> None:
    ready(workplace, cluster, contains="rows: {count:projects/projects}")
    document = workplace.json("drill", "total-loss", "projects")
    assert document["verdict"] == "passed"
    names = {check["name"] for check in document["checks"]}
    assert names > {
        "web is well before the loss",
        "web knows that its data is gone",
        "web is well after the recovery",
    }
    assert cluster.left() == []
    # exactly what is rendered was needed; and of production nothing but the workload was read
    assert used(cluster) == granted(workplace) - {
        ("", ("create", "", "selfsubjectaccessreviews", ""))
    }
    of_production = {call for where, call in cluster.places if where == PRODUCTION}
    assert of_production == {("get", "apps", "deployments", "web")}
    first, _, second = cluster.made
    validate(first, "1.31", strict=True)
    assert first["metadata"]["name"] != second["metadata"]["name"]
    text = json.dumps(first)
    for left_behind in (
        *('"keys"', "TOKEN", "project-service-data", "registry", "sign-on", "migrate"),
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
    ran = f"web ran as the pod {first['metadata']['name']}, image app:1"
    assert ran in document["notes"]
    assert spec["securityContext"]["runAsUser"] == os.getuid()
    found = {check["name"]: check["found"] for check in document["checks"]}
    assert "network plugin" in found["services could connect to nothing but the drill"]
    assert CLAIM in found["services ran on the drill's own volume"]


def test_pods_that_never_get_ready_fail_the_drill_with_their_reason(
    workplace: Workplace, cluster: DrillCluster
) -> None:
    ready(workplace, cluster, start_timeout="1")
    cluster.crash = "ImagePullBackOff"
    document = failed(workplace, "total-loss", "projects")
    (check,) = (check for check in document["checks"] if not check["ok"])
    assert check["name"] == "web is well before the loss"
    assert "not ready after 1 s" in check["found"]
    assert "ImagePullBackOff" in check["found"]
    assert len(cluster.made) == 1
    assert cluster.left() == []


@pytest.mark.slow
def test_redis_of_the_drill_is_reached_with_a_password_of_its_own(
    workplace: Workplace, cluster: DrillCluster, tmp_path: Path
) -> None:
    with running("redis-7.0", tmp_path / "redis") as server, server.client() as client:
        client.set("session", "1", ex=3600)
        with (workplace.folder / "safetake.toml").open("a") as file:
            file.write(
                f'[sources.queue]\ntype = "redis"\nurl = "redis://127.0.0.1:{server.port}"\n'
            )
        workplace.run("backup")
        ready(
            workplace,
            cluster,
            environment='{DATABASE = "{projects}", REDIS = "{queue}"}',
            contains="rows: 100 keys :1",
        )
        text = (workplace.folder / "safetake.toml").read_text()
        text = text.replace('uses = ["projects"]', 'uses = ["projects", "queue"]')
        (workplace.folder / "safetake.toml").write_text(text)
        document = workplace.json("drill", "total-loss", "projects", "queue")
        assert document["verdict"] == "passed"
        assert client.dbsize() == 1
        passwords = {
            entry["value"].split(":")[2].split("@")[0]
            for pod in cluster.made
            for entry in pod["spec"]["containers"][0]["env"]
            if entry["name"] == "REDIS"
        }
        assert len(passwords) == 1
        (password,) = passwords
        assert len(password) == 48
        assert password not in json.dumps(document)
        # what is newer than the snapshot stays: a row, and a key
        text = text.replace("rows: 100 keys :1", "rows: ")
        (workplace.folder / "safetake.toml").write_text(text)
        document = workplace.json("drill", "partial-loss", "queue", "projects")
        assert document["verdict"] == "passed"
    assert cluster.left() == []


def test_redis_listens_at_an_address_only_with_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary, port = BINARIES["redis-7.0"], free_port()
    assert binary is not None
    words = scratchredis.command(str(binary), port, tmp_path)
    password = scratchredis.new_password()
    command = scratchredis.reachable(words, "127.0.0.2", tmp_path / "redis.conf", password)
    assert password not in " ".join(command)
    assert (tmp_path / "redis.conf").stat().st_mode & 0o777 == 0o600
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            asked = Address("127.0.0.2", port, "", False, None, None)
            wait_until_listening(asked)
            with Connection(asked) as connection, pytest.raises(ServerRefusal, match="NOAUTH"):
                connection.call("PING")
            with pytest.raises(ServerRefusal, match="NOAUTH"), scratchredis.connection(port) as own:
                own.call("PING")
            monkeypatch.setenv(scratchredis.PASSWORD, password)
            with scratchredis.connection(port) as own:
                assert own.call("PING") == b"PONG"
        finally:
            server.kill()


def wait_until_listening(address: Address) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((address.host, address.port), 5).close()
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ended(place: Workplace, cluster: DrillCluster, number: int) -> list[str]:
    """The pods that are there when a drill was ended by a signal while its service was asked."""
    before = set(cluster.left())
    with subprocess.Popen(
        place.command("drill", "total-loss", "projects"),
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 100
        while not set(cluster.left()) - before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert set(cluster.left()) - before
        process.send_signal(number)
    return cluster.left()


@pytest.mark.slow
def test_what_a_killed_drill_left_is_removed_by_the_next(
    workplace: Workplace, cluster: DrillCluster
) -> None:
    ready(workplace, cluster, contains="never", start_timeout="60")
    assert ended(workplace, cluster, signal.SIGTERM) == []
    (left,) = ended(workplace, cluster, signal.SIGKILL)
    text = (workplace.folder / "safetake.toml").read_text()
    (workplace.folder / "safetake.toml").write_text(text.replace('"never"', '"rows: 100"'))
    document = workplace.json("drill", "total-loss", "projects")
    assert document["verdict"] == "passed"
    assert f"pods that an earlier drill left were removed: {left}" in document["notes"]
    assert cluster.left() == []


def test_leftovers_are_known_by_their_label_and_nothing_else_is_removed(
    inside: Workplace, cluster: DrillCluster
) -> None:
    labels = pod_labels(section(inside))
    cluster.pod("drill-of-a-killed-one", labels)
    cluster.pod("drill-on-another-claim", {**labels, "safetake/drill-claim": "other"})
    cluster.pod("somebodys", {"app.kubernetes.io/name": "safetake-drill"})
    with looked_at(inside) as pods:
        assert pods.notes == ["pods that an earlier drill left were removed: drill-of-a-killed-one"]
    assert {call[3] for _, call in cluster.places if call[0] == "delete"} == {
        "drill-of-a-killed-one"
    }


def test_one_drill_at_a_time_on_a_claim(inside: Workplace) -> None:
    with (
        looked_at(inside),
        pytest.raises(RefusedError, match="another drill with pods runs"),
        looked_at(inside),
    ):
        pass


def patience(place: Workplace, seconds: str) -> None:
    text = (place.folder / "safetake.toml").read_text()
    text = text.replace("start_timeout = 20", f"start_timeout = {seconds}")
    (place.folder / "safetake.toml").write_text(text)


def asked(pods: Any, verb: str, service: str = "web") -> dict[str, str]:
    """As the confined drill asks."""
    line = json.dumps({"verb": verb, "service": service, "contains": "rows: 100"})
    answer: dict[str, str] = json.loads(pods.answer(line))
    return answer


def test_copies_that_a_killed_drill_of_another_pod_left_are_removed(
    inside: Workplace, cluster: DrillCluster
) -> None:
    """Each run has a host name of its own, so its process can not be looked for."""
    scratch = cluster.volume / "drills"
    copies = scratch / "safetake-00000000-7-0123abcd-x"
    (copies / "overlay").mkdir(parents=True)
    (copies / "password").write_text("of the repository")
    others = [scratch / "safetake-00000000-8-0123abcd-x", scratch / "mine"]
    for folder in others:  # of another command, and of a person
        folder.mkdir()
    with looked_at(inside):
        assert not copies.exists()
        assert all(folder.is_dir() for folder in others)


def test_an_address_is_known_of_a_service_that_nobody_asks(
    inside: Workplace, cluster: DrillCluster
) -> None:
    with looked_at(inside) as pods:
        seen(inside, pods)
        pods._ground.hosts["web"] = "somewhere"
        assert asked(pods, "start") == {"said": ""}
        assert pods._ground.hosts == {"web": "127.0.0.1"}


def test_who_ended_a_pod() -> None:
    """What the cluster ends says nothing of the service."""
    states = {"containerStatuses": [{"state": {"terminated": {"exitCode": 137}}}]}
    assert podstatus.ran({"status": states})
    assert not podstatus.ran({"status": {**states, "reason": "Evicted"}})
    assert not podstatus.ran({"status": {}})


def test_the_volume_that_is_at_the_scratch_folder() -> None:
    def placed(*mounts: dict[str, Any]) -> str:
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": CLAIM}}, {"name": "e"}]
        containers = [{"volumeMounts": [{"name": "v", "mountPath": "/scratch"}, *mounts]}]
        pod = {"spec": {"volumes": volumes, "containers": containers}}
        return podstatus.place(pod, CLAIM, Path("/scratch/drills"))

    assert placed() == "drills"
    assert placed({"name": "v", "mountPath": "/scratch/drills", "subPath": "b"}) == "b"
    for mount in (
        {"name": "e", "mountPath": "/scratch/drills"},
        {"name": "v", "mountPath": "/scratch/drills", "subPathExpr": "$(POD)"},
    ):
        with pytest.raises(RefusedError, match="does not have the claim"):
            placed(mount)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; sys.exit(3)", r"its pod ended: .*exit code 3.*no data at redis://:\*\*\*@h"),
        (SERVICE.replace("rows: ", "other: "), "^without 'rows: 100': 200 other: 100"),
        (SERVICE, "^$"),
    ],
)
def test_a_service_whose_data_is_gone_is_asked_for_one_answer(
    inside: Workplace, cluster: DrillCluster, program: str, told: str
) -> None:
    cluster.workload("web", template(free_port(), program))
    with looked_at(inside) as pods:
        seen(inside, pods)
        answer = asked(pods, "complaint")
        assert re.search(told, answer["said"]), answer
        assert len(cluster.left()) == 1
    assert cluster.left() == []


def test_a_service_that_does_not_answer_is_told_and_removed(
    inside: Workplace, cluster: DrillCluster
) -> None:
    patience(inside, "1")
    cluster.workload("web", template(free_port(), "import time; time.sleep(60)"))
    with looked_at(inside) as pods:
        seen(inside, pods)
        assert asked(pods, "start") == {"said": ""}
        assert "web is not well after 1 s: ConnectError" in asked(pods, "well")["problem"]
        assert asked(pods, "stop") == {"said": ""}
        assert cluster.left() == []
        assert asked(pods, "complaint")["said"].startswith("web is not heard after 1 s: ConnectErr")
    assert cluster.left() == []


def test_the_clusters_trouble_is_no_word_of_the_services(
    inside: Workplace, cluster: DrillCluster
) -> None:
    patience(inside, "0.5")
    cluster.crash = "ImagePullBackOff"
    with looked_at(inside) as pods:
        seen(inside, pods)
        told = asked(pods, "complaint")
        assert set(told) == {"problem"}
        assert "it has no address yet; drill-web" in told["problem"]
        assert "ImagePullBackOff (kubectl -n drill get events" in told["problem"]
        assert asked(pods, "stop") == {"said": ""}
        no_right(cluster)
        assert "cannot create pods" in asked(pods, "complaint")["problem"]
        assert "is no pod of this drill" in asked(pods, "start", "production")["problem"]


def test_a_pod_that_somebody_removed(inside: Workplace, cluster: DrillCluster) -> None:
    with looked_at(inside) as pods:
        seen(inside, pods)
        pods.start("web")
        (name,) = cluster.left()
        cluster.objects[PODS, DRILL, name].delete()
        with pytest.raises(ServiceError, match=f"web: somebody removed its pod {name}"):
            pods.until_well("web", "")
        pods.stop("web")  # nothing is left to stop


# ------------------------------------------------------------------------ what is missing


def no_claim(cluster: DrillCluster) -> None:
    cluster.objects[CLAIMS, DRILL, CLAIM].delete()


def no_right(cluster: DrillCluster) -> None:
    assert cluster.granted is not None
    cluster.granted -= {(DRILL, ("create", "", "pods", ""))}


def no_namespace(cluster: DrillCluster) -> None:
    assert cluster.granted is not None
    cluster.granted = {each for each in cluster.granted if each[0] != DRILL}


def no_policy(cluster: DrillCluster) -> None:
    cluster.objects[POLICIES, DRILL, "safetake-drill"].delete()


def no_workload(cluster: DrillCluster) -> None:
    cluster.objects[workload_resource("deployments"), PRODUCTION, "web"].delete()


def two_containers(cluster: DrillCluster) -> None:
    spec = template(1)
    cluster.workload("web", {**spec, "containers": [*spec["containers"], {"name": "side"}]})


def no_port(cluster: DrillCluster) -> None:
    spec = template(1)
    del spec["containers"][0]["ports"]
    cluster.workload("web", spec)


@pytest.mark.parametrize(
    ("spoil", "kind", "told", "hint"),
    [
        (no_claim, ServiceError, "no PersistentVolumeClaim drill-scratch", "claim names the one"),
        (
            lambda cluster: cluster.claim(phase="Pending"),
            ServiceError,
            "is Pending",
            "mount it where the drill runs",
        ),
        (
            lambda cluster: cluster.claim(spec={"accessModes": ["ReadWriteOncePod"]}),
            ServiceError,
            "no second pod can mount it",
            "ReadWriteMany",
        ),
        (no_right, ServiceError, "create pods in the namespace drill", "services rbac"),
        (no_namespace, ServiceError, "list networkpolicies in the namespace drill", "is the names"),
        (no_workload, ServiceError, "cannot get deployment/web in the namespace ns", "kubernetes"),
        (two_containers, UsageError, "deployment/web has several containers", "app, side"),
        (no_port, UsageError, r"there is no \{port\}", "host"),
        (no_policy, RefusedError, "could reach production: no NetworkPolicy", "--unconfined"),
        (
            lambda cluster: cluster.policy({"podSelector": {}, "egress": [{}]}, "open"),
            RefusedError,
            "open allows connections to everywhere",
            "--unconfined",
        ),
        (
            lambda cluster: cluster.own_pod("/elsewhere"),
            RefusedError,
            "this pod does not have the claim drill-scratch at",
            "mount it there",
        ),
        (
            lambda cluster: cluster.own_pod(cluster.volume / "drills", claim="other"),
            RefusedError,
            "services would start on nothing",
            "mount it there",
        ),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(
    inside: Workplace, cluster: DrillCluster, spoil: Any, kind: Any, told: str, hint: str
) -> None:
    spoil(cluster)
    with pytest.raises(kind, match=told) as error, looked_at(inside):
        pass
    assert hint in error.value.hint
    assert {call[0] for _, call in cluster.places if call[2] != "selfsubjectaccessreviews"} <= {
        "get",
        "list",
    }


def test_it_is_said_before_the_copies_are_made(workplace: Workplace, cluster: DrillCluster) -> None:
    ready(workplace, cluster)
    no_claim(cluster)
    error = workplace.json("drill", "total-loss", code=1)["error"]
    told = "there is no PersistentVolumeClaim drill-scratch in the namespace drill"
    assert error["message"] == told
    assert error["hint"]
    assert [path.name for path in (cluster.volume / "drills").iterdir()] == [LOCK]


def test_the_scratch_folder_has_to_be_there(inside: Workplace, cluster: DrillCluster) -> None:
    (cluster.volume / "drills").rmdir()
    with pytest.raises(SafetakeError, match="can not be used") as error, looked_at(inside):
        pass
    assert "claim" in error.value.hint


def test_without_a_policy_the_evidence_says_so(inside: Workplace, cluster: DrillCluster) -> None:
    no_policy(cluster)
    cluster.objects[PODS, DRILL, socket.gethostname()].delete()
    with looked_at(inside, unconfined=True) as pods:
        (check,) = pods.checks
        assert check.found == (
            "not enforced here: no NetworkPolicy of the namespace restricts their egress"
        )
        # and that the volume is the drill's own is not claimed where nobody can know it
        assert "not checked" in pods.notes[0]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("source_namespace", DRILL, "a drill never starts anything beside production"),
        (
            "kubernetes",
            'deployment/web"\ncommand = ["x"] # "',
            "exactly one of command and kubernetes",
        ),
        ("kubernetes", "daemonset/web", "kubernetes"),
    ],
)
def test_configurations_that_are_refused(
    workplace: Workplace, cluster: DrillCluster, key: str, value: str, told: str
) -> None:
    configured(workplace, cluster, **{key: value})
    with pytest.raises(ConfigError, match=told):
        config(workplace)


def test_pods_need_their_section_and_their_folder(
    workplace: Workplace, cluster: DrillCluster
) -> None:
    configured(workplace, cluster)
    path = workplace.folder / "safetake.toml"
    text = path.read_text()
    path.write_text(re.sub(r"scratch = .*", "", text))
    with pytest.raises(ConfigError, match="needs scratch"):
        config(workplace)
    path.write_text(re.sub(r"\[drill.kubernetes\]\n(.*\n){3}", "", text))
    with pytest.raises(ConfigError, match=r"needs \[drill.kubernetes\]"):
        config(workplace)


# ------------------------------------------------------------------------ ways out


OURS = {"app.kubernetes.io/name": "safetake-drill", "safetake/drill-claim": "c"}
IN_THE_NAMESPACE: dict[str, Any] = {"podSelector": {}}


def judged(*egress: Any, **spec: Any) -> list[str]:
    policy = {"podSelector": {}, "policyTypes": ["Egress"], "egress": list(egress), **spec}
    return open_ways([{"metadata": {"name": "p"}, "spec": policy}], OURS, "10.0.0.1")


@pytest.mark.parametrize(
    "to",
    [
        {"ipBlock": {"cidr": "0.0.0.0/0"}},
        {"ipBlock": {"cidr": "10.0.0.7/32"}},
        {"namespaceSelector": {}},
        {"namespaceSelector": {}, "podSelector": {}},
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}},
    ],
)
def test_a_peer_outside_is_a_way_out(to: Any) -> None:
    assert judged({"to": [IN_THE_NAMESPACE, to]})
    assert not judged({"to": [IN_THE_NAMESPACE, {"ipBlock": {"cidr": "10.0.0.1/32"}}]})


def test_what_restricts_the_pods_has_to_select_them() -> None:
    assert judged() == []
    assert judged({"to": [IN_THE_NAMESPACE]}) == []
    assert judged({}) == ["p allows connections to everywhere"]
    other = {"matchLabels": {"app": "x"}}
    (told,) = judged(podSelector=other)
    assert told == "no NetworkPolicy of the namespace restricts their egress"
    assert judged({}, podSelector=other) == [told]
    assert judged(policyTypes=["Ingress"]) == [told]
    # nobody can tell here whether it selects them: it forbids nothing, and may allow
    perhaps = {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
    assert judged(podSelector=perhaps) == [told]
    assert judged({}, podSelector=perhaps) == ["p allows connections to everywhere", told]
    # policies add up
    closed = {"metadata": {"name": "q"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}}
    open_one = {"metadata": {"name": "p"}, "spec": {"podSelector": {}, "egress": [{}]}}
    assert open_ways([closed, open_one], OURS, "10.0.0.1") == ["p allows connections to everywhere"]


def test_the_drill_itself_can_not_reach_the_api(inside: Workplace) -> None:
    with looked_at(inside) as pods:
        twin = Twin(Path("x"), {}, {}, {})
        assert pods.api_port in EPHEMERAL, "the emulated one is where a drill may connect"
        assert pods.api_port not in allowed_ports(config(inside), twin, [pods.api_port])
