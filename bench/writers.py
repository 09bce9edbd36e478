"""Applications that write without pause, one process for each store, and what they waited.

`python -m bench.writers KIND PLACE` writes until its standard input closes, then prints JSON: how
many writes were acknowledged, and every write that took longer than 10 ms as [start, seconds] on
the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import json
import select
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.text import Prose

PAUSE_S = 0.002
SLOW_S = 0.010


def _sqlite(place: str) -> Callable[[int], None]:
    connection = sqlite3.connect(place, isolation_level=None, timeout=60)
    prose = Prose(11, 1 << 20)

    def write(number: int) -> None:
        connection.execute(
            "INSERT INTO episodes (project_id, number, title, script, updated_at)"
            " VALUES (1, ?, 'load', ?, datetime('now'))",
            (number, prose.piece(2000)),
        )

    return write


def _chroma(place: str) -> Callable[[int], None]:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(place, settings=Settings(anonymized_telemetry=False))
    collection = client.get_collection("scripts", embedding_function=None)
    random = np.random.default_rng(5)
    begun = time.time_ns()

    def write(number: int) -> None:
        collection.add(
            ids=[f"load-{begun}-{number}"],
            embeddings=random.standard_normal((1, 384), dtype=np.float32),
            documents=["a scene that is written while a snapshot is taken"],
        )

    return write


def _redis(place: str) -> Callable[[int], None]:
    from redis import Redis

    client = Redis.from_url(place, socket_timeout=None)

    def write(number: int) -> None:
        pipe = client.pipeline(transaction=True)
        pipe.set(f"load:{number % 5000}", number)
        pipe.lpush("load", number)
        pipe.ltrim("load", 0, 999)
        pipe.execute()

    return write


def _files(place: str) -> Callable[[int], None]:
    folder = Path(place) / "load"
    folder.mkdir(exist_ok=True)
    prose = Prose(13, 1 << 20)

    def write(number: int) -> None:
        part = folder / f".{number % 500}.part"
        part.write_text(prose.piece(4000))
        part.rename(folder / f"{number % 500}.md")

    return write


KINDS = {"sqlite": _sqlite, "chroma": _chroma, "redis": _redis, "files": _files}


def main() -> None:
    """Write until told to stop."""
    write = KINDS[sys.argv[1]](sys.argv[2])
    slow: list[tuple[float, float]] = []
    number = 0
    while True:
        started = time.monotonic()
        write(number)
        seconds = time.monotonic() - started
        if seconds > SLOW_S:
            slow.append((started, seconds))
        number += 1
        if number == 5:
            print("begun", flush=True)
        if select.select([sys.stdin], [], [], PAUSE_S)[0]:
            break
    print(json.dumps({"writes": number, "slow": slow}), flush=True)


if __name__ == "__main__":
    main()
