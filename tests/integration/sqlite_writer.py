"""A process that writes to a SQLite database without pause and tells what was acknowledged.

Each transaction moves money between two accounts (the sum never changes), appends the next number
to `sequence`, and rewrites some filler; every commit that returned is written to stdout as its
number, the monotonic times in ns at which its BEGIN and its COMMIT returned, and the milliseconds
that it took with its wait. It also runs checkpoints of every kind (WAL), and shrinks and regrows
the database. Run: `python sqlite_writer.py DB MODE SEED`. It stops when its stdin closes.
"""

from __future__ import annotations

import os
import random
import select
import sqlite3
import sys
import time

ACCOUNTS = 200
TOTAL = ACCOUNTS * 1000


def create(path: str, mode: str, page_size: int, auto_vacuum: int) -> None:
    """The database before its first transaction."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute(f"PRAGMA auto_vacuum = {auto_vacuum}")
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
    connection.execute("CREATE TABLE sequence(n INTEGER PRIMARY KEY, note TEXT)")
    connection.execute("CREATE TABLE filler(id INTEGER PRIMARY KEY, data BLOB)")
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO account VALUES (?, 1000)", [(n,) for n in range(1, ACCOUNTS + 1)]
    )
    connection.executemany(
        "INSERT INTO filler VALUES (?, randomblob(3000))", [(n,) for n in range(1, 2001)]
    )
    connection.execute("COMMIT")
    connection.close()


def main(path: str, mode: str, seed: int) -> None:
    """Write until stdin closes."""
    chooser = random.Random(seed)
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = 50")  # spills dirty pages before the commit
    number = connection.execute("SELECT coalesce(max(n), 0) FROM sequence").fetchone()[0]
    out = os.fdopen(1, "w", buffering=1)
    while not select.select([0], [], [], 0)[0]:
        number += 1
        asked = time.monotonic_ns()
        connection.execute("BEGIN IMMEDIATE")
        began = time.monotonic_ns()
        giver, taker = chooser.sample(range(1, ACCOUNTS + 1), 2)
        amount = chooser.randrange(1, 50)
        connection.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, giver))
        connection.execute("INSERT INTO sequence VALUES (?, ?)", (number, f"move {amount}"))
        for _ in range(chooser.randrange(0, 40)):
            connection.execute(
                "INSERT OR REPLACE INTO filler VALUES (?, randomblob(?))",
                (chooser.randrange(1, 2500), chooser.randrange(100, 6000)),
            )
        connection.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, taker))
        if chooser.random() < 0.05:
            connection.execute("UPDATE filler SET data = randomblob(500) WHERE id % 7 = 3")
            connection.execute("ROLLBACK")
            number -= 1
            continue
        connection.execute("COMMIT")
        ended = time.monotonic_ns()
        out.write(f"{number} {began} {ended} {(ended - asked) / 1e6:.1f}\n")
        if mode == "wal" and chooser.random() < 0.05:
            kind = chooser.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
            connection.execute("PRAGMA busy_timeout = 0")  # a held reader must not stop the writer
            connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchall()
            connection.execute("PRAGMA busy_timeout = 30000")
        if chooser.random() < 0.005:
            connection.execute("DELETE FROM filler WHERE id > 1000")
            connection.execute("PRAGMA incremental_vacuum").fetchall()
        if chooser.random() < 0.002:
            connection.execute("VACUUM")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
