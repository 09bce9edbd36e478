"""The applications that use the stores: how they are stopped, started, switched and asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from safetake.services.base import Service, State

if TYPE_CHECKING:
    from safetake.config import Config, ServiceConfig

__all__ = ["Service", "State", "build", "build_all", "users"]


def build(name: str, config: ServiceConfig, hidden: Iterable[str] = ()) -> Service:
    """The service that a section describes. Touches nothing.

    `hidden` are names of environment variables that its commands do not get, beside ours.
    """
    if config.kubernetes is not None:
        from safetake.services.kubernetes import KubernetesService

        return KubernetesService(name, config)
    from safetake.services.process import Runner, hidden_names

    runner = Runner(name, hidden_names(hidden))
    if config.systemd is not None:
        from safetake.services.systemd import SystemdService

        return SystemdService(name, config, runner)
    if config.compose is not None:
        from safetake.services.compose import ComposeService

        return ComposeService(name, config, runner)
    from safetake.services.commands import CommandService

    return CommandService(name, config, runner)


def build_all(config: Config) -> dict[str, Service]:
    """Every service of the configuration; their commands get no password of the repository's."""
    name = config.repository.password_env
    hidden = [name] if name else []
    return {name: build(name, section, hidden) for name, section in config.services.items()}


def users(config: Config, source: str) -> list[str]:
    """Names of the services that use a source."""
    return [
        name
        for name, service in config.services.items()
        if not service.uses or source in service.uses
    ]
