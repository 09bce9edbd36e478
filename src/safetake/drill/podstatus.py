"""What the documents of pods mean to a drill. Pure functions, as `services.rollout` has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetake.errors import RefusedError
from safetake.services import rollout
from safetake.services.process import excerpt

Document = Mapping[str, Any]


def place(pod: Document, claim: str, scratch: Path) -> str:
    """The folder of the claim that the scratch folder is, in the pod that mounts it there.

    Raises RefusedError when it does not.
    """
    volumes = {
        volume["name"]
        for volume in pod["spec"].get("volumes") or []
        if (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim
    }
    for container in pod["spec"]["containers"]:
        above = [
            mount
            for mount in container.get("volumeMounts") or []
            if scratch.is_relative_to(mount["mountPath"])
        ]
        # the deepest one is what is there; what an expression stands for is not in the document
        mount = max(above, key=lambda one: len(Path(one["mountPath"]).parts), default=None)
        if mount and mount["name"] in volumes and not mount.get("subPathExpr"):
            inside = str(scratch.relative_to(mount["mountPath"]))
            parts = (mount.get("subPath") or "", "" if inside == "." else inside)
            return "/".join(filter(None, parts))
    raise RefusedError(
        f"this pod does not have the claim {claim} at {scratch}: services would start on nothing",
        hint="mount it there ([kubernetes.volumes.NAME]), or set [drill] scratch to where it is",
    )


def unready(pod: Document) -> str:
    """Why a pod is not ready; empty when it is."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            return ""
    return f"its pod is {status.get('phase') or 'not seen by anybody'}"


def ran(pod: Document) -> bool:
    """Whether its container runs, or has ended by itself: not one that was never started, and not
    one that the cluster has ended (evicted, its deadline, the end of its node)."""
    if (pod.get("status") or {}).get("reason"):
        return False
    states = [
        container.get("state") or {}
        for container in (pod.get("status") or {}).get("containerStatuses") or []
    ]
    return any(state.get("running") is not None or state.get("terminated") for state in states)


def why(pod: Document) -> str:
    """What the cluster says of a pod that is not as it should be."""
    status = pod.get("status") or {}
    found = rollout.reasons([pod])
    for container in status.get("containerStatuses") or []:
        ended = (container.get("state") or {}).get("terminated") or {}
        if lines := str(ended.get("message") or "").strip().splitlines():
            found.append(excerpt(lines[-1], 300))
        if ended and not found:
            found.append(f"exit code {ended.get('exitCode')}")
    if status.get("reason"):
        found.append(excerpt(f"{status['reason']}: {status.get('message') or ''}", 300))
    return "; ".join(found)
