"""Running one piece of work in several threads, and ending all of them when one or the wait fails.

No thread outlives the call: what they write to may be closed by the caller right after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def run_in_threads(
    work: Callable[[], None], count: int, name: str, broken: list[BaseException]
) -> None:
    """Run `work` in `count` threads and wait for all.

    `work` looks at `broken` often, ends when there is anything in it, and appends what it cannot
    handle; the first of it is raised here. So is what interrupts the wait (Ctrl-C).
    """
    ended: list[None] = []

    def run() -> None:
        try:
            work()
        finally:
            ended.append(None)

    threads = [threading.Thread(target=run, name=f"{name}-{number}") for number in range(count)]
    started = 0
    try:
        for thread in threads:
            thread.start()
            started += 1
        for thread in threads:
            thread.join()
    except BaseException as error:
        broken.append(error)
        # no join: up to Python 3.12 an interrupted join takes a running thread for an ended one
        while len(ended) < started:
            time.sleep(0.01)
        raise
    if broken:
        raise broken[0]
