"""A bank over two databases of a Redis server, run as a process of its own.

    python redis_bank.py PORT JOURNAL

Each transfer is one MULTI/EXEC: a debit in database 0, a credit in database 1 (or the other way),
the sequence counters, and the row of the transfer. JOURNAL (16 bytes, mapped) holds how many were
sent and how many were acknowledged.
"""

from __future__ import annotations

import mmap
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

ACCOUNTS = 50
OPENING = 1000


def open_accounts(port: int) -> None:
    """Every account with its opening balance, the counter at zero."""
    for db in (0, 1):
        client = redis.Redis(port=port, db=db)
        client.mset({f"account:{i}": OPENING for i in range(ACCOUNTS)} | {"sequence": 0})


def verify(port: int) -> int:
    """The sequence number; every invariant holds, or AssertionError."""
    books = [redis.Redis(port=port, db=db) for db in (0, 1)]
    names = [f"account:{i}" for i in range(ACCOUNTS)]
    values: list[Any] = [value for book in books for value in book.mget(names)]
    total = sum(int(value) for value in values)
    assert total == 2 * ACCOUNTS * OPENING
    counters = {int(book.get("sequence") or 0) for book in books}
    assert len(counters) == 1
    (sequence,) = counters
    assert books[1].llen("transfers") == min(sequence, 500)
    if sequence:
        assert books[1].lindex("transfers", 0) == b"%d" % sequence
    return sequence


@contextmanager
def at_work(port: int, journal: Path) -> Iterator[Path]:
    """The bank in its own process, for as long as the context lasts."""
    journal.write_bytes(bytes(16))
    process = subprocess.Popen([sys.executable, __file__, str(port), str(journal)])
    try:
        while acknowledged(journal) < 50:
            assert process.poll() is None
        yield journal
        assert process.poll() is None, "the bank stopped by itself"
    finally:
        process.kill()
        process.wait()


def sent(journal: Path) -> int:
    return int(struct.unpack_from("<Q", journal.read_bytes(), 0)[0])


def acknowledged(journal: Path) -> int:
    return int(struct.unpack_from("<Q", journal.read_bytes(), 8)[0])


def work(port: int, journal: Path) -> None:
    client: Any = redis.Redis(port=port)
    pick = random.Random(1)
    with journal.open("r+b") as file, mmap.mmap(file.fileno(), 16) as shared:
        number = 0
        while True:
            number += 1
            struct.pack_into("<Q", shared, 0, number)
            amount, source, target = pick.randint(1, 99), pick.randrange(50), pick.randrange(50)
            if pick.random() < 0.5:
                amount = -amount
            pipe = client.pipeline(transaction=True)
            pipe.execute_command("SELECT", 0)
            pipe.decrby(f"account:{source}", amount)
            pipe.incr("sequence")
            pipe.setex(f"session:{number % 300}", 100_000, "x" * (number % 200))
            pipe.execute_command("SELECT", 1)
            pipe.incrby(f"account:{target}", amount)
            pipe.incr("sequence")
            pipe.lpush("transfers", number)
            pipe.ltrim("transfers", 0, 499)
            pipe.execute()
            struct.pack_into("<Q", shared, 8, number)


if __name__ == "__main__":
    work(int(sys.argv[1]), Path(sys.argv[2]))
