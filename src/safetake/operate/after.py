"""After a run: metrics are published and people are told, where that is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history import History, Record


def after_run(config: Config, history: History, record: Record) -> None:
    """Publish and tell; a failure of either is told on stderr and remembered, never raised."""
