"""What has run: every run leaves a record, chained by hash, on this machine and in the repository.

See `record` (what one says), `local` (the state folder), `stored` (the repository), `recorded` (how
a run is remembered).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from safetake import clock
from safetake.operate.history.record import Record
from safetake.operate.history.recorded import Run, recorded

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository

__all__ = ["History", "Record", "Run", "recorded"]


class History:
    """The records of one repository: those of this machine, and (when it is open) of the others."""

    def __init__(
        self,
        config: Config,
        repository: Repository | None = None,
        *,
        now_ns: Callable[[], int] = clock.now_ns,
    ) -> None:
        self.config = config
        self.repository = repository
        self.now_ns = now_ns

    def records(self, *, since_ns: int = 0) -> list[Record]:
        """All that ended at `since_ns` or later, oldest first."""
        return []

    def append(
        self,
        kind: str,
        *,
        started_ns: int,
        ended_ns: int | None = None,
        job: str = "",
        exit_code: int = 0,
        trigger: str = "hand",
        error: str = "",
        hint: str = "",
        facts: dict[str, Any] | None = None,
    ) -> Record:
        """Remember a run. Raises SafetakeError when it can be kept nowhere."""
        raise NotImplementedError

    def verify(self) -> list[str]:
        """What is wrong with the records: changed, missing, cut off; empty when nothing is."""
        return []
