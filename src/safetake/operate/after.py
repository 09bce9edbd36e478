"""After a run: metrics are published and people are told, where that is configured.

Neither changes how the run ended. What could not be delivered is told on stderr here; `metrics` and
`notify` remember it themselves, and `status` shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.operate.history.recorded import warn

if TYPE_CHECKING:
    from collections.abc import Callable

    from safetake.config import Config
    from safetake.operate.history import History, Record


def after_run(config: Config, history: History, record: Record) -> None:
    """Publish and tell; a failure of either is told on stderr, never raised."""
    if config.metrics.textfile is not None or config.metrics.pushgateway is not None:
        _try("metrics", lambda: _publish(config, history))
    notify = config.notify
    if notify.urls or notify.urls_env or notify.urls_file or notify.ping_env:
        _try("notifications", lambda: _tell(config, history, record))


def _publish(config: Config, history: History) -> None:
    from safetake.operate.metrics import publish

    publish(config, history)


def _tell(config: Config, history: History, record: Record) -> None:
    from safetake.operate.notify import tell

    tell(config, history, record)


def _try(what: str, act: Callable[[], None]) -> None:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever it is, the run itself is over and stays so
        said = str(error) or type(error).__name__
        warn(f"{what}: {said}")
