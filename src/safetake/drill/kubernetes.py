"""The services of a drill as pods, driven from outside of its confinement.

Production is only read: the pod's template of each workload is taken, reduced (`podtemplate`), and
made once more in the drill's own namespace, on the claim that has the copies. Everything that can
be missing is looked for before a copy is made. What was made is removed whatever happens; what a
killed drill left is known by its label and removed by the next one, and ended by the cluster itself
when the drill's time is over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from safetake.drill import podstatus, podtemplate, scratchredis
from safetake.drill.isolation import open_ways, pod_labels
from safetake.drill.twin import Twin, fill
from safetake.errors import RefusedError, SafetakeError, ServiceError, UsageError
from safetake.evidence import Check
from safetake.services import rollout
from safetake.services.api import Api, Document, Missing, Unreachable
from safetake.services.base import wait_until
from safetake.services.health import ask
from safetake.services.rbac import drill_permissions

if TYPE_CHECKING:
    from safetake.config import Config, HealthConfig
    from safetake.configdrill import DrillServiceConfig

LOCK = ".safetake-drill.lock"
"""In the scratch folder, held by the drill that may have pods: all others are leftovers."""
POLL = 0.5
ENDING = 30.0
"""Seconds that a pod may take to go, beside those that it is given to end."""
_ANSWER = re.compile(r"\d{3}\b|without |redirects ")
"""Of what `services.health` tells, all that a server said."""
ISOLATED = "services could connect to nothing but the drill"
SAME_VOLUME = "services ran on the drill's own volume"


class _Unwell(ServiceError):
    """A service that ran, and was not well by itself."""


class Pods:
    """The pods of one drill. Every method but `end` raises SafetakeError."""

    def __init__(self, config: Config, kinds: Collection[str], poll: float = POLL) -> None:
        assert config.drill.kubernetes is not None
        assert config.drill.scratch is not None
        self._drill, self._section = config.drill, config.drill.kubernetes
        self._scratch: Path = config.drill.scratch
        self._services, self._kinds = chosen(config, kinds), list(kinds)
        self._poll = poll
        self._api = Api(self._section.namespace, self._section.context)
        self._source = Api(self._section.source_namespace, self._section.context)
        self.address = _own_address(self._api.server)
        self.password = scratchredis.new_password()
        self._workloads: dict[str, Document] = {}
        self._pods: dict[str, str] = {}
        """Name of the pod by service, from before it is made until it is gone."""
        self._hosts: dict[str, str] = {}
        self._places: dict[str, str] = {}
        self._node = ""
        self._prefix = ""
        self._sub_path = ""
        self.notes: list[str] = []
        self.checks: list[Check] = []

    @property
    def api_port(self) -> int:
        """Of the Kubernetes API: closed to the drill."""
        return _host_and_port(self._api.server)[1]

    # ------------------------------------------------------------------------ before

    def look(self, unconfined: bool) -> None:
        """Everything that can be missing; then what an earlier drill left is removed."""
        self._permissions()
        self._claim()
        for name, service in self._services.items():
            self._workload(name, service)
        self._isolation(unconfined)
        self._own_pod()
        self._sweep()

    def _permissions(self) -> None:
        missing = []
        for api in (self._source, self._api):
            for needed in sorted(drill_permissions(self._drill)[api.namespace]):
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
            claim = self._api.claim(self._section.claim)
        except Missing:
            raise ServiceError(
                f"there is no PersistentVolumeClaim {self._section.claim} in the namespace "
                f"{self._api.namespace}",
                hint="[drill.kubernetes] claim names the one on which [drill] scratch lies",
            ) from None
        phase = (claim.get("status") or {}).get("phase")
        if phase != "Bound":
            raise ServiceError(
                f"the claim {self._section.claim} is {phase or 'without a volume'}: "
                "[drill] scratch can not lie on it",
                hint="mount it where the drill runs",
            )
        if "ReadWriteOncePod" in (claim["spec"].get("accessModes") or []):
            raise ServiceError(
                f"the claim {self._section.claim} is ReadWriteOncePod: no second pod can mount it",
                hint="ReadWriteOnce on one node, or ReadWriteMany",
            )

    def _workload(self, name: str, service: DrillServiceConfig) -> None:
        assert service.kubernetes is not None
        where = f"drill.services.{name}"
        kind, _, of = service.kubernetes.partition("/")
        workload = self._source.get(kind, of)
        podtemplate.container_of(workload, service.container, f"{where}: {service.kubernetes}")
        self._workloads[name] = workload
        # what is filled in later must be known now: the copies take their time
        known = {**dict.fromkeys(self._kinds, ""), **self._known(name)}
        for value in service.environment.values():
            fill(value, known, where)
        self._hosts[name] = "127.0.0.1"
        if service.health:
            _health(fill(service.health, self._known(name, own=True), where), "", where)

    def _isolation(self, unconfined: bool) -> None:
        open_now = open_ways(self._api.network_policies(), pod_labels(self._section), self.address)
        if open_now and not unconfined:
            raise RefusedError(
                f"pods in {self._api.namespace} could reach production: " + "; ".join(open_now),
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
            mine = self._api.pod(socket.gethostname())
            if (mine.get("status") or {}).get("podIP") == self.address:
                self._node = str(mine["spec"].get("nodeName") or "")
                self._prefix = podstatus.place(mine, self._section.claim, self._scratch)
                self.checks.append(
                    Check(
                        name=SAME_VOLUME,
                        ok=True,
                        expected=f"claim {self._section.claim}",
                        found=f"claim {self._section.claim}, in this pod at {self._scratch}",
                    )
                )
                return
        self.notes.append(
            f"not checked: that {self._scratch} is the volume of the claim {self._section.claim}, "
            f"since this is no pod of {self._api.namespace}"
        )

    def _sweep(self) -> None:
        ours = pod_labels(self._section)
        found = [
            pod
            for pod in self._api.pods({"matchLabels": ours})
            if ours.items() <= (pod["metadata"].get("labels") or {}).items()  # never another's
        ]
        for pod in found:
            self._remove(pod["metadata"]["name"], podtemplate.grace_of(pod))
        if found:
            names = ", ".join(sorted(pod["metadata"]["name"] for pod in found))
            self.notes.append(f"pods that an earlier drill left were removed: {names}")

    # ------------------------------------------------------------------------ the drill

    def see(self, twin: Twin, kinds: dict[str, str]) -> None:
        """Where the copies are, as the pods see them."""
        parts = (self._prefix, str(twin.data.relative_to(self._scratch)))
        self._sub_path = "/".join(filter(None, parts))
        host = _bracketed(self.address)
        for name, place in twin.places.items():
            if kinds[name] == "redis":
                port = twin.store_ports[name]
                self._places[name] = f"redis://:{self.password}@{host}:{port}"
            else:
                inside = Path(place).relative_to(twin.data)
                self._places[name] = f"{self._section.mount}/{inside}"

    def answer(self, line: str) -> str:
        """Do what the drill asks for, one line of JSON; what came of it, as one."""
        asked = json.loads(line)
        verb, name, said = asked["verb"], asked["service"], ""
        try:
            if name not in self._services:
                raise ServiceError(f"{name} is no pod of this drill")
            if verb == "start":
                self.start(name)
            elif verb == "well":
                self.until_well(name, asked["contains"])
            elif verb == "complaint":
                said = self.complaint(name, asked["contains"])
            else:
                self.stop(name)
        except SafetakeError as error:
            return json.dumps({"problem": str(error)})
        return json.dumps({"said": said})

    def start(self, name: str) -> None:
        """Make the pod, and wait until it is ready."""
        self._make(name)
        self._until(name, podstatus.unready, "ready")

    def until_well(self, name: str, contains: str) -> None:
        """Ask its URL until it answers well."""
        self._until(name, lambda now: self._asked(name, now, contains), "well")

    def complaint(self, name: str, contains: str) -> str:
        """Make the pod and wait for any answer; why it is not a good one, empty when it is.

        A pod that never ran is no answer: that is raised.
        """
        said = ""

        def silent(now: Document) -> str:
            nonlocal said
            said = self._asked(name, now, contains)
            return said if said and not _ANSWER.match(said) else ""

        self._make(name)
        try:
            self._until(name, silent, "heard")
        except _Unwell as error:
            return str(error)
        return said

    def stop(self, name: str) -> None:
        """Remove the pod and wait until it is gone: until then it has files open."""
        if name not in self._pods:
            return
        grace = podtemplate.grace_of(self._workloads[name]["spec"]["template"])
        self._remove(self._pods[name], grace)
        del self._pods[name]

    def end(self) -> list[str]:
        """Remove whatever is there; what could not be removed, in words."""
        problems = []
        for name, pod in list(self._pods.items()):
            try:
                self.stop(name)
            except SafetakeError as error:
                problems.append(f"the pod {pod} of the drill may still be there: {error}")
        return problems

    def close(self) -> None:
        """Drop the connections."""
        self._api.close()
        self._source.close()

    # ------------------------------------------------------------------------ the machinery

    def _until(self, name: str, complaint: Callable[[Document], str], what: str) -> None:
        pod, last = self._pods[name], "nothing is known of it"
        seen: Document = {}

        def done() -> bool:
            nonlocal last, seen
            try:
                seen = self._api.pod(pod)
            except Unreachable as error:
                last, seen = str(error), {}
                return False
            except Missing:
                raise ServiceError(f"{name}: somebody removed its pod {pod}") from None
            if (seen.get("status") or {}).get("phase") in rollout.ENDED:
                told = f"{name}: its pod ended: {podstatus.why(seen)}"
                raise (_Unwell if podstatus.ran(seen) else ServiceError)(told)
            last = complaint(seen)
            return not last

        def late() -> ServiceError:
            told = f"{name} is not {what} after {self._drill.start_timeout:.0f} s: {last}"
            if why := podstatus.why(seen):
                told += f"; {why}"
            if podstatus.ran(seen):
                return _Unwell(told)
            return ServiceError(f"{told} (kubectl -n {self._api.namespace} get events tells more)")

        wait_until(done, self._drill.start_timeout, late, self._poll)

    def _make(self, name: str) -> None:
        service, where = self._services[name], f"drill.services.{name}"
        assert service.kubernetes is not None
        known = {**self._places, **self._known(name)}
        filled = {key: fill(value, known, where) for key, value in service.environment.items()}
        workload = service.kubernetes.partition("/")[2][:40].rstrip(".-")
        pod = f"drill-{workload}-{secrets.token_hex(4)}"
        around = podtemplate.Surroundings(
            labels=pod_labels(self._section),
            claim=self._section.claim,
            mount=self._section.mount,
            sub_path=self._sub_path,
            user=os.getuid(),
            group=os.getgid(),
            node=self._node,
            seconds=int(self._drill.timeout),
            pull_secrets=self._section.pull_secrets,
        )
        document = podtemplate.copied(
            self._workloads[name], self._container(name), pod, filled, around
        )
        self._pods[name] = pod  # before it is made: what may be there is removed
        self._api.create_pod(document)
        self.notes.append(f"{name} ran as the pod {pod}, image {self._container(name)['image']}")

    def _asked(self, name: str, now: Document, contains: str) -> str:
        self._hosts[name] = str((now.get("status") or {}).get("podIP") or "")
        if not self._hosts[name]:
            return "it has no address yet"
        where = f"drill.services.{name}"
        url = fill(self._services[name].health, self._known(name, own=True), where)
        saw = ask(name, _health(url, contains, where))
        return "" if saw.ok else saw.text or "no answer"

    def _remove(self, pod: str, grace: float) -> None:
        def gone() -> bool:
            try:
                self._api.delete_pod(pod)
                self._api.pod(pod)
            except Missing:
                return True
            except Unreachable:
                pass
            return False

        seconds = grace + ENDING
        wait_until(
            gone,
            seconds,
            lambda: ServiceError(f"the pod {pod} is still there {seconds:.0f} s after its end"),
            self._poll,
        )

    def _container(self, name: str) -> Document:
        wanted = self._services[name].container
        return dict(podtemplate.container_of(self._workloads[name], wanted, name))

    def _known(self, name: str, *, own: bool = False) -> dict[str, str]:
        """What placeholders stand for, but the sources: its port, and addresses of those before."""
        port = podtemplate.port_of(self._container(name))
        found = {} if port is None else {"port": str(port)}
        for other, host in self._hosts.items():
            if other != name:
                found[f"host:{other}"] = _bracketed(host)
            elif own:
                found["host"] = _bracketed(host)
        return found


def chosen(config: Config, kinds: Collection[str]) -> dict[str, DrillServiceConfig]:
    """The services that run as pods on these sources."""
    return {
        name: service
        for name, service in config.drill.services.items()
        if service.kubernetes is not None and set(service.uses) <= set(kinds)
    }


@contextlib.contextmanager
def prepared(config: Config, kinds: Collection[str], unconfined: bool) -> Iterator[Pods | None]:
    """Everything that pods need, looked at; None where no service is one. Raises SafetakeError."""
    if not chosen(config, kinds):
        yield None
        return
    assert config.drill.scratch is not None
    with _alone(config.drill.scratch), contextlib.closing(Pods(config, kinds)) as pods:
        pods.look(unconfined)
        try:
            yield pods
        finally:
            pods.end()


@contextlib.contextmanager
def _alone(scratch: Path) -> Iterator[None]:
    try:
        file = (scratch / LOCK).open("ab")
    except OSError as error:
        raise SafetakeError(
            f"[drill] scratch {scratch} can not be used: {error.strerror}",
            hint="it is the folder where the claim of [drill.kubernetes] is mounted",
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"another drill with pods runs on {scratch}", hint="wait until it has ended"
            ) from None
        except OSError as error:
            raise SafetakeError(f"{scratch}: no locks ({error.strerror})") from error
        yield


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


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _health(url: str, contains: str, where: str) -> HealthConfig:
    from pydantic import ValidationError

    from safetake.config import HealthConfig

    try:
        return HealthConfig(url=url, contains=contains)
    except ValidationError as error:
        raise UsageError(f"{where}.health: {error.errors()[0]['msg']}") from None
