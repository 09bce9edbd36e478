"""What a message says: what failed, where, when, why, a hint, and the next command; no secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from safetake.services.process import redact
from safetake.wording import duration, printable

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history import Record
    from safetake.operate.notify.state import Problem

_LONGEST = 1500
INCOMPLETE = 3


@dataclass(frozen=True, slots=True)
class Message:
    """What is told, before it is known to whom."""

    event: str
    key: str
    level: str
    title: str
    body: str


def moment(config: Config, ns: int) -> str:
    """`2026-11-22 18:00 KST`, in the zone of [notify]."""
    from safetake.operate.retention.calendar import local

    return local(ns, ZoneInfo(config.notify.timezone)).strftime("%Y-%m-%d %H:%M %Z")


def work(kind: str, job: str) -> str:
    """What ran, for people: `backup nightly`, or only `backup`."""
    return f"{kind} {job}" if job else kind


def clean(text: str) -> str:
    """Without passwords and control characters, and not too long."""
    text = "\n".join(printable(line) for line in redact(text).splitlines())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def failed(config: Config, record: Record, problem: Problem, key: str) -> Message:
    """A run that failed, or left something out."""
    from safetake.operate.notify.state import FAILURE

    partly = record.exit_code == INCOMPLETE
    what = work(record.kind, record.job)
    how = "is incomplete" if partly else "failed"
    again = " again" if problem.runs > 1 else ""
    held = record.facts.get("held")
    why = record.error or ("; ".join(map(str, held)) if isinstance(held, list) else "")
    lines = [clean(why) or f"It ended with exit code {record.exit_code}.", ""]
    lines += _where(config, record)
    if problem.runs > 1:
        lines.append(f"Since: {moment(config, problem.since_ns)}, {problem.runs} runs in a row")
    if record.hint:
        lines.append(f"Hint: {clean(record.hint)}")
    lines.append(f"Next: `{_command(record)}`, then `safetake status`")
    level = "warning" if partly else "failure"
    title = f"safetake: {what} {how}{again} on {record.host}"
    return Message(FAILURE, key, level, title, "\n".join(lines))


def recovered(config: Config, record: Record, problem: Problem, key: str) -> Message:
    """The first good run after some that failed."""
    from safetake.operate.notify.state import RECOVERY

    what = work(record.kind, record.job)
    runs = "1 run" if problem.runs == 1 else f"{problem.runs} runs"
    lines = [f"{runs} had failed since {moment(config, problem.since_ns)}."]
    if not problem.runs:
        lines = [f"It was overdue since {moment(config, problem.since_ns)}."]
    lines += ["", *_where(config, record)]
    title = f"safetake: {what} works again on {record.host}"
    return Message(RECOVERY, key, "success", title, "\n".join(lines))


def _where(config: Config, record: Record) -> list[str]:
    took = duration(record.seconds)
    return [
        f"Where: {record.host}, repository {clean(config.repository.location)}",
        f"When: {moment(config, record.started_ns)}, for {took}",
    ]


def _command(record: Record) -> str:
    if record.job:
        return f"safetake run {record.job}"
    kind = record.kind
    return f"safetake {kind}" if kind not in ("daemon", "missed", "init") else "safetake status"
