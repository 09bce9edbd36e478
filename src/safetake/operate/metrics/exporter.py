"""What the daemon's `/metrics` answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history import History

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class DaemonState:
    """What only the running daemon knows."""

    started_ns: int
    leader: bool
    up: bool = True
    """Its scheduler works."""
    running: frozenset[str] = frozenset()
    """Names of the jobs that run now."""


def render(config: Config, history: History, *, daemon: DaemonState | None = None) -> bytes:
    """The body of `/metrics`, of CONTENT_TYPE.

    Reads the history and (when `history.repository` is open) the repository anew at each call.
    Never raises SafetakeError: what cannot be read is missing, and told as a metric.
    """
    from safetake.operate.metrics import deliveries
    from safetake.operate.metrics.collect import collect

    samples = collect(config, history, deliveries.load(config))
    if daemon is not None:
        samples.put("safetake_daemon_up", daemon.up)
        samples.put("safetake_daemon_leader", daemon.leader)
        samples.seconds("safetake_daemon_start_timestamp_seconds", daemon.started_ns)
        for name, job in config.jobs.items():
            running = name in daemon.running
            samples.put("safetake_job_running", running, job_name=name, kind=job.kind)
    return samples.text()
