"""Ports of drills that run at the same time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, closing

import pytest

from safetake.drill import twin
from tests.support.ports import free_port

OTHER = """
import sys
from contextlib import ExitStack
from safetake.drill import twin
twin.OWN = [int(port) for port in sys.argv[1:]]
with ExitStack() as held, ExitStack() as claims:
    print(len(twin._free_ports(len(twin.OWN), set(), held, claims)))
"""


def ports(count: int, claims: ExitStack) -> list[int]:
    with ExitStack() as held:
        return twin._free_ports(count, set(), held, claims)


def of_another_drill(there: list[int]) -> int:
    words = [sys.executable, "-c", OTHER, *map(str, there)]
    return int(subprocess.run(words, env=os.environ, check=True, stdout=subprocess.PIPE).stdout)


def test_a_port_of_a_drill_is_no_other_drills_while_nobody_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its servers are stopped and started; a drill beside it took the port and answered for it."""
    there = [free_port() for _ in range(3)]
    monkeypatch.setattr(twin, "OWN", there)
    with ExitStack() as claims:
        (mine,) = ports(1, claims)
        with closing(socket.socket()) as server:
            server.bind(("127.0.0.1", mine))  # nothing but drills is kept from it
        assert of_another_drill(there) == 2
        assert mine not in ports(3, claims)
    assert of_another_drill(there) == 3
