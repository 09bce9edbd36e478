"""A connection that only reads a database which others write, and changes no byte of it.

Where a journal waits that nobody has a lock on, SQLite rolls it back, or, opened to read only,
fails with SQLITE_READONLY_ROLLBACK. It looks at the lock and at the journal one after the other,
and who may write looks again under a lock of its own; who may not takes the journal of a
transaction that begins or ends in between for a crashed writer's ("this might be a false
positive": `hasHotJournal` in SQLite's pager.c; measured beside a writer that never pauses: once in
10,000 reads with a persistent journal). A reader here looks again itself: a crashed writer's
journal lies still.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

_Answer = TypeVar("_Answer")
_State = tuple[int, int, int] | None
_STILL_SECONDS = 0.05
"""Longer than a file system's clock stands still."""


class ReadingConnection(apsw.Connection):
    """Opened for reading at `name`, a path or a URI (as `flags` has it).

    `execute` and `pragma` raise ReadOnlyError with SQLITE_READONLY_ROLLBACK only where a writer
    died in a transaction and its journal waits.
    """

    def __init__(self, name: str, flags: int = 0) -> None:
        super().__init__(name, flags=apsw.SQLITE_OPEN_READONLY | flags)

    def execute(self, *args: Any, **named: Any) -> apsw.Cursor:
        """As apsw's."""
        return self._asked(lambda: super(ReadingConnection, self).execute(*args, **named))

    def pragma(self, *args: Any, **named: Any) -> Any:
        """As apsw's."""
        return self._asked(lambda: super(ReadingConnection, self).pragma(*args, **named))

    def _asked(self, ask: Callable[[], _Answer]) -> _Answer:
        seen: list[_State] = []
        while True:
            try:
                return ask()
            except apsw.ReadOnlyError as error:
                if not waits_for_a_writer(error):
                    raise
                now = [_state(self.filename), _state(self.filename_journal)]
                if now == seen:
                    raise
                seen = now
            time.sleep(_STILL_SECONDS)


def waits_for_a_writer(error: apsw.Error) -> bool:
    """Whether it says that a crashed writer's journal must be rolled back first."""
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK


def _state(path: str) -> _State:
    try:
        state = os.stat(path)  # noqa: PTH116 - SQLite names it as a string
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns  # its ctime changes when root looks
