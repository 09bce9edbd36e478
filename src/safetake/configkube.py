"""What the configuration says of running on Kubernetes: `[kubernetes]`.

Places here are places in the pod. What can be judged by itself is judged here (names, quantities,
labels); what needs the rest of the configuration is judged when manifests are rendered.
"""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from safetake.configbase import Section

_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
DnsLabel = Annotated[str, Field(pattern=rf"^{_LABEL}$", max_length=63)]
DnsName = Annotated[str, Field(pattern=rf"^{_LABEL}(\.{_LABEL})*$", max_length=253)]

_QUANTITY = re.compile(r"(?P<number>[0-9]+(\.[0-9]{1,9})?)(?P<unit>m|k|[MGTPE]i?|Ki)?")
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", start=1)
}


def quantity(text: str) -> float:
    """The number that Kubernetes reads `500m`, `1.5` or `2Gi` as. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None or float(match["number"]) == 0 or len(text) > 20:
        raise ValueError(f"{text[:40]!r} is no quantity: write 500m, 2, 512Mi or 10Gi")
    return float(match["number"]) * _UNITS[match["unit"] or ""]


def _quantity(text: str) -> str:
    quantity(text)
    return text


def _bytes(text: str) -> str:
    if quantity(text) < 1 or text.endswith("m"):
        raise ValueError(f"{text!r} is no size: write 512Mi or 10Gi")
    return text


_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(rf"{_LABEL}(\.{_LABEL})*")
OURS = ("app.kubernetes.io/", "helm.sh/")


def _key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    good = _LABEL_NAME.fullmatch(name) is not None
    if slash:
        good = good and len(prefix) <= 253 and _PREFIX.fullmatch(prefix) is not None
    if not good:
        raise ValueError(f"{key[:80]!r} is no key of a label or an annotation")


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        _key(key)
        if value and _LABEL_NAME.fullmatch(value) is None:
            raise ValueError(
                f"{key}: {value[:80]!r} is no label's value: at most 63 letters, digits, '.', "
                "'_' and '-', beginning and ending with a letter or digit"
            )
    return labels


def _more_labels(labels: dict[str, str]) -> dict[str, str]:
    for key in labels:
        if key.startswith(OURS):
            raise ValueError(f"{key} is set by safetake")
    return _labels(labels)


def _annotations(annotations: dict[str, str]) -> dict[str, str]:
    for key in annotations:
        _key(key)
    return annotations


_SYSTEM = ("bin", "boot", "dev", "lib", "lib64", "opt", "proc", "root", "sbin", "sys", "usr")
_TOP = ("/", "/etc", "/home", "/run", "/srv", "/tmp", "/var", "/var/lib", "/var/run")


def pod_folder(path: str) -> str:
    """A folder of the pod on which something may be mounted without hiding what runs there.

    Raises ValueError.
    """
    plain = path.isprintable() and posixpath.normpath(path) == path and ":" not in path
    if not plain or not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{path[:80]!r} is no plain absolute path of a folder in the pod")
    if path in _TOP or path.split("/")[1] in _SYSTEM or path.startswith(("/tmp/", "/var/run/")):
        raise ValueError(f"nothing can be mounted on {path[:80]}: the system's files are there")
    return path


def _sub_path(path: str) -> str:
    plain = path.isprintable() and posixpath.normpath(path) == path
    if not plain or path.startswith(("/", "..")) or path == ".":
        raise ValueError(f"{path[:80]!r} is no plain path inside the volume")
    return path


def _cidr(text: str) -> str:
    from ipaddress import ip_network

    try:
        ip_network(text)
    except ValueError:
        raise ValueError(f"{text[:60]!r} is no block of addresses: 10.0.0.0/8") from None
    if "/" not in text:
        raise ValueError(f"{text[:60]!r} has no prefix length: 10.1.2.3/32")
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]
Size = Annotated[str, AfterValidator(_bytes)]
Labels = Annotated[dict[str, str], AfterValidator(_labels)]
MoreLabels = Annotated[dict[str, str], AfterValidator(_more_labels)]
Annotations = Annotated[dict[str, str], AfterValidator(_annotations)]
PodFolder = Annotated[str, AfterValidator(pod_folder)]
SubPath = Annotated[str, AfterValidator(_sub_path)]
Cidr = Annotated[str, AfterValidator(_cidr)]
Port = Annotated[int, Field(ge=1, le=65535)]
SecretKey = Annotated[
    str, Field(pattern=rf"^{_LABEL}(\.{_LABEL})*/[-._a-zA-Z0-9]+$", max_length=507)
]


class VolumeConfig(Section):
    """A PersistentVolumeClaim that the pods mount."""

    claim: DnsName = Field(description="name of the PersistentVolumeClaim")
    mount: PodFolder = Field(description="folder of the pod where it is mounted")
    sub_path: SubPath | None = Field(default=None, description="only this folder of the volume")
    read_only: bool = Field(
        default=False, description="for folders of files only: SQLite's locks must be written"
    )
    used_by: Labels = Field(
        default={},
        description="labels of the pods that use the volume: safetake's run on the same node",
    )
    size: Size | None = Field(
        default=None, description="make the claim, with this size; without it, it exists already"
    )
    storage_class: DnsName | None = Field(default=None, description="with `size`: its class")
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = Field(
        default="ReadWriteOnce", description="with `size`: `ReadWriteOnce` or `ReadWriteMany`"
    )

    @model_validator(mode="after")
    def _made(self) -> VolumeConfig:
        if self.size is None and self.storage_class is not None:
            raise ValueError("storage_class goes with size")
        return self


class PeerConfig(Section):
    """Who answers at a host name of the configuration, for the NetworkPolicy."""

    labels: Labels = Field(default={}, description="labels of its pods; none: any pod")
    namespace: DnsLabel | None = Field(
        default=None, description="its namespace, where the host's name does not say it"
    )
    cidr: list[Cidr] = Field(
        default=[], description="its addresses instead, when it is outside of the cluster"
    )
    ports: list[Port] = Field(
        default=[], description="ports of its pods, where a Service gives them other numbers"
    )

    @model_validator(mode="after")
    def _one_way(self) -> PeerConfig:
        if self.cidr and (self.labels or self.namespace is not None):
            raise ValueError("cidr is instead of labels and namespace")
        return self


class TolerationConfig(Section):
    """A taint of nodes that the pods bear."""

    key: str | None = Field(default=None, description="key of the taint; without it: all")
    value: str | None = Field(default=None, description="its value; without it: any")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="`NoSchedule`, `PreferNoSchedule` or `NoExecute`; without it: all"
    )

    @model_validator(mode="after")
    def _fits(self) -> TolerationConfig:
        if self.key is None and self.value is not None:
            raise ValueError("value goes with key")
        if self.key is not None:
            _labels({self.key: self.value or ""})
        return self


class KubernetesConfig(Section):
    """What `safetake kubernetes` renders."""

    name: Annotated[DnsLabel, Field(max_length=30)] = Field(
        default="safetake", description="what the names of all objects begin with"
    )
    namespace: DnsLabel = Field(
        default="default", description="namespace of everything that is rendered"
    )
    image: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][A-Za-z0-9._:/-]*(@sha256:[0-9a-f]{64})?$",
        max_length=500,
        description="image with its digest: `registry/safetake:0.1.0@sha256:…`",
    )
    pull_secrets: list[DnsName] = Field(
        default=[], description="Secrets with which the image is pulled"
    )
    user: int = Field(
        default=10001,
        ge=1,
        le=2**31 - 1,
        description="uid of the process: that of the application whose database it reads",
    )
    group: int = Field(default=10001, ge=1, le=2**31 - 1, description="gid of the process")
    fs_group: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="group of the volumes' files: that of the application's pods; "
        "without it `group`",
    )
    secret: DnsName = Field(
        default="safetake", description="existing Secret with all that the configuration keeps out"
    )
    secrets: dict[str, SecretKey] = Field(
        default={},
        description="variable or file to `SECRET/KEY`, where it is another; without it the key is "
        "the variable's name or the file's",
    )
    volumes: dict[str, VolumeConfig] = Field(default={}, description="[kubernetes.volumes.NAME]")
    same_node: Literal["required", "preferred"] = Field(
        default="required",
        description="`required`: no pod of safetake starts while no pod of `used_by` runs",
    )
    requests: dict[Literal["cpu", "memory"], Quantity] = Field(
        default={"cpu": "100m", "memory": "256Mi"}, description="of each pod: `cpu` and `memory`"
    )
    limits: dict[Literal["cpu", "memory"], Quantity] = Field(
        default={"cpu": "2", "memory": "1Gi"}, description="of each pod: `cpu` and `memory`"
    )
    scratch: Size = Field(
        default="10Gi", description="room in /tmp, where proofs open the largest source"
    )
    history_successful: int = Field(default=3, ge=0, description="ended runs of a job that stay")
    history_failed: int = Field(default=1, ge=0, description="failed runs of a job that stay")
    labels: MoreLabels = Field(default={}, description="more labels of every object")
    pod_annotations: Annotations = Field(default={}, description="annotations of the pods")
    account_annotations: Annotations = Field(
        default={}, description="annotations of the ServiceAccount (a cloud's role)"
    )
    node_selector: Labels = Field(default={}, description="labels of the nodes that may run it")
    tolerations: list[TolerationConfig] = Field(
        default=[], description="taints that it bears: `key`, `value`, `effect`"
    )
    priority_class: DnsName | None = Field(default=None, description="PriorityClass of the pods")
    network_policy: bool = Field(default=True, description="render a NetworkPolicy")
    dns_namespace: DnsLabel = Field(
        default="kube-system", description="namespace of the cluster's DNS"
    )
    metrics_from: Labels = Field(
        default={}, description="labels of the namespaces that may read /metrics; none: all"
    )
    peers: dict[str, PeerConfig] = Field(
        default={}, description="host of the configuration to who answers there"
    )
    redis_restores: bool = Field(
        default=False,
        description="let the Redis servers connect to the pods: restores under clients need it",
    )
    monitoring: bool = Field(
        default=False, description="render PodMonitor and PrometheusRule (Prometheus Operator)"
    )
    monitoring_labels: MoreLabels = Field(
        default={}, description="labels by which Prometheus selects them"
    )

    @model_validator(mode="after")
    def _agree(self) -> KubernetesConfig:
        for what, needed in (("requests", self.requests), ("limits", self.limits)):
            if len(needed) != 2:
                raise ValueError(f"{what}: needs cpu and memory")
            _bytes(needed["memory"])
            if not (quantity(needed["cpu"]) * 1000).is_integer():
                raise ValueError(f"{what}.cpu: is finer than 1m")
        for key, least in self.requests.items():
            if quantity(least) > quantity(self.limits[key]):
                raise ValueError(f"requests.{key} is above limits.{key}")
        made = {(v.claim, v.size, v.storage_class, v.access_mode) for v in self.volumes.values()}
        sized = [claim for claim, size, *_ in made if size is not None]
        for claim in sized:
            if sized.count(claim) > 1:
                raise ValueError(f"the claim {claim} is made twice, and not alike")
        mounts: dict[str, str] = {}
        for name, volume in self.volumes.items():
            other = mounts.setdefault(volume.mount, name)
            if other != name:
                raise ValueError(f"volumes {other!r} and {name!r} have one mount {volume.mount}")
        return self
