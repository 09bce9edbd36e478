"""`[services.NAME]`: the applications that use the stores, as the configuration describes them.

How each is stopped and started, how it says that it is well, and which of its settings names a
store. `safetake.services` does what is said here.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from safetake.configbase import FilePath, Section, Url


class HealthConfig(Section):
    """How a service says that it is well: it is asked until it is, or until the deadline."""

    url: Url | None = Field(default=None, description="answers 2xx when the service is well")
    command: list[str] = Field(
        default=[], description="instead of `url`: exits 0 when the service is well"
    )
    contains: str = Field(default="", description="text that the answer must contain")
    interval: float = Field(default=1.0, gt=0, description="seconds between two questions")
    successes: int = Field(default=2, ge=1, description="good answers in a row that are needed")
    answer_timeout: float = Field(default=5.0, gt=0, description="seconds to wait for one answer")
    timeout: float = Field(default=120.0, gt=0, description="seconds until the gate fails")

    @field_validator("url")
    @classmethod
    def _scheme(cls, url: str | None) -> str | None:
        if url is not None and (
            urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname
        ):
            raise ValueError("must begin with http:// or https:// and name a host")
        return url

    @model_validator(mode="after")
    def _one_question(self) -> HealthConfig:
        if (self.url is None) == (not self.command):
            raise ValueError("exactly one of url and command is needed")
        return self


class SwitchConfig(Section):
    """A setting of the service that says which database it uses."""

    setting: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="the name, such as `DATABASE_URL`"
    )
    value: str = Field(description="its value, with `{path}` where the new file's path goes")
    env_file: FilePath | None = Field(
        default=None, description="file of NAME=VALUE lines that the service reads at its start"
    )
    command: list[str] = Field(
        default=[], description="sets it: run with SETTING=VALUE in its environment"
    )
    read_command: list[str] = Field(default=[], description="prints the value of now")

    @model_validator(mode="after")
    def _one_way(self) -> SwitchConfig:
        if "{path}" not in self.value:
            raise ValueError("value needs {path} where the new file's path goes")
        if bool(self.command) != bool(self.read_command):
            raise ValueError("command and read_command belong together")
        if self.env_file is not None and self.command:
            raise ValueError("only one of env_file and command may be given")
        return self


class ServiceConfig(Section):
    """An application process that uses the data: how it is stopped, started and asked."""

    uses: list[str] = Field(default=[], description="names of its sources; empty: all")
    stop: list[str] = Field(default=[], description="command that stops it, run without a shell")
    start: list[str] = Field(
        default=[], description="command that starts it, and ends when that is done"
    )
    running: list[str] = Field(default=[], description="command that exits 0 while it runs")
    systemd: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9:_.@\\-]+$",
        description="unit, instead of commands",
    )
    compose: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="service of Docker Compose, instead of commands",
    )
    compose_file: FilePath | None = Field(default=None, description="with `compose`: its file")
    kubernetes: str | None = Field(
        default=None,
        pattern=r"^(deployment|statefulset)/[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="`deployment/NAME` or `statefulset/NAME`, instead of commands",
    )
    namespace: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        description="with `kubernetes`: its namespace; default that of the credentials",
    )
    container: str | None = Field(
        default=None,
        description="with `kubernetes`: switch the setting in this container only",
    )
    context: str | None = Field(
        default=None, description="with `kubernetes`: context of the kubeconfig"
    )
    stop_timeout: float = Field(default=60.0, gt=0, description="seconds until it must be stopped")
    start_timeout: float = Field(default=120.0, gt=0, description="seconds until it must run")
    health: HealthConfig | None = Field(
        default=None, description="the health gate: a table, or its `url` alone"
    )
    switch: dict[str, SwitchConfig] = Field(
        default={}, description="by source: the setting that names its place"
    )

    @field_validator("health", mode="before")
    @classmethod
    def _url_alone(cls, health: Any) -> Any:
        return {"url": health} if isinstance(health, str) else health

    @field_validator("stop", "start", "running")
    @classmethod
    def _words(cls, command: list[str]) -> list[str]:
        if command and not command[0].strip():
            raise ValueError("begins with an empty word; it is a list: program, then arguments")
        return command

    @model_validator(mode="after")
    def _one_way(self) -> ServiceConfig:
        ways = [w for w in ("systemd", "compose", "kubernetes") if getattr(self, w) is not None]
        if self.stop or self.start:
            ways.append("stop and start")
        if len(ways) > 1:
            raise ValueError("only one of " + ", ".join(ways) + " may be given")
        if bool(self.stop) != bool(self.start):
            raise ValueError("stop and start belong together")
        if self.running and not self.stop:
            raise ValueError("running goes with stop and start")
        if self.compose_file is not None and self.compose is None:
            raise ValueError("compose_file goes with compose")
        for key in ("namespace", "container", "context"):
            if getattr(self, key) is not None and self.kubernetes is None:
                raise ValueError(f"{key} goes with kubernetes")
        for source, switch in self.switch.items():
            if self.kubernetes is not None:
                if switch.env_file is not None or switch.command:
                    raise ValueError(
                        f"switch.{source}: with kubernetes the container's environment is "
                        "changed; env_file and command do not go with it"
                    )
            elif switch.env_file is None and not switch.command:
                raise ValueError(
                    f"switch.{source}: one of env_file, or command and read_command, is needed"
                )
        return self
