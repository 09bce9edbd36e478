"""An emulated Kubernetes API (kmock) with what it lacks: JSON patches, the scale subresource,
access reviews, and controllers that make, replace and end pods, one step for each request.

Every request is remembered as (verb, group, resource, name), as RBAC would judge it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonpatch
from aiohttp import web
from kmock import KubernetesEmulator, ResourceInfo, Server, resource

Call = tuple[str, str, str, str]
WORKLOADS = {"deployments": "Deployment", "statefulsets": "StatefulSet"}
PODS = resource("", "v1", "pods")
SCALERS = resource("autoscaling", "v2", "horizontalpodautoscalers")


def workload_resource(plural: str) -> resource:
    return resource("apps", "v1", plural)


class Cluster(KubernetesEmulator):
    """One namespace, `ns`, of one emulated cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.places: list[tuple[str, Call]] = []
        """The same with the namespace."""
        self.allowed: set[Call] | None = None
        """What RBAC allows; None: all."""
        self.stuck = False
        """Pods ignore that they should end."""
        self.crash = ""
        """The waiting reason of new pods, which then never get ready."""
        self.crashes: Callable[[], str] = lambda: self.crash
        """The same, asked for each new pod."""
        self.gives_up = False
        """The controller reports ProgressDeadlineExceeded when new pods crash."""
        self.meddles = 0
        """Replicas that somebody sets whenever there are 0."""
        self.broken_answers = 0
        """How many requests are answered 503."""
        self.before_patch: list[Any] = []
        """Called with the object, one for each patch: somebody else was faster."""
        self._serial = 0
        for kind in (PODS, SCALERS, *(workload_resource(plural) for plural in WORKLOADS)):
            self.resources[kind] = ResourceInfo(namespaced=True)

    # ------------------------------------------------------------------------ set-up

    def add(self, plural: str, name: str, replicas: int = 3, **container: Any) -> None:
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": "app:1", **container}]},
            },
        }
        self.objects[workload_resource(plural), "ns", name] = {
            "apiVersion": "apps/v1",
            "kind": WORKLOADS[plural],
            "metadata": {"name": name, "namespace": "ns", "generation": 1},
            "spec": spec,
            "status": {"observedGeneration": 1},
        }
        for _ in range(10):
            self._step()

    def raw(self, plural: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.objects[workload_resource(plural), "ns", name].raw
        return found

    def change(self, plural: str, name: str, changed: dict[str, Any]) -> None:
        changed["metadata"]["generation"] += 1
        self.objects[workload_resource(plural), "ns", name].patch(changed)

    def pods(self) -> dict[str, dict[str, Any]]:
        return {
            name: each.raw
            for (kind, _, name), each in self.objects.items()
            if kind == PODS and not each.deleted
        }

    # ------------------------------------------------------------------------ the API server

    async def _handle(self, request: Any) -> web.StreamResponse:
        if request.resource is None:
            return await super()._handle(request)
        plural = request.resource.plural
        what = f"{plural}/{request.subresource}" if request.subresource else plural
        verbs = {"GET": "get" if request.name else "list", "POST": "create", "PATCH": "patch"}
        verb = verbs.get(request.method.value, request.method.value.lower())
        call = (verb, request.resource.group, what, request.name or "")
        self.calls.append(call)
        self.places.append((request.namespace or "", call))
        if self.broken_answers:
            self.broken_answers -= 1
            return failure(503, "etcd leader changed")
        if plural == "selfsubjectaccessreviews":
            asked = request.data["spec"]["resourceAttributes"]
            name = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            put = (asked["verb"], asked.get("group", ""), name, asked.get("name", ""))
            status = {"allowed": self._may(asked.get("namespace", ""), put)}
            return web.json_response({**request.data, "status": status})
        if not self._may(request.namespace or "", call):
            return failure(403, f"cannot {verb} resource {what}")
        if verb == "patch" and plural in WORKLOADS:
            return self._patch(request, plural)
        response = await super()._handle(request)
        self._step()
        return response

    def _may(self, namespace: str, call: Call) -> bool:
        return self.allowed is None or call in self.allowed

    def _patch(self, request: Any, plural: str) -> web.StreamResponse:
        key = (workload_resource(plural), "ns", request.name)
        if key not in self.objects:
            return failure(404, "not found")
        if self.before_patch:
            self.before_patch.pop(0)(self)
        now = copy.deepcopy(self.objects[key].raw)
        if request.subresource == "scale":
            now["spec"]["replicas"] = request.data["spec"]["replicas"]
        elif request.headers["Content-Type"] == "application/json-patch+json":
            try:
                now = jsonpatch.apply_patch(now, request.data)
            except jsonpatch.JsonPatchTestFailed:
                return failure(422, "the test of a patch failed")
        else:
            template = request.data["spec"]["template"]
            there = now["spec"]["template"]["metadata"].setdefault("annotations", {})
            there.update(template["metadata"]["annotations"])
        self.change(plural, request.name, now)
        return web.json_response(now if request.subresource != "scale" else request.data)

    # ------------------------------------------------------------------------ controllers

    def _step(self) -> None:
        for (kind, _, name), each in list(self.objects.items()):
            if kind.plural in WORKLOADS and not each.deleted:
                self._reconcile(kind.plural, name, copy.deepcopy(each.raw))

    def _reconcile(self, plural: str, name: str, now: dict[str, Any]) -> None:
        if self.meddles and now["spec"]["replicas"] == 0:
            now["spec"]["replicas"] = self.meddles
            self.change(plural, name, now)
        template = json.dumps(now["spec"]["template"], sort_keys=True)
        wanted = now["spec"]["replicas"]
        own = {n: p for n, p in self.pods().items() if p["metadata"]["labels"]["app"] == name}
        new = {n: p for n, p in own.items() if p["template"] == template}
        old = {n: p for n, p in own.items() if n not in new}
        for pod in [*old, *list(new)[wanted:]]:
            if not self.stuck:
                self.objects[PODS, "ns", pod].delete()
                break  # one pod in each step
        else:
            if len(new) < wanted:
                self._make_pod(name, template)
        self._report(plural, name, now, template)

    def _make_pod(self, app: str, template: str) -> None:
        self._serial += 1
        name = f"{app}-{self._serial}"
        state: dict[str, Any] = {"running": {}}
        crash = self.crashes()
        if crash:
            state = {"waiting": {"reason": crash}}
        self.objects[PODS, "ns", name] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "labels": {"app": app}},
            "template": template,
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "name": "app",
                        "image": "app:1",
                        "imageID": "",
                        "restartCount": 3,
                        "ready": not crash,
                        "state": state,
                        "lastState": {"terminated": {"exitCode": 1}} if crash else {},
                    }
                ],
            },
        }

    def _report(self, plural: str, name: str, now: dict[str, Any], template: str) -> None:
        own = [p for p in self.pods().values() if p["metadata"]["labels"]["app"] == name]
        new = [p for p in own if p["template"] == template]
        ready = [p for p in own if p["status"]["containerStatuses"][0]["ready"]]
        status: dict[str, Any] = {
            "observedGeneration": now["metadata"]["generation"],
            "replicas": len(own),
            "updatedReplicas": len(new),
            "readyReplicas": len(ready),
            "availableReplicas": len(ready),
            "currentRevision": "1" if len(new) == len(own) else "0",
            "updateRevision": "1",
            "conditions": [],
        }
        if self.gives_up and self.crash and new:
            condition = {
                "type": "Progressing",
                "status": "False",
                "reason": "ProgressDeadlineExceeded",
                "lastUpdateTime": "2026-01-01T00:00:00Z",
            }
            status["conditions"] = [condition]
        self.objects[workload_resource(plural), "ns", name].patch({"status": status})


def failure(code: int, message: str) -> web.StreamResponse:
    document = {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}
    return web.json_response({**document, "metadata": {}, "status": "Failure"}, status=code)


@contextmanager
def running_cluster(folder: Path) -> Iterator[tuple[Cluster, Path]]:
    """The cluster, and a kubeconfig that leads to it."""
    cluster = Cluster()
    with serving(cluster, folder) as kubeconfig:
        yield cluster, kubeconfig


@contextmanager
def serving(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """A kubeconfig that leads to a cluster of any kind."""
    loop, server = asyncio.new_event_loop(), None
    ready, ended = threading.Event(), asyncio.Event()
    place: dict[str, str] = {}

    async def serve() -> None:
        async with cluster, Server(cluster) as server:
            place["url"] = str(server.url).rstrip("/")
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "other",
                    "clusters": [{"name": "it", "cluster": {"server": place["url"]}}],
                    "users": [{"name": "me", "user": {"token": "t"}}],
                    "contexts": [
                        {"name": "it", "context": {"cluster": "it", "user": "me"}},
                        {"name": "other", "context": {"cluster": "it", "user": "me"}},
                    ],
                }
            )
        )
        yield kubeconfig
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()
    assert server is None
