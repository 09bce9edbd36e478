"""What the configuration says of drills: `[drill]`, `[drill.services.NAME]`, `[drill.scenarios.…]`.

`{NAME}` in a command, a value or a URL stands for the place of source NAME in the drill (a path, or
the URL of a Redis server), `{port}` for the service's port there, `{port:OTHER}` for another's.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from safetake.configbase import FilePath, Section, Span
from safetake.configkube import DnsLabel, DnsName, PodFolder
from safetake.configscenario import ScenarioConfig

BUILT_IN = ("partial-loss", "total-loss")


class DrillServiceConfig(Section):
    """How a service is started on a drill's copies."""

    command: list[str] = Field(
        default=[], description="program and arguments; it stays running. Or `kubernetes`"
    )
    kubernetes: str | None = Field(
        default=None,
        pattern=r"^(deployment|statefulset)/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="`deployment/NAME` or `statefulset/NAME`, whose pod is made once more in the "
        "namespace of `[drill.kubernetes]`",
    )
    container: str | None = Field(
        default=None, description="with `kubernetes`: its container; needed where it has several"
    )
    environment: dict[str, str] = Field(default={}, description="variables that it gets")
    health: str = Field(
        default="", description="URL that answers 2xx when it is well, with `{port}`"
    )
    contains: str = Field(
        default="",
        description="text that the answer must contain; `{count:SOURCE}` or `{count:SOURCE/PART}` "
        "in it is the number of items that are there",
    )
    uses: list[str] = Field(default=[], description="names of its sources; empty: all")

    @model_validator(mode="after")
    def _started_one_way(self) -> DrillServiceConfig:
        if bool(self.command) == (self.kubernetes is not None):
            raise ValueError("exactly one of command and kubernetes is needed")
        if self.container is not None and self.kubernetes is None:
            raise ValueError("container goes with kubernetes")
        if self.contains and not self.health:
            raise ValueError("contains goes with health, whose answer it is looked for in")
        return self


class DrillKubernetesConfig(Section):
    """The namespace in which a drill starts pods on its copies."""

    namespace: DnsLabel = Field(description="where the pods are made: never production's")
    source_namespace: DnsLabel = Field(
        description="where the workloads of production are: they are only read"
    )
    context: str | None = Field(default=None, description="context of the kubeconfig")
    claim: DnsLabel = Field(
        default="drill-scratch",
        description="PersistentVolumeClaim in `namespace` on which `[drill] scratch` lies",
    )
    mount: PodFolder = Field(
        default="/drill", description="folder of the started pods where the copies are"
    )
    pull_secrets: list[DnsName] = Field(
        default=[], description="Secrets in `namespace` with which the images are pulled"
    )

    @model_validator(mode="after")
    def _apart(self) -> DrillKubernetesConfig:
        if self.namespace == self.source_namespace:
            raise ValueError(
                f"namespace and source_namespace are both {self.namespace!r}: a drill never "
                "starts anything beside production"
            )
        return self


class DrillConfig(Section):
    """Rehearsed disasters on isolated copies."""

    scratch: FilePath | None = Field(
        default=None, description="where copies are made; default $TMPDIR"
    )
    timeout: Span = Field(default=7200, gt=0, description="seconds until a drill is ended")
    start_timeout: Span = Field(
        default=120, gt=0, description="seconds until a service must be well"
    )
    priority: Literal["low", "normal"] = Field(
        default="low",
        description="of the drill's processes for processor and disk: `low` gives way to "
        "everything else, and measures an RTO that is rather too long",
    )
    kubernetes: DrillKubernetesConfig | None = Field(
        default=None, description="[drill.kubernetes]: where pods are started on the copies"
    )
    services: dict[str, DrillServiceConfig] = Field(
        default={}, description="how services are started on the copies"
    )
    scenarios: dict[str, ScenarioConfig] = Field(default={}, description="disasters of your own")

    @model_validator(mode="after")
    def _pods_have_a_place(self) -> DrillConfig:
        for name, service in self.services.items():
            if service.kubernetes is not None and self.kubernetes is None:
                raise ValueError(f"services.{name}.kubernetes needs [drill.kubernetes]")
        if self.kubernetes is not None and self.scratch is None:
            raise ValueError("kubernetes needs scratch: the folder where its claim is mounted")
        return self
