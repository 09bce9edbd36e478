"""What the pods may talk to: the hosts of the configuration, DNS, and nothing else.

A NetworkPolicy knows pods and addresses, no names. A Service's name says its namespace, and
`[kubernetes.peers]` says the rest; a name from outside is any address, at its one port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from safetake.config import Config
from safetake.configdrill import DrillKubernetesConfig
from safetake.configkube import KubernetesConfig, PeerConfig
from safetake.drill import isolation
from safetake.operate.kubernetes.walk import Value, values

Rule = dict[str, Any]
PORTS = {"redis": 6379, "rediss": 6379, "http": 80, "https": 443}
API_SERVER = "kubernetes.default.svc"
API_PORTS = (443, 6443)
"""NetworkPolicies judge what a Service was translated to: 6443 with most control planes."""
HTTPS = 443
ANYWHERE: list[Rule] = [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]
NODE_LOCAL_DNS: Rule = {"ipBlock": {"cidr": "169.254.20.10/32"}}
"""The address of NodeLocal DNSCache, which is no pod."""
NAMESPACE = "kubernetes.io/metadata.name"
_URL_KEYS = {"url", "server", "pushgateway"}
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A host and port that the configuration names at `where`."""

    host: str
    port: int
    where: str

    @property
    def in_the_pod(self) -> bool:
        """Whether the pod would talk to itself."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            address = ip_address(self.host)
        except ValueError:
            return False
        return address.is_loopback or address.is_unspecified


def endpoints(config: Config) -> list[Endpoint]:
    """Every URL of the configuration with a host; sockets are files. Raises ValueError."""
    found = []
    for value in values(config, without=("kubernetes", "notify")):
        if value.key in _URL_KEYS and isinstance(value.value, str):
            found += _endpoint(value)
    return found


def _endpoint(value: Value) -> list[Endpoint]:
    parts = urlsplit(value.value)
    if parts.scheme not in PORTS:
        return []
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{value.where}: its port is no number") from None
    return [Endpoint(parts.hostname or "127.0.0.1", port or PORTS[parts.scheme], value.where)]


def egress(config: Config) -> list[Rule]:
    """The rules, in the order of the configuration."""
    section = config.kubernetes
    known = _namespaces(config)
    found = [_dns(section)]
    wanted: list[tuple[str, tuple[int, ...]]] = [
        (each.host, (each.port,)) for each in endpoints(config)
    ]
    if needs_api(config):
        wanted.append((API_SERVER, API_PORTS))
    named = {host for host, _ in wanted}
    wanted += [(host, ()) for host in section.peers if host not in named]
    for host, ports in wanted:
        peer = section.peers.get(host)
        real = tuple(peer.ports) if peer is not None and peer.ports else ports
        if real:
            found.append(_rule(_peers(host, peer, section.namespace, known), real))
    notify = config.notify
    if notify.urls or notify.urls_env or notify.urls_file or notify.ping_env:
        found.append(_rule(ANYWHERE, (HTTPS,)))  # where they lead to is a secret
    return [*_merged(found), *({"to": [pods]} for pods in drill_peers(config))]


def redis_peers(config: Config) -> list[Rule]:
    """The Redis servers, as those who may connect to the pods while a restore feeds them."""
    known = _namespaces(config)
    section = config.kubernetes
    found: list[Rule] = []
    for each in endpoints(config):
        source = config.sources.get(each.where.split(".")[1])
        if source is not None and source.type == "redis":
            for rule in _peers(each.host, section.peers.get(each.host), section.namespace, known):
                if rule not in found:
                    found.append(rule)
    return found


def drill_peers(config: Config) -> list[Rule]:
    """The pods that drills make: asked for their health, and users of the drill's Redis servers."""
    section = drills(config)
    return [] if section is None else [isolation.peer(section, config.kubernetes.namespace)]


def needs_api(config: Config) -> bool:
    """Whether services are stopped and started, or made for drills, through Kubernetes' API."""
    stopped = any(service.kubernetes is not None for service in config.services.values())
    return stopped or drills(config) is not None


def drills(config: Config) -> DrillKubernetesConfig | None:
    """The section, where a service is a pod in drills."""
    if any(service.kubernetes is not None for service in config.drill.services.values()):
        return config.drill.kubernetes
    return None


def _namespaces(config: Config) -> set[str]:
    named = {service.namespace for service in config.services.values() if service.namespace}
    return named | {config.kubernetes.namespace}


def _peers(host: str, peer: PeerConfig | None, home: str, known: Iterable[str]) -> list[Rule]:
    if peer is not None and peer.cidr:
        return [{"ipBlock": {"cidr": cidr}} for cidr in peer.cidr]
    namespace, sure = _namespace(host, home, known)
    if peer is not None and (peer.namespace is not None or peer.labels):
        return [_pods(peer.namespace or namespace or home, peer.labels, home)]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        pass
    else:
        return [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}]
    if host == API_SERVER or namespace is None:
        return ANYWHERE
    inside = _pods(namespace, {}, home)
    return [inside] if sure else [inside, *ANYWHERE]


def _namespace(host: str, home: str, known: Iterable[str]) -> tuple[str | None, bool]:
    """The namespace that a Service's name says, and whether it can be nothing else."""
    words = host.rstrip(".").split(".")
    if len(words) == 1:
        return home, True
    if "svc" in words[2:]:
        namespace = words[words.index("svc", 2) - 1]
        return (namespace, True) if _LABEL.fullmatch(namespace) else (None, False)
    if len(words) == 2 and _LABEL.fullmatch(words[1]):
        return words[1], words[1] in known
    return None, False


def _pods(namespace: str, labels: dict[str, str], home: str) -> Rule:
    rule: Rule = {"podSelector": {"matchLabels": labels} if labels else {}}
    if namespace != home:
        rule["namespaceSelector"] = {"matchLabels": {NAMESPACE: namespace}}
    return rule


def _dns(section: KubernetesConfig) -> Rule:
    where = {"namespaceSelector": {"matchLabels": {NAMESPACE: section.dns_namespace}}}
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {"to": [where, NODE_LOCAL_DNS], "ports": ports}


def _rule(peers: Sequence[Rule], ports: Sequence[int]) -> Rule:
    return {"to": list(peers), "ports": [{"protocol": "TCP", "port": port} for port in ports]}


def _merged(rules: list[Rule]) -> list[Rule]:
    """One rule for each set of peers."""
    found: list[Rule] = []
    for rule in rules:
        same = next((each for each in found if each["to"] == rule["to"]), None)
        if same is None:
            found.append({"to": rule["to"], "ports": list(rule["ports"])})
        else:
            same["ports"] += [port for port in rule["ports"] if port not in same["ports"]]
    return found
