"""Processes of a drill: `python -m safetake.drill.processes FOLDER start|stop|running NAME`.

`FOLDER/NAME.json` holds `command` and `environment`, `FOLDER/NAME.pid` the process, and
`FOLDER/NAME.log` what it said. `running` exits 0 or 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STOP_SECONDS = 15.0


def describe(folder: Path, name: str, command: list[str], environment: dict[str, str]) -> None:
    """Say how the process NAME is started. Raises OSError."""
    text = json.dumps({"command": command, "environment": environment})
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def running(folder: Path, name: str) -> int:
    """Its pid, or 0 when it does not run."""
    try:
        pid = int((folder / f"{name}.pid").read_text(encoding="ascii"))
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return 0
    return 0 if state in "ZX" else pid


def start(folder: Path, name: str) -> None:
    """Start it. Raises OSError when the program can not be run."""
    told = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            told["command"],
            env={**os.environ, **told["environment"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / f"{name}.pid").write_text(str(process.pid), encoding="ascii")


def stop(folder: Path, name: str) -> bool:
    """SIGTERM, and wait; False when it does not end within STOP_SECONDS."""
    pid = running(folder, name)
    if pid:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running(folder, name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def kill(folder: Path, name: str) -> None:
    """SIGKILL to the process and all it started."""
    if pid := running(folder, name):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        while running(folder, name):
            time.sleep(0.01)


def last_words(folder: Path, name: str) -> str:
    """The last line that it said."""
    try:
        text = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return (text.strip().splitlines() or [""])[-1][:300]


def main(folder: Path, verb: str, name: str) -> int:
    """One verb; returns the exit code."""
    if verb == "running":
        return 0 if running(folder, name) else 1
    if verb == "start":
        start(folder, name)
        return 0
    return 0 if stop(folder, name) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
