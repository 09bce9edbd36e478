"""One document of evidence: who did what to which snapshot, what was expected, what was found.

Its canonical form is ASCII JSON with sorted keys and no spaces; its id is the SHA-256 of that. A
verdict is worked out, never given: passed when every check and every step is good and nothing is
named as a problem. What is read is believed in nothing: only the canonical form is taken.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from safetake.errors import DamagedError

MAX_BYTES = 8 << 20
MAX_PREVIOUS = 256

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MAX_TEXT = 4000


def _words(value: Any) -> Any:
    """Without half characters (file names may hold them), and cut at MAX_TEXT."""
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _jsonable(value: Any) -> Any:
    """A value as JSON can hold it; in words when it is large."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    clean = text.encode("utf-8", "backslashreplace").decode()
    return json.loads(text) if clean == text and len(text) <= MAX_TEXT else _words(text)


Text = Annotated[str, BeforeValidator(_words), Field(max_length=MAX_TEXT)]
Json = Annotated[Any, BeforeValidator(_jsonable)]
Moment = Annotated[int, Field(ge=0, lt=1 << 63)]
"""Nanoseconds since the epoch."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Check(_Part):
    """One question, with what was expected and what was found."""

    name: Text
    ok: bool
    source: Text = ""
    expected: Json = None
    found: Json = None
    detail: Text = ""


class Step(_Part):
    """One step, timed."""

    name: Text
    started_ns: Moment
    seconds: float = Field(ge=0)
    target_seconds: float | None = None
    """What it may take; a step that takes longer is not good."""
    ok: bool = True
    detail: Text = ""
    known: bool = True
    """Not when nobody could say whether it is good: no failure, and never shown as a success."""

    @property
    def good(self) -> bool:
        """Whether it neither failed nor took longer than it may."""
        return self.ok and (self.target_seconds is None or self.seconds <= self.target_seconds)

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # documents from before `known` keep their canonical form, and so their id
        content: dict[str, Any] = handler(self)
        if self.known:
            content.pop("known", None)
        return content


class Draft(_Part):
    """What whoever makes evidence says; `store.save` adds what it follows."""

    kind: Literal["verify", "restore", "drill", "runbook", "kit"]
    name: Text
    """The scenario, or what was done."""
    started_ns: Moment
    ended_ns: Moment
    host: Text
    user: Text
    repository: Text
    """Its id."""
    snapshot: Text = ""
    """Whole id, or empty."""
    versions: dict[str, Text]
    """Of safetake, Python, SQLite and the tools that answered."""
    checks: list[Check]
    steps: list[Step] = []
    measured: dict[str, float] = {}
    """By name with the unit in it: `rto_seconds`, `rpo_seconds`."""
    targets: dict[str, float] = {}
    """By the same names: a measured value above its target is a problem."""
    deadline_ns: Moment | None = None
    """Until when all of it had to work, where that was promised: reports mark it."""
    problems: list[Text] = []
    notes: list[Text] = []

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # as with `Step.known`: documents without one keep their id
        content: dict[str, Any] = handler(self)
        if self.deadline_ns is None:
            content.pop("deadline_ns", None)
        return content

    @property
    def missed(self) -> list[str]:
        """The names of what was measured above its target, or has a target and no measurement."""
        return sorted(
            name
            for name, target in self.targets.items()
            if name not in self.measured or self.measured[name] > target
        )

    @property
    def unknown(self) -> list[Step]:
        """The steps of which nobody could say whether they are good."""
        return [step for step in self.steps if not step.known]

    @property
    def passed(self) -> bool:
        """Whether everything that was asked is good, and anything was asked at all."""
        good = all(check.ok for check in self.checks) and all(step.good for step in self.steps)
        return bool(self.checks) and good and not self.problems and not self.missed


class Evidence(Draft):
    """A document that is kept."""

    format: Literal[1] = 1
    previous: list[Id] = Field(max_length=MAX_PREVIOUS)
    """What it follows, sorted: several when two machines wrote at once, none for the first."""
    verdict: Literal["passed", "failed"]

    @model_validator(mode="after")
    def _agrees(self) -> Evidence:
        if (self.verdict == "passed") != self.passed:
            raise ValueError("the verdict is not what checks, steps and targets say")
        if sorted(set(self.previous)) != self.previous:
            raise ValueError("previous is not in order")
        return self

    def canonical(self) -> bytes:
        """What the id is the hash of."""
        return _canonical(self.model_dump(mode="json"))

    @property
    def id(self) -> str:
        """SHA-256 in hex of the canonical form."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """JSON for people and tools, with the id."""
        return {"id": self.id, **self.model_dump(mode="json")}


def finished(draft: Draft, previous: list[str]) -> Evidence:
    """The document that a draft becomes. Raises DamagedError when it is too large or no JSON."""
    content = draft.model_dump(mode="json")
    content["previous"] = sorted(set(previous))[-MAX_PREVIOUS:]
    content["verdict"] = "passed" if draft.passed else "failed"
    content["format"] = 1
    try:
        return parse(_canonical(content))
    except ValueError as error:  # a number that JSON does not have
        raise DamagedError(f"this can not be kept as evidence: {error}") from error


def parse(data: bytes, expected: str | None = None) -> Evidence:
    """The document whose canonical form these bytes are (and whose id is `expected`, if given).

    Raises DamagedError for everything else.
    """
    if len(data) > MAX_BYTES:
        raise DamagedError(f"a document of evidence has {len(data)} bytes: too many")
    found = hashlib.sha256(data).hexdigest()
    if expected is not None and found != expected:
        raise DamagedError(f"evidence {expected[:8]} was changed: its hash is another")
    try:
        content = json.loads(data.decode("ascii"))
        if _canonical(content) != data:
            raise DamagedError(f"evidence {found[:8]} is not in its canonical form")
        document = Evidence.model_validate(content)
        if document.canonical() != data:
            raise DamagedError(f"evidence {found[:8]} is not in its canonical form")
        return document
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedError(f"evidence {found[:8]} is no evidence: {where} {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"evidence {found[:8]} is no evidence: not JSON") from error


def _canonical(content: Any) -> bytes:
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")
