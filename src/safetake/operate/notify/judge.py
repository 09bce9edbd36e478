"""What is worth telling: a failure once and again after a while, its end once, what is overdue.

Changes what is `Known` and returns the messages of it; whether the event is wanted is decided here,
too, so that a problem that nobody was told of does not end with a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from safetake.operate.notify import words
from safetake.operate.notify.state import OVERDUE, RECOVERY, Known, Problem
from safetake.operate.notify.words import Message

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.operate.history import Record

_INTERRUPTED = 130
_BY_HAND = ("restore", "rows", "key", "unlock", "init", "query")
"""Somebody sits before these: they have been told."""


def run_ended(config: Config, known: Known, record: Record, now_ns: int) -> list[Message]:
    """After a run. Runs by hand that belong to no job are told to whoever started them already."""
    if record.kind == "missed":
        return _missed(config, known, record, now_ns)
    if record.exit_code == _INTERRUPTED or record.kind in (*_BY_HAND, "daemon"):
        return []
    if not record.job and record.trigger == "hand":
        return []
    key = f"{record.kind}:{record.job}"
    late = known.problems.pop(f"{OVERDUE}:{record.job}", None) if record.job else None
    if not record.ok:
        problem = known.problems.setdefault(key, Problem(record.started_ns))
        problem.runs += 1
        message = words.failed(config, record, problem, key)
        return _told(config, problem, message, now_ns)
    failed = known.problems.pop(key, None)
    ended = failed or late
    if ended is None or not ended.told_ns or RECOVERY not in config.notify.on:
        return []
    return [words.recovered(config, record, ended, key)]


def _missed(config: Config, known: Known, record: Record, now_ns: int) -> list[Message]:
    key = f"{OVERDUE}:{record.job}"
    problem = known.problems.setdefault(key, Problem(record.started_ns, missed=True))
    problem.missed = True
    lines = [words.clean(record.error), "", f"Where: {record.host}"]
    lines.append(f"Next: `safetake run {record.job}`, and see why the daemon did not run")
    title = f"safetake: {record.job} was not run on time on {record.host}"
    message = Message(OVERDUE, key, "warning", title, "\n".join(lines))
    return _told(config, problem, message, now_ns)


def overdue(
    config: Config, known: Known, late: Mapping[str, str], host: str, now_ns: int
) -> list[Message]:
    """All that is overdue now, by name, with why; what is no longer among them has ended."""
    messages = []
    for name, why in late.items():
        key = f"{OVERDUE}:{name}"
        problem = known.problems.setdefault(key, Problem(now_ns))
        next_step = f"`safetake run {name}`, " if name in config.jobs else ""
        lines = [words.clean(why), "", f"Where: {host}", f"Next: {next_step}`safetake status`"]
        title = f"safetake: {name} is overdue on {host}"
        message = Message(OVERDUE, key, "warning", title, "\n".join(lines))
        messages += _told(config, problem, message, now_ns)
    for key, problem in list(known.problems.items()):
        event, _, name = key.partition(":")
        if event != OVERDUE or name in late or problem.missed:
            continue
        del known.problems[key]
        if problem.told_ns and RECOVERY in config.notify.on:
            title = f"safetake: {name} is on time again on {host}"
            body = f"It was overdue since {words.moment(config, problem.since_ns)}."
            messages.append(Message(RECOVERY, key, "success", title, body))
    return messages


def _told(config: Config, problem: Problem, message: Message, now_ns: int) -> list[Message]:
    """The message, unless it was told of late, or is not wanted."""
    if message.event not in config.notify.on:
        return []
    if problem.told_ns and now_ns - problem.told_ns < config.notify.remind * 1e9:
        return []
    problem.told_ns = now_ns
    return [message]
