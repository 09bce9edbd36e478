"""Reads the stream of commands that a master sends: where the data is, and what it starts from.

Exact to the byte: the cut must fall on the end of a command and outside a transaction, or it is an
error. What replicas get but an append-only file does not (PING, REPLCONF, PUBLISH) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from safetake.errors import SourceError
from safetake.sources.redis.expiry import RELATIVE, Receipts, rewrite
from safetake.sources.redis.wire import encode

NOT_DATA = frozenset((b"PING", b"REPLCONF", b"PUBLISH", b"SPUBLISH"))


@dataclass(slots=True)
class Tail:
    """What the stream holds up to the cut."""

    commands: int = 0
    """Commands that change data."""
    database: int = 0
    """The one that is selected at the end."""
    highest: int = 0
    """Highest database selected."""


def extract(
    stream: Path, length: int, target: Path, database: int = 0, receipts: Receipts | None = None
) -> Tail:
    """Copy the data commands among the first `length` bytes to `target`, an AOF.

    `database` is the one selected at the start. With `receipts` relative expiries become absolute
    (Redis 6). Raises SourceError when the cut is not between two
    commands, or inside MULTI.
    """
    tail = Tail(database=database, highest=database)
    in_multi = False
    with stream.open("rb") as file, target.open("wb") as out:
        out.write(encode("SELECT", database))
        kept = at = 0
        while at < length:
            name, first = _command(file)
            end = file.tell()
            if name in NOT_DATA:
                _copy(file, out, kept, at)
                kept = end
            elif name == b"SELECT":
                tail.database = int(first)
                tail.highest = max(tail.highest, tail.database)
            else:
                if receipts is not None and name in RELATIVE:
                    changed = _absolute(file, at, receipts.at(end))
                    if changed is not None:
                        _copy(file, out, kept, at)
                        for part in changed:
                            if isinstance(part, bytes):
                                out.write(part)
                            else:
                                _copy(file, out, *part)
                        kept = end
                        file.seek(end)
                tail.commands += 1
                if name == b"MULTI":
                    in_multi = True
                elif name == b"EXEC":
                    in_multi = False
            at = end
        if at != length or in_multi:
            raise SourceError("the cut does not fall between two commands of the stream")
        _copy(file, out, kept, at)
    return tail


def _absolute(file: BinaryIO, at: int, now_ms: int) -> list[bytes | tuple[int, int]] | None:
    """The command at `at` as pieces: bytes, or (start, end) of the stream; None when unchanged."""
    file.seek(at)
    words: list[bytes | None] = []
    places: list[tuple[int, int]] = []
    for _ in range(_number(file, b"*")):
        start = file.tell()
        size = _number(file, b"$")
        words.append(file.read(size) if size <= 64 else None)
        file.seek(start + len(b"$%d\r\n" % size) + size + 2)
        places.append((start, file.tell()))
    new = rewrite(words, now_ms)
    if new is None:
        return None
    pieces: list[bytes | tuple[int, int]] = [b"*%d\r\n" % len(new)]
    for word in new:
        if isinstance(word, bytes):
            pieces.append(b"$%d\r\n%s\r\n" % (len(word), word))
        else:
            pieces.append(places[word])
    return pieces


def _command(file: BinaryIO) -> tuple[bytes, bytes]:
    """Name in capitals, and the first argument (when short); stands behind the command."""
    count = _number(file, b"*")
    name = first = b""
    for index in range(count):
        size = _number(file, b"$")
        if index < 2 and size <= 64:
            word = file.read(size)
            if index == 0:
                name = word.upper()
            else:
                first = word
            file.seek(2, 1)
        else:
            file.seek(size + 2, 1)
    return name, first


def _number(file: BinaryIO, kind: bytes) -> int:
    line = file.readline(32)
    if line[:1] != kind or not line.endswith(b"\r\n") or not line[1:-2].isdigit():
        raise SourceError(
            f"the replication stream holds {line[:32]!r} where a command should begin",
            hint='run again; if it stays, use method = "scan"',
        )
    return int(line[1:-2])


def _copy(file: BinaryIO, out: BinaryIO, start: int, end: int) -> None:
    if start == end:
        return
    here = file.tell()
    file.seek(start)
    left = end - start
    while left:
        piece = file.read(min(left, 1 << 20))
        if not piece:
            raise SourceError("the replication stream is shorter than the cut")
        out.write(piece)
        left -= len(piece)
    file.seek(here)
