"""What a prune decided and did, for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.operate.retention.decide import Decision, Group

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


@dataclass(slots=True)
class PruneReport:
    """Every snapshot with what happened to it."""

    dry_run: bool
    timezone: str
    groups: list[Group] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    space: dict[str, Any] = field(default_factory=dict)
    """What the repository says of the space: bytes freed, written again, left unused."""
    undo_files: list[str] = field(default_factory=list)
    """Of restores of rows, records and keys, too old to be undone."""
    seconds: float = 0.0

    @property
    def decisions(self) -> Iterator[Decision]:
        """Of all groups."""
        return (decision for group in self.groups for decision in group.decisions)

    @property
    def forget(self) -> list[str]:
        """Ids of the snapshots that go."""
        return [one.snapshot.id for one in self.decisions if not one.keep]

    def settle(self, removed: Collection[str]) -> None:
        """Of those that were to go, only `removed` went: something came in between."""
        for one in self.decisions:
            if not one.keep and one.snapshot.id not in removed:
                one.keep, one.reasons = True, ["decided only while it was running: next time"]

    @property
    def held(self) -> list[str]:
        """Why nothing is removed of some groups."""
        return list(dict.fromkeys(group.held for group in self.groups if group.held))

    @property
    def exit_code(self) -> int:
        """3 when rules would remove something, and damage stands in the way."""
        return 3 if self.held else 0

    def facts(self) -> dict[str, Any]:
        """What the history keeps of it."""
        removed = self.forget
        return {
            "dry_run": self.dry_run,
            "removed": len(removed),
            "snapshots": [name[:16] for name in removed[:200]],
            "kept": sum(1 for _ in self.decisions) - len(removed),
            "freed_bytes": self.space.get("freed_bytes", 0),
            "repacked_bytes": self.space.get("repacked_bytes", 0),
            "held": self.held,
            "undo_files": len(self.undo_files),
        }

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `safetake prune`."""
        removed = self.forget
        return {
            "dry_run": self.dry_run,
            "timezone": self.timezone,
            **self.space,
            "removed": len(removed),
            "kept": sum(1 for _ in self.decisions) - len(removed),
            "held": self.held,
            "notes": self.notes,
            "undo_files": self.undo_files,
            "groups": [group.as_dict() for group in self.groups],
            "seconds": round(self.seconds, 3),
        }
