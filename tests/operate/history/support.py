"""A configuration and repositories for histories of several machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetake.config import Config
from safetake.operate.history import History, Record
from safetake.repository import Repository

SECOND = 10**9
START = 1_790_000_000 * SECOND


def machine(folder: Path, name: str = "one") -> Config:
    """A configuration whose state is a machine's own, and whose repository all share."""
    return Config.model_validate(
        {
            "repository": {"location": str(folder / "repo")},
            "restore": {"state": str(folder / f"state-{name}")},
        }
    )


class Clock:
    """A second passes at each look."""

    def __init__(self, now_ns: int = START) -> None:
        self.now = now_ns

    def __call__(self) -> int:
        self.now += SECOND
        return self.now


def run(
    config: Config,
    repository: Repository | None = None,
    kind: str = "backup",
    *,
    clock: Clock | None = None,
    **more: Any,
) -> Record:
    """One run, remembered as its own process would."""
    clock = clock or Clock()
    return History(config, repository, now_ns=clock).append(kind, started_ns=clock.now, **more)


def log(config: Config) -> Path:
    """The file of the machine's history."""
    return History(config).local().log
