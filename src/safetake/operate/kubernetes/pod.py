"""The pod, the same for every mode: one container that may do nothing but its work.

Not root, nothing of the root file system writable, no capability, the runtime's seccomp profile,
limits, no token of the API unless a service needs it. What is written is on the volumes, in the
state folder, or in /tmp, which goes with the pod.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Any

from safetake.operate.kubernetes import outside
from safetake.operate.kubernetes.names import object_name
from safetake.operate.kubernetes.plan import COMPONENTS, Plan, selector

Piece = dict[str, Any]

STATE_SIZE = "1Gi"
READABLE = 0o440
"""Files of Secrets belong to root and to fsGroup."""


def pod(plan: Plan, arguments: list[str]) -> Piece:
    """The template with a container that runs `safetake ARGUMENTS`."""
    section = plan.config.kubernetes
    daemon = plan.mode == "daemon"
    mounts, volumes = _volumes(plan)
    container: Piece = {
        "name": "safetake",
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["safetake"],
        "args": arguments,
        "env": _environment(plan),
        "resources": {"requests": dict(section.requests), "limits": dict(section.limits)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "volumeMounts": mounts,
    }
    if daemon:
        container |= _probes(plan)
    spec: Piece = {
        "serviceAccountName": plan.name,
        "automountServiceAccountToken": plan.api,
        "enableServiceLinks": False,
        "restartPolicy": "Always" if daemon else "Never",
        "terminationGracePeriodSeconds": plan.seconds_to_end,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": section.user,
            "runAsGroup": section.group,
            "fsGroup": section.fs_group or section.group,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if plan.affinity:
        spec["affinity"] = plan.affinity
    if section.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in section.pull_secrets]
    if section.node_selector:
        spec["nodeSelector"] = dict(section.node_selector)
    if section.tolerations:
        spec["tolerations"] = tolerations(plan)
    if section.priority_class:
        spec["priorityClassName"] = section.priority_class
    return {"metadata": _metadata(plan), "spec": spec}


def _metadata(plan: Plan) -> Piece:
    section = plan.config.kubernetes
    component = {"app.kubernetes.io/component": COMPONENTS[plan.mode]}
    checksum = {"checksum/config": hashlib.sha256(plan.text.encode()).hexdigest()}
    return {
        "labels": {**section.labels, **selector(plan.name), **component},
        "annotations": {**section.pod_annotations, **checksum},
    }


def tolerations(plan: Plan) -> list[Piece]:
    """In Kubernetes' words."""
    found = []
    for each in plan.config.kubernetes.tolerations:
        piece: Piece = {"operator": "Exists" if each.value is None else "Equal"}
        for key in ("key", "value", "effect"):
            if getattr(each, key) is not None:
                piece[key] = getattr(each, key)
        found.append(piece)
    return found


def _environment(plan: Plan) -> list[Piece]:
    found: list[Piece] = [
        {"name": "HOME", "value": outside.TEMPORARY},
        {"name": "SAFETAKE_CONFIG", "value": outside.CONFIG},
        {"name": "SAFETAKE_HOST", "value": f"{plan.name}.{plan.namespace}"},
        {"name": "XDG_CACHE_HOME", "value": outside.CACHE},
        {"name": "XDG_STATE_HOME", "value": str(PurePosixPath(outside.STATE).parent)},
    ]
    for each in plan.variables:
        reference = {"name": each.secret, "key": each.key}
        found.append({"name": each.name, "valueFrom": {"secretKeyRef": reference}})
    return found


def _volumes(plan: Plan) -> tuple[list[Piece], list[Piece]]:
    section = plan.config.kubernetes
    mounts: list[Piece] = [{"name": "tmp", "mountPath": outside.TEMPORARY}]
    volumes: list[Piece] = [{"name": "tmp", "emptyDir": {"sizeLimit": section.scratch}}]
    if not plan.state_on_volume:
        mounts.append({"name": "state", "mountPath": outside.STATE})
        volumes.append({"name": "state", "emptyDir": {"sizeLimit": STATE_SIZE}})
    for number, (folder, files) in enumerate(plan.folders.items()):
        name = f"files-{number}"
        mounts.append({"name": name, "mountPath": folder, "readOnly": True})
        sources: list[Piece] = [] if number else [{"configMap": {"name": plan.name}}]
        for each in files:
            item = {"key": each.key, "path": str(PurePosixPath(each.name).relative_to(folder))}
            sources.append({"secret": {"name": each.secret, "items": [item]}})
        volumes.append({"name": name, "projected": {"defaultMode": READABLE, "sources": sources}})
    for volume in section.volumes.values():
        name = object_name("claim", volume.claim)
        mount: Piece = {"name": name, "mountPath": volume.mount}
        if volume.sub_path is not None:
            mount["subPath"] = volume.sub_path
        if volume.read_only:
            mount["readOnly"] = True
        mounts.append(mount)
        claim = {"name": name, "persistentVolumeClaim": {"claimName": volume.claim}}
        if claim not in volumes:
            volumes.append(claim)
    return mounts, volumes


def _probes(plan: Plan) -> Piece:
    def probe(path: str, period: int, failures: int) -> Piece:
        return {
            "httpGet": {"path": path, "port": "metrics"},
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        }

    return {
        "ports": [{"name": "metrics", "containerPort": plan.port, "protocol": "TCP"}],
        "startupProbe": probe("/healthz", 5, 60),
        "livenessProbe": probe("/healthz", 20, 6),
        "readinessProbe": probe("/readyz", 10, 3),
    }
