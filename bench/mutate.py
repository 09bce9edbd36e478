"""A day's work on the dataset: what an increment has to store.

One episode in a hundred is rewritten, two new vectors come for each hundred (which changes links
of about 18 % of all HNSW records, as measured with Chroma), one file in a hundred is changed, and
the Redis dump is written anew by a server with one key in a hundred changed.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np

from bench import chroma_folder
from bench.generate import DUMP, SCRIPT_BYTES, STAMP
from bench.text import Prose

EPISODES = 0.01
VECTORS = 0.02
TOUCHED = 0.18
FILES = 0.01


def mutate(folder: Path, next_dump: Path, seed: int = 7) -> None:
    """Change the dataset in place; the dump becomes `next_dump`."""
    random = np.random.default_rng(seed)
    _episodes(folder / "projects" / "projects.db", random, seed)
    chroma_folder.append(folder / "chroma", VECTORS, TOUCHED, seed)
    _files(folder / "scripts", random, seed)
    shutil.copyfile(next_dump, folder / "queue" / DUMP)


def _episodes(path: Path, random: np.random.Generator, seed: int) -> None:
    prose = Prose(seed, 4 << 20)
    connection = sqlite3.connect(path)
    try:
        (count,) = connection.execute("SELECT count(*) FROM episodes").fetchone()
        chosen = random.choice(count, size=max(1, int(count * EPISODES)), replace=False) + 1
        with connection:
            connection.executemany(
                "UPDATE episodes SET script = ?, updated_at = datetime(?, 'unixepoch')"
                " WHERE id = ?",
                (
                    (prose.piece(prose.size(SCRIPT_BYTES)), STAMP + 9_999_999, int(n))
                    for n in chosen
                ),
            )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _files(folder: Path, random: np.random.Generator, seed: int) -> None:
    prose = Prose(seed + 1, 2 << 20)
    everything = sorted(path for path in folder.rglob("*") if path.is_file())
    for number in random.choice(
        len(everything), size=max(1, int(len(everything) * FILES)), replace=False
    ):
        path = everything[int(number)]
        with path.open("r+b") as file:
            size = path.stat().st_size
            file.seek(int(random.integers(0, max(1, size // 2))))
            file.write(prose.piece(min(20_000, size // 3 + 50)).encode())
