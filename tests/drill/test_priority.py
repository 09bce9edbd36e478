"""A drill gives way: niceness, I/O class, and the weight of the session, down to its services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safetake.drill import priority, processes
from tests.cli.conftest import Workplace

LOOK = """
import ctypes, json, os, platform, sys
from pathlib import Path
number = {"x86_64": 252, "aarch64": 31}.get(platform.machine())
group = Path("/proc/self/autogroup")
found = {
    "niceness": os.nice(0),
    "io": ctypes.CDLL(None).syscall(number, 1, 0) if number else None,
    "group": group.read_text().split()[-1] if group.exists() else None,
}
Path(sys.argv[1] + ".new").write_text(json.dumps(found))
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""
SERVICE = """
import http.server, os, sys
if os.nice(0) != NICENESS:
    sys.exit(f"its niceness is {os.nice(0)}")
http.server.HTTPServer(("127.0.0.1", {port}), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
LOWEST = 2 << 13 | 7
LOW = max(priority.NICENESS, os.nice(0))


def test_given_a_lowered_process_then_what_it_starts_is_low_as_well(tmp_path: Path) -> None:
    out = tmp_path / "out"
    processes.describe(tmp_path, "service", [sys.executable, "-c", LOOK, str(out)], {})
    words = [sys.executable, "-m", "safetake.drill.processes", str(tmp_path), "start", "service"]
    program = "import subprocess, sys; sys.stdin.read(); subprocess.run(sys.argv[1:], check=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=subprocess.PIPE, start_new_session=True
    ) as leader:
        priority.lower(leader.pid)
        leader.communicate(timeout=30)
    assert leader.returncode == 0
    deadline = time.monotonic() + 30
    while not out.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = json.loads(out.read_text())
    assert found["niceness"] == LOW
    assert found["io"] in (LOWEST, None)
    assert found["group"] in ("10", None)


@pytest.mark.parametrize("chosen", ["low", pytest.param("normal", marks=pytest.mark.slow)])
def test_given_a_drill_then_its_service_has_the_priority(workplace: Workplace, chosen: str) -> None:
    expected = LOW if chosen == "low" else os.nice(0)
    program = SERVICE.replace("NICENESS", str(expected))
    command = json.dumps([sys.executable, "-c", program])
    with (workplace.folder / "safetake.toml").open("a") as file:
        file.write(
            f'[drill]\npriority = "{chosen}"\nstart_timeout = 20\n[drill.services.app]\n'
            f'command = {command}\nhealth = "http://127.0.0.1:{{port}}/"\n'
        )
    document = workplace.json("drill", "total-loss", "scripts")
    assert document["verdict"] == "passed"
