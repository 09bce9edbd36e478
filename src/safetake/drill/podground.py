"""What a drill's pods stand on: looked at before a copy is made, and known from then on.

Permissions, the claim, each workload, every placeholder, the NetworkPolicy, and the pod that the
drill runs in itself. Nothing is changed here, neither in production nor in the drill's namespace.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from safetake.drill import podstatus, podtemplate
from safetake.drill.isolation import open_ways, pod_labels
from safetake.drill.twin import fill
from safetake.errors import RefusedError, ServiceError, UsageError
from safetake.evidence import Check
from safetake.services.api import Api, Document, Missing
from safetake.services.rbac import drill_permissions

if TYPE_CHECKING:
    from safetake.config import Config, HealthConfig
    from safetake.configdrill import DrillServiceConfig

ISOLATED = "services could connect to nothing but the drill"
SAME_VOLUME = "services ran on the drill's own volume"


class Ground:
    """One drill's. Every method raises SafetakeError."""

    def __init__(self, config: Config, kinds: Collection[str]) -> None:
        assert config.drill.kubernetes is not None
        assert config.drill.scratch is not None
        self.drill, self.section = config.drill, config.drill.kubernetes
        self.scratch: Path = config.drill.scratch
        self.services, self._kinds = chosen(config, kinds), list(kinds)
        self.api = Api(self.section.namespace, self.section.context)
        self._source = Api(self.section.source_namespace, self.section.context)
        self.address = _own_address(self.api.server)
        self.workloads: dict[str, Document] = {}
        self.hosts: dict[str, str] = {}
        """Address of the pod by service, as it was last seen."""
        self.node = ""
        """Where the drill runs; empty where that is no pod beside its pods."""
        self.prefix = ""
        """The folder of the claim that is the scratch folder; empty: its root."""
        self.notes: list[str] = []
        self.checks: list[Check] = []

    @property
    def api_port(self) -> int:
        """Of the Kubernetes API: closed to the drill."""
        return _host_and_port(self.api.server)[1]

    def look(self, unconfined: bool) -> None:
        """Everything that can be missing."""
        self._permissions()
        self._claim()
        for name, service in self.services.items():
            self._workload(name, service)
        self._isolation(unconfined)
        self._own_pod()

    def container(self, name: str) -> Document:
        """That of production's template which is the service."""
        wanted = self.services[name].container
        return dict(podtemplate.container_of(self.workloads[name], wanted, name))

    def filled(self, name: str, places: dict[str, str]) -> dict[str, str]:
        """The environment of a service, with the places of the sources."""
        known = {**places, **self._known(name)}
        where = f"drill.services.{name}"
        given = self.services[name].environment
        return {key: fill(value, known, where) for key, value in given.items()}

    def pod(self, name: str, pod: str, places: dict[str, str], sub_path: str) -> dict[str, Any]:
        """A service's pod of that name, on the copies in a folder of the claim."""
        around = podtemplate.Surroundings(
            labels=pod_labels(self.section),
            claim=self.section.claim,
            mount=self.section.mount,
            sub_path=sub_path,
            user=os.getuid(),
            group=os.getgid(),
            node=self.node,
            seconds=int(self.drill.timeout),
            pull_secrets=self.section.pull_secrets,
        )
        environment = self.filled(name, places)
        workload, container = self.workloads[name], self.container(name)
        return podtemplate.copied(workload, container, pod, environment, around)

    def health(self, name: str, contains: str) -> HealthConfig:
        """How a service is asked, when its address is known."""
        from pydantic import ValidationError

        from safetake.config import HealthConfig

        where = f"drill.services.{name}"
        url = fill(self.services[name].health, self._known(name, own=True), where)
        try:
            return HealthConfig(url=url, contains=contains)
        except ValidationError as error:
            raise UsageError(f"{where}.health: {error.errors()[0]['msg']}") from None

    def close(self) -> None:
        """Drop the connections."""
        self.api.close()
        self._source.close()

    def _permissions(self) -> None:
        missing = []
        for api in (self._source, self.api):
            for needed in sorted(drill_permissions(self.drill)[api.namespace]):
                if not api.allowed(needed.attributes()):
                    missing.append(f"{needed} in the namespace {api.namespace}")
        if missing:
            raise ServiceError(
                "a drill's pods need what is not allowed: " + "; ".join(missing),
                hint="is the namespace there? `safetake services rbac` prints the permissions: "
                "kubectl apply them",
            )

    def _claim(self) -> None:
        try:
            claim = self.api.claim(self.section.claim)
        except Missing:
            raise ServiceError(
                f"there is no PersistentVolumeClaim {self.section.claim} in the namespace "
                f"{self.api.namespace}",
                hint="[drill.kubernetes] claim names the one on which [drill] scratch lies",
            ) from None
        phase = (claim.get("status") or {}).get("phase")
        if phase != "Bound":
            raise ServiceError(
                f"the claim {self.section.claim} is {phase or 'without a volume'}: "
                "[drill] scratch can not lie on it",
                hint="mount it where the drill runs",
            )
        if "ReadWriteOncePod" in (claim["spec"].get("accessModes") or []):
            raise ServiceError(
                f"the claim {self.section.claim} is ReadWriteOncePod: no second pod can mount it",
                hint="ReadWriteOnce on one node, or ReadWriteMany",
            )

    def _workload(self, name: str, service: DrillServiceConfig) -> None:
        assert service.kubernetes is not None
        where = f"drill.services.{name}"
        kind, _, of = service.kubernetes.partition("/")
        workload = self._source.get(kind, of)
        podtemplate.container_of(workload, service.container, f"{where}: {service.kubernetes}")
        self.workloads[name] = workload
        # what is filled in later must be known now: the copies take their time
        self.filled(name, dict.fromkeys(self._kinds, ""))
        self.hosts[name] = "127.0.0.1"
        if service.health:
            self.health(name, "")

    def _isolation(self, unconfined: bool) -> None:
        open_now = open_ways(self.api.network_policies(), pod_labels(self.section), self.address)
        if open_now and not unconfined:
            raise RefusedError(
                f"pods in {self.api.namespace} could reach production: " + "; ".join(open_now),
                hint="`safetake kubernetes` renders a NetworkPolicy for them; or --unconfined, "
                "where production is out of reach by other means",
            )
        kept = "a NetworkPolicy forbids the rest, where the cluster's network plugin enforces it"
        self.checks.append(
            Check(
                name=ISOLATED,
                ok=True,
                expected="a NetworkPolicy that lets them reach nothing but the drill",
                found="not enforced here: " + "; ".join(open_now) if open_now else kept,
            )
        )

    def _own_pod(self) -> None:
        """When we are a pod beside them: where the claim is mounted, and on which node."""
        with contextlib.suppress(Missing):
            mine = self.api.pod(socket.gethostname())
            if (mine.get("status") or {}).get("podIP") == self.address:
                self.node = str(mine["spec"].get("nodeName") or "")
                self.prefix = podstatus.place(mine, self.section.claim, self.scratch)
                self.checks.append(
                    Check(
                        name=SAME_VOLUME,
                        ok=True,
                        expected=f"claim {self.section.claim}",
                        found=f"claim {self.section.claim}, in this pod at {self.scratch}",
                    )
                )
                return
        self.notes.append(
            f"not checked: that {self.scratch} is the volume of the claim {self.section.claim}, "
            f"since this is no pod of {self.api.namespace}"
        )

    def _known(self, name: str, *, own: bool = False) -> dict[str, str]:
        """What placeholders stand for, but the sources: its port, and addresses of those before."""
        port = podtemplate.port_of(self.container(name))
        found = {} if port is None else {"port": str(port)}
        for other, host in self.hosts.items():
            if other != name:
                found[f"host:{other}"] = bracketed(host)
            elif own:
                found["host"] = bracketed(host)
        return found


def chosen(config: Config, kinds: Collection[str]) -> dict[str, DrillServiceConfig]:
    """The services that run as pods on these sources."""
    return {
        name: service
        for name, service in config.drill.services.items()
        if service.kubernetes is not None and set(service.uses) <= set(kinds)
    }


def _own_address(server: str) -> str:
    """The address with which we reach the API: in a pod its own, and others reach us there."""
    host, port = _host_and_port(server)
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)  # nothing is sent
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ServiceError(f"no way to the Kubernetes API at {host}: {error.strerror}") from error


def _host_and_port(server: str) -> tuple[str, int]:
    parts = urlsplit(server)
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)


def bracketed(address: str) -> str:
    """An address as URLs have it."""
    return f"[{address}]" if ":" in address else address
