"""How a restore in place ended, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.errors import SafetakeError

if TYPE_CHECKING:
    from safetake.recovery.journal import Journal


class RolledBackError(SafetakeError):
    """The restore failed, and everything is as it was before."""


@dataclass(slots=True)
class Outcome:
    """How a restore in place ended."""

    id: str
    snapshot: str
    ended: str
    """`committed` or `rolled back`."""
    safety: dict[str, str]
    """By source: the snapshot that holds what was there before, one for all; empty: nothing was."""
    seconds: float
    downtime: float
    """Seconds from the first service's stop to the end of the health gate; 0: none was stopped."""
    steps: list[tuple[str, float]] = field(default_factory=list)
    reason: str = ""
    saved_since: dict[str, str] = field(default_factory=dict)
    """By source, of a restore that was cut off and went on: the snapshot of what was there then."""
    written: dict[str, str] = field(default_factory=dict)
    """By source, after a way back: the snapshot of what was written to the restored data."""
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Services that did not start again on the data from before."""
    sources: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, journal: Journal) -> Outcome:
        """What a journal says of it."""
        steps = [(s, float(f["seconds"])) for s, f in journal.done.items() if "seconds" in f]
        down = [n for n, (step, _) in enumerate(steps) if step.startswith("stop:")]
        return cls(
            id=journal.id,
            snapshot=str(journal.plan["snapshot"]),
            ended=journal.ended,
            safety={
                name: journal.saved.get(name, "")
                for name in journal.plan["sources"]
                if f"safety:{name}" in journal.done
            },
            seconds=sum(spent for _, spent in steps),
            downtime=sum(spent for _, spent in steps[down[0] :]) if down else 0.0,
            steps=steps,
            reason=journal.reason,
            saved_since=journal.saved_since,
            written=_snapshots(journal, "keep:"),
            sources=list(journal.plan["sources"]),
        )

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `restore --in-place`."""
        return {
            "restore": self.id,
            "snapshot": self.snapshot,
            "ended": self.ended,
            "sources": self.sources,
            "safety": self.safety,
            "seconds": round(self.seconds, 3),
            "downtime_seconds": round(self.downtime, 3),
            "steps": [{"step": name, "seconds": round(spent, 3)} for name, spent in self.steps],
            "reason": self.reason,
            "saved_since": self.saved_since,
            "written": self.written,
            "warnings": self.warnings,
            "problems": self.problems,
        }


def told_since(saved: Mapping[str, str]) -> list[str]:
    """For the person: what an undo does not bring back of a restore that was cut off
    (`saved_since`)."""
    return [
        f"anything that was written to {', '.join(n for n, s in saved.items() if s == snapshot)} "
        f"while the restore was cut off is in snapshot {snapshot[:8]}, and is not brought back: "
        f"`safetake restore {snapshot[:8]} --to DIR`"
        for snapshot in dict.fromkeys(saved.values())
    ]


def _snapshots(journal: Journal, step: str) -> dict[str, str]:
    """By source: the snapshot that a step of that name took."""
    return {
        name.removeprefix(step): str(facts["snapshot"])
        for name, facts in journal.done.items()
        if name.startswith(step) and "snapshot" in facts
    }


def downtime(timeline: list[tuple[str, int, float, bool]]) -> float:
    """Seconds from the first stop of a service to the end of the last step, by the clock: what
    passed between a crash and the end of its restore is in it. 0: none was stopped.
    """
    first = next((at for step, at, _, _ in timeline if step.startswith("stop:")), 0)
    if not first:
        return 0.0
    return max(at / 1e9 + spent for _, at, spent, _ in timeline) - first / 1e9
