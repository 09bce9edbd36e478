"""How messages say things: the nearest right word, sizes, durations and counts for people.

Pure functions over strings and numbers; nothing here prints.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def nearest(word: str, right: Iterable[str]) -> str:
    """` (did you mean 'x'?)` when a right word is near, else what there is when that is short."""
    words = sorted(right)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]!r}?)"
    if words and len(words) <= 12:
        return " (there are: " + ", ".join(words) + ")"
    return ""


def counted(number: int, what: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def size(count: float) -> str:
    """Bytes for people, in powers of 1024, three digits: `0 B`, `1.50 KiB`, `12.3 MiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 1024 or unit == "TiB":
            return f"{count:.2f} {unit}" if count < 9.995 else f"{count:.1f} {unit}"
    raise AssertionError("the loop returns")


def duration(seconds: float) -> str:
    """Seconds for people: `0.2 s`, `45 s`, `3 m 20 s`, `2 h 05 m`, `3 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(text: str) -> float:
    """`90s`, `15m`, `6h`, `1d`, `2w` in seconds. Raises ValueError."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is no span of time: write 90s, 15m, 6h, 1d or 2w")
    return float(match[1]) * _SECONDS[match[2]]


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes made visible: one safe line.

    A file name may hold escape sequences; a terminal must not obey them.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )
