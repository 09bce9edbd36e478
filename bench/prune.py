"""Pruning, beside stock restic: one repository, one tolerance, snapshots forgotten before.

`restic` makes the repository and takes the snapshots; half of them are forgotten. Each tool then
prunes copies of it, as a whole process that opens the repository with its password, and `restic
check --read-data` judges what both leave.

    python -m bench.prune FOLDER      what is timed for safetake
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.command import Run, remove, run, size_mb
from bench.tools import PASSWORD, make_template

ROUNDS = 3
SNAPSHOTS = 10
MAX_UNUSED = 0.05
_LARGE, _SMALL = 40, 3000


def measure(work: Path, scale: float, rounds: int = ROUNDS) -> dict[str, Any]:
    """Median seconds of both, what they left, and the ratio."""
    folder = work / "prune"
    remove(folder)
    folder.mkdir(parents=True)
    try:
        return _measure(folder, scale, rounds)
    finally:
        remove(folder)


def _measure(folder: Path, scale: float, rounds: int) -> dict[str, Any]:
    repository = _repository(folder, scale)
    before = size_mb(repository / "data")
    seconds: dict[str, list[float]] = {"safetake": [], "restic": []}
    peak: dict[str, float] = {}
    left: dict[str, float] = {}
    copy = folder / "copy"
    for turn in range(rounds):
        for name in sorted(seconds, reverse=bool(turn % 2)):
            remove(copy)
            run(["cp", "-a", repository, copy])
            os.sync()
            done = _prune(name, copy, folder)
            seconds[name].append(done.seconds)
            peak[name] = max(peak.get(name, 0.0), done.peak_mb)
            left[name] = size_mb(copy / "data")
            run(["restic", "check", "--read-data", "--quiet"], env=_environment(copy, folder))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "scale": scale,
        "rounds": rounds,
        "snapshots": SNAPSHOTS,
        "forgotten": SNAPSHOTS // 2,
        "max_unused": MAX_UNUSED,
        "before_mb": round(before, 1),
        "left_mb": {name: round(mb, 1) for name, mb in left.items()},
        "peak_mb": {name: round(mb, 1) for name, mb in peak.items()},
        "seconds": {n: [round(s, 3) for s in each] for n, each in seconds.items()},
        "median_s": {name: round(median, 3) for name, median in medians.items()},
        "restic_over_safetake": round(medians["restic"] / medians["safetake"], 2),
    }


def _prune(name: str, repository: Path, folder: Path) -> Run:
    environment = _environment(repository, folder)
    if name == "restic":
        words = ["restic", "prune", "--quiet", "--max-unused", f"{MAX_UNUSED:.0%}"]
        return run(words, env=environment)
    return run([sys.executable, "-m", "bench.prune", repository], env=environment)


def _environment(repository: Path, folder: Path) -> dict[str, str]:
    return {
        "RESTIC_PASSWORD": PASSWORD,
        "RESTIC_REPOSITORY": str(repository),
        "RESTIC_CACHE_DIR": str(folder / "cache"),
        "RESTIC_PROGRESS_FPS": "0.1",
    }


def _repository(folder: Path, scale: float) -> Path:
    """Snapshots of a folder of which a tenth changes each time; half of them forgotten."""
    template = make_template(folder)
    if template is None:
        raise SystemExit("bench: restic is not installed")
    data = folder / "data"
    data.mkdir()
    chance = random.Random(1)
    environment = _environment(template, folder)
    for turn in range(SNAPSHOTS):
        for number in range(_LARGE):
            if turn == 0 or chance.random() < 0.1:
                size = max(1000, int(8e6 * scale * chance.uniform(0.5, 1.5)))
                (data / f"large{number}").write_bytes(chance.randbytes(size))
        for number in range(int(_SMALL * scale) + 20):
            if turn == 0 or chance.random() < 0.1:
                (data / f"small{number}").write_bytes(chance.randbytes(8000))
        run(["restic", "backup", "--quiet", "."], env=environment, cwd=data)
    listed = json.loads(run(["restic", "snapshots", "--json"], env=environment).stdout)
    names = [str(one["id"]) for one in sorted(listed, key=lambda one: str(one["time"]))]
    run(["restic", "forget", "--quiet", *names[: SNAPSHOTS // 2]], env=environment)
    remove(data)
    return template


def main(arguments: list[str]) -> int:
    """One prune of the repository in a folder, as it is."""
    from safetake.connect import open_location
    from safetake.repository import prune

    with open_location(arguments[0], os.environ["RESTIC_PASSWORD"]) as repository:
        prune.run(repository, prune.plan_prune(repository, [], max_unused=MAX_UNUSED))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
