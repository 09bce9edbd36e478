"""One source of a restore in place, and what is asked of it; the repository, when it is needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from safetake.errors import DamagedError, RefusedError
from safetake.model import Check, Restorer, RestoreWork
from safetake.recovery.plan import whereabouts

if TYPE_CHECKING:
    from safetake.config import Config, SourceConfig
    from safetake.recovery.journal import Journal
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo

_POLL = 0.2
OpenRepository = Callable[[], "tuple[Repository, SnapshotInfo]"]


@dataclass(slots=True)
class One:
    """One source of the restore."""

    name: str
    restorer: Restorer
    work: RestoreWork
    saved: str
    """`capture`, `raw` or `nothing`: what the safety snapshot takes of it."""

    def quiet(self, patience: float) -> None:
        """Nobody uses it; whoever does is waited for so many seconds. Raises RefusedError."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return self.restorer.quiet(self.work)
            except RefusedError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL)


class Once:
    """Opens the repository at the first need."""

    def __init__(self, opening: OpenRepository) -> None:
        self._opening = opening
        self._opened: tuple[Repository, SnapshotInfo] | None = None

    def __call__(self) -> tuple[Repository, SnapshotInfo]:
        if self._opened is None:
            self._opened = self._opening()
        return self._opened


def all_well(name: str, checks: list[Check]) -> None:
    """Raises DamagedError that says what is wrong first, also when nothing was asked."""
    wrong = [check for check in checks if not check.ok]
    if wrong:
        first = asdict(wrong[0])
        raise DamagedError(
            f"{name}: {first['name']}: expected {str(first['expected'])[:200]}, "
            f"found {str(first['found'])[:200]}"
            + (f" ({first['detail']})" if first["detail"] else "")
            + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
            hint="prove the snapshot (`safetake verify ID --level open`) or take another one",
        )
    if not checks:
        raise DamagedError(f"{name}: no question was asked of it")


_SAME = "use the configuration that the restore was begun with"


def configured(config: Config, journal: Journal, name: str) -> SourceConfig:
    """The source that the restore was begun with, where it was then. Raises RefusedError."""
    told, source = journal.plan["sources"][name], config.sources.get(name)
    if source is None or source.type != told["type"]:
        raise RefusedError(
            f"the open restore {journal.id} is about the source {name!r} ({told['type']}), and the "
            "configuration has none like that",
            hint=_SAME,
        )
    live = whereabouts(source)
    if told.get("live", live) != live:
        raise RefusedError(
            f"the open restore {journal.id} is about {name!r} at {told['live']}, and the "
            f"configuration says {live}",
            hint=_SAME,
        )
    return source


def refuse_unknown_services(config: Config, journal: Journal) -> None:
    """Raises RefusedError when the configuration lacks a service that the restore uses."""
    used = {*journal.plan["stop"], *journal.plan["gate"]}
    used |= {service for service, _ in journal.plan["switch"]}
    for name in sorted(used - set(config.services)):
        raise RefusedError(
            f"the open restore {journal.id} stops the service {name!r}, and the configuration has "
            "none of that name",
            hint=_SAME,
        )
