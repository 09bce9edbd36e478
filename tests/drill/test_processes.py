"""What a drill started ends with it, also when the drill was killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Workplace
from tests.drill.test_scenarios import configured

SERVICE = """
import http.server, os, subprocess, sys
subprocess.Popen(["sleep", "600"], start_new_session=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)\
.serve_forever()
"""


def started(home: Path) -> list[str]:
    """Command lines of what runs for a drill."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"HOME={home}/safetake-".encode() in (
                (entry / "environ").read_bytes()
            ):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_nothing_outlives_a_drill_that_is_killed(workplace: Workplace) -> None:
    home = Path(workplace.environment["TMPDIR"])
    configured(
        workplace,
        '[drill]\npriority = "normal"\n[drill.services.app]\n'
        f"command = {json.dumps([sys.executable, '-c', SERVICE, '{port}'])}\n"
        'health = "http://127.0.0.1:{port}/"\n[drill.scenarios.long]\n'
        'lose = [{source = "projects", share = 0.5}]\n'
        'hold = [{name = "x", command = ["sleep", "601"]}]\n',
    )
    with subprocess.Popen(
        workplace.command("drill", "long"),
        cwd=workplace.folder,
        env=workplace.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as drill:
        deadline = time.monotonic() + 60
        while not any("sleep 601" in one for one in started(home)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(started(home)) >= 4  # the drill's own, the service, what left it, the question
        drill.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while left := started(home):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
