"""How long the command takes to say anything: it is typed all day."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from bench.command import run

ROUNDS = 15


def measure(rounds: int = ROUNDS) -> dict[str, Any]:
    """Median seconds of a few commands that do no work, interleaved with a bare interpreter."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "safetake --version": [sys.executable, "-m", "safetake", "--version"],
        "safetake --help": [sys.executable, "-m", "safetake", "--help"],
        "safetake backup --help": [sys.executable, "-m", "safetake", "backup", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name].append(run(command).seconds)
    return {
        "rounds": rounds,
        "median_s": {name: round(statistics.median(v), 4) for name, v in seconds.items()},
        "best_s": {name: round(min(v), 4) for name, v in seconds.items()},
    }
