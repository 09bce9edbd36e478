"""Time as the format writes it: RFC 3339 with nanoseconds, as Go's encoder prints it."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

_WHOLE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
_TIME = re.compile(_WHOLE.pattern + r"(?:\.([0-9]{1,9})[0-9]*)?(Z|[+-][0-9]{2}:[0-9]{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MIN_NS = -62135596800 * 10**9
"""0001-01-01, Go's zero time."""
_MAX_NS = 253402300799 * 10**9
"""9999-12-31: the format cannot say a later year."""


def now_ns() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns()


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    """`2026-11-22T21:58:00`. A year below 1000 keeps its zeros."""
    if 0 <= seconds < 0x7FFFFFFF:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment.year:04d}" + moment.strftime("-%m-%dT%H:%M:%S")


def go_time(ns: int) -> str:
    """`2026-11-22T21:58:00.5Z`: UTC, trailing zeros of the fraction left out."""
    seconds, fraction = divmod(min(max(ns, _MIN_NS), _MAX_NS), 10**9)
    text = _second(seconds)
    return f"{text}.{fraction:09d}".rstrip("0") + "Z" if fraction else text + "Z"


def utc(written: str) -> str:
    """For people, what `go_time` wrote: `2026-11-22 21:58:00 UTC`."""
    return written[:19].replace("T", " ") + " UTC"


@lru_cache(maxsize=4096)
def _whole(text: str) -> int:
    """Seconds since the epoch of `2026-11-22T21:58:00`. Raises ValueError."""
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"not a time: {text[:40]!r}")
    days = date(int(text[:4]), int(text[5:7]), int(text[8:10])).toordinal() - _EPOCH_DAY
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(f"not a time: {text[:40]!r}")
    return days * 86400 + hour * 3600 + minute * 60 + min(second, 59)


def parse_go_time(text: str) -> int:
    """Nanoseconds since the epoch. Raises ValueError."""
    if text[-1:] == "Z" and text[19:20] in (".", "Z"):
        # what we write ourselves: 12,000 files have 36,000 of them
        fraction = text[20:-1]
        if (not fraction or (fraction.isdigit() and fraction.isascii())) and len(fraction) <= 9:
            return _whole(text[:19]) * 10**9 + int(fraction.ljust(9, "0") if fraction else 0)
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text[:40]!r}")
    whole = _whole(text[:19])
    zone = match[2]
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        whole -= offset if zone[0] == "+" else -offset
    return whole * 10**9 + int((match[1] or "0").ljust(9, "0"))
