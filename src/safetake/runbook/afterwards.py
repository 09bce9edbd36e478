"""Steps 7 to 10: does it work, is it quiet, who has to know, when is it talked about."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from safetake.clock import now_ns, parse_go_time
from safetake.errors import SafetakeError
from safetake.runbook import calendar
from safetake.runbook.recover import asked, still_there, take_back
from safetake.runbook.report import recovered
from safetake.runbook.walk import FAILED, Found, Walk, moment
from safetake.state import write_durably
from safetake.wording import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safetake.operate.notify.state import Known
    from safetake.operate.notify.words import Message

MEETING_FILE = "review-meeting.ics"
EVENT = "runbook"
_MINUTES = 60
_HOUR = 10


def application(walk: Walk) -> Found:
    """7: the health of the services says something; that it works, only a person can."""
    if walk.journal.facts["sources"]:
        still_there(walk)
    if walk.journal.facts.get("gated"):
        walk.say("gates_well")
    walk.say("try_application")
    found = asked(walk, "q_tested", "nobody_tested", Found())
    if found.state == FAILED:
        undoable = bool(walk.journal.facts["sources"])
        options = ("anyway", "undo", "stop") if undoable else ("anyway", "stop")
        if walk.choose("q_application_bad", options, "anyway") == "undo":
            take_back(walk)
    return found


def monitoring(walk: Walk) -> Found:
    """8: what safetake knows itself, and what a person saw."""
    found = Found()
    status = walk.commands.run("status")
    if status.told:
        broken = [walk.words("status_broken", text=text) for text in status.document["broken"]]
        warnings = [walk.words("status_warning", text=t) for t in status.document["warnings"]]
        walk.some([*broken, *warnings])
        if not broken:
            walk.say("status_good")
    else:
        walk.failure(status)
    runs = walk.commands.run("history", "--failed", "--since", "24h")
    if runs.told:
        failed = runs.document["records"]
        if failed:
            last = max(failed, key=lambda one: one["ended_ns"])
            what = f"{last['kind']} {last['error']}"
            walk.say("failed_runs", count=len(failed), what=what[:200])
        else:
            walk.say("no_failed_runs")
    else:
        walk.failure(runs)
    return asked(walk, "q_monitored", "nobody_looked", found)


def stakeholders(walk: Walk) -> Found:
    """9: by everything in [notify]; what cannot be delivered now is delivered by the next run."""
    from safetake.operate.notify.targets import targets

    found = Found()
    people, problems = targets(walk.config)
    for text in problems:
        walk.say("not_told", text=text)
    if not people:
        walk.say("nobody_configured")
        return asked(walk, "q_told", "nobody_told", found)
    title, body = _message(walk)
    walk.some([title, *body.splitlines()])
    note = walk.text("q_note", "")
    ways = ", ".join(sorted({one.way for one in people}))
    if walk.choose("q_send", ("yes", "no"), "yes", ways=ways) == "no":
        return asked(walk, "q_told", "nobody_told", found)
    try:
        errors = _tell(walk, title, f"{body}\n{note}".strip())
    except SafetakeError as error:
        errors = [str(error)]
    for text in errors:
        walk.say("not_told", text=text)
    found.check(walk.words("step9"), not errors, ways, errors or ways)
    if not errors:
        found.detail = walk.say("told", ways=ways)
    return found


def _message(walk: Walk) -> tuple[str, str]:
    facts, done = walk.journal.facts, walk.journal.done
    works = recovered(walk.journal)
    took = duration(max(0, done[7 if works else 4]["time_ns"] - facts["began_ns"]) / 1e9)
    body = walk.words(
        "message_body",
        sources=", ".join(facts["sources"] or facts["in_snapshot"]),
        time=moment(parse_go_time(facts["snapshot"]["time"])),
        id=facts["snapshot"]["short_id"],
        began=moment(facts["began_ns"]),
        recovered=walk.words("message_recovered" if works else "message_data_only", took=took),
    )
    bad = [walk.words(f"step{step}") for step, one in done.items() if one["state"] != "ok"]
    if bad:
        body += "\n" + walk.words("message_open", names=", ".join(bad))
    return walk.words("message_title", host=socket.gethostname()), body


def _tell(walk: Walk, title: str, body: str) -> list[str]:
    """Deliver, or leave it waiting; why not everybody has it. Raises SafetakeError."""
    from safetake.operate.notify.deliver import tell_all
    from safetake.operate.notify.words import Message, clean

    def news(_known: Known) -> Sequence[Message]:
        return [Message(EVENT, f"runbook:{walk.journal.id}", "info", title, clean(body))]

    return tell_all(walk.config, news, now_ns())


def meeting(walk: Walk) -> Found:
    """10: a calendar file that everybody's calendar takes."""

    def wrong(text: str) -> str:
        at = _moment(text)
        ok = at is not None and at.timestamp() * 1e9 > now_ns()
        return "" if ok else walk.words("no_moment", text=text)

    def nobody(text: str) -> str:
        empty = text.strip() and not calendar.addresses(text)
        return walk.words("no_addresses", text=text) if empty else ""

    default = _proposed(datetime.now()).strftime("%Y-%m-%d %H:%M")
    chosen = walk.text("q_meeting", default, wrong)
    at = _moment(chosen)
    assert at is not None
    people = calendar.addresses(walk.text("q_people", "", nobody))
    file = walk.journal.folder / MEETING_FILE
    content = calendar.ics(
        calendar.Meeting(
            uid=f"runbook-{walk.journal.id}@safetake",
            made_ns=now_ns(),
            start_ns=int(at.timestamp()) * 10**9,
            minutes=_MINUTES,
            summary=walk.words("meeting_summary", host=socket.gethostname()),
            description=walk.words("meeting_body", id=walk.journal.id),
            people=people,
        )
    )
    try:
        write_durably(file, content)
    except OSError as error:
        raise SafetakeError(
            f"{file} cannot be written: {error.strerror}",
            hint="free space there, then `safetake runbook --resume`",
        ) from error
    walk.journal.fact("meeting", chosen)
    return Found(detail=walk.say("meeting_set", time=chosen, file=file))


def _moment(text: str) -> datetime | None:
    """Local time; None when it is not one, or no clock shows it."""
    try:
        wanted = datetime.strptime(text.strip(), "%Y-%m-%d %H:%M")
        found = wanted.astimezone()
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.replace(tzinfo=None) == wanted else None


def _proposed(now: datetime) -> datetime:
    """Ten in the morning, two working days on."""
    day = now.replace(hour=_HOUR, minute=0, second=0, microsecond=0)
    left = 2
    while left:
        day += timedelta(days=1)
        left -= day.weekday() < 5
    return day
