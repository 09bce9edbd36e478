"""The pod of a production workload once more, reduced to what is safe beside a drill's copies.

What runs stays as it is: image, command, arguments, ports, resources, probes of its start. What
reaches out of the pod goes: environment, Secrets, volumes but empty ones, the token of the API, the
node's namespaces and ports, capabilities, other containers. Pure functions over documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetake.errors import UsageError

Document = Mapping[str, Any]
Piece = dict[str, Any]

KEPT = ("name", "image", "imagePullPolicy", "command", "args", "workingDir", "readinessProbe",
        "startupProbe")  # fmt: skip
"""Of the container. No lifecycle hooks: they may sign on with somebody."""
KEPT_RESOURCES = ("requests", "limits")
KEPT_SECURITY = ("readOnlyRootFilesystem", "seccompProfile", "appArmorProfile")
KEPT_PORT = ("name", "containerPort", "protocol")
KEPT_OF_POD = ("nodeSelector", "tolerations", "runtimeClassName", "terminationGracePeriodSeconds")
VOLUME = "safetake-drill"
GRACE = 30
"""Kubernetes' seconds from SIGTERM to SIGKILL."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the drill's own in each pod that it makes."""

    labels: dict[str, str]
    claim: str
    mount: str
    sub_path: str
    """The folder of the claim that has the copies, and nothing else of the drill."""
    user: int
    group: int
    """Those of the drill: the copies are private to it."""
    node: str
    """Where the drill runs itself, and the claim can be mounted; empty: not known."""
    seconds: int
    """The cluster ends the pod after so long, should nobody else do it."""
    pull_secrets: Sequence[str] = ()


def container_of(workload: Document, wanted: str | None, where: str) -> Document:
    """The container that is the service. Raises UsageError when that is not clear."""
    found: list[Document] = list(workload["spec"]["template"]["spec"].get("containers") or [])
    names = ", ".join(str(each["name"]) for each in found)
    if wanted is None and len(found) == 1:
        return found[0]
    for each in found:
        if each["name"] == wanted:
            return each
    if wanted is None:
        raise UsageError(f"{where} has several containers", hint=f"say container = one of: {names}")
    raise UsageError(f"{where} has no container {wanted!r}", hint=f"it has: {names}")


def port_of(container: Document) -> int | None:
    """The first port that the container says it listens at."""
    ports = container.get("ports") or []
    return int(ports[0]["containerPort"]) if ports else None


def grace_of(pod: Document) -> int:
    """Seconds that a pod has to end by itself."""
    given = pod["spec"].get("terminationGracePeriodSeconds")
    return GRACE if given is None else int(given)


def copied(
    workload: Document,
    container: Document,
    name: str,
    environment: Mapping[str, str],
    around: Surroundings,
) -> Piece:
    """The pod NAME, with `environment` instead of production's."""
    template: Document = workload["spec"]["template"]["spec"]
    empty = [
        {"name": volume["name"], "emptyDir": dict(volume["emptyDir"] or {})}
        for volume in template.get("volumes") or []
        if "emptyDir" in volume
    ]
    names = {volume["name"] for volume in empty}
    mounts = [m for m in container.get("volumeMounts") or [] if m["name"] in names]
    of_pod: Document = template.get("securityContext") or {}
    spec = _chosen(template, KEPT_OF_POD)
    spec |= {
        "restartPolicy": "Never",  # a service that ends is not well
        "activeDeadlineSeconds": around.seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsUser": around.user,
            "runAsGroup": around.group,
            "seccompProfile": of_pod.get("seccompProfile") or {"type": "RuntimeDefault"},
            "runAsNonRoot": around.user != 0,
        },
        "containers": [
            {
                **_chosen(container, KEPT),
                "env": [{"name": key, "value": value} for key, value in environment.items()],
                "resources": _chosen(container.get("resources") or {}, KEPT_RESOURCES),
                "ports": [_chosen(port, KEPT_PORT) for port in container.get("ports") or []],
                "securityContext": _security(container),
                # the last lines of its log are in the status: no right to read logs is needed
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [
                    *mounts,
                    {"name": VOLUME, "mountPath": around.mount, "subPath": around.sub_path},
                ],
            }
        ],
        "volumes": [
            *empty,
            {"name": VOLUME, "persistentVolumeClaim": {"claimName": around.claim}},
        ],
    }
    if around.pull_secrets:
        spec["imagePullSecrets"] = [{"name": each} for each in around.pull_secrets]
    if around.node:
        field = {"key": "metadata.name", "operator": "In", "values": [around.node]}
        terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        spec["affinity"] = {"nodeAffinity": required}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(around.labels)},
        "spec": spec,
    }


def _chosen(given: Document, kept: Sequence[str]) -> Piece:
    return {key: given[key] for key in kept if given.get(key) is not None}


def _security(container: Document) -> Piece:
    given: Document = container.get("securityContext") or {}
    return {
        **_chosen(given, KEPT_SECURITY),
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
