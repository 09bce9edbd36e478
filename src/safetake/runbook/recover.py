"""Steps 4 to 6: the restore, whose own journal ends what was interrupted; integrity; services."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.clock import parse_go_time
from safetake.errors import RefusedError, SafetakeError
from safetake.runbook.before import refuse
from safetake.runbook.walk import FAILED, UNKNOWN, AgainError, Found, Walk, moment
from safetake.runbook.words import Words
from safetake.wording import duration

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.recovery.journal import Journal
    from safetake.runbook.commands import Ran

_WAIT_S = 0.5
_PHASES = {
    "stage": "doing_stage",
    "check": "doing_check",
    "stop": "doing_stop",
    "quiet": "doing_quiet",
    "safety": "doing_safety",
    "switch": "doing_switch",
    "confirm": "doing_confirm",
    "start": "doing_start",
    "health": "doing_health",
}
"""What people are told of the steps of recovery's journal."""


def restore(walk: Walk) -> Found:
    """4: the undoable restore, or the end of one that was interrupted."""
    if not walk.journal.facts["sources"]:
        return _beside(walk)
    found = Found()
    outcome = _interrupted(walk)
    snapshot = walk.journal.facts["snapshot"]
    names = walk.journal.facts["sources"]
    while outcome is None:
        answer = walk.choose("q_restore", ("yes", "stop"), "yes", id=snapshot["short_id"],
                             time=moment(parse_go_time(snapshot["time"])))  # fmt: skip
        assert answer == "yes"
        ran = walk.commands.run("restore", snapshot["short_id"], *names, "--in-place", "--yes")
        outcome = _committed(walk, ran)
        if outcome is None:
            _again(walk)
            outcome = _interrupted(walk)
    walk.journal.fact("restore", outcome)
    found.detail = walk.say(
        "restored", id=snapshot["short_id"], restore=outcome["restore"][:8],
        seconds=duration(outcome["seconds"]),
    )  # fmt: skip
    saved = sorted({one[:8] for one in outcome["safety"].values() if one})
    if saved:
        walk.say("saved_as", ids=", ".join(saved), restore=outcome["restore"][:8])
    else:
        walk.say("nothing_saved")
    walk.some([walk.words("status_warning", text=text) for text in outcome["warnings"]])
    found.check("safetake restore --in-place", True, "committed", outcome["ended"])
    before = {name: one or "nothing was there" for name, one in outcome["safety"].items()}
    found.check("safety snapshots", True, None, before)
    return found


def _committed(walk: Walk, ran: Ran) -> dict[str, Any] | None:
    if ran.told and ran.document.get("ended") == "committed":
        return dict(ran.document)
    if ran.error:
        walk.failure(ran)
    else:
        walk.say("error", text=ran.document.get("reason", ""))
        walk.some([str(text) for text in ran.document.get("problems", [])])
    # it was killed, or could not go back: nobody has looked what the live data is
    left_open = any(not there.ended for there in _journals(walk))
    walk.say("restore_left_open" if left_open else "restore_failed")
    return None


def _again(walk: Walk) -> None:
    what = walk.choose("q_restore_failed", ("again", "older", "stop"), "stop")
    if what == "older":
        refuse(walk)


def _interrupted(walk: Walk) -> dict[str, Any] | None:
    """What became of a restore that an earlier process began: its outcome when it is committed.

    What was committed last is what the stores hold: a restore before another one says nothing.
    """
    while (there := _last(walk)) is not None:
        ours = _ours(walk, there)
        if there.ended:
            if not ours or there.id in walk.journal.facts.get("undone", []):
                return None
            walk.say("ended_meanwhile")
            return _outcome(there)
        walk.say("open_restore", restore=there.id[:8], id=str(there.plan["snapshot"])[:8])
        what = walk.choose(
            "q_open_restore", ("resume", "rollback", "stop"), "resume" if ours else "rollback",
            remember=False,
        )  # fmt: skip
        ran = walk.commands.run("restore", f"--{what}")
        if what == "resume":
            outcome = _committed(walk, ran)
            if outcome is None:
                _again(walk)
            else:
                return outcome if ours else None
        elif ran.error:
            walk.failure(ran)
            raise walk.stopped()
    return None


def _last(walk: Walk) -> Journal | None:
    """The newest restore in place since this step was first begun that is open, or stands."""
    for there in _journals(walk):
        if not there.ended:
            return there
        began = parse_go_time(there.plan["time"])
        if there.ended == "committed" and began >= walk.journal.facts["step4_ns"]:
            return there
    return None


def _ours(walk: Walk, there: Journal) -> bool:
    """Whether it restores what this runbook wants, and all of that."""
    facts, plan = walk.journal.facts, there.plan
    return (
        plan["snapshot"] == facts["snapshot"]["id"]
        and set(plan["sources"]) == set(facts["sources"])
        and not plan.get("undo_of")
        and not any(one["options"].get("paths") for one in plan["sources"].values())
    )


def _journals(walk: Walk) -> list[Journal]:
    """Recovery's journals, the newest first, once nobody works on them."""
    from safetake.recovery.inplace import restores_folder
    from safetake.recovery.journal import journals, working

    folder = restores_folder(walk.config)
    started, told = time.monotonic(), False
    try:
        while True:
            try:
                with working(folder):
                    return journals(folder)[::-1]
            except RefusedError:
                if not told:
                    walk.say("still_running")
                    told = True
                waited = time.monotonic() - started
                walk.person.waiting(doing(walk.config, walk.words, waited))
                time.sleep(_WAIT_S)
    finally:
        walk.person.waiting("")


def doing(config: Config, words: Words, waited: float) -> str:
    """For how long something is at work, and which step of an open restore it is at."""
    from safetake.recovery.inplace import restores_folder
    from safetake.recovery.journal import journals

    text = words("working", took=duration(waited))
    with contextlib.suppress(SafetakeError, OSError):  # half-written now, whole the next time
        for there in journals(restores_folder(config)):
            left = [step for step in there.begun if step not in there.done]
            phase, _, name = (left or [""])[-1].partition(":")
            if not there.ended and phase in _PHASES:
                text += ", " + words(_PHASES[phase], name=name)
    return text


def _outcome(there: Journal) -> dict[str, Any]:
    """The document of a restore whose command nobody waited for, out of its journal."""
    return {
        "restore": there.id,
        "snapshot": there.plan["snapshot"],
        "ended": there.ended,
        "sources": list(there.plan["sources"]),
        "safety": {name: there.saved.get(name, "") for name in there.plan["sources"]},
        "seconds": sum(float(step.get("seconds", 0)) for step in there.done.values()),
        "warnings": [],
        "problems": [],
    }


def _beside(walk: Walk) -> Found:
    """On a bare machine: into a new folder, since no live store is named."""
    found = Found()
    snapshot = walk.journal.facts["snapshot"]
    while True:
        default = next(
            name
            for number in range(1, 1000)
            if not Path(name := "restored" if number == 1 else f"restored-{number}").exists()
        )
        target = str(Path(walk.text("q_target", default, remember=False)).absolute())
        ran = walk.commands.run("restore", snapshot["short_id"], "--to", target)
        if ran.told and ran.code in (0, 3):
            break
        walk.failure(ran)
        _again(walk)
    walk.journal.fact("target", target)
    found.detail = walk.say("restored_beside", id=snapshot["short_id"], target=target)
    walk.some([str(text) for text in ran.document["problems"]])
    found.check("safetake restore --to", True, "every byte proven", ran.document["bytes"])
    for name, short_id in walk.journal.facts.get("elsewhere", {}).items():
        ran = walk.commands.run("restore", short_id, name, "--to", target, "--overwrite")
        good = ran.told and ran.code in (0, 3)
        if good:
            walk.say("restored_beside", id=f"{short_id}: {name}", target=target)
        else:
            walk.failure(ran)
        what = ran.document["bytes"] if good else ran.error
        found.check("safetake restore --to", good, "every byte proven", what, name)
    walk.say("beside_next")
    return found


def integrity(walk: Walk) -> Found:
    """5: the live stores are asked."""
    names = walk.journal.facts["sources"]
    if not names:
        return Found(UNKNOWN, walk.say("integrity_bare"))
    still_there(walk)
    while True:
        found = Found()
        ran = walk.commands.run("integrity", "--full", *names)
        if ran.told:
            findings = ran.document["findings"]
            bad = [one for one in findings if not one["ok"] and one["level"] == "error"]
            for name in names:
                wrong = [_words(one) for one in bad if one["source"] == name]
                found.check("safetake integrity", not wrong, "sound", wrong[:5] or "sound", name)
            other = [_words(one) for one in bad if one["source"] not in names]
            if other:
                found.check("safetake integrity", False, "sound", other[:5])
        else:
            walk.failure(ran)
            found.check("safetake integrity", False, "sound", ran.error)
            bad = []
        if found.state != FAILED:
            unasked = sum(one["level"] == "not asked" for one in findings)
            asked = len(findings) - unasked
            found.detail = walk.say("integrity_ok", asked=asked, unasked=unasked)
            walk.some([walk.words("unasked", text=f"{one['source']}: {_words(one)}")
                       for one in findings if one["level"] == "not asked"])  # fmt: skip
            warned = [f"{one['source']}: {_words(one)}" for one in findings if not one["ok"]]
            walk.some([walk.words("status_warning", text=text) for text in warned])
            return found
        found.detail = walk.say("integrity_bad", count=len(bad) or "?")
        walk.some([f"{one['source']}: {_words(one)}" for one in bad])
        what = walk.choose("q_integrity", ("anyway", "undo", "again", "stop"), "anyway")
        if what == "anyway":
            return found
        if what == "undo":
            take_back(walk)


def _words(finding: dict[str, Any]) -> str:
    return f"{finding['check']}: {finding['detail'] or 'no'}"


def still_there(walk: Walk) -> None:
    """Step 4 once more when its restore was taken back since, or a restore (such as that) is still
    open: then the stores do not hold what step 4 said. Raises AgainError.
    """
    restored = walk.journal.facts["restore"]["restore"]
    for there in _journals(walk):
        if not there.ended or (
            there.ended == "committed" and there.plan.get("undo_of") == restored
        ):
            raise AgainError((4, 5, 6, 7))


def take_back(walk: Walk) -> None:
    """Undo the restore and choose another snapshot. Raises AgainError, StoppedError."""
    done = walk.journal.facts["restore"]
    if any(done["safety"].values()):
        ran = walk.commands.run("restore", "--undo", done["restore"], "--yes")
        if ran.error:
            walk.failure(ran)
            raise walk.stopped()
    undone = [*walk.journal.facts.get("undone", []), done["restore"]]
    walk.journal.fact("undone", undone)
    refuse(walk)


def services(walk: Walk) -> Found:
    """6: what runs, and whether it is well."""
    found = Found()
    if not walk.config.services:
        walk.say("no_services")
        return asked(walk, "q_started", "no_services", found)
    while True:
        found = Found()
        ran = walk.commands.run("services", "status")
        if not ran.told:
            walk.failure(ran)
            found.check("safetake services status", False, "well", ran.error)
        for one in ran.document if ran.told else []:
            bad = bool(one["problem"]) or one["running"] is False or one["health"] is False
            said = one["problem"] or one["answer"]
            health = "not_asked" if one["health"] is None else "well" if not bad else "not_well"
            walk.say(
                "service", name=one["name"],
                state=walk.words({True: "running", False: "not_running", None: "not_known"}[
                    one["running"]]),
                health=walk.words(health, text=said) if health == "not_well"
                else walk.words(health),
            )  # fmt: skip
            found.check(f"service {one['name']}", not bad, "well", said or "well")
        if found.state != FAILED:
            gated = [one for one in ran.document if one["health"]]
            walk.journal.fact("gated", bool(gated))
            return found
        what = walk.choose("q_services", ("again", "anyway", "stop"), "anyway")
        if what == "anyway":
            walk.journal.fact("gated", False)
            return found


def asked(walk: Walk, question: str, nobody: str, found: Found) -> Found:
    """A question that only a person can answer: yes, no, or nobody knows."""
    answer = walk.choose(question, ("yes", "no", "not_known"), "not_known")
    if answer == "not_known":
        if found.state != FAILED:
            found.state, found.detail = UNKNOWN, walk.words(nobody)
    else:
        found.check(walk.words(question), answer == "yes", "yes", answer)
    return found
