"""How long all stores are held together, and what their writers notice of it.

A SQLite database of 1 GB (WAL), a Chroma folder of 1 GB, a Redis server with a million keys and a
folder of files are written to without pause, each by a process of its own. First nobody takes
backups (the control), then whole `safetake backup` commands do. Printed are the barrier of each
backup and, beside it, the longest single write that each writer saw in both times.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import chroma_folder
from bench.command import BenchError, remove, run, size_mb
from bench.generate import Shape, database, files, fill, redis
from bench.tools import PASSWORD

DATABASE_BYTES = 1_000_000_000
VECTORS = 480_000
KEYS = 1_000_000
CONTROL_S = 20.0


def measure(work: Path, scale: float, backups: int) -> dict[str, Any]:
    """Make the stores, load them, take backups. Removes everything that it made."""
    folder = work / "barrier"
    remove(folder)
    for name in ("projects", "queue"):
        (folder / name).mkdir(parents=True)
    try:
        database(folder / "projects" / "projects.db", int(DATABASE_BYTES * scale), 3)
        chroma_folder.build(folder / "chroma", max(2000, int(VECTORS * scale)), 3)
        files(folder / "scripts", Shape.of(min(scale, 0.3)), 3)
        with redis(folder / "queue", save=False) as client:
            fill(client, max(1000, int(KEYS * scale)), 3)
            port = client.connection_pool.connection_kwargs["port"]
            return _loaded(folder, f"redis://127.0.0.1:{port}", backups, min(1.0, scale * 5))
    finally:
        remove(folder)


def _loaded(folder: Path, url: str, backups: int, shorter: float) -> dict[str, Any]:
    places = {
        "sqlite": str(folder / "projects" / "projects.db"),
        "chroma": str(folder / "chroma"),
        "redis": url,
        "files": str(folder / "scripts"),
    }
    config = _config(folder, places)
    command = [sys.executable, "-m", "safetake", "--config", str(config), "--json"]
    env = {"SAFETAKE_BENCH_PASSWORD": PASSWORD}
    run([*command, "init"], env=env)
    writers = {
        kind: subprocess.Popen(
            [sys.executable, "-m", "bench.writers", kind, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        for kind, place in places.items()
    }
    try:
        for kind, writer in writers.items():
            assert writer.stdout is not None
            if writer.stdout.readline() != "begun\n":
                raise BenchError(f"the writer of {kind} ended with {writer.wait()}")
        run([*command, "backup"], env=env, allowed=(0, 3))  # the first one reads everything
        started = time.monotonic()
        time.sleep(CONTROL_S * shorter)
        between = time.monotonic()
        taken = []
        for _ in range(backups):
            done = run([*command, "backup"], env=env, allowed=(0, 3))
            taken.append(json.loads(done.stdout))
            time.sleep(0.5)
        ended = time.monotonic()
        waits = {}
        for kind, writer in writers.items():
            if writer.poll() is not None:
                raise BenchError(f"the writer of {kind} ended with {writer.returncode}")
            told = json.loads(writer.communicate("\n")[0])
            waits[kind] = {
                "writes": told["writes"],
                "longest_ms_control": _longest(told["slow"], started, between),
                "longest_ms_backups": _longest(told["slow"], between, ended),
            }
    finally:
        for writer in writers.values():
            if writer.poll() is None:
                writer.kill()
                writer.wait()
    barriers = [float(report["barrier_ms"]) for report in taken]
    return {
        "backups": backups,
        "stores_mb": {
            name: round(size_mb(folder / name), 1) for name in ("projects", "chroma", "scripts")
        },
        "barrier_ms": {
            "median": round(statistics.median(barriers), 1),
            "max": round(max(barriers), 1),
            "all": barriers,
        },
        "skew_ms_max": max(float(report["skew_ms"]) for report in taken),
        "seconds_per_backup": round(statistics.median(float(r["seconds"]) for r in taken), 2),
        "writers": waits,
    }


def _longest(slow: list[tuple[float, float]], since: float, until: float) -> float:
    """The longest write that began in the span, in ms; 0 when none took over 10 ms."""
    return round(max((s for at, s in slow if since <= at < until), default=0.0) * 1000, 1)


def _config(folder: Path, places: dict[str, str]) -> Path:
    lines = [
        "[repository]",
        f"location = {json.dumps(str(folder / 'repository'))}",
        'password_env = "SAFETAKE_BENCH_PASSWORD"',
    ]
    for kind, place in places.items():
        key = "url" if kind == "redis" else "path"
        lines += [f"[sources.{kind}]", f'type = "{kind}"', f"{key} = {json.dumps(place)}"]
    path = folder / "safetake.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
