"""The walk itself: begin, go on, give up.

    intent in the journal → the step → what it found in the journal → the next

A step that was interrupted is done again; each looks first at what is there, and the restore's own
journal says what became of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.clock import now_ns
from safetake.errors import UsageError
from safetake.evidence.labels import speaker
from safetake.evidence.versions import place
from safetake.runbook import afterwards, before, recover, report
from safetake.runbook.commands import Commands
from safetake.runbook.journal import Journal, alone, create, the_open, unreadable
from safetake.runbook.walk import STEPS, AgainError, Found, Person, Walk, moment
from safetake.runbook.words import Words
from safetake.wording import duration

if TYPE_CHECKING:
    from safetake.config import Config

_DO: dict[int, Callable[[Walk], Found]] = {
    1: before.backups,
    2: before.target,
    3: before.saved,
    4: recover.restore,
    5: recover.integrity,
    6: recover.services,
    7: afterwards.application,
    8: afterwards.monitoring,
    9: afterwards.stakeholders,
    10: afterwards.meeting,
}


def start(
    config: Config, config_file: Path, person: Person, language: str, *, unattended: bool
) -> report.Report:
    """Begin a runbook and walk through it. Raises RefusedError while one is open, StoppedError
    when somebody stops it, SafetakeError.
    """
    host, user = place()
    with alone(config) as folder:
        journal = create(
            folder,
            {
                "format": 1,
                "time_ns": now_ns(),
                "host": host,
                "user": user,
                "language": language,
                "repository": config.repository.location,
                "configuration": str(config_file.absolute()),
            },
        )
        walk = _walk(config, config_file, journal, person, language, unattended)
        walk.say("begin", id=journal.id[:8], time=moment(journal.plan["time_ns"]))
        walk.say("manners")
        _unreadable(walk, folder)
        return _through(walk)


def resume(
    config: Config, config_file: Path, person: Person, language: str | None, *, unattended: bool
) -> report.Report:
    """Go on with the open one, in its language unless another is wanted. Raises UsageError when
    none is open or it is about another repository; else as `start`.
    """
    with alone(config) as folder:
        journal = the_open(folder)
        _same(config, journal)
        journal.resumed()
        language = language or str(journal.plan["language"])
        walk = _walk(config, config_file, journal, person, language, unattended)
        walk.say("resumed", id=journal.id[:8], done=len(journal.done))
        _unreadable(walk, folder)
        return _through(walk)


def abandon(
    config: Config, config_file: Path, person: Person, language: str | None
) -> report.Report:
    """End the open one where it is; the report says so. Raises UsageError, SafetakeError."""
    from safetake.recovery.inplace import restores_folder
    from safetake.recovery.journal import open_restore

    with alone(config) as folder:
        journal = the_open(folder)
        language = language or str(journal.plan["language"])
        walk = _walk(config, config_file, journal, person, language, unattended=True)
        step = _next(journal) or STEPS[-1]
        what = walk.words("abandoned", step=step, name=walk.words(f"step{step}"))
        problems = [what]
        if open_restore(restores_folder(config)) is not None:
            problems.append(walk.words("abandoned_open"))
        for text in problems:
            person.tell(text)
        return _end(walk, "abandoned", problems)


def _unreadable(walk: Walk, folder: Path) -> None:
    """Earlier runbooks whose journals are damaged: they hinder nobody, and are in the report."""
    said = [
        walk.say("damaged_ended" if one.ended else "damaged_open", folder=one.folder, why=one.why)
        for one in unreadable(folder)
    ]
    if said != walk.journal.facts.get("unreadable", []):
        walk.journal.fact("unreadable", said)


def _same(config: Config, journal: Journal) -> None:
    there = str(journal.plan.get("repository"))
    if there != config.repository.location:
        raise UsageError(
            f"the open runbook {journal.id[:8]} is about the repository {there}",
            hint="use its configuration, or end it with `safetake runbook --abandon`",
        )


def _walk(
    config: Config,
    config_file: Path,
    journal: Journal,
    person: Person,
    language: str,
    unattended: bool,
) -> Walk:
    def show(command: str) -> None:
        person.tell(f"$ {command}")

    def waiting(seconds: float | None) -> None:
        person.waiting("" if seconds is None else recover.doing(config, words, seconds))

    words = Words(language)
    commands = Commands(config_file, journal.folder, show, waiting)
    return Walk(config, journal, commands, person, words, place()[1], unattended)


def _next(journal: Journal) -> int | None:
    return next((step for step in STEPS if step not in journal.done), None)


def _through(walk: Walk) -> report.Report:
    while (step := _next(walk.journal)) is not None:
        walk.step = step
        walk.person.heading(f"{step}/10 {walk.words(f'step{step}')}")
        walk.journal.begin(step)
        if step == 4 and "step4_ns" not in walk.journal.facts:
            walk.journal.fact("step4_ns", now_ns())
        try:
            found = _DO[step](walk)
        except AgainError as again:
            for earlier in again.steps:
                walk.journal.forget(earlier)
            continue
        except KeyboardInterrupt:
            raise KeyboardInterrupt(walk.words("stopped_hint")) from None
        kept = {"state": found.state, "detail": found.detail, "checks": found.checks}
        walk.journal.finish(step, kept)
        walk.person.tell(_timed(walk, step, found.state))
    return _end(walk, "finished", [])


def _timed(walk: Walk, step: int, state: str) -> str:
    """`ok, took 3.0 s, 1 m 02 s of 1 h 00 m RTO`."""
    ended = walk.journal.done[step]["time_ns"]
    took = duration(max(0, ended - walk.journal.begun[step]) / 1e9)
    parts = [walk.words(state), walk.words("took", took=took)]
    rto = walk.journal.facts.get("rto_seconds")
    if rto is not None and step <= 7:
        used = max(0, ended - walk.journal.facts["began_ns"]) / 1e9
        key = "of_rto" if used <= rto else "over_rto"
        parts.append(walk.words(key, used=duration(used), rto=duration(rto)))
    return ", ".join(parts)


def _end(walk: Walk, how: str, problems: list[str]) -> report.Report:
    made = report.make(walk.config, walk.journal, walk.words, problems)
    with contextlib.suppress(KeyError):
        rto, took = walk.journal.facts["rto_seconds"], made.evidence.measured["rto_seconds"]
        key = "in_time" if took <= rto else "too_late"
        walk.say(key, took=duration(took), rto=duration(rto))
    facts = walk.journal.facts
    if 7 in walk.journal.done and "rto_seconds" not in made.evidence.measured:
        took = max(0, walk.journal.done[4]["time_ns"] - facts["began_ns"]) / 1e9
        target = facts.get("target") or ", ".join(facts["sources"])
        rto = duration(facts["rto_seconds"])
        walk.say("data_only", took=duration(took), target=target, rto=rto)
    with contextlib.suppress(KeyError):
        rpo, age = made.evidence.targets["rpo_seconds"], made.evidence.measured["rpo_seconds"]
        if age > rpo:
            walk.say("too_old", age=duration(age), rpo=duration(rpo))
    for step, found in sorted(walk.journal.done.items()):
        if found["state"] != "ok":
            state = walk.words(found["state"])
            said = found["detail"] or _first_bad(found["checks"])
            walk.person.tell(f"{state}: {step}. {walk.words(f'step{step}')}: {said}")
    if made.kept:
        verdict = speaker(walk.words.language)(made.evidence.verdict)
        walk.say("evidence_is", id=made.evidence.id[:8], verdict=verdict)
    else:
        walk.say("not_kept", why=made.why)
    for file in made.files:
        walk.say("report_in", file=file)
    walk.journal.end(how)
    return made


def _first_bad(checks: list[dict[str, object]]) -> str:
    return next((f"{one['name']}: {one['found']}" for one in checks if not one["ok"]), "")
