"""The services of a drill as pods, driven from outside of its confinement.

Production is only read: the pod's template of each workload is taken, reduced (`podtemplate`), and
made once more in the drill's own namespace, on the claim that has the copies (`podground` looks
whether all is there). What was made is removed whatever happens; what a killed drill left is known
by its label and removed by the next one, and ended by the cluster itself when its time is over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.drill import health, podstatus, podtemplate, scratchredis
from safetake.drill.isolation import pod_labels
from safetake.drill.podground import Ground, bracketed, chosen
from safetake.drill.twin import OVERLAY, Twin
from safetake.errors import RefusedError, SafetakeError, ServiceError
from safetake.scratch import of_others
from safetake.services import rollout
from safetake.services.api import Document, Missing, Unreachable
from safetake.services.base import wait_until
from safetake.services.health import ask

if TYPE_CHECKING:
    from safetake.config import Config

LOCK = ".safetake-drill.lock"
"""In the scratch folder, held by the drill that may have pods: all others are leftovers."""
POLL = 0.5
ENDING = 30.0
"""Seconds that a pod may take to go, beside those that it is given to end."""
_ANSWER = re.compile(r"\d{3}\b|without |redirects ")
"""Of what `services.health` tells, all that a server said."""


class _Unwell(ServiceError):
    """A service that ran, and was not well by itself."""


class Pods:
    """The pods of one drill. Every method but `end` raises SafetakeError."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._api = ground, ground.api
        self.password = scratchredis.new_password()
        self._pods: dict[str, str] = {}
        """Name of the pod by service, from before it is made until it is gone."""
        self._places: dict[str, str] = {}
        self._sub_path = ""
        self.address, self.api_port = ground.address, ground.api_port
        self.notes, self.checks = ground.notes, ground.checks

    def sweep(self) -> None:
        """Remove what an earlier drill left."""
        ours = pod_labels(self._ground.section)
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
        parts = (self._ground.prefix, str(twin.data.relative_to(self._ground.scratch)))
        self._sub_path = "/".join(filter(None, parts))
        host = bracketed(self.address)
        for name, place in twin.places.items():
            if kinds[name] == "redis":
                port = twin.store_ports[name]
                self._places[name] = f"redis://:{self.password}@{host}:{port}"
            else:
                inside = Path(place).relative_to(twin.data)
                self._places[name] = f"{self._ground.section.mount}/{inside}"

    def answer(self, line: str) -> str:
        """Do what the drill asks for, one line of JSON; what came of it, as one."""
        asked = json.loads(line)
        verb, name, said = asked["verb"], asked["service"], ""
        try:
            if name not in self._ground.services:
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

        def unready(now: Document) -> str:
            self._located(name, now)
            return podstatus.unready(now)

        self._make(name)
        self._until(name, unready, "ready")

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
        grace = podtemplate.grace_of(self._ground.workloads[name]["spec"]["template"])
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
            told = f"{name} is not {what} after {self._ground.drill.start_timeout:.0f} s: {last}"
            if why := podstatus.why(seen):
                told += f"; {why}"
            if podstatus.ran(seen):
                return _Unwell(told)
            return ServiceError(f"{told} (kubectl -n {self._api.namespace} get events tells more)")

        wait_until(done, self._ground.drill.start_timeout, late, POLL)

    def _make(self, name: str) -> None:
        workload = self._ground.workloads[name]["metadata"]["name"][:40].rstrip(".-")
        pod = f"drill-{workload}-{secrets.token_hex(4)}"
        document = self._ground.pod(name, pod, self._places, self._sub_path)
        self._pods[name] = pod  # before it is made: what may be there is removed
        self._api.create_pod(document)
        image = document["spec"]["containers"][0]["image"]
        self.notes.append(f"{name} ran as the pod {pod}, image {image}")

    def _asked(self, name: str, now: Document, contains: str) -> str:
        if not self._located(name, now):
            return "it has no address yet"
        saw = ask(name, self._ground.health(name, contains), health.holds)
        return "" if saw.ok else saw.text or "no answer"

    def _located(self, name: str, now: Document) -> str:
        """Its address, for those that are told it; empty while it has none."""
        found = self._ground.hosts[name] = str((now.get("status") or {}).get("podIP") or "")
        return found

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
            POLL,
        )


@contextlib.contextmanager
def prepared(config: Config, kinds: Collection[str], unconfined: bool) -> Iterator[Pods | None]:
    """Everything that pods need, looked at; None where no service is one. Raises SafetakeError.

    Copies that a killed drill left on the volume are removed.
    """
    scratch = config.drill.scratch
    if config.drill.kubernetes is None or scratch is None:
        yield None
        return
    with contextlib.ExitStack() as held:
        held.enter_context(_alone(scratch))
        pods = None
        if chosen(config, kinds):
            ground = held.enter_context(contextlib.closing(Ground(config, kinds)))
            ground.look(unconfined)
            pods = Pods(ground)
            pods.sweep()
        for folder in list(of_others(scratch)):  # each pod has a host name of its own
            if (folder / OVERLAY).is_dir():  # a drill's, and no other one runs here
                shutil.rmtree(folder, ignore_errors=True)
        try:
            yield pods
        finally:
            if pods is not None:
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
