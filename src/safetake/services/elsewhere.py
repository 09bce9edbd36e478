"""Whether a service's setting names another file than the configuration of its source does.

That is so after a `restore --beside` until `path` is set: backups go on taking the file that nobody
uses any more.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.errors import ServiceError
from safetake.services.envfile import read_setting

if TYPE_CHECKING:
    from safetake.config import Config, SwitchConfig

UNUSED = "not what its service uses"
"""How a note of a backup about it begins."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One source of one service."""

    service: str
    source: str
    used: Path
    """What the setting names: a file that is there."""
    configured: Path

    def __str__(self) -> str:
        return f"{self.service} uses {self.used}, and source {self.source!r} is {self.configured}"

    @property
    def hint(self) -> str:
        """What to do about it."""
        return f'set `path = "{self.used}"` in [sources.{self.source}]'


def elsewhere(config: Config, sources: Sequence[str], *, ask: bool = True) -> list[Elsewhere]:
    """For these sources. Without `ask` only files of settings are read: no command is run and no
    server is asked. A setting that can not be read, or says no place of this machine, is none.
    """
    found = []
    for service, section in config.services.items():
        for source, switch in section.switch.items():
            configured = getattr(config.sources.get(source), "path", None)
            if source not in sources or configured is None:
                continue
            if switch.env_file is None and not ask:
                continue
            try:
                used = _place(switch, _current(config, service, source, switch))
            except ServiceError:
                continue  # `services check` says it
            if used is not None and os.path.realpath(used) != os.path.realpath(configured):
                found.append(Elsewhere(service, source, used, configured))
    return found


def _current(config: Config, service: str, source: str, switch: SwitchConfig) -> str:
    if switch.env_file is not None:
        return read_setting(switch.env_file, switch.setting)
    from safetake.services import build_all

    return build_all(config)[service].current(source)


def _place(switch: SwitchConfig, value: str) -> Path | None:
    """The path in a value of the setting; None when it is made in another way."""
    before, _, after = switch.value.partition("{path}")
    if not value.startswith(before) or not value.endswith(after):
        return None
    path = Path(value[len(before) : len(value) - len(after)])
    return path if path.is_absolute() and path.exists() else None
