"""The emulated cluster with a kubelet: pods of a drill run as real processes, on the folder that
stands for their claim's volume, at 127.0.0.1, which stands for their address.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from aiohttp import web
from kmock import ResourceInfo, resource

from tests.services.cluster import PODS, Call, Cluster, workload_resource

CLAIMS = resource("", "v1", "persistentvolumeclaims")
POLICIES = resource("networking.k8s.io", "v1", "networkpolicies")
PRODUCTION, DRILL, CLAIM = "ns", "drill", "drill-scratch"
MOUNT = "/drill"


class DrillCluster(Cluster):
    """Production in `ns`, drills in `drill`."""

    def __init__(self) -> None:
        super().__init__()
        self.volume = Path()
        """What the claim stands for."""
        self.granted: set[tuple[str, Call]] | None = None
        """What RBAC allows by namespace; a name that is empty allows all. None: everything."""
        self.made: list[dict[str, Any]] = []
        """Every pod that was made, as it was asked for."""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for kind in (CLAIMS, POLICIES):
            self.resources[kind] = ResourceInfo(namespaced=True)

    # ------------------------------------------------------------------------ set-up

    def workload(self, name: str, spec: dict[str, Any]) -> None:
        self.objects[workload_resource("deployments"), PRODUCTION, name] = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": PRODUCTION, "generation": 1},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            },
            "status": {"observedGeneration": 1},
        }

    def claim(self, **status: Any) -> None:
        self.objects[CLAIMS, DRILL, CLAIM] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "namespace": DRILL},
            "spec": {"accessModes": ["ReadWriteOnce"], **status.pop("spec", {})},
            "status": {"phase": "Bound", **status},
        }

    def policy(self, spec: dict[str, Any], name: str = "safetake-drill") -> None:
        self.objects[POLICIES, DRILL, name] = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": DRILL},
            "spec": spec,
        }

    def own_pod(self, mount: Path | str, sub_path: str = "", claim: str = CLAIM) -> None:
        """The pod in which the drill runs: of this machine's name, at its address."""
        self.pod(
            socket.gethostname(),
            {"app.kubernetes.io/name": "safetake"},
            nodeName="node-7",
            volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
            containers=[
                {
                    "name": "safetake",
                    "image": "x",
                    "volumeMounts": [{"name": "v", "mountPath": str(mount), "subPath": sub_path}],
                }
            ],
        )

    def pod(self, name: str, labels: dict[str, str], **spec: Any) -> None:
        spec.setdefault("containers", [{"name": "x", "image": "x"}])
        self.objects[PODS, DRILL, name] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": DRILL, "labels": labels},
            "spec": {"terminationGracePeriodSeconds": 1, **spec},
            "status": {"phase": "Running", "podIP": "127.0.0.1"},
        }

    def left(self) -> list[str]:
        """Pods of drills that are there."""
        return [
            name
            for (kind, where, name), each in self.objects.items()
            if kind == PODS and where == DRILL and not each.deleted and name.startswith("drill-")
        ]

    def pods(self) -> dict[str, dict[str, Any]]:
        return {n: p for n, p in super().pods().items() if "app" in p["metadata"]["labels"]}

    # ------------------------------------------------------------------------ what it does

    def _may(self, namespace: str, call: Call) -> bool:
        allowed = self.granted
        return allowed is None or not {(namespace, call), (namespace, (*call[:3], ""))}.isdisjoint(
            allowed
        )

    async def _handle(self, request: Any) -> web.StreamResponse:
        there = request.resource is not None and request.resource.plural == "pods"
        method = request.method.value
        if there and method == "DELETE" and (process := self.processes.pop(request.name, None)):
            process.terminate()
            process.wait(10)
        response = await super()._handle(request)
        if there and method == "POST" and response.status < 300:
            self.made.append(request.data)
            self._run(request.data)
        elif there and method == "GET" and request.name in self.processes:
            self._look(request.name)
        return response

    def _run(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        (container,) = pod["spec"]["containers"]
        if self.crash:
            self._tell(name, {"waiting": {"reason": self.crash}}, ready=False)
            return
        inside = next(m["subPath"] for m in container["volumeMounts"] if m["mountPath"] == MOUNT)
        place = str(self.volume / inside)
        given = {e["name"]: e["value"].replace(MOUNT, place) for e in container["env"]}
        assert Path(place).is_dir(), "the kubelet would make an empty folder"
        self.processes[name] = subprocess.Popen(
            [*container["command"], *container.get("args", [])],
            env={"PATH": os.environ["PATH"], **given},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._tell(name, {"running": {}}, ready=True)

    def _look(self, name: str) -> None:
        code = self.processes[name].poll()
        if code is not None:
            ended = {"exitCode": code, "reason": "Error", "message": "one\nno data at redis://:x@h"}
            self._tell(name, {"terminated": ended}, ready=False, phase="Failed")

    def _tell(
        self, name: str, state: dict[str, Any], *, ready: bool, phase: str = "Running"
    ) -> None:
        container = {"name": "app", "image": "", "imageID": "", "restartCount": 0}
        status = {
            "phase": "Pending" if "waiting" in state else phase,
            "podIP": "" if "waiting" in state else "127.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{**container, "ready": ready, "state": state}],
        }
        self.objects[PODS, DRILL, name].patch({"status": status})
