"""The policy that every pod keeps: what may not be found in one, each rule with its opposite."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Piece = dict[str, Any]
Look = Callable[[Piece, Piece], object]
"""Of the pod's spec and one container: something true when the rule is broken."""
Break = Callable[[Piece, Piece], object]


def _context(pod: Piece, container: Piece, key: str) -> Any:
    own = container.get("securityContext", {})
    return own[key] if key in own else pod.get("securityContext", {}).get(key)


def _set(place: str, key: str, value: Any) -> Break:
    def change(pod: Piece, container: Piece) -> None:
        section = pod if place.startswith("pod") else container
        for part in place.split(".")[1:]:
            section = section[part]
        section[key] = value

    return change


def _drop(place: str, key: str) -> Break:
    def change(pod: Piece, container: Piece) -> None:
        section = pod if place.startswith("pod") else container
        for part in place.split(".")[1:]:
            section = section[part]
        del section[key]

    return change


RULES: dict[str, tuple[Look, list[Break]]] = {
    "privileged": (
        lambda _, c: c.get("securityContext", {}).get("privileged", False),
        [_set("c.securityContext", "privileged", True)],
    ),
    "root": (
        lambda p, c: (
            not _context(p, c, "runAsNonRoot")
            or not _context(p, c, "runAsUser")
            or not _context(p, c, "runAsGroup")
        ),
        [
            _set("pod.securityContext", "runAsUser", 0),
            _drop("pod.securityContext", "runAsUser"),
            _set("c.securityContext", "runAsUser", 0),
            _set("c.securityContext", "runAsNonRoot", False),
            _set("pod.securityContext", "runAsGroup", 0),
        ],
    ),
    "no group for volumes": (
        lambda p, _: not p["securityContext"].get("fsGroup"),
        [_drop("pod.securityContext", "fsGroup")],
    ),
    "writable root": (
        lambda _, c: c["securityContext"].get("readOnlyRootFilesystem") is not True,
        [
            _set("c.securityContext", "readOnlyRootFilesystem", False),
            _drop("c.securityContext", "readOnlyRootFilesystem"),
        ],
    ),
    "escalation": (
        lambda _, c: c["securityContext"].get("allowPrivilegeEscalation") is not False,
        [_drop("c.securityContext", "allowPrivilegeEscalation")],
    ),
    "capabilities": (
        lambda _, c: c["securityContext"].get("capabilities") != {"drop": ["ALL"]},
        [
            _set("c.securityContext", "capabilities", {"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
            _drop("c.securityContext", "capabilities"),
        ],
    ),
    "seccomp": (
        lambda p, c: (_context(p, c, "seccompProfile") or {}).get("type") != "RuntimeDefault",
        [
            _set("c.securityContext", "seccompProfile", {"type": "Unconfined"}),
            _drop("pod.securityContext", "seccompProfile"),
        ],
    ),
    "unlimited": (
        lambda _, c: any(
            not c.get("resources", {}).get(kind, {}).get(what)
            for kind in ("requests", "limits")
            for what in ("cpu", "memory")
        ),
        [_drop("c.resources", "limits"), _drop("c.resources.limits", "memory")],
    ),
    "unpinned": (
        lambda _, c: re.search(r"@sha256:[0-9a-f]{64}$", c["image"]) is None,
        [_set("c", "image", "safetake:latest"), _set("c", "image", "safetake@sha256:ab")],
    ),
    "host": (
        lambda p, _: (
            any(p.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
            or any("hostPath" in volume for volume in p["volumes"])
        ),
        [_set("pod", "hostNetwork", True), _set("pod", "volumes", [{"hostPath": {"path": "/"}}])],
    ),
    "token": (
        lambda p, _: "automountServiceAccountToken" not in p,
        [_drop("pod", "automountServiceAccountToken")],
    ),
    "installs": (
        lambda _, c: re.search(
            r"\b(sh|bash|apk|apt|apt-get|pip|curl|wget)\b", " ".join([*c["command"], *c["args"]])
        ),
        [_set("c", "command", ["sh", "-c", "apk add sqlite && run"])],
    ),
    "unbounded scratch": (
        lambda p, _: any(
            "sizeLimit" not in volume["emptyDir"] for volume in p["volumes"] if "emptyDir" in volume
        ),
        [_set("pod", "volumes", [{"name": "tmp", "emptyDir": {}}])],
    ),
}


def broken(pod: Piece) -> list[str]:
    """The rules that a pod breaks, with any of its containers."""
    containers = [*pod["containers"], *pod.get("initContainers", [])]
    return [rule for rule, (look, _) in RULES.items() if any(look(pod, c) for c in containers)]
