"""Which of a group's snapshots the rules keep, and why: restic's --keep-within-… to the letter.

Everything is counted back from the newest snapshot of the group, never from today: when backups
stop, nothing grows old. Of each hour, day, week, month and year that begins within its span the
last snapshot is kept. Nothing here knows a repository; times are nanoseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from safetake.operate.retention import calendar
from safetake.operate.retention.calendar import ALWAYS, Span

if TYPE_CHECKING:
    from safetake.configjobs import KeepConfig

_BUCKETS: dict[str, Callable[[datetime], str]] = {
    "hourly": calendar.hour,
    "daily": calendar.day,
    "weekly": calendar.week,
    "monthly": calendar.month,
    "yearly": calendar.year,
}
"""From the finest to the coarsest."""

_NONE = Span()


@dataclass(frozen=True, slots=True)
class Rules:
    """Spans by the name of their rule; a span of nothing is no rule."""

    within: Span = _NONE
    spans: tuple[tuple[str, Span], ...] = ()
    """`hourly` … `yearly`, the finest first."""

    @classmethod
    def of(cls, config: KeepConfig) -> Rules:
        """What a section of the configuration says."""
        found = []
        for name in _BUCKETS:
            text = getattr(config, name)
            if text is not None and (span := Span.parse(text)):
                found.append((name, span))
        return cls(Span.parse(config.within or "0h"), tuple(found))

    def __bool__(self) -> bool:
        return bool(self.within or self.spans)

    def as_dict(self) -> dict[str, str]:
        """For JSON: spans by rule."""
        found = {"within": str(self.within)} if self.within else {}
        return found | {name: str(span) for name, span in self.spans}

    def __str__(self) -> str:
        return ", ".join(f"{name} {span}" for name, span in self.as_dict().items()) or "no rule"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of a group."""

    kept: dict[str, list[str]] = field(default_factory=dict)
    """By id: why."""
    gone: dict[str, str] = field(default_factory=dict)
    """By id: why no rule keeps it."""


def apply(snapshots: Iterable[tuple[str, int]], rules: Rules, zone: tzinfo, now_ns: int) -> Verdict:
    """Judge (id, time) pairs of one group. Without any rule everything is kept.

    A snapshot that is later than `now_ns` is not what is counted back from.
    """
    newest_first = sorted(snapshots, key=lambda one: (-one[1], one[0]))
    verdict = Verdict()
    if not rules:
        for name, _ in newest_first:
            verdict.kept[name] = ["no rule"]
        return verdict
    newest = next((time for _, time in newest_first if time <= now_ns), None)

    def since(span: Span) -> int:
        return ALWAYS if newest is None else span.before(newest, zone)

    within = since(rules.within)
    buckets = [(name, since(span), _BUCKETS[name]) for name, span in rules.spans]
    last: dict[str, tuple[str, str]] = {}
    """By rule: its bucket of now, and the snapshot that stands for it."""
    for name, time in newest_first:
        moment = calendar.local(time, zone)
        reasons = [f"within {rules.within}"] if rules.within and time > within else []
        instead = ""
        for rule, cutoff, bucket in buckets:
            if time <= cutoff:
                continue
            what = bucket(moment)
            if last.get(rule, ("", ""))[0] != what:
                last[rule] = (what, name)
                reasons.append(f"{rule} {what}")
            elif not instead:
                instead = f"{what} is kept by {last[rule][1][:8]}"
        if reasons:
            verdict.kept[name] = reasons
        else:
            verdict.gone[name] = instead or f"older than {rules}"
    return verdict
