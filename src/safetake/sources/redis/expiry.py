"""Makes relative expiries of a Redis 6 stream absolute, by when each command was received.

Redis 7 and Valkey replicate absolute expiries. Redis 6 sends `SET … PX n` and `EXPIRE` as they are
(it rewrites them for its own append-only file only), so replaying its stream later would let every
such key live longer by as much. The moment of receipt stands for the moment of execution: it is
late by the way through the network, and by the transfer of the RDB for commands that the server
buffered meanwhile. Expiries that a Lua script sets stay relative: Redis 6 sends the script itself.
"""

from __future__ import annotations

import bisect
import time
from array import array
from collections.abc import Sequence

RELATIVE = frozenset((b"EXPIRE", b"PEXPIRE", b"SETEX", b"PSETEX", b"SET"))

Word = bytes | None
"""An argument, or None when it is too long to be an option or a number."""


class Receipts:
    """When each byte of the stream was received: one entry a millisecond at most."""

    def __init__(self) -> None:
        self._ends = array("q")
        self._times = array("q")

    def add(self, received: int) -> None:
        """`received` bytes are here now."""
        now = time.time_ns() // 1_000_000
        if self._times and self._times[-1] >= now:
            self._ends[-1] = received
        else:
            self._ends.append(received)
            self._times.append(now)

    def at(self, end: int) -> int:
        """Milliseconds since the epoch at which the byte before `end` was here."""
        return self._times[min(bisect.bisect_left(self._ends, end), len(self._times) - 1)]


def rewrite(words: Sequence[Word], now_ms: int) -> list[bytes | int] | None:
    """The command with its expiry made absolute; an integer is the index of an argument to copy.

    None when there is nothing to change.
    """
    name = (words[0] or b"").upper()
    if name in (b"EXPIRE", b"PEXPIRE") and len(words) == 3:
        amount = _milliseconds(words[2], seconds=name == b"EXPIRE")
        return None if amount is None else [b"PEXPIREAT", 1, b"%d" % (now_ms + amount)]
    if name in (b"SETEX", b"PSETEX") and len(words) == 4:
        amount = _milliseconds(words[2], seconds=name == b"SETEX")
        return None if amount is None else [b"SET", 1, 3, b"PXAT", b"%d" % (now_ms + amount)]
    if name == b"SET":
        for index in range(3, len(words) - 1):
            option = (words[index] or b"").upper()
            if option in (b"EX", b"PX"):
                amount = _milliseconds(words[index + 1], seconds=option == b"EX")
                if amount is None:
                    return None
                new: list[bytes | int] = [*range(len(words))]
                new[index : index + 2] = [b"PXAT", b"%d" % (now_ms + amount)]
                return new
    return None


def _milliseconds(word: Word, *, seconds: bool) -> int | None:
    if word is None or not word.lstrip(b"-").isdigit():
        return None
    return int(word) * (1000 if seconds else 1)
