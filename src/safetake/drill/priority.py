"""Giving way: a drill beside production takes what processor and disk have left.

Niceness and I/O class are set on the drill's first process before it has started any; whatever it
starts inherits them. Best effort: where the kernel has no such thing, the drill runs as it would.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import time
from pathlib import Path

NICENESS = 10
"""A ninth of what others get. With 19, a drill on a busy machine starved (20 runnable processes on
two cores: a service needed 98 s to start), and would have failed for nothing."""
_IO_PRIORITY_SET = {"x86_64": 251, "aarch64": 30}
_PROCESS, _LOWEST = 1, 2 << 13 | 7
_TRIES = 4


def lower(pid: int) -> None:
    """Let process `pid`, the leader of a session, and what it will start give way to others."""
    with contextlib.suppress(OSError):
        there = os.getpriority(os.PRIO_PROCESS, pid)
        os.setpriority(os.PRIO_PROCESS, pid, max(there, NICENESS))
    if sys.platform != "linux":
        return
    if number := _IO_PRIORITY_SET.get(platform.machine()):
        ctypes.CDLL(None).syscall(number, _PROCESS, pid, _LOWEST)
    # with autogroups, niceness counts within a session only (sched(7)): the session has its own
    for _ in range(_TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS), encoding="ascii")
        except BlockingIOError:  # the kernel takes one in a tenth of a second
            time.sleep(0.11)
        except OSError:
            return
        else:
            return
