"""What happens to each snapshot, and why: rules by group, then what stands above every rule.

A group is the ordinary snapshots of one host, one job and the same sources. A snapshot in which
damage was found takes no place of a sound one; while the newest of a source is damaged, nothing
that holds this source is removed. Snapshots that safetake did not make are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from safetake.clock import go_time
from safetake.operate.retention import policy
from safetake.operate.retention.calendar import ALWAYS, Span
from safetake.operate.retention.pins import Pins, by_source
from safetake.operate.retention.policy import Rules
from safetake.snapshots import FAILED, SnapshotInfo
from safetake.wording import duration

if TYPE_CHECKING:
    from safetake.configjobs import RetentionConfig


@dataclass(slots=True)
class Decision:
    """One snapshot."""

    snapshot: SnapshotInfo
    keep: bool
    reasons: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.snapshot.id,
            "short_id": self.snapshot.id[:8],
            "time": go_time(self.snapshot.time_ns),
            "rung": self.snapshot.rung.name,
            "keep": self.keep,
            "reasons": self.reasons,
        }


@dataclass(slots=True)
class Group:
    """Snapshots that are judged together, oldest first."""

    host: str
    job: str
    sources: tuple[str, ...]
    kind: str
    """`backup`, `safety`, or `foreign` when safetake did not make them."""
    rules: str
    decisions: list[Decision] = field(default_factory=list)
    held: str = ""
    """Why nothing of it is removed, although rules would."""

    @property
    def removed(self) -> list[Decision]:
        """Those that go."""
        return [decision for decision in self.decisions if not decision.keep]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "host": self.host,
            "job": self.job,
            "sources": list(self.sources),
            "kind": self.kind,
            "rules": self.rules,
            "held": self.held,
            "snapshots": [decision.as_dict() for decision in self.decisions],
        }


def decide(
    snapshots: Sequence[SnapshotInfo],
    retention: RetentionConfig,
    zone: tzinfo,
    now_ns: int,
    pins: Pins,
) -> list[Group]:
    """Every snapshot is in exactly one group."""
    found: dict[tuple[str, str, tuple[str, ...], str], list[SnapshotInfo]] = {}
    for snapshot in sorted(snapshots, key=lambda one: (one.time_ns, one.id)):
        found.setdefault(_key(snapshot), []).append(snapshot)
    some_rule = any(map(Rules.of, (retention, *retention.jobs.values())))
    newest = max((s.time_ns for s in snapshots if s.ours and s.time_ns <= now_ns), default=None)
    damaged = _damaged(snapshots, now_ns)
    groups = []
    for (host, job, sources, kind), members in sorted(found.items()):
        if kind == "foreign":
            group = Group(host, job, sources, kind, "not safetake's: never touched")
            group.decisions = [Decision(one, True, ["not safetake's"]) for one in members]
        elif kind == "safety":
            span = Span.parse(retention.safety)
            group = Group(host, job, sources, kind, f"safety {span}" if some_rule else "no rule")
            since = ALWAYS
            if some_rule and newest is not None:
                since = span.before(newest, zone)
            group.decisions = [_safety(one, since, group.rules) for one in members]
        else:
            rules = Rules.of(retention.jobs.get(job, retention))
            group = Group(host, job, sources, kind, str(rules))
            group.decisions = _ordinary(members, rules, zone, now_ns)
            if any(not decision.keep for decision in group.decisions):
                group.held = next((damaged[host, s] for s in sources if (host, s) in damaged), "")
        for decision in group.decisions:
            _above_rules(decision, group, retention.floor, now_ns, pins)
        groups.append(group)
    return groups


def _key(snapshot: SnapshotInfo) -> tuple[str, str, tuple[str, ...], str]:
    host = str(snapshot.document.get("hostname", ""))
    if not snapshot.ours:
        return host, "", tuple(sorted(map(str, snapshot.document["paths"]))), "foreign"
    if snapshot.safety:
        return host, "", (), "safety"
    return host, snapshot.job, tuple(sorted(snapshot.sources)), "backup"


def _damaged(snapshots: Iterable[SnapshotInfo], now_ns: int) -> dict[tuple[str, str], str]:
    """By source, what to say when its newest snapshot failed its proof."""
    return {
        source: f"nothing is removed: the newest of {source[1]}, {held[-1].id[:8]}, is damaged"
        for source, held in by_source(snapshots, now_ns).items()
        if held[-1].rung.name == FAILED
    }


def _ordinary(
    members: Sequence[SnapshotInfo], rules: Rules, zone: tzinfo, now_ns: int
) -> list[Decision]:
    every = policy.apply(((one.id, one.time_ns) for one in members), rules, zone, now_ns)
    sound = [one for one in members if one.rung.name != FAILED]
    # as if the damaged ones were not there: what they stand for in the first has its own place
    good = policy.apply(((one.id, one.time_ns) for one in sound), rules, zone, now_ns)
    decisions = []
    for one in members:
        reasons = good.kept.get(one.id) or every.kept.get(one.id)
        why = good.gone.get(one.id) or every.gone.get(one.id) or ""
        decisions.append(Decision(one, reasons is not None, reasons or [why]))
    return decisions


def _safety(snapshot: SnapshotInfo, since: int, rule: str) -> Decision:
    keep = snapshot.time_ns > since
    why = rule if keep else f"older than {rule}"
    return Decision(snapshot, keep, [f"what a restore replaced: {why}"])


def _above_rules(decision: Decision, group: Group, floor: float, now_ns: int, pins: Pins) -> None:
    pinned = pins.get(decision.snapshot.id, []) if group.kind != "foreign" else []
    if decision.keep:
        decision.reasons += [f"pinned: {reason}" for reason in pinned]
        return
    reasons = [f"pinned: {reason}" for reason in pinned]
    if now_ns - decision.snapshot.time_ns < floor * 1e9:
        reasons.append(f"younger than {duration(floor)}")
    if group.held and not reasons:
        reasons.append("held")
    if reasons:
        decision.keep, decision.reasons = True, reasons
