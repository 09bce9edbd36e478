"""The Kubernetes API through lightkube: one namespace, one workload, plain dictionaries.

Credentials are those of the pod that we run in, else of a kubeconfig. Every failure is a
`ServiceError` that says what was asked and what is missing; `Unreachable` is one that may pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from safetake.errors import ServiceError
from safetake.services.process import excerpt

Document = dict[str, Any]
T = TypeVar("T")

EXTRA = "pip install 'safetake[kubernetes]'"
RBAC = "`safetake services rbac` prints the permissions that are needed: kubectl apply them"


class Unreachable(ServiceError):
    """The API did not answer, or said that it can not now."""


class Missing(ServiceError):
    """There is no such object, or no such namespace."""


class Conflict(ServiceError):
    """The object changed between a look and a patch, or a `test` of the patch did not hold."""


class Api:
    """One connection. Raises ServiceError at the first use when there are no credentials."""

    def __init__(self, namespace: str | None, context: str | None = None) -> None:
        try:
            import msgspec
            import yaml
            from lightkube import Client, KubeConfig
            from lightkube.core.exceptions import ConfigError
        except ImportError:
            raise ServiceError("lightkube is not installed", hint=EXTRA) from None
        hint = "run in the cluster, or set KUBECONFIG; `context` names one of its contexts"
        try:
            config = KubeConfig.from_env().get(context)
            assert config is not None
            self.namespace = namespace or config.namespace
            self.server = str(config.cluster.server)
            self._client = Client(config=config, namespace=self.namespace)
        except ConfigError as error:
            raise ServiceError(f"no credentials for Kubernetes: {error}", hint=hint) from None
        except (
            # what lightkube and its parsers raise for a kubeconfig that is none
            AssertionError,
            AttributeError,
            LookupError,
            OSError,
            TypeError,
            ValueError,
            msgspec.MsgspecError,
            yaml.YAMLError,
        ) as error:
            raise ServiceError(
                f"the credentials for Kubernetes can not be used ({type(error).__name__})",
                hint=hint,
            ) from None

    def get(self, kind: str, name: str) -> Document:
        """One `deployment` or `statefulset`."""
        resource = _workload(kind)
        return self._call(f"get {kind}/{name}", lambda: self._client.get(resource, name).to_dict())

    def scale(self, kind: str, name: str, replicas: int) -> None:
        """Through the scale subresource: a right to patch it is no right to change what runs."""
        from lightkube.types import PatchType

        resource = _workload(kind).Scale
        body = {"spec": {"replicas": replicas}}
        self._call(
            f"patch {kind}s/scale {name}",
            lambda: self._client.patch(resource, name, body, patch_type=PatchType.MERGE),
        )

    def patch(self, kind: str, name: str, operations: Sequence[Document]) -> None:
        """A JSON patch, all or nothing. Raises Conflict when a `test` in it does not hold."""
        from lightkube.types import PatchType

        resource = _workload(kind)
        self._call(
            f"patch {kind}/{name}",
            lambda: self._client.patch(resource, name, list(operations), patch_type=PatchType.JSON),
        )

    def annotate(self, kind: str, name: str, annotations: Mapping[str, str]) -> None:
        """On the pods' template: a new value rolls all pods over."""
        from lightkube.types import PatchType

        resource = _workload(kind)
        body = {"spec": {"template": {"metadata": {"annotations": dict(annotations)}}}}
        self._call(
            f"patch {kind}/{name}",
            lambda: self._client.patch(resource, name, body, patch_type=PatchType.STRATEGIC),
        )

    def pods(self, selector: Mapping[str, Any]) -> list[Document]:
        """The pods that a workload's selector names, also those that are going away."""
        from lightkube.resources.core_v1 import Pod

        labels = _labels(selector)
        return self._call(
            "list pods",
            lambda: [pod.to_dict() for pod in self._client.list(Pod, labels=labels)],
        )

    def pod(self, name: str) -> Document:
        """One pod. Raises Missing."""
        from lightkube.resources.core_v1 import Pod

        return self._call(f"get pod {name}", lambda: self._client.get(Pod, name).to_dict())

    def create_pod(self, pod: Document) -> None:
        """A pod of our own, in the namespace of this connection."""
        from lightkube.resources.core_v1 import Pod

        made: Any = Pod.from_dict(pod)
        self._call("create pods", lambda: self._client.create(made))

    def delete_pod(self, name: str) -> None:
        """Begin its end; one that is gone already is none to delete."""
        from lightkube.resources.core_v1 import Pod

        with contextlib.suppress(Missing):
            self._call(f"delete pod {name}", lambda: self._client.delete(Pod, name))

    def claim(self, name: str) -> Document:
        """One PersistentVolumeClaim. Raises Missing."""
        from lightkube.resources.core_v1 import PersistentVolumeClaim

        return self._call(
            f"get persistentvolumeclaim {name}",
            lambda: self._client.get(PersistentVolumeClaim, name).to_dict(),
        )

    def network_policies(self) -> list[Document]:
        """All NetworkPolicies of the namespace."""
        from lightkube.resources.networking_v1 import NetworkPolicy

        return self._call(
            "list networkpolicies",
            lambda: [each.to_dict() for each in self._client.list(NetworkPolicy)],
        )

    def autoscalers(self) -> list[Document]:
        """All HorizontalPodAutoscalers of the namespace."""
        from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler

        return self._call(
            "list horizontalpodautoscalers",
            lambda: [each.to_dict() for each in self._client.list(HorizontalPodAutoscaler)],
        )

    def allowed(self, attributes: Mapping[str, str]) -> bool:
        """Whether we may do what these `resourceAttributes` of a SelfSubjectAccessReview say."""
        from lightkube.resources.authorization_v1 import SelfSubjectAccessReview

        spec = {"resourceAttributes": {"namespace": self.namespace, **attributes}}
        review: Any = SelfSubjectAccessReview.from_dict({"metadata": {}, "spec": spec})
        answer = self._call(
            "create selfsubjectaccessreviews", lambda: self._client.create(review).to_dict()
        )
        return bool(answer.get("status", {}).get("allowed"))

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()

    def _call(self, what: str, call: Callable[[], T]) -> T:
        import httpx2

        where = f"in the namespace {self.namespace}"
        try:
            return call()
        except httpx2.HTTPStatusError as error:
            code, said = error.response.status_code, _message(error.response)
            if code == 429 or code >= 500:
                raise Unreachable(f"Kubernetes can not {what} now ({code}: {said})") from None
            if code in (409, 422):
                raise Conflict(f"Kubernetes did not {what} {where} ({code}: {said})") from None
            hint = {401: "the credentials are not accepted", 403: RBAC}.get(code, "")
            if code == 404:
                hint = "see `kubernetes` and `namespace` of the service in the configuration"
                raise Missing(f"cannot {what} {where} ({code}: {said})", hint=hint) from None
            raise ServiceError(f"cannot {what} {where} ({code}: {said})", hint=hint) from None
        except httpx2.HTTPError as error:
            raise Unreachable(
                f"the Kubernetes API does not answer ({type(error).__name__})",
                hint="is the cluster up, and reachable from here?",
            ) from None


def _message(response: Any) -> str:
    """What a Status says; of anything else (a proxy's page) only that it is no Status."""
    try:
        document = response.json()
    except ValueError:
        return "no answer of a Kubernetes API"
    said = document.get("message") if isinstance(document, dict) else None
    return excerpt(str(said or "without a message"))


def _workload(kind: str) -> Any:
    from lightkube.resources.apps_v1 import Deployment, StatefulSet

    return {"deployment": Deployment, "statefulset": StatefulSet}[kind]


def _labels(selector: Mapping[str, Any]) -> dict[str, Any]:
    """lightkube's form of a LabelSelector. Raises ServiceError for an operator it has no form of.

    Several expressions about one label have none, either.
    """
    from lightkube import operators

    labels: dict[str, Any] = dict(selector.get("matchLabels") or {})
    forms: dict[str, Callable[[list[str]], Any]] = {
        "In": operators.in_,
        "NotIn": operators.not_in,
        "Exists": lambda values: operators.exists(),
        "DoesNotExist": lambda values: operators.not_exists(),
    }
    for expression in selector.get("matchExpressions") or []:
        form = forms.get(expression["operator"])
        if form is None or expression["key"] in labels:
            raise ServiceError("the workload's selector is not one that safetake can ask for")
        labels[expression["key"]] = form(list(expression.get("values") or []))
    return labels
