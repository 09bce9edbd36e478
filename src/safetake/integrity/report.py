"""What was asked of the live data and what it answered: `Finding`s, and the report of a whole run.

A question that could not be asked is a finding, too, with the level `not asked` and the reason in
its detail: nothing is left out silently. Nothing here looks at a store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

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


@dataclass(slots=True)
class IntegrityReport:
    """Everything that a run asked, the good answers included."""

    findings: list[Finding] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """The sources that were asked about."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By source: sizes and counts that were learned on the way; JSON-able."""
    seconds: float = 0.0

    @property
    def problems(self) -> list[Finding]:
        """The bad answers, errors first."""
        bad = [finding for finding in self.findings if not finding.ok]
        return sorted(bad, key=lambda finding: finding.level != "error")

    @property
    def unasked(self) -> list[Finding]:
        """The questions that could not be asked."""
        return [finding for finding in self.findings if not finding.asked]

    @property
    def exit_code(self) -> int:
        """1 when a finding is an error, else 0."""
        return int(any(finding.level == "error" for finding in self.problems))

    def add(self, findings: Iterable[Finding]) -> None:
        """Take findings in, in the order in which they were made."""
        self.findings.extend(findings)

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `safetake integrity`."""
        return {
            "ok": self.exit_code == 0,
            "sources": self.sources,
            "seconds": round(self.seconds, 3),
            "findings": [asdict(finding) for finding in self.findings],
            "facts": self.facts,
        }

    def brief(self) -> dict[str, Any]:
        """What the history keeps of the run: the bad answers and what was not asked, bounded."""
        told = self.problems + self.unasked
        return {
            "sources": self.sources,
            "asked": sum(finding.asked for finding in self.findings),
            "findings": [
                {
                    "source": finding.source,
                    "check": finding.check,
                    "level": finding.level,
                    "detail": finding.detail[:300],
                    "ids": finding.ids[:10],
                }
                for finding in told[:50]
            ],
            "left_out": max(0, len(told) - 50),
        }
