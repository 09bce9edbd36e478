"""What happened since the last digest, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.operate.notify import words
from safetake.operate.notify.state import DIGEST, Known
from safetake.operate.notify.words import Message
from safetake.operate.schedule import Schedule
from safetake.wording import size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safetake.config import Config
    from safetake.operate.history import History, Record

_BY_HAND = {"restore": "restores", "rows": "recoveries of rows", "key": "changes of keys"}
_WEEK_NS = 7 * 86400 * 10**9


def digest_due(config: Config, known: Known, now_ns: int) -> bool:
    """Whether the schedule has come since the last one; the first is a whole period away."""
    if DIGEST not in config.notify.on:
        return False
    if not known.digest_ns:
        known.digest_ns = now_ns
        return False
    due = Schedule(config.notify.digest, config.notify.timezone).after(known.digest_ns)
    return due is not None and due <= now_ns


def make_digest(config: Config, history: History, known: Known, now_ns: int) -> Message:
    """What is told; the next digest begins here."""
    from safetake.hostname import host_name

    since = known.digest_ns or now_ns - _WEEK_NS
    known.digest_ns = now_ns
    records = history.records(since_ns=since)
    lines = [f"{words.moment(config, since)} to {words.moment(config, now_ns)}", ""]
    lines += _runs(config, records)
    for kind, what in _BY_HAND.items():
        count = sum(record.kind == kind for record in records)
        if count:
            lines.append(f"{what}: {count}")
    added = sum(_whole(r, "added_bytes") for r in records if r.kind == "backup")
    freed = sum(_whole(r, "freed_bytes") for r in records if r.kind == "prune")
    lines.append(f"{size(added)} added, {size(freed)} freed")
    if known.problems:
        lines += ["", "Open problems:"]
        for key, problem in sorted(known.problems.items()):
            name = key.replace(":", " ").strip()
            lines.append(f"- {name}, since {words.moment(config, problem.since_ns)}")
        lines.append("Next: `safetake status`")
    bad = bool(known.problems)
    title = f"safetake: digest of {host_name()}" + (f", {len(known.problems)} open" if bad else "")
    return Message(DIGEST, "digest:", "warning" if bad else "info", title, "\n".join(lines))


def _runs(config: Config, records: Sequence[Record]) -> list[str]:
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.job and record.kind != "missed":
            found.setdefault(words.work(record.kind, record.job), []).append(record)
    lines = []
    for what, runs in sorted(found.items()):
        good = [record for record in runs if record.ok]
        text = f"{what}: {len(good)} good"
        if len(good) < len(runs):
            text += f", {len(runs) - len(good)} failed"
        if good:
            text += f", the last {words.moment(config, good[-1].ended_ns)}"
        lines.append(text)
    missed = sum(record.kind == "missed" for record in records)
    if missed:
        lines.append(f"runs were missed {missed} times")
    return lines or ["no job ran"]


def _whole(record: Record, fact: str) -> int:
    value = record.facts.get(fact)
    return value if isinstance(value, int) else 0
