"""Numbers for Prometheus: the two names of the document, and all that `safetake_` says.

Everything is computed from the repository, the history and the configuration, so that it is the
same after a restart and from any process: the daemon's `/metrics`, a file for node_exporter, a
Pushgateway. `families` is the list of what there is; docs/reference/metrics.md explains each.
"""

from __future__ import annotations

from safetake.operate.metrics.exporter import CONTENT_TYPE, DaemonState, render
from safetake.operate.metrics.publishing import publish

__all__ = ["CONTENT_TYPE", "DaemonState", "publish", "render"]
