"""Exactly the permissions that the configured Kubernetes services need, and manifests of them.

Each is for one named object where RBAC can say that; a list can not be narrowed to names. A right
to scale is not a right to change what runs: only a service with a switch gets the second. The
permission to ask what one may do comes with every account (`system:basic-user`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetake.yamltext import to_yaml as to_yaml

if TYPE_CHECKING:
    from safetake.config import ServiceConfig
    from safetake.configdrill import DrillConfig

NAME = "safetake"


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One verb on one resource; `name` is empty for all objects of the namespace."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    name: str = ""

    def __str__(self) -> str:
        what = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {what}" + (f" {self.name}" if self.name else "")

    def attributes(self) -> dict[str, str]:
        """As a SelfSubjectAccessReview has it."""
        found = {
            "verb": self.verb,
            "group": self.group,
            "resource": self.resource,
            "subresource": self.subresource,
            "name": self.name,
        }
        return {key: value for key, value in found.items() if value}


def permissions(service: ServiceConfig) -> list[Permission]:
    """What stop, start, switch and status of one service need in its namespace."""
    if service.kubernetes is None:
        return []
    kind, name = service.kubernetes.split("/", 1)
    resource = f"{kind}s"
    needed = [
        Permission("get", "apps", resource, name=name),
        Permission("patch", "apps", resource, "scale", name),
        Permission("list", "", "pods"),
        Permission("list", "autoscaling", "horizontalpodautoscalers"),
    ]
    if service.switch:
        needed.append(Permission("patch", "apps", resource, name=name))
    return needed


def drill_permissions(drill: DrillConfig) -> dict[str, set[Permission]]:
    """By namespace: what a drill that starts pods needs. Of production it only reads workloads."""
    workloads = {s.kubernetes for s in drill.services.values() if s.kubernetes is not None}
    if drill.kubernetes is None or not workloads:
        return {}
    pods = {Permission(verb, "", "pods") for verb in ("create", "get", "list", "delete")}
    read = {
        Permission("get", "apps", f"{kind}s", name=name)
        for kind, _, name in (workload.partition("/") for workload in workloads)
    }
    return {
        drill.kubernetes.source_namespace: read,
        drill.kubernetes.namespace: {
            *pods,
            Permission("get", "", "persistentvolumeclaims", name=drill.kubernetes.claim),
            Permission("list", "networking.k8s.io", "networkpolicies"),
        },
    }


def manifests(
    services: Mapping[str, ServiceConfig],
    namespace: str | None = None,
    account: str = NAME,
    drill: DrillConfig | None = None,
) -> list[dict[str, Any]]:
    """A ServiceAccount, and a Role with its RoleBinding for each namespace of a service or drill.

    `namespace` is the account's own, and that of services that name none; without it, the first
    that a service names, else that of the drill's pods, else `default`.
    """
    configured = [s for s in services.values() if s.kubernetes is not None]
    by_namespace = drill_permissions(drill) if drill is not None else {}
    if not configured and not by_namespace:
        return []
    named = [s.namespace for s in configured if s.namespace]
    if not configured and drill is not None and drill.kubernetes is not None:
        named.append(drill.kubernetes.namespace)
    home = namespace or next(iter(named), "default")
    for service in configured:
        place = by_namespace.setdefault(service.namespace or home, set())
        place.update(permissions(service))
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": home},
        }
    ]
    for where, needed in sorted(by_namespace.items()):
        metadata = {"name": f"{account}-services", "namespace": where}
        found.append(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": metadata,
                "rules": rules(needed),
            }
        )
        found.append(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "Role",
                    "name": metadata["name"],
                },
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": home}],
            }
        )
    return found


def rules(needed: set[Permission]) -> list[dict[str, Any]]:
    """The permissions as rules, one for each resource and set of verbs; nothing more in them."""
    names: dict[tuple[str, str, str], list[str]] = {}
    for p in sorted(needed):
        resource = f"{p.resource}/{p.subresource}" if p.subresource else p.resource
        names.setdefault((p.group, resource, p.verb), []).append(p.name)
    verbs: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for (group, resource, verb), objects in names.items():
        verbs.setdefault((group, resource, tuple(objects)), []).append(verb)
    found = []
    for (group, resource, named), allowed in sorted(verbs.items()):
        rule: dict[str, Any] = {"apiGroups": [group], "resources": [resource]}
        if any(named):
            rule["resourceNames"] = list(named)
        found.append({**rule, "verbs": allowed})
    return found
