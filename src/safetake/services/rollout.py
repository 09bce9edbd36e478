"""What the status of a workload and of its pods means. Pure functions over the API's documents.

The rules are those of `kubectl rollout status`. A pod that is listed still uses its volumes, unless
its containers have ended for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]
ENDED = ("Succeeded", "Failed")
EXCEEDED = "ProgressDeadlineExceeded"


def replicas(workload: Document) -> int:
    """How many pods are wanted; the API's default is 1."""
    wanted = (workload.get("spec") or {}).get("replicas")
    return 1 if wanted is None else int(wanted)


def alive(pods: Sequence[Document]) -> list[str]:
    """Names of pods whose containers run, may run, or are ending."""
    return [
        str((pod.get("metadata") or {}).get("name"))
        for pod in pods
        if (pod.get("status") or {}).get("phase") not in ENDED
    ]


def seen(workload: Document) -> bool:
    """Whether the controller has acted on the newest change; before that its status is stale."""
    newest = int((workload.get("metadata") or {}).get("generation") or 0)
    return int((workload.get("status") or {}).get("observedGeneration") or 0) >= newest


def emptied(workload: Document) -> bool:
    """Whether the controller has seen that no pod is wanted, and counts none."""
    return seen(workload) and not (workload.get("status") or {}).get("replicas")


def waiting_for(workload: Document, kind: str) -> str:
    """What a rollout still waits for; empty when it is done."""
    if not seen(workload):
        return "the controller to see the change"
    wanted = replicas(workload)
    status = workload.get("status") or {}

    def count(key: str) -> int:
        return int(status.get(key) or 0)

    if kind == "deployment":
        if count("updatedReplicas") < wanted:
            return f"{count('updatedReplicas')} of {wanted} pods are new"
        if count("replicas") > count("updatedReplicas"):
            return f"{count('replicas') - count('updatedReplicas')} old pods are still there"
        available = count("availableReplicas")
        return "" if available >= wanted else f"{available} of {wanted} pods are ready"
    if count("readyReplicas") < wanted:
        return f"{count('readyReplicas')} of {wanted} pods are ready"
    strategy = (workload.get("spec") or {}).get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return ""  # OnDelete: which pods are new is the user's business
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
    if partition:
        new = count("updatedReplicas")
        return "" if new >= wanted - partition else f"{new} of {wanted - partition} pods are new"
    if status.get("updateRevision") != status.get("currentRevision"):
        return f"{count('updatedReplicas')} of {wanted} pods are new"
    return ""


def exceeded(workload: Document) -> str:
    """When the controller gave up on the rollout, or empty: a stamp that tells two of them apart.

    The condition of an earlier rollout stays until the next one makes progress.
    """
    for condition in (workload.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Progressing" and condition.get("reason") == EXCEEDED:
            return str(condition.get("lastUpdateTime") or EXCEEDED)
    return ""


def reasons(pods: Sequence[Document]) -> list[str]:
    """Why pods are not ready, each reason once: `web-1: CrashLoopBackOff (exit code 1)`."""
    found: dict[str, str] = {}
    for pod in pods:
        status = pod.get("status") or {}
        name = str((pod.get("metadata") or {}).get("name"))
        for condition in status.get("conditions") or []:
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                why = str(condition.get("reason") or "Unschedulable")
                message = str(condition.get("message") or "")[:120]
                found.setdefault(why, f"{name}: {why} ({message})" if message else f"{name}: {why}")
        every = (status.get("initContainerStatuses") or []) + (
            status.get("containerStatuses") or []
        )
        for container in every:
            state = container.get("state") or {}
            last = (container.get("lastState") or {}).get("terminated") or {}
            waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
            if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
                why = str(waiting["reason"])
                code = f" (exit code {last['exitCode']})" if "exitCode" in last else ""
                found.setdefault(why, f"{name}: {why}{code}")
            elif ended and ended.get("exitCode"):
                why = str(ended.get("reason") or "Error")
                found.setdefault(why, f"{name}: {why} (exit code {ended['exitCode']})")
            elif "running" in state and not container.get("ready", True):
                found.setdefault("unready", f"{name}: runs, and its readiness probe fails")
    return list(found.values())
