"""Where the pods of a drill can connect to: the NetworkPolicy that is rendered for them, and what
the policies that are there allow.

Policies only ever add to what is allowed, so each one that selects the pods is judged. Whether the
cluster's network plugin enforces policies at all is nothing that its API tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetake.configdrill import DrillKubernetesConfig

Piece = dict[str, Any]

CLAIM = "safetake/drill-claim"
"""The label by which a drill knows its pods: the claim that they work on."""
OURS = {"app.kubernetes.io/name": "safetake"}
"""Labels of every pod of safetake itself."""
NAMESPACE = "kubernetes.io/metadata.name"


def pod_labels(section: DrillKubernetesConfig) -> dict[str, str]:
    """Labels of the pods that a drill makes; nothing of production selects them."""
    return {"app.kubernetes.io/name": "safetake-drill", CLAIM: section.claim}


def peer(section: DrillKubernetesConfig, seen_from: str) -> Piece:
    """The pods of a drill, in a policy of the namespace `seen_from`."""
    return _peer(pod_labels(section), section.namespace, seen_from)


def network_policy(section: DrillKubernetesConfig, home: str) -> Piece:
    """`spec` of the policy in the drill's namespace: its pods talk to each other, and to safetake's
    pods in `home`. No DNS: a name is a way out, and they are given addresses."""
    peers = [peer(section, section.namespace), _peer(OURS, home, section.namespace)]
    return {
        "podSelector": {"matchLabels": pod_labels(section)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peers}],
        "egress": [{"to": peers}],
    }


def open_ways(
    policies: Sequence[Mapping[str, Any]], labels: Mapping[str, str], address: str
) -> list[str]:
    """How pods with these labels can connect to anything but a drill; empty: they can not.

    A peer in the same namespace is the drill's (production is in another one), and so are pods of
    safetake wherever they are, and `address`, where the drill itself runs.
    """
    found: list[str] = []
    kept = False
    for policy in policies:
        spec = policy.get("spec") or {}
        selected = _selects(spec.get("podSelector") or {}, labels)
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        if selected is False or "Egress" not in types:
            continue
        name = str((policy.get("metadata") or {}).get("name"))
        # where nobody can tell whether it selects them, what it allows counts, what it forbids not
        kept = kept or selected is True
        for rule in spec.get("egress") or []:
            if not rule.get("to"):
                found.append(f"{name} allows connections to everywhere")
            peers = rule.get("to") or []
            found += [f"{name} allows {_words(to)}" for to in peers if _leads_out(to, address)]
    return found if kept else [*found, "no NetworkPolicy of the namespace restricts their egress"]


def _peer(labels: Mapping[str, str], where: str, seen_from: str) -> Piece:
    found: Piece = {"podSelector": {"matchLabels": dict(labels)}}
    if where != seen_from:
        found["namespaceSelector"] = {"matchLabels": {NAMESPACE: where}}
    return found


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool | None:
    """Whether a selector matches; None where it has expressions, which are not worked out here."""
    wanted = (selector.get("matchLabels") or {}).items()
    if any(labels.get(key) != value for key, value in wanted):
        return False
    return None if selector.get("matchExpressions") else True


def _leads_out(to: Mapping[str, Any], address: str) -> bool:
    if to.get("ipBlock"):
        return to["ipBlock"].get("cidr") not in (f"{address}/32", f"{address}/128")
    if "namespaceSelector" not in to or to["namespaceSelector"] is None:
        return False
    chosen = ((to.get("podSelector") or {}).get("matchLabels") or {}).items()
    return not OURS.items() <= chosen


def _words(to: Mapping[str, Any]) -> str:
    if to.get("ipBlock"):
        return f"connections to {to['ipBlock'].get('cidr')}"
    return "connections to pods of other namespaces"
