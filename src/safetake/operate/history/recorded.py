"""A run that is remembered: `with recorded(config, "backup") as run`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history.record import Record
    from safetake.repository import Repository


@dataclass(slots=True)
class Run:
    """What is going on; filled while it does."""

    kind: str
    job: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    repository: Repository | None = None
    """Set it once it is open: the record goes there, too, without a second key derivation."""
    record: Record | None = None
    """What was remembered; set at the end, None when it could not be."""


@contextlib.contextmanager
def recorded(
    config: Config,
    kind: str,
    *,
    job: str = "",
    trigger: str | None = None,
    repository: Repository | None = None,
) -> Iterator[Run]:
    """Remember what happens in the block, also when it fails; the failure is raised again.

    `trigger` is `hand`, or what the environment variable SAFETAKE_TRIGGER says.
    """
    yield Run(kind, job, repository=repository)
