"""The calendar file of the review meeting: iCalendar as RFC 5545 has it.

Lines end with CRLF and are folded at 75 octets without splitting a character; text is escaped. What
iCalendar cannot hold (control characters, half characters) is left out; any line break is `\\n`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

_OCTETS = 75
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BREAK = re.compile(r"\r\n|\r")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class Meeting:
    """What stands in the file."""

    uid: str
    made_ns: int
    start_ns: int
    minutes: int
    summary: str
    description: str = ""
    location: str = ""
    people: Sequence[str] = ()
    """Addresses; anything else is left out here."""


def holdable(text: str) -> str:
    """The text as iCalendar can hold it."""
    whole = text.encode("utf-8", "ignore").decode()
    return _CONTROL.sub("", _BREAK.sub("\n", whole))


def addresses(text: str) -> list[str]:
    """The mail addresses among words and commas."""
    return [word for word in re.split(r"[\s,;]+", text) if _ADDRESS.fullmatch(word)]


def ics(meeting: Meeting) -> bytes:
    """The whole file."""
    end = meeting.start_ns + meeting.minutes * 60 * 10**9
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//safetake//runbook//EN",
        "CALSCALE:GREGORIAN",
        "METHOD:PUBLISH",
        "BEGIN:VEVENT",
        f"UID:{_escaped(meeting.uid)}",
        f"DTSTAMP:{_utc(meeting.made_ns)}",
        f"DTSTART:{_utc(meeting.start_ns)}",
        f"DTEND:{_utc(end)}",
        f"SUMMARY:{_escaped(meeting.summary)}",
    ]
    if meeting.description:
        lines.append(f"DESCRIPTION:{_escaped(meeting.description)}")
    if meeting.location:
        lines.append(f"LOCATION:{_escaped(meeting.location)}")
    lines += [
        f"ATTENDEE:mailto:{person}" for person in meeting.people if _ADDRESS.fullmatch(person)
    ]
    lines += ["END:VEVENT", "END:VCALENDAR"]
    return b"".join(_folded(line) for line in lines)


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y%m%dT%H%M%SZ")


def _escaped(text: str) -> str:
    text = holdable(text).replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    return text.replace("\n", "\\n")


def _folded(line: str) -> bytes:
    """The line in pieces of at most 75 octets, each but the first begun by a space."""
    pieces, piece = [], b""
    for character in line:
        octets = character.encode()
        if len(piece) + len(octets) > _OCTETS:
            pieces.append(piece)
            piece = b" "
        piece += octets
    return b"\r\n".join([*pieces, piece]) + b"\r\n"
