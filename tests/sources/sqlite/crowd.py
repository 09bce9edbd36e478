"""Readers and writers of one database, each with a connection of its own, that watch a restore.

The content carries a generation: the row of `meta`, and every row of `items`, whose payload follows
from its number and the generation. A reader's transaction that meets two generations, or any error,
is a finding; a writer may meet `database is locked` and nothing else. Run as
`python -m tests.sources.sqlite.crowd DATABASE READERS WRITERS TIMEOUT never|may-wait PAUSE`: prints
`ready`, goes on until its input ends, and prints its findings as JSON. Each connection pauses for
up to PAUSE seconds between two transactions.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import apsw

PAYLOAD = 4000
_SAMPLE = 20


@dataclass
class Findings:
    """What one connection, or all of them together, met."""

    reads: int = 0
    writes: int = 0
    busy: int = 0
    errors: list[str] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    longest_read: float = 0.0
    """Seconds from the first try to the end of one reader's transaction."""
    longest_write: float = 0.0
    """The same for a writer, over as many tries as it took."""

    def add(self, other: Findings) -> None:
        """Count another one in."""
        self.reads += other.reads
        self.writes += other.writes
        self.busy += other.busy
        self.errors += other.errors
        self.generations = sorted({*self.generations, *other.generations})
        self.longest_read = max(self.longest_read, other.longest_read)
        self.longest_write = max(self.longest_write, other.longest_write)


def payload(number: int, generation: int) -> str:
    """What a row must hold."""
    return f"{number}:{generation}:".ljust(PAYLOAD, "ab"[generation % 2])


def make(path: Path, rows: int, mode: str) -> None:
    """A database of generation 1."""
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    connection.execute(
        "CREATE TABLE meta(generation INTEGER, rows INTEGER);"
        "CREATE TABLE items(id INTEGER PRIMARY KEY, generation INTEGER, payload TEXT);"
        "CREATE TABLE log(id INTEGER PRIMARY KEY, generation INTEGER)"
    ).fetchall()
    with connection:
        connection.execute("INSERT INTO meta VALUES (1, ?)", (rows,)).fetchall()
        connection.executemany(
            "INSERT INTO items VALUES (?, 1, ?)", ((n, payload(n, 1)) for n in range(1, rows + 1))
        )
    connection.close()


def next_generation(path: Path) -> None:
    """Every row becomes one of generation 2, and a tenth more are added."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5000)
    with connection:
        rows = connection.execute("SELECT rows FROM meta").get
        more = rows + rows // 10
        connection.execute("UPDATE meta SET generation = 2, rows = ?", (more,)).fetchall()
        connection.executemany(
            "INSERT OR REPLACE INTO items VALUES (?, 2, ?)",
            ((n, payload(n, 2)) for n in range(1, more + 1)),
        )
    connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()


def read(connection: sqlite3.Connection) -> int:
    """One reader's transaction; the generation it saw. Raises AssertionError for a mix."""
    connection.execute("BEGIN")
    try:
        generation, rows = connection.execute("SELECT generation, rows FROM meta").fetchone()
        highest = connection.execute("SELECT max(id) FROM items").fetchone()[0]
        assert highest == rows, f"{rows} rows, and the highest is {highest}"
        for _ in range(_SAMPLE):
            number = random.randint(1, rows)
            found = connection.execute(
                "SELECT generation, payload FROM items WHERE id = ?", (number,)
            ).fetchone()
            assert found == (generation, payload(number, generation)), f"a mix at row {number}"
        (foreign,) = connection.execute(
            "SELECT count(*) FROM log WHERE generation != ?", (generation,)
        ).fetchone()
        assert foreign == 0, f"{foreign} rows written to another generation"
    finally:
        connection.execute("COMMIT")
    return int(generation)


def write(connection: sqlite3.Connection) -> None:
    """One writer's transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        generation, rows = connection.execute("SELECT generation, rows FROM meta").fetchone()
        connection.execute("INSERT INTO log(generation) VALUES (?)", (generation,))
        number = random.randint(1, rows)
        connection.execute(
            "UPDATE items SET generation = ?, payload = ? WHERE id = ?",
            (generation, payload(number, generation), number),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _reader(
    path: str,
    timeout: float,
    pause: float,
    stop: threading.Event,
    mine: Findings,
    *,
    may_wait: bool,
) -> None:
    connection = sqlite3.connect(path, timeout, isolation_level=None)
    ended = False
    while not ended:
        ended = stop.is_set()  # a last look comes after it, however busy the machine is
        started = time.monotonic()
        try:
            generation = read(connection)
        except sqlite3.OperationalError as error:
            if may_wait and "locked" in str(error):
                mine.busy += 1
            else:
                mine.errors.append(f"reader: {error}")
        except (AssertionError, sqlite3.Error) as error:
            mine.errors.append(f"reader: {type(error).__name__}: {error}")
        else:
            mine.reads += 1
            if generation not in mine.generations:
                mine.generations.append(generation)
        mine.longest_read = max(mine.longest_read, time.monotonic() - started)
        stop.wait(random.uniform(0, pause))
    connection.close()


def _writer(path: str, timeout: float, pause: float, stop: threading.Event, mine: Findings) -> None:
    connection = sqlite3.connect(path, timeout, isolation_level=None)
    started = time.monotonic()
    while not stop.is_set():
        try:
            write(connection)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                mine.busy += 1
            else:
                mine.errors.append(f"writer: {error}")
        except (AssertionError, sqlite3.Error) as error:
            mine.errors.append(f"writer: {type(error).__name__}: {error}")
        else:
            mine.writes += 1
            mine.longest_write = max(mine.longest_write, time.monotonic() - started)
            stop.wait(random.uniform(0, pause))
            started = time.monotonic()
    connection.close()


def main(
    path: str, readers: int, writers: int, timeout: float, pause: float, *, may_wait: bool
) -> None:
    """All of it, until standard input ends."""
    stop = threading.Event()
    each = [Findings() for _ in range(readers + writers)]
    threads = [
        threading.Thread(
            target=_reader, args=(path, timeout, pause, stop, mine), kwargs={"may_wait": may_wait}
        )
        for mine in each[:readers]
    ] + [
        threading.Thread(target=_writer, args=(path, timeout, pause, stop, m))
        for m in each[readers:]
    ]
    for thread in threads:
        thread.start()
    while any(not mine.reads and not mine.writes and not mine.errors for mine in each):
        time.sleep(0.01)
    print("ready", flush=True)
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    together = Findings()
    for mine in each:
        together.add(mine)
    print(json.dumps(asdict(together)))


if __name__ == "__main__":
    main(
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        float(sys.argv[4]),
        float(sys.argv[6]),
        may_wait=sys.argv[5] == "may-wait",
    )
