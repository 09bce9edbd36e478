"""Patterns of keys as KEYS and SCAN have them, over bytes: `*`, `?`, `[a-z]`, `[^x]`, and a
backslash that quotes.
"""

from __future__ import annotations

import re


def compile_pattern(pattern: bytes) -> re.Pattern[bytes]:
    """For `fullmatch`. Every pattern means something: a bracket that is not closed ends at the
    end, as in the server."""
    out, at = [], 0
    while at < len(pattern):
        c = pattern[at : at + 1]
        at += 1
        if c == b"*":
            out.append(b".*")
        elif c == b"?":
            out.append(b".")
        elif c == b"[":
            piece, at = _bracket(pattern, at)
            out.append(piece)
        else:
            if c == b"\\" and at < len(pattern):
                c = pattern[at : at + 1]
                at += 1
            out.append(re.escape(c))
    return re.compile(b"".join(out), re.DOTALL)


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int]:
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            members.add(pattern[at + 1])
            at += 2
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.update(range(low, high + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    chosen = b"".join(b"\\x%02x" % member for member in sorted(members))
    if not chosen:
        return (b"." if negated else b"(?!)"), at + 1
    return b"[" + (b"^" if negated else b"") + chosen + b"]", at + 1
