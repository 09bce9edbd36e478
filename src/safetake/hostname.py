"""The name of the machine in snapshots: `$SAFETAKE_HOST`, else the host's.

A pod has another host name at each start, and an increment needs the newest snapshot of its host.
Locks and scratch folders never use this name: they ask which processes live beside them.
"""

from __future__ import annotations

import os
import socket

VARIABLE = "SAFETAKE_HOST"


def host_name() -> str:
    """What snapshots and records say of where they were made."""
    return os.environ.get(VARIABLE, "").strip() or socket.gethostname()
