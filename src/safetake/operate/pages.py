"""What the daemon answers over HTTP: /metrics, /healthz, /readyz, and a list of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from safetake import clock
from safetake.operate.serve import Answer, Cached, Server

if TYPE_CHECKING:
    from safetake.operate.daemon import Daemon

FRESH_S = 15.0
"""How old /metrics may be without being worked out again."""
PATIENCE_S = 4.0
STUCK_S = 30.0
"""A loop that has not turned for so long is not well."""
_LIST = b"""safetake
/metrics  for Prometheus
/healthz  200 while the scheduler turns
/readyz   200 while the repository answers; which jobs ran and which come
"""


class Pages:
    """The pages of a daemon, served until `close`."""

    def __init__(self, daemon: Daemon, listen: str) -> None:
        """Raises ConfigError when the address cannot be used."""
        from safetake.operate.metrics import CONTENT_TYPE

        self._daemon = daemon
        self._server = Server(
            listen,
            {
                "/": lambda: Answer(_LIST),
                "/metrics": Cached(self._metrics, CONTENT_TYPE, fresh=FRESH_S, patience=PATIENCE_S),
                "/healthz": self._health,
                "/readyz": self._ready,
            },
        )
        self.place = self._server.place

    def close(self) -> None:
        """Serve no more."""
        self._server.close()

    def _turns(self) -> bool:
        return time.monotonic() - self._daemon.ticked < STUCK_S

    def _metrics(self) -> bytes:
        from safetake.operate.history import History
        from safetake.operate.metrics import DaemonState, render

        daemon = self._daemon
        repository = daemon.lookout.repository
        state = DaemonState(
            started_ns=daemon.started_ns,
            leader=daemon.timetable is not None,
            up=self._turns(),
            running=frozenset(daemon.runner.children),
        )
        text = render(daemon.config, History(daemon.config, repository), daemon=state)
        repository.reload()  # nothing that was read for a page is kept
        return text

    def _health(self) -> Answer:
        if self._turns():
            return Answer(b"ok\n")
        stood = time.monotonic() - self._daemon.ticked
        return Answer(f"the scheduler has stood still for {stood:.0f} s\n".encode(), ok=False)

    def _ready(self) -> Answer:
        daemon = self._daemon
        candidate = daemon.lookout.candidate
        reachable = daemon.lookout.reachable()
        lines = ["ready" if reachable else f"not ready: {candidate.trouble or 'no answer yet'}"]
        lines.append(
            f"role: {candidate.role}" + (f" of {candidate.leader}" * bool(candidate.leader))
        )
        lines += [f"running: {name}" for name in sorted(daemon.runner.children)]
        for name, (at, code) in sorted(daemon.runner.last.items()):
            lines.append(f"last: {name}: exit code {code}, {clock.go_time(at)}")
        timetable = daemon.timetable
        for name, entry in sorted(timetable.entries.items()) if timetable is not None else ():
            if entry.next_ns is not None:
                lines.append(f"next: {name}: {clock.go_time(entry.next_ns)}")
        return Answer(("\n".join(lines) + "\n").encode(), ok=reachable and self._turns())
