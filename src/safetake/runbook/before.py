"""Steps 1 to 3: is there something to restore, how long may it take, what is lost by it."""

from __future__ import annotations

from typing import Any

from safetake.clock import now_ns, parse_go_time
from safetake.runbook import elsewhere
from safetake.runbook.walk import AgainError, Found, Walk, moment
from safetake.wording import duration, seconds, size

PROPOSED_RTO = "1h"
"""Proposed where the configuration promises nothing; said to be a proposal."""
_FAILED = "failed"


def backups(walk: Walk) -> Found:
    """1: list the snapshots, choose one, prove it."""
    found = Found()
    listed = _snapshots(walk)
    if not listed:
        found.check(walk.words("step1"), False, 1, 0)
        walk.say("no_snapshots", place=walk.config.repository.location)
        walk.say("hint", text=walk.words("no_snapshots_hint"))
        raise walk.stopped()
    newest = listed[-1]
    age = duration(max(0, now_ns() - parse_go_time(newest["time"])) / 1e9)
    walk.say(
        "found_snapshots", count=len(listed), id=newest["short_id"],
        time=moment(parse_go_time(newest["time"])), age=age, rung=newest["rung"],
    )  # fmt: skip
    refused = set(walk.journal.facts.get("refused", []))
    while True:
        chosen = _choose(walk, listed, refused)
        level = walk.choose("q_level", ("open", "read", "skip"), "open")
        if level == "skip":
            found.state, found.detail = "unknown", walk.say(
                "proof_skipped", id=chosen["short_id"], rung=chosen["rung"]
            )  # fmt: skip
            break
        ran = walk.commands.run("verify", chosen["short_id"], "--level", level)
        if ran.told and ran.code == 0:
            found.detail = walk.say(
                "proven", id=chosen["short_id"], rung=ran.document["rung"],
                size=size(ran.document["bytes"]), seconds=duration(ran.seconds),
            )  # fmt: skip
            found.check(f"safetake verify {chosen['short_id']}", True, "ok", ran.document["rung"])
            break
        walk.say("not_proven", id=chosen["short_id"])
        problems = ran.document["problems"] if ran.told else [ran.error]
        walk.some([str(one) for one in problems])
        refused.add(chosen["id"])
        left = [one for one in listed if one["id"] not in refused]
        what = walk.choose(
            "q_not_proven",
            ("older", "anyway", "stop") if left else ("anyway", "stop"),
            "older" if left else "stop",
        )
        if what == "anyway":
            found.check(f"safetake verify {chosen['short_id']}", False, "ok", problems[:5])
            break
        walk.journal.fact("refused", sorted(refused))
    walk.journal.fact("snapshot", {key: chosen[key] for key in ("id", "short_id", "time")})
    walk.journal.fact("in_snapshot", elsewhere.names(chosen))
    elsewhere.compare(walk, _good(listed, refused), chosen, found)
    return found


def _snapshots(walk: Walk) -> list[dict[str, Any]]:
    while True:
        ran = walk.commands.run("snapshots")
        if ran.told and isinstance(ran.document, list):
            return [
                one
                for one in ran.document
                if "safety" not in one["tags"] and "safetake" in one["tags"]
            ]
        walk.failure(ran)
        walk.choose("q_unreadable", ("again", "stop"), "stop")


def _good(listed: list[dict[str, Any]], refused: set[str]) -> list[dict[str, Any]]:
    return [one for one in listed if one["id"] not in refused and one["rung"] != _FAILED]


def _choose(walk: Walk, listed: list[dict[str, Any]], refused: set[str]) -> dict[str, Any]:
    default = elsewhere.fullest(walk, _good(listed, refused) or listed)["short_id"]

    def matching(text: str) -> list[dict[str, Any]]:
        return [one for one in listed if text and one["id"].startswith(text)]

    def wrong(text: str) -> str:
        return "" if len(matching(text)) == 1 else walk.words("no_such_snapshot", id=text)

    if len(listed) > 1:
        walk.some(
            [
                f"  {one['short_id']}  {moment(parse_go_time(one['time']))}  {one['rung']}"
                for one in listed[::-1]
            ]
        )
    return matching(walk.text("q_snapshot", default, wrong, remember=not refused))[0]


def target(walk: Walk) -> Found:
    """2: what was promised, what was measured, and what is wanted now."""
    found = Found()
    ran = walk.commands.run("status")
    objectives = walk.config.objectives
    promised = {name: one.rto for name, one in objectives.items() if one.rto is not None}
    if ran.told:
        states = dict(ran.document["sources"])
        if ran.document["system"] is not None:
            states["system"] = ran.document["system"]
        for name, state in states.items():
            if state["rto_seconds"] is not None:
                walk.say(
                    "objective", name=name, rto=duration(state["rto_seconds"]),
                    measured=_span(walk, state["rto_measured_seconds"]),
                    predicted=_span(walk, state["rto_predicted_seconds"]),
                )  # fmt: skip
        if not ran.document["predicted_from"]:
            walk.say("nothing_measured")
    else:
        walk.failure(ran)
    # sources come back together, so the smallest promise binds where there is none for all
    binding = promised.get("system") or min(promised.values(), default=None)
    default = PROPOSED_RTO if binding is None else _written(binding)
    if binding is None:
        found.state = "unknown"
        found.detail = walk.say("no_objective", rto=PROPOSED_RTO)

    def wrong(text: str) -> str:
        try:
            seconds(text)
        except ValueError:
            return walk.words("no_span", text=text)
        return ""

    rto = seconds(walk.text("q_rto", default, wrong))
    ago = seconds(walk.text("q_began", "0s", wrong))
    began_ns = int(walk.journal.plan["time_ns"] - ago * 1e9)
    walk.journal.fact("rto_seconds", rto)
    walk.journal.fact("began_ns", began_ns)
    said = walk.say("rto_set", rto=duration(rto), until=moment(began_ns + int(rto * 1e9)))
    if not walk.unattended:
        found.state = "ok"  # a person said it
    found.detail = said if found.state == "ok" else found.detail
    return found


def _written(span: float) -> str:
    """As it would be typed: `1h`, `15m`, `90s`."""
    for unit, length in (("h", 3600), ("m", 60)):
        if span % length == 0:
            return f"{span / length:g}{unit}"
    return f"{span:g}s"


def _span(walk: Walk, value: float | None) -> str:
    return walk.words("not_known") if value is None else duration(value)


def saved(walk: Walk) -> Found:
    """3: what is there now, how it is saved, and what the restore will lose."""
    found = Found()
    snapshot = walk.journal.facts["snapshot"]
    there = walk.journal.facts["in_snapshot"]
    names = [name for name in there if name in walk.config.sources]
    if not names:
        walk.journal.fact("sources", [])
        found.detail = walk.say("bare", sources=", ".join(there))
        return found
    if len(names) > 1:

        def wrong(text: str) -> str:
            unknown = [name for name in _names(text, names) if name not in names]
            bad = unknown or ([text] if not text.strip() else [])
            return walk.words("no_such_source", name=bad[0]) if bad else ""

        walk.person.tell("  " + ", ".join(names))
        names = _names(walk.text("q_sources", "all", wrong), names)
    walk.journal.fact("sources", names)
    objectives = walk.config.objectives
    rpo = [objectives[name].rpo for name in (*names, "system") if name in objectives]
    walk.journal.fact("rpo_seconds", min((one for one in rpo if one is not None), default=None))
    while True:
        ran = walk.commands.run("restore", snapshot["short_id"], *names, "--in-place", "--dry-run")
        if ran.told:
            break
        walk.failure(ran)
        if _ended_open(walk):
            continue
        what = walk.choose("q_not_possible", ("again", "older", "stop"), "stop")
        if what == "older":
            refuse(walk)
    taken_ns = parse_go_time(snapshot["time"])
    gap = max(0, walk.journal.facts["began_ns"] - taken_ns) / 1e9
    lost = walk.say("gap", time=moment(taken_ns), gap=duration(gap))
    _outlook(walk, ran.document)
    found.detail = f"{lost}; {walk.say('will_save')}"
    found.check("safetake restore --in-place --dry-run", True, "possible", "possible")
    return found


def _ended_open(walk: Walk) -> bool:
    """Whether a restore was open, such as one by hand before this runbook, and a person has decided
    about it. Nobody else does: before step 4 nothing is replaced that was not asked about.
    """
    from safetake.recovery.inplace import restores_folder
    from safetake.recovery.journal import open_restore

    there = open_restore(restores_folder(walk.config))
    if there is None:
        return False
    walk.say("open_restore", restore=there.id[:8], id=str(there.plan["snapshot"])[:8])
    options = ("resume", "rollback", "stop")
    what = walk.choose("q_open_restore", options, "stop", remember=False)
    ran = walk.commands.run("restore", f"--{what}")
    if ran.error:
        walk.failure(ran)
    return True


def refuse(walk: Walk) -> None:
    """Go back to step 1 for another snapshot. Raises AgainError."""
    refused = {*walk.journal.facts.get("refused", []), walk.journal.facts["snapshot"]["id"]}
    walk.journal.fact("refused", sorted(refused))
    raise AgainError((1, 3, 4, 5, 6, 7))


def _names(text: str, names: list[str]) -> list[str]:
    words = text.replace(",", " ").split()
    return list(names) if words == ["all"] else list(dict.fromkeys(words))


def _outlook(walk: Walk, plan: dict[str, Any]) -> None:
    """What is there, what goes and comes, and how long it takes; only losses are cut short."""
    for name, source in plan["sources"].items():
        if source["absent"]:
            walk.say("now_absent", name=name)
        elif source["damaged"]:
            walk.say("now_damaged", name=name, why=source["damaged"])
        else:
            walk.say("now_there", name=name, size=size(source["bytes"]))
    losses = []
    for name, source in plan["sources"].items():
        for loss in source["losses"]:
            counts = {key: loss[key] for key in ("newer", "changed", "missing")}
            if loss["unknown"]:
                why = loss["unknown"]
                losses.append(walk.words("losses_unknown", name=name, what=loss["what"], why=why))
            elif any(counts.values()):
                losses.append(walk.words("losses", name=name, what=loss["what"], **counts))
    walk.some(losses)
    if plan["stop"]:
        walk.say("services_stop", names=", ".join(plan["stop"]))
    basis = walk.words("measured" if "restores" in plan["expected_from"] else "assumed")
    walk.say("expected", seconds=duration(plan["expected_seconds"]), basis=basis)
    walk.some([walk.words("status_warning", text=text) for text in plan["warnings"]])
