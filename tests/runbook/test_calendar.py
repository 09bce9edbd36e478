"""The calendar file, read by a small parser of its own."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.runbook.calendar import Meeting, addresses, ics

NOW = 1_795_415_018 * 10**9


def parsed(data: bytes) -> dict[str, list[str]]:
    """Values by name, as RFC 5545 says: unfolded, unescaped."""
    assert data.endswith(b"\r\n")
    lines: list[bytes] = []
    for line in data[:-2].split(b"\r\n"):
        assert len(line) <= 75
        assert b"\n" not in line
        assert b"\r" not in line
        if line.startswith(b" "):
            lines[-1] += line[1:]
        else:
            lines.append(line)
        line.decode()  # no character is split
    found: dict[str, list[str]] = {}
    for whole in lines:
        name, _, value = whole.decode().partition(":")
        text = re.sub(r"\\(.)", lambda m: "\n" if m[1] in "nN" else m[1], value)
        if name in ("SUMMARY", "DESCRIPTION", "LOCATION"):
            assert not re.search(r"(?<!\\)(?:\\\\)*[;,]", value)
        found.setdefault(name, []).append(text)
    return found


def normal(text: str) -> str:
    """What a calendar can hold of a text, worked out another way."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = (c for c in lines if c in "\n\t" or (ord(c) >= 32 and ord(c) != 127))
    return "".join(c for c in kept if not 0xD800 <= ord(c) < 0xE000)


TEXT = st.text(st.one_of(st.characters(), st.sampled_from("\r\n\t\\;,:한\x00\x7f\ud800 n")))


@given(TEXT, TEXT, TEXT, st.integers(0, 2**32), st.integers(1, 10_000))
def test_any_text_survives(
    summary: str, description: str, location: str, later: int, minutes: int
) -> None:
    start = NOW + later * 10**9
    found = parsed(ics(Meeting("a;b", NOW, start, minutes, summary, description, location)))
    assert found["SUMMARY"] == [normal(summary)]
    assert found.get("DESCRIPTION", [""]) == [normal(description)]
    assert found.get("LOCATION", [""]) == [normal(location)]
    assert found["UID"] == ["a;b"]
    assert found["BEGIN"] == ["VCALENDAR", "VEVENT"]
    assert found["END"] == ["VEVENT", "VCALENDAR"]
    assert found["DTSTAMP"] == ["20261123T062338Z"]
    assert found["VERSION"] == ["2.0"]


def test_only_addresses_are_invited() -> None:
    people = addresses("a@example.org, Kim <b@example.org>; c@example.org\nx")
    assert people == ["a@example.org", "c@example.org"]
    found = parsed(ics(Meeting("u", NOW, NOW, 60, "s", people=[*people, "x\r\nY:z@a"])))
    assert found["ATTENDEE"] == ["mailto:a@example.org", "mailto:c@example.org"]
    assert "Y" not in found


def test_a_time_that_no_clock_shows_is_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from safetake.runbook.afterwards import _moment

    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        assert _moment("2027-03-28 02:30") is None, "the clocks go from 2 to 3"
        assert _moment("2027-02-30 10:00") is None
        found = _moment("2027-03-28 03:30")
        assert found is not None
        assert found.isoformat() == "2027-03-28T03:30:00+02:00"
    finally:
        monkeypatch.undo()
        time.tzset()
