"""The report of a whole run: every `Finding` of every store, and what they come to.

`Finding` itself is in `safetake.findings`, because sources make them; it is imported from either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from safetake.findings import KEPT_IDS, Finding, Level, not_asked, offenders

__all__ = ["KEPT_IDS", "Finding", "IntegrityReport", "Level", "not_asked", "offenders"]


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
