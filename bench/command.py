"""Running whole commands: seconds, peak memory, and what a folder weighs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class BenchError(Exception):
    """A command failed; its words are in the message."""


@dataclass(frozen=True, slots=True)
class Run:
    """One command that ended well."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    """Resident set of the largest process in its tree (wait4's ru_maxrss), in MB of 10^6 bytes."""
    stdout: str


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    allowed: Sequence[int] = (0,),
) -> Run:
    """Run to the end. Raises BenchError when it exits with another code than `allowed`."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdout is not None
        output = process.stdout.read().decode("utf-8", "replace")
        process.stdout.close()
        # Unlike Popen.wait it also tells what the command's own children took.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        code = process.returncode = os.waitstatus_to_exitcode(status)
        if code not in allowed:
            errors.seek(0)
            words = " ".join(str(word) for word in command)
            said = (output + errors.read().decode("utf-8", "replace"))[-2000:]
            raise BenchError(f"{words} ended with {code}:\n{said}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(seconds, cpu, usage.ru_maxrss * 1024 / 1e6, output)


def warm(folder: Path) -> None:
    """Bring every file into the page cache, and let earlier writes reach the disk."""
    os.sync()
    buffer = bytearray(1 << 20)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def size_mb(path: Path) -> float:
    """Bytes of all files below `path`, in MB of 10^6."""
    if path.is_file():
        return path.stat().st_size / 1e6
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) / 1e6


def remove(path: Path) -> None:
    """Delete a folder or a file; nothing when there is none."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def found(program: str) -> bool:
    """Whether a peer is installed."""
    return shutil.which(program) is not None
