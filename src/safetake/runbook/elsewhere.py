"""Which snapshot has which source: jobs save different ones, so the newest has rarely all of them.

A restore of the newest snapshot alone would bring back what the newest job happened to save. The
one that has the most is proposed, and what it lacks, or has only older, is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safetake.clock import parse_go_time
from safetake.runbook.walk import UNKNOWN, Found, Walk, moment


def names(snapshot: dict[str, Any]) -> list[str]:
    """The sources in it."""
    return [path.lstrip("/") for path in snapshot["paths"]]


def fullest(walk: Walk, good: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The newest of those that have the most of what is wanted; `good`: the newest last."""
    wanted = _wanted(walk, good)
    return max(reversed(good), key=lambda one: len(wanted & set(names(one))))


def compare(
    walk: Walk, good: Sequence[dict[str, Any]], chosen: dict[str, Any], found: Found
) -> None:
    """Say what the chosen one lacks and has only older, and where that is."""
    newest = {name: one for one in good for name in names(one)}
    there = set(names(chosen))
    lacking: dict[str, str] = {}
    for name in sorted(_wanted(walk, good)):
        one = newest.get(name)
        if one is None:
            continue
        taken_ns = parse_go_time(one["time"])
        if name in there and taken_ns <= parse_go_time(chosen["time"]):
            continue
        at = moment(taken_ns)
        if name in there:
            walk.say("newer_elsewhere", name=name, id=one["short_id"], time=at)
            continue
        said = walk.say("not_in_it", name=name, id=one["short_id"], time=at)
        lacking[name] = one["short_id"]
        if walk.config.sources and found.state != "failed":
            found.state, found.detail = UNKNOWN, said
    walk.journal.fact("elsewhere", lacking)


def _wanted(walk: Walk, good: Sequence[dict[str, Any]]) -> set[str]:
    """What is configured; on a bare machine, all that was ever saved."""
    return set(walk.config.sources) or {name for one in good for name in names(one)}
