"""Time as the format writes it: RFC 3339 with nanoseconds, as Go's encoder prints it."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_NS = -62135596800 * 10**9
"""0001-01-01, Go's zero time."""
_MAX_NS = 253402300799 * 10**9
"""9999-12-31: the format cannot say a later year."""


def now_ns() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns()


def go_time(ns: int) -> str:
    """`2026-11-22T21:58:00.5Z`: UTC, trailing zeros of the fraction left out."""
    ns = min(max(ns, _MIN_NS), _MAX_NS)
    seconds, fraction = divmod(ns, 10**9)
    if seconds >= 0 and seconds < 0x7FFFFFFF:
        parts = time.gmtime(seconds)
        text = (
            f"{parts[0]:04d}-{parts[1]:02d}-{parts[2]:02d}"
            f"T{parts[3]:02d}:{parts[4]:02d}:{parts[5]:02d}"
        )
    else:
        text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    if fraction:
        text += "." + f"{fraction:09d}".rstrip("0")
    return text + "Z"


def parse_go_time(text: str) -> int:
    """Nanoseconds since the epoch. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text[:40]!r}")
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    moment = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    delta = moment - _EPOCH
    seconds = delta.days * 86400 + delta.seconds
    zone = match[8]
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    fraction = int((match[7] or "0").ljust(9, "0"))
    return seconds * 10**9 + fraction
