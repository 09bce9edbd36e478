"""A service that is a Deployment or a StatefulSet: scaled to nothing and back, its environment
changed.

A HorizontalPodAutoscaler leaves a workload with 0 replicas alone (Kubernetes, "Horizontal Pod
Autoscaling", implicit maintenance-mode deactivation); KEDA does not, and is refused. Whoever else
scales it up while it should be stopped (a GitOps controller) is noticed and told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.errors import ServiceError
from safetake.services import rollout
from safetake.services.api import Api, Conflict, Document, Unreachable
from safetake.services.base import State, wait_until, was_running

if TYPE_CHECKING:
    from safetake.config import ServiceConfig, SwitchConfig

RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""The annotation of `kubectl rollout restart`."""

TRIES = 5


class KubernetesService:
    """One workload."""

    can_stop = True

    def __init__(self, name: str, config: ServiceConfig, poll: float = 1.0) -> None:
        assert config.kubernetes is not None
        self.name = name
        self._config = config
        self._kind, self._object = config.kubernetes.split("/", 1)
        self._poll = poll
        self._connection: Api | None = None

    def describe(self) -> str:
        """The workload and where it is."""
        where = f" in {self._config.namespace}" if self._config.namespace else ""
        return f"{self._config.kubernetes}{where}"

    def state(self) -> State:
        """How many pods are wanted."""
        wanted = rollout.replicas(self._get())
        return {"running": wanted > 0, "replicas": wanted}

    def stop(self, state: State) -> None:
        """Scale to 0 and wait until the last pod is gone."""
        if not was_running(state):
            return
        self._no_keda()
        self._scale(0, self._config.stop_timeout)
        pods: list[str] = []

        def gone() -> bool:
            now = self._get()
            if rollout.replicas(now) > 0:
                raise ServiceError(
                    f"{self.describe()} was scaled to 0, and somebody scaled it to "
                    f"{rollout.replicas(now)} again",
                    hint="pause what manages it (Argo CD, Flux, an operator) during the restore",
                )
            pods[:] = rollout.alive(self._pods(now))
            return not pods and rollout.emptied(now)

        wait_until(
            self._patiently(gone),
            self._config.stop_timeout,
            lambda: ServiceError(
                f"{self.describe()} still has pods {self._config.stop_timeout:g} s after its stop: "
                + (", ".join(pods[:5]) or "its controller does not act"),
                hint="stop_timeout must be longer than their terminationGracePeriodSeconds",
            ),
            self._poll,
        )

    def start(self, state: State) -> None:
        """Scale back, and wait until the rollout is done."""
        if not was_running(state):
            return
        before = self._scale(int(state.get("replicas") or 1), self._config.start_timeout)
        self._wait_rolled_out(before)

    def restart(self) -> None:
        """As `kubectl rollout restart`, where a switch gives the right to patch; else stop, start.

        Pods are replaced one after the other only in the first case.
        """
        state = self.state()
        if not was_running(state):
            return
        if not self._config.switch:
            self.stop(state)
            self.start(state)
            return
        before = rollout.exceeded(self._get())
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._api.annotate(self._kind, self._object, {RESTARTED: stamp})
        self._wait_rolled_out(before)

    # ------------------------------------------------------------------------ settings

    def value(self, source: str, path: Path) -> str:
        """What the setting of a source has to be for its new file."""
        return self._switch(source).value.replace("{path}", str(path))

    def current(self, source: str) -> str:
        """The one value that the setting has in the pods' template."""
        found = list(self._places(self._get(), self._switch(source).setting))
        values = {entry["value"] for _, _, entry in found}
        if len(values) > 1:
            raise ServiceError(
                f"{self.describe()}: {len(found)} containers have {self._switch(source).setting}, "
                "with different values",
                hint=f"name one with services.{self.name}.container",
            )
        return str(values.pop())

    def switch(self, source: str, value: str) -> None:
        """Change the environment in the pods' template; with pods running, wait for new ones."""
        setting = self._switch(source).setting
        for attempt in range(TRIES):
            if self.current(source) == value:
                break
            now = self._get()
            if (now.get("spec") or {}).get("paused"):
                raise ServiceError(
                    f"{self.describe()} is paused: a change would not reach its pods",
                    hint=f"kubectl rollout resume {self._config.kubernetes}",
                )
            before = rollout.exceeded(now)
            operations: list[Document] = []
            for path, container, entry in self._places(now, setting):
                # not the resourceVersion: every pod's progress changes that
                here = path.rsplit("/env/", 1)[0]
                operations += [
                    {"op": "test", "path": f"{here}/name", "value": container},
                    {"op": "test", "path": path, "value": entry},
                    {"op": "replace", "path": f"{path}/value", "value": value},
                ]
            try:
                self._api.patch(self._kind, self._object, operations)
            except Conflict:
                if attempt == TRIES - 1:
                    raise
                time.sleep(self._poll)
                continue
            if rollout.replicas(now) > 0:
                self._wait_rolled_out(before)
        if self.current(source) != value:
            raise ServiceError(
                f"{self.describe()}: {setting} was set, and has another value again",
                hint="what manages it (Helm, Argo CD, an operator) has to be told the new value",
            )

    def problems(self) -> list[tuple[str, str]]:
        """Permissions that are missing; a workload or a setting that is not there."""
        from safetake.services.rbac import permissions

        found: list[tuple[str, str]] = []

        def tried(look: Any) -> None:
            try:
                look()
            except ServiceError as error:
                found.append((str(error), error.hint))

        def access() -> None:
            for needed in permissions(self._config):
                if not self._api.allowed(needed.attributes()):
                    found.append(
                        (
                            f"{self.describe()}: it is not allowed to {needed}",
                            "safetake services rbac",
                        )
                    )

        tried(access)
        if not found:
            tried(self.state)
            tried(self._no_keda)
            for source in self._config.switch:
                tried(lambda source=source: self.current(source))
        return found

    def _switch(self, source: str) -> SwitchConfig:
        try:
            return self._config.switch[source]
        except KeyError:
            raise ServiceError(
                f"{self.name}: nothing says how it is switched to another {source}",
                hint=f"add [services.{self.name}.switch.{source}] to the configuration",
            ) from None

    def _places(self, workload: Document, setting: str) -> Iterator[tuple[str, str, Document]]:
        """(JSON pointer of the entry, container, entry), also in init containers: they often run
        the migrations. Raises ServiceError for one that is not plain, or none."""
        spec = workload["spec"]["template"]["spec"]
        any_found = False
        for key in ("initContainers", "containers"):
            for i, container in enumerate(spec.get(key) or []):
                if self._config.container not in (None, container["name"]):
                    continue
                for k, entry in enumerate(container.get("env") or []):
                    if entry.get("name") != setting:
                        continue
                    if entry.get("valueFrom"):
                        raise ServiceError(
                            f"{self.describe()}: {setting} of {container['name']} comes from "
                            f"{next(iter(entry['valueFrom']))}, not from the template",
                            hint="safetake changes plain values only: others may use that object",
                        )
                    any_found = True
                    plain = {"name": setting, "value": entry.get("value") or ""}
                    path = f"/spec/template/spec/{key}/{i}/env/{k}"
                    yield path, container["name"], plain
        if not any_found:
            raise ServiceError(
                f"{self.describe()}: no container has {setting} in its own environment",
                hint="envFrom and the image's own values are not changed: "
                "give it as a plain entry of `env`",
            )

    # ------------------------------------------------------------------------ the API

    @property
    def _api(self) -> Api:
        if self._connection is None:
            self._connection = Api(self._config.namespace, self._config.context)
        return self._connection

    def _get(self) -> Document:
        return self._api.get(self._kind, self._object)

    def _pods(self, workload: Document) -> list[Document]:
        return self._api.pods(workload["spec"]["selector"])

    def _no_keda(self) -> None:
        kind = {"deployment": "Deployment", "statefulset": "StatefulSet"}[self._kind]
        for scaler in self._api.autoscalers():
            target = scaler["spec"]["scaleTargetRef"]
            if (target.get("kind"), target.get("name")) != (kind, self._object):
                continue
            labels = scaler["metadata"].get("labels") or {}
            if "keda" in labels.get("app.kubernetes.io/managed-by", ""):
                raise ServiceError(
                    f"{self.describe()} is scaled by KEDA, which would start it again",
                    hint="kubectl annotate its ScaledObject "
                    'autoscaling.keda.sh/paused="true" during the restore',
                )

    def _patiently(self, look: Any) -> Any:
        """The look; an API that does not answer now is asked again until the deadline."""

        def patient() -> bool:
            try:
                return bool(look())
            except Unreachable:
                return False

        return patient

    def _scale(self, replicas: int, timeout: float) -> str:
        """Asked for until the API takes it; the stamp of a rollout that had failed before."""
        before = ""

        def taken() -> bool:
            nonlocal before
            before = rollout.exceeded(self._get())
            self._api.scale(self._kind, self._object, replicas)
            return True

        wait_until(
            self._patiently(taken),
            timeout,
            lambda: ServiceError(
                f"{self.describe()} could not be scaled to {replicas}: the Kubernetes API gave no "
                f"answer for {timeout:g} s",
                hint=f"when it does: kubectl scale {self._config.kubernetes} --replicas={replicas}",
            ),
            self._poll,
        )
        return before

    def _wait_rolled_out(self, before: str) -> None:
        last = "the API to answer"

        def done() -> bool:
            nonlocal last
            now = self._get()
            gave_up = rollout.exceeded(now)
            if gave_up and gave_up != before and rollout.seen(now):
                raise self._not_ready(f"its rollout failed ({rollout.EXCEEDED})")
            last = rollout.waiting_for(now, self._kind)
            return not last

        wait_until(
            self._patiently(done),
            self._config.start_timeout,
            lambda: self._not_ready(f"not ready after {self._config.start_timeout:g} s: {last}"),
            self._poll,
        )

    def _not_ready(self, why: str) -> ServiceError:
        try:
            found = rollout.reasons(self._pods(self._get()))
        except ServiceError:
            found = []
        return ServiceError(
            f"{self.describe()}: {why}" + "".join(f"; {reason}" for reason in found[:5]),
            hint=f"kubectl describe {self._config.kubernetes}; kubectl logs "
            f"{self._config.kubernetes}",
        )
