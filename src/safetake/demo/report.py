"""What the demo found: the figures, the verdict, and a table of them in 80 columns."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

STORES = {"rows": "SQLite", "vectors": "Chroma", "keys": "Redis", "files": "folder"}
"""What is compared, and where it lives."""
_SHOWN = 8


@dataclass(slots=True)
class Snapshot:
    """One snapshot that was taken under load."""

    id: str
    time: str
    backup_seconds: float
    barrier_ms: float
    skew_ms: float
    source_bytes: int
    added_bytes: int
    """What the repository folder grew by."""
    verify_seconds: float = 0.0
    rung: str = "stored"
    checks: int = 0
    not_asked: list[str] = field(default_factory=list)
    """Questions of the proof that could not be asked here."""


@dataclass(slots=True)
class DemoReport:
    """The whole run. `ok` is False when anything differed; `problems` says what."""

    snapshots: list[Snapshot] = field(default_factory=list)
    load: dict[str, Any] = field(default_factory=dict)
    """The load driver's own account."""
    recovery: dict[str, float] = field(default_factory=dict)
    """Seconds of each step from total loss to two healthy services."""
    stores: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost_items: int = 0
    """Acknowledged after the cut that was restored, and so lost: the RPO, in items …"""
    lost_seconds: float = 0.0
    """… and in time, from that cut to the last acknowledgement."""
    problems: list[str] = field(default_factory=list)
    kept: str = ""
    """The folder, when it was kept."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether all that had to come back is there, equal, and nothing else is."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"ok": self.ok, **asdict(self)}

    def render(self, width: int = 80) -> str:
        """The table, in at most `width` columns (80 or more)."""
        parts = [self._snapshots(), self._recovery(), self._stores(), self._verdict()]
        lines = "\n\n".join(part for part in parts if part).split("\n")
        return "\n".join(
            textwrap.fill(line, width, subsequent_indent="  ") if len(line) > width else line
            for line in lines
        )

    def _snapshots(self) -> str:
        rows = [["snapshot", "took", "barrier", "skew", "sources", "repository", "proof", "took"]]
        rows += [
            [
                snapshot.id[:8],
                f"{snapshot.backup_seconds:.1f} s",
                f"{snapshot.barrier_ms:.0f} ms",
                f"{snapshot.skew_ms:.1f} ms",
                size(snapshot.source_bytes),
                f"+{size(snapshot.added_bytes)}",
                snapshot.rung,
                f"{snapshot.verify_seconds:.1f} s",
            ]
            for snapshot in self.snapshots
        ]
        text = _table(rows, left=(0, 6))
        if self.load:
            scripts, seconds = self.load["acknowledged"]["script"], self.load["seconds"]
            text += (
                f"\nLoad beside it: {scripts / max(seconds, 0.001):.0f} scripts a second, each "
                "written to all four stores;"
                f"\nlongest wait of a writer for one answer: {self.longest_wait_ms:.0f} ms."
            )
        not_asked = sorted({what for snapshot in self.snapshots for what in snapshot.not_asked})
        return text + "".join(f"\nNot asked by the proof: {what}" for what in not_asked)

    @property
    def longest_wait_ms(self) -> float:
        """The longest time that one worker of the load waited for one answer."""
        return float(max(self.load["longest_ms"].values()))

    def _recovery(self) -> str:
        if not self.recovery:
            return ""
        rows = [["recovery from total loss", "seconds"]]
        rows += [[step, f"{seconds:.1f}"] for step, seconds in self.recovery.items()]
        rows.append(["in all", f"{sum(self.recovery.values()):.1f}"])
        return _table(rows)

    def _stores(self) -> str:
        if not self.stores:
            return ""
        rows = [["restored", "expected", "found", "in flight", "missing", "wrong", "phantom"]]
        for store, result in self.stores.items():
            numbers = [result[key] for key in ("expected", "found", "in_flight")]
            numbers += [len(result[key]) for key in ("missing", "wrong", "phantom")]
            rows.append([f"{store} ({STORES[store]})", *map(str, numbers)])
        return (
            _table(rows)
            + "\nExpected: acknowledged before the cut. In flight: asked for before it, "
            "not yet\nacknowledged, so either answer is right. Compared bit for bit."
        )

    def _verdict(self) -> str:
        lines = []
        if self.stores:
            lines += [
                f"Lost: {self.lost_items} items of {self.lost_seconds:.1f} s, acknowledged after "
                "the last snapshot's cut.",
                "What is written after the last snapshot is lost with the live data: the RPO.",
                "",
            ]
        lines += [f"DIFFERS: {problem}" for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"… and {len(self.problems) - _SHOWN} more (--json has all)")
        verdict = "everything came back" if self.ok else f"{len(self.problems)} problems"
        lines.append(f"{'OK' if self.ok else 'FAILED'}: {verdict} ({self.seconds:.0f} s in all)")
        return "\n".join(lines)


def size(count: int) -> str:
    """Bytes in a few characters: `512 B`, `9.1 MB` (decimal units)."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"


def _table(rows: list[list[str]], left: tuple[int, ...] = (0,)) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
