"""Progress bars with rate and time left: on a terminal only, and only after the first second.

The callback is called often and from any thread; the bars (and rich, 0.1 s to import) come late.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PATIENCE_S = 1.0


class Progress:
    """A context manager whose `__call__` is a `model.Progress`."""

    def __init__(self, quiet: bool) -> None:
        self._on = not quiet and sys.stderr.isatty()
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._on = False
            if self._bars is not None:
                with contextlib.suppress(OSError):  # the terminal is gone
                    self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """`what` has `done` bytes of `total` (0: unknown) behind it."""
        if not self._on or time.monotonic() - self._start < PATIENCE_S:
            return
        with self._lock:
            if not self._on:
                return
            try:
                self._show(what, done, total)
            except OSError:  # the terminal is gone: the work goes on
                self._on = False

    def _show(self, what: str, done: int, total: int) -> None:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, completed=done, total=total or None)
        self._bars.update(self._tasks[what], completed=done, total=total or None)


def _bars() -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=5,
    )
