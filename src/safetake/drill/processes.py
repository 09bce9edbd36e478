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
import threading
import time
from pathlib import Path

from safetake.services.process import redact

STOP_SECONDS = 15.0


def describe(folder: Path, name: str, command: list[str], environment: dict[str, str]) -> None:
    """Say how the process NAME is started. Raises OSError."""
    text = json.dumps({"command": command, "environment": environment})
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def running(folder: Path, name: str) -> int:
    """Its pid, or 0 when it does not run."""
    pid = _started(folder, name)
    return pid if pid in groups() else 0


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
            process_group=0,  # a session would have a weight of its own; it is killed as a group
        )
    (folder / f"{name}.pid").write_text(str(process.pid), encoding="ascii")


def stop(folder: Path, name: str) -> bool:
    """SIGTERM to the process and all it started, as systemd does, and wait.

    False when something of it goes on after STOP_SECONDS.
    """
    _signal(folder, name, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while members(folder, name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def kill(folder: Path, name: str) -> None:
    """SIGKILL to the process and all it started."""
    _signal(folder, name, signal.SIGKILL)
    while members(folder, name):
        time.sleep(0.01)


def end_with(lifeline: int, folder: Path, home: Path) -> None:
    """When the other end of a pipe is gone, and who started the drill with it: kill all of it.

    The processes that `folder` describes, what has `home` as its HOME, this one and its group.
    """

    def watch() -> None:
        os.read(lifeline, 1)
        for told in folder.glob("*.json"):
            kill(folder, told.stem)
        sweep(home)
        os.killpg(0, signal.SIGKILL)

    os.set_inheritable(lifeline, False)
    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def sweep(home: Path) -> None:
    """SIGKILL to whatever else has `home` as its HOME: also what has left its process group."""
    wanted = b"\0HOME=" + os.fsencode(home) + b"\0"
    for pid in groups().keys() - {os.getpid()}:
        with contextlib.suppress(OSError):  # of somebody else, or gone
            if wanted in b"\0" + Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)


def members(folder: Path, name: str) -> list[int]:
    """What lives of the process and all it started, also when it has ended itself."""
    group = _started(folder, name)
    return [pid for pid, its in groups().items() if its == group] if group else []


def groups() -> dict[int, int]:
    """The process group of each process of this machine that lives."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if entry.name.isdigit():
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                state, _, group = stat.rpartition(")")[2].split()[:3]
                if state not in "ZX":
                    found[int(entry.name)] = int(group)
    return found


def _started(folder: Path, name: str) -> int:
    """The pid that it was started with, which is the number of its group; 0: never started."""
    try:
        return int((folder / f"{name}.pid").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0


def _signal(folder: Path, name: str, number: int) -> None:
    if members(folder, name):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(_started(folder, name), number)


def last_words(folder: Path, name: str) -> str:
    """The last line that it said."""
    try:
        text = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return redact((text.strip().splitlines() or [""])[-1])[:300]


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
