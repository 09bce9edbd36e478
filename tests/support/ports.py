"""Ports for servers that take one by number, so that no two tests of one run get the same.

The kernel would give a port twice to two processes that ask before either has used it, and gives
those of its own range to any connection. These lie below that range, a part for each of pytest's
processes, and each process walks through its part. Those of drills begin
above them; the bus of a Redis cluster is 10,000 above its port.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket

_FIRST, _EACH, _PARTS = 12_000, 1_000, 8
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
_next = random.randrange(_EACH)


def free_port() -> int:
    """One that nobody listens on now, and that no other test is given soon."""
    global _next
    for _ in range(_EACH):
        _next = (_next + 1) % _EACH
        port = _FIRST + _worker * _EACH + _next
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
