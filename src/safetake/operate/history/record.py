"""One run, as it is remembered: a record that is named by the hash of what it says.

A record names the records before it (`previous`), so that none can be changed, left out or put
elsewhere without a hash that does not fit. Its canonical form is ASCII JSON with sorted keys and no
spaces; its id is the SHA-256 of that. Whatever is read is believed in nothing: `parse` takes only
the canonical form, within limits, and only under its own hash.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from safetake.errors import DamagedError

FORMAT = 1
MAX_BYTES = 1 << 16
"""Of one record."""
MAX_PREVIOUS = 256
_MAX_TEXT = 4000
_MAX_NAME = 256
_MAX_DEPTH = 8
_MAX_INT = 1 << 63
_ID = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*:[^/\s]*@")
_FIELDS = {
    "format",
    "previous",
    "kind",
    "job",
    "started_ns",
    "ended_ns",
    "exit_code",
    "host",
    "user",
    "trigger",
    "error",
    "hint",
    "facts",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One run that is over. Made by `make` and `parse` only, which see to the id."""

    id: str
    """SHA-256 in hex of the canonical form of all the rest."""
    previous: tuple[str, ...]
    """The heads that it follows, sorted: several when two machines wrote at once."""
    kind: str
    """backup verify check integrity prune copy restore rows drill key unlock init daemon missed"""
    job: str
    """Empty when it was no job."""
    started_ns: int
    ended_ns: int
    exit_code: int
    host: str
    user: str
    trigger: str
    """`hand`, `daemon` or `timer`."""
    error: str = ""
    hint: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """Small, JSON, no secrets."""

    @property
    def ok(self) -> bool:
        """Whether everything was done."""
        return self.exit_code == 0

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0, self.ended_ns - self.started_ns) / 1e9

    def canonical(self) -> bytes:
        """What the id is the hash of."""
        return _canonical(self._content())

    def as_dict(self) -> dict[str, Any]:
        """The JSON of it, with its id."""
        return {"id": self.id, **self._content()}

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "previous": list(self.previous),
            "kind": self.kind,
            "job": self.job,
            "started_ns": self.started_ns,
            "ended_ns": self.ended_ns,
            "exit_code": self.exit_code,
            "host": self.host,
            "user": self.user,
            "trigger": self.trigger,
            "error": self.error,
            "hint": self.hint,
            "facts": self.facts,
        }


def make(
    previous: tuple[str, ...] | list[str],
    *,
    kind: str,
    started_ns: int,
    ended_ns: int,
    host: str,
    user: str,
    job: str = "",
    exit_code: int = 0,
    trigger: str = "hand",
    error: str = "",
    hint: str = "",
    facts: dict[str, Any] | None = None,
) -> Record:
    """A record with its id. What is too long, no JSON, or a password in a URL is taken out.

    Never raises for what a run gives as facts: a record with less in it is better than none.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "previous": sorted(set(previous))[:MAX_PREVIOUS],
        "kind": kind,
        "job": _text(job, _MAX_NAME),
        "started_ns": _within(started_ns),
        "ended_ns": _within(ended_ns),
        "exit_code": exit_code,
        "host": _text(host, _MAX_NAME),
        "user": _text(user, _MAX_NAME),
        "trigger": trigger,
        "error": _text(error, _MAX_TEXT),
        "hint": _text(hint, _MAX_TEXT),
        "facts": _plain(facts or {}),
    }
    canonical = _canonical(content)
    if len(canonical) > MAX_BYTES:
        content["facts"] = _fewer(content["facts"], len(canonical) - MAX_BYTES)
        canonical = _canonical(content)
    return _record(content, hashlib.sha256(canonical).hexdigest())


def parse(data: bytes, expected: str | None = None, *, any_form: bool = False) -> Record:
    """The record whose canonical form these bytes are (and whose id is `expected`, if given).

    Raises DamagedError for everything else: another form, another hash, wrong or too many fields.
    With `any_form` the form is not looked at: for what was looked at when it was written.
    """
    if len(data) > MAX_BYTES:
        raise DamagedError(f"a record of the history has {len(data)} bytes: too many")
    found = hashlib.sha256(data).hexdigest()
    if expected is not None and found != expected:
        raise DamagedError(f"record {expected[:8]} of the history was changed: its hash is another")
    try:
        content = json.loads(data.decode("ascii"))
        again = data if any_form else _canonical(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"record {found[:8]} of the history is no record: not JSON") from error
    if again != data:
        raise DamagedError(f"record {found[:8]} of the history is not in its canonical form")
    return _checked(content, found)


def from_dict(document: object) -> Record:
    """The record of `as_dict`, as it was read from JSON. Raises DamagedError as `parse`."""
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise DamagedError("the history holds what is no record")
    content = {name: value for name, value in document.items() if name != "id"}
    try:
        data = _canonical(content)
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError("the history holds what is no record") from error
    if hashlib.sha256(data).hexdigest() != document["id"]:
        raise DamagedError(f"record {document['id'][:8]} of the history was changed")
    if len(data) > MAX_BYTES:
        raise DamagedError(f"a record of the history has {len(data)} bytes: too many")
    return _checked(content, document["id"])


def _canonical(content: Any) -> bytes:
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def _record(content: dict[str, Any], id_: str) -> Record:
    values = {name: value for name, value in content.items() if name != "format"}
    values["previous"] = tuple(content["previous"])
    return Record(id=id_, **values)


def _checked(content: Any, id_: str) -> Record:
    """The record of a content that has passed every check. Raises DamagedError."""

    def wrong(what: str) -> DamagedError:
        return DamagedError(f"record {id_[:8]} of the history is no record: {what}")

    if not isinstance(content, dict) or set(content) != _FIELDS:
        raise wrong("its fields are others")
    if type(content["format"]) is not int or content["format"] != FORMAT:
        raise wrong("its format is unknown; a newer safetake may have written it")
    previous = content["previous"]
    if (
        not isinstance(previous, list)
        or len(previous) > MAX_PREVIOUS
        or not all(isinstance(head, str) and _ID.fullmatch(head) for head in previous)
        or sorted(set(previous)) != previous
    ):
        raise wrong("previous")
    for name in ("kind", "trigger"):
        if not isinstance(content[name], str) or not _WORD.fullmatch(content[name]):
            raise wrong(name)
    for name, most in (
        ("job", _MAX_NAME),
        ("host", _MAX_NAME),
        ("user", _MAX_NAME),
        ("error", _MAX_TEXT),
        ("hint", _MAX_TEXT),
    ):
        if not isinstance(content[name], str) or len(content[name]) > most:
            raise wrong(name)
    for name in ("started_ns", "ended_ns"):
        if type(content[name]) is not int or not 0 <= content[name] < _MAX_INT:
            raise wrong(name)
    if type(content["exit_code"]) is not int or not 0 <= content["exit_code"] < 256:
        raise wrong("exit_code")
    if not isinstance(content["facts"], dict) or _depth(content["facts"]) > _MAX_DEPTH:
        raise wrong("facts")
    return _record(content, id_)


def _depth(value: Any, so_far: int = 1) -> int:
    if so_far > _MAX_DEPTH or not isinstance(value, dict | list):
        return so_far
    inner = value.values() if isinstance(value, dict) else value
    return max((_depth(each, so_far + 1) for each in inner), default=so_far)


def _text(text: str, most: int) -> str:
    text = _CREDENTIALS.sub("***@", text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _within(ns: int) -> int:
    return min(max(int(ns), 0), _MAX_INT - 1)


def _plain(value: Any, depth: int = 1) -> Any:
    """What JSON can say of a value, in the limits of a record."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < _MAX_INT else str(value)[:_MAX_NAME]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(str(value), _MAX_TEXT)
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        return {
            _text(str(name), _MAX_NAME): _plain(inner, depth + 1) for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner, depth + 1) for inner in value]
    return _text(str(value), _MAX_TEXT)


def _fewer(facts: dict[str, Any], excess: int) -> dict[str, Any]:
    """The facts without the largest, until they fit; what was left out is named."""
    sizes = {name: len(_canonical(value)) for name, value in facts.items()}
    kept = dict(facts)
    left_out: list[str] = []
    excess += 64
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if excess <= 0:
            break
        del kept[name]
        left_out.append(name[:64])
        excess -= sizes[name] - 64
    return {**kept, "left_out": left_out[:16]}
