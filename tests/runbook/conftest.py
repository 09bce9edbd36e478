"""The small real set-up of the command line's tests, and a person at a real terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Workplace, _template, workplace

__all__ = ["_template", "workplace"]

PATIENCE_S = 60.0


class Terminal:
    """`safetake` on a pseudo-terminal: waits for words, types answers."""

    def __init__(self, place: Workplace, *words: str, **variables: str) -> None:
        self._main, other = pty.openpty()
        self.process = subprocess.Popen(
            place.command(*words),
            cwd=place.folder,
            env={**place.environment, "TERM": "dumb", "COLUMNS": "240", **variables},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        self.seen = ""
        self._read = 0
        self._bytes = b""

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until it is there, after what was waited for before."""
        end = time.monotonic() + PATIENCE_S
        while True:
            match = re.compile(pattern).search(self.seen, self._read)
            if match:
                self._read = match.end()
                return match
            if time.monotonic() > end or not self._more():
                raise AssertionError(f"{pattern!r} did not come:\n{self.seen}")

    def answer(self, pattern: str, text: str = "") -> None:
        """Wait for a question, and type."""
        self.expect(pattern + r"[^\n]*: $")
        self.type(f"{text}\n")

    def type(self, text: str) -> None:
        """Type, whatever is shown."""
        os.write(self._main, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C; again when it came right before the reading began, which then did not see it."""
        for _ in range(10):
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
                return

    def end(self) -> int:
        """Read to the end; its exit code."""
        while self._more():
            pass
        return self.process.wait(PATIENCE_S)

    def _more(self) -> bool:
        if select.select([self._main], [], [], PATIENCE_S)[0]:
            with contextlib.suppress(OSError):  # EIO: the other side is closed
                got = os.read(self._main, 65536)
                self._bytes += got
                self.seen = self._bytes.decode("utf-8", "replace").replace("\r\n", "\n")
                return bool(got)
        return False

    def close(self) -> None:
        """Nothing is left behind."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._main)


@contextlib.contextmanager
def terminal(place: Workplace, *words: str, **variables: str) -> Iterator[Terminal]:
    """A terminal that is closed in the end."""
    found = Terminal(place, *words, **variables)
    try:
        yield found
    finally:
        found.close()


SERVICE = """
[services.app]
stop = ["sh", "-c", "echo $$ > stopping; while [ ! -e go ]; do sleep 0.05; done; rm -f up"]
start = ["touch", "up"]
running = ["test", "-e", "up"]
"""


@pytest.fixture
def destroyed(workplace: Workplace) -> Workplace:
    """Everything is gone but the repository; an application that is slow to stop."""
    file = workplace.folder / "safetake.toml"
    text = file.read_text() + '[restore]\nstate = "state"\n[objectives.system]\nrto = "1h"\n'
    file.write_text(text)
    for name in ("projects.db", "projects.db-wal", "projects.db-shm"):
        (workplace.folder / name).unlink(missing_ok=True)
    for one in (workplace.folder / "scripts").iterdir():
        one.unlink()
    (workplace.folder / "scripts").rmdir()
    return workplace


def folder_of(place: Workplace) -> Path:
    """The folder of the only runbook."""
    (found,) = [one for one in (place.folder / "state" / "runbooks").iterdir() if one.is_dir()]
    return found


def restore_of(parent: int) -> int:
    """The process of the restore that the runbook started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (child,) = [
        int(pid) for pid in children if b"restore" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return child
