"""Whether a good answer of a service can be believed: who gave it, and what it tells.

A health endpoint can be stale in two ways: a process from before the disaster still answers at the
port, or the answer was kept somewhere and is not about what is there. `stranger` sees the first.
`counted` puts true counts into the text that an answer must contain, so that the second is seen.
"""

from __future__ import annotations

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from safetake.drill import processes
from safetake.errors import SafetakeError
from safetake.services.process import redact

if TYPE_CHECKING:
    from safetake.drill.truth import Truth

COUNT = re.compile(r"\{count:([^{}/]+)(?:/([^{}]+))?\}")
"""`{count:SOURCE}`, or `{count:SOURCE/PART}` with a table, collection or database."""
_LISTENS = "0A"
_SECONDS, _LONGEST, _SHOWN = 5.0, 1 << 16, 500
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def unwell(url: str, contains: str = "") -> str:
    """What is wrong with the answer, or empty."""
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            said = answer.read(_LONGEST).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:  # a health endpoint says there what is wrong
        said = redact(" ".join(error.read(_LONGEST).decode("utf-8", "replace").split()))
        return f"{error.code} {error.reason}" + (f": {said[:_SHOWN]}" if said else "")
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, HTTPException) as error:
        return str(error) or type(error).__name__
    return (
        "" if holds(said, contains) else f"it answers without {contains!r}: {redact(said)[:_SHOWN]}"
    )


def holds(said: str, wanted: str) -> bool:
    """Whether the text is in an answer, and no part of a longer number: 12 is not in 120."""
    begins, ends = wanted[:1].isdigit(), wanted[-1:].isdigit()
    place = ("(?<![0-9])(?<![0-9][.])" if begins else "") + re.escape(wanted)
    return re.search(place + ("(?![0-9]|[.][0-9])" if ends else ""), said) is not None


def silent(url: str) -> str:
    """Why there is no answer at all, or empty."""
    try:
        urllib.request.urlopen(url, timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return ""
    except (OSError, HTTPException) as error:
        return str(error) or type(error).__name__
    return ""


def unknown_counts(text: str, sources: Iterable[str]) -> list[str]:
    """The placeholders of a text whose source is none of these."""
    known = set(sources)
    return [found[0] for found in COUNT.finditer(text) if found[1] not in known]


def counted(text: str, truth: Truth) -> str:
    """The text with its counts filled in. Raises SafetakeError where there is no such part."""

    def count(found: re.Match[str]) -> str:
        source, part = found.groups()
        if part is None:
            return str(truth.count(source))
        parts = {**truth.holders(source), **truth.parts(source)}
        if part.isdigit() and all(one.isdigit() for one in parts):
            parts.setdefault(part, 0)  # a database of Redis
        if part not in parts:
            there = ", ".join(filter(None, parts)) or "no part"
            raise SafetakeError(f"there is nothing to count for {found[0]}: {source} has {there}")
        return str(parts[part])

    return COUNT.sub(count, text)


def stranger(url: str, groups: Iterable[int]) -> str:
    """Who answers at a port of this machine and is in none of these process groups; or empty."""
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK:
        return ""
    port = parts.port or 80
    sockets = _listening(port)
    known = set(groups)
    there = processes.groups()
    foreign = sockets.difference(*(_held(pid) for pid, group in there.items() if group in known))
    if sockets and not foreign:
        return ""
    who = next((pid for pid in there if _held(pid) & foreign), 0)
    told = described(who) if who else "a process"
    return f"port {port} is answered by {told} that was not started for it"


def _listening(port: int) -> set[str]:
    """Inodes of the sockets that wait for connections at a TCP port."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/self/net/{table}").read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            continue  # without IPv6
        for line in lines:
            words = line.split()
            if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == port:
                found.add(words[9])
    return found


def _held(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open; none where it may not be asked."""
    found = set()
    with contextlib.suppress(OSError):  # of somebody else, or gone
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                target = str(fd.readlink())
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def described(pid: int) -> str:
    """A process, for people."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return f"process {pid}"
    text = " ".join(b" ".join(words).decode("utf-8", "replace").split())  # on one line
    return f"process {pid} ({text[:100]})"
