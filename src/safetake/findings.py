"""One question that was put to live data, and what it answered: the word that the rooms share.

A question that could not be asked is a finding, too, with the level `not asked` and the reason in
its detail: nothing is left out silently. Nothing here looks at a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from safetake.model import Parent

Level = Literal["error", "warning", "not asked"]

KEPT_IDS = 100
"""Offenders that a finding names; its detail says how many there are in all."""


@dataclass(slots=True)
class Finding:
    """One question put to live data.

    With `ok` the answer was good and `level` says only how bad another one would be; a question
    that was not asked has `ok=True` and the level `not asked`, and proves nothing.
    """

    source: str
    """Name of the source; of a reference between two, the one that refers."""
    check: str
    """What was asked, in a few words: the same words each day, so that runs can be compared."""
    ok: bool
    level: Level = "error"
    detail: str = ""
    """For people: what was found, how many, why it was not asked."""
    ids: list[str] = field(default_factory=list)
    """The offenders (rows, records, keys, paths), at most `KEPT_IDS` of them."""
    hint: str = ""
    """The next step, in the imperative."""

    @property
    def asked(self) -> bool:
        """Whether the question was asked at all."""
        return self.level != "not asked"


def not_asked(source: str, check: str, reason: str, hint: str = "") -> Finding:
    """A question that could not be asked, with the reason."""
    return Finding(source, check, True, "not asked", reason, hint=hint)


def offenders(found: Iterable[str]) -> tuple[int, list[str]]:
    """How many there are in all, and the first `KEPT_IDS` of them. Raises what `found` raises."""
    each = iter(found)
    kept = list(islice(each, KEPT_IDS))
    return len(kept) + sum(1 for _ in each), kept


@dataclass(slots=True)
class Asked:
    """What one store was asked, and sizes and counts that were learned on the way (JSON-able)."""

    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asking:
    """How a live store is to be asked."""

    name: str
    """Of the source."""
    scratch: Path
    """An empty private folder (0700) for copies, removed after the run."""
    entry: Mapping[str, Any] | None = None
    """Its entry in the manifest of its newest snapshot, None when there is none."""
    no_entry: str = "there is no snapshot of it yet"
    """Why there is none, for people."""
    full: bool | None = None
    """SQLite: `integrity_check` however large it is (True), or `quick_check` only (False)."""
    quick_above: int = 8 << 30
    """SQLite: bytes above which `full=None` means quick."""
    parent: Parent | None = None
    """Files: the newest snapshot, to compare contents with."""
    read_bytes: int | None = 1 << 30
    """Files: how much of their content is read in this run; None: all of it."""
    turn: int = 0
    """Counts up from run to run (days do): which part of a sample is due."""
