"""Running whole commands: seconds, peak memory, and what a folder weighs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
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
    launcher = [sys.executable, "-S", "-E", str(Path(__file__).with_name("launch.py"))]
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as figures:
        done = subprocess.run(
            [*launcher, str(figures.fileno()), *(str(word) for word in command)],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=[figures.fileno()],
            check=False,
        )
        output = done.stdout.decode("utf-8", "replace")
        figures.seek(0)
        errors.seek(0)
        said = (output + errors.read().decode("utf-8", "replace"))[-2000:]
        words = " ".join(str(word) for word in command)
        if done.returncode != 0:
            raise BenchError(f"{words} did not start:\n{said}")
        found = json.load(figures)
        if found["code"] not in allowed:
            raise BenchError(f"{words} ended with {found['code']}:\n{said}")
    return Run(found["seconds"], found["cpu_seconds"], found["peak_mb"], output)


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
