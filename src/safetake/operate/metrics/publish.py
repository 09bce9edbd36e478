"""Metrics of runs that are over before Prometheus could ask: a text file, a Pushgateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history import History


def publish(config: Config, history: History) -> None:
    """Write and push what [metrics] asks for, in bounded time.

    Each way is tried; a failure is remembered in the state folder. Raises SafetakeError when one
    failed.
    """
    raise NotImplementedError
