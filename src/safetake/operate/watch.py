"""What the daemon does beside its loop, in threads that may hang with the storage or the network.

`Lookout` keeps the repository open, takes part in the election of a leader, and reads the history
when this daemon begins to lead. `Clerk` writes records and tells people, one thing after the other.
The loop waits for neither.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from safetake import clock
from safetake.errors import SafetakeError
from safetake.operate.leader import Candidate

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history import Record
    from safetake.repository import Repository

_HISTORY_NS = 400 * 86400 * 10**9
"""Older records say nothing about runs that were missed."""
_SETTLE_S = 1.0
_MOST = 1000


class Lookout:
    """Renews this daemon's candidacy until `close`."""

    def __init__(self, config: Config, repository: Repository, wake: Callable[[], None]) -> None:
        self.config = config
        self.repository = repository
        self.candidate = Candidate(config.daemon.lease)
        self.records: list[Record] | None = None
        """The history, when this daemon leads and `wants_records`; the loop takes it."""
        self.wants_records = True
        self._wake = wake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            self.candidate.renew(self.repository)
            leads = self.candidate.role == "leader"
            if leads and self.wants_records and self.records is None:
                from safetake.operate.history import History

                history = History(self.config, self.repository)
                self.records = history.records(since_ns=clock.now_ns() - _HISTORY_NS)
                self._wake()
            alone = not leads and not self.candidate.leader
            pause = self.candidate.lease / 4
            if self._stop.wait(min(pause, _SETTLE_S) if alone else pause):
                return

    def alive(self) -> bool:
        """Whether its thread is there: without it nobody leads, and nobody would notice."""
        return self._thread.is_alive()

    def reachable(self) -> bool:
        """Whether the storage answered lately."""
        reached = self.candidate.reached
        return (
            reached is not None
            and not self.candidate.trouble
            and self.candidate.clock() - reached < self.candidate.lease
        )

    def close(self, patience: float) -> None:
        """Lead no more, and say so, unless the storage hangs for longer than `patience` seconds."""
        self._stop.set()

        def resign() -> None:
            self._thread.join()
            self.candidate.resign(self.repository)

        last = threading.Thread(target=resign, name="resign", daemon=True)
        last.start()
        last.join(patience)


class Clerk:
    """Does small pieces of work in order; each says by itself what went wrong."""

    def __init__(self, troubled: Callable[[str], None]) -> None:
        self._queue: queue.Queue[Callable[[], Any] | None] = queue.Queue(_MOST)
        self._troubled = troubled
        self._thread = self._begin()

    def _begin(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="clerk", daemon=True)
        thread.start()
        return thread

    def give(self, work: Callable[[], Any]) -> None:
        """Have it done soon; never waits. Work that nobody can keep up with is dropped and told."""
        if not self._thread.is_alive():
            self._thread = self._begin()  # a mistake of ours ended it, and was reported
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            self._troubled("too much is waiting to be written or told; some of it is left out")

    def idle(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except (SafetakeError, OSError) as error:
                self._troubled(str(error))

    def close(self, patience: float) -> None:
        """Do what waits, for at most `patience` seconds."""
        try:
            self._queue.put(None, timeout=patience)
        except queue.Full:
            return
        self._thread.join(patience)
