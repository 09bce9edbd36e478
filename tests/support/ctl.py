"""What a small machine has instead of systemd: `python ctl.py FOLDER start|stop|running NAME`.

`FOLDER/NAME.json` holds the command and the environment, `FOLDER/NAME.pid` the process. Exit codes
as safetake's `[services.NAME]` wants them: `running` exits 0 or 1.
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


def running(pid_file: Path) -> int:
    """The process, or 0."""
    try:
        pid = int(pid_file.read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return 0
    return 0 if state in "ZX" else pid


def main(folder: Path, verb: str, name: str) -> int:
    pid_file = folder / f"{name}.pid"
    pid = running(pid_file)
    if verb == "running":
        return 0 if pid else 1
    if verb == "start":
        told = json.loads((folder / f"{name}.json").read_text())
        with (folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                told["command"],
                env={**os.environ, **told["environment"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        pid_file.write_text(str(process.pid))
        return 0
    if pid:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 15
        while running(pid_file):
            if time.monotonic() > deadline:
                return 1
            time.sleep(0.02)
    with contextlib.suppress(FileNotFoundError):
        pid_file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
