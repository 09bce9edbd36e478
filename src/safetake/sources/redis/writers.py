"""Keeps writers out of a live server while a restore replaces its data.

`CLIENT PAUSE … WRITE` lets commands that write wait, and with them expiry. The pause has an end of
its own on the server and is renewed by a thread: if we are killed, writers go on after
PAUSE_SECONDS. Another backup of the same server would end it (`CLIENT UNPAUSE` ends every pause),
so that nobody wrote is never concluded from the pause alone: the replication stream says it.
"""

from __future__ import annotations

import threading
from typing import Any

from safetake.errors import SafetakeError
from safetake.sources.redis.server import parse_info
from safetake.sources.redis.wire import Address, Connection, ServerRefusal

PAUSE_SECONDS = 10.0
"""Writers go on after this time whatever becomes of us."""
RENEW_SECONDS = 2.0
PAUSE = ("CLIENT", "PAUSE", int(PAUSE_SECONDS * 1000), "WRITE")
_Command = tuple[str | bytes | int, ...]


class Writers:
    """The writers of one server. `hold` and `let_go` as often as needed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether we hold them, as far as we know."""
        return self._thread is not None

    def hold(self, connection: Connection) -> dict[str, str]:
        """Writes wait from now on; INFO (replication, server and keyspace) of that moment.

        Raises SourceError.
        """
        sections: list[_Command] = [("INFO", s) for s in ("replication", "server", "keyspace")]
        answers: list[Any] = connection.pipeline([PAUSE, *sections])
        for answer in answers:
            if isinstance(answer, ServerRefusal):
                raise answer
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._renew, args=(self._stop,), name="redis-pause", daemon=True
            )
            self._thread.start()
        return parse_info(b"".join(answers[1:]))

    def let_go(self, *, left_behind: bool = False) -> None:
        """Writers go on. Idempotent, never raises. `left_behind`: also those that a process held
        which was killed meanwhile."""
        if self._thread is None and not left_behind:
            return
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
        try:
            with Connection(self._address, timeout=PAUSE_SECONDS) as connection:
                connection.call("CLIENT", "UNPAUSE")
        except SafetakeError:
            return  # the pause has its own end

    def _renew(self, stop: threading.Event) -> None:
        connection: Connection | None = None
        while not stop.wait(RENEW_SECONDS):
            try:
                connection = connection or Connection(self._address, timeout=PAUSE_SECONDS)
                connection.call(*PAUSE)
            except SafetakeError:
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()
