"""The end: a document of evidence, and the incident report for people (HTML and Markdown).

The report is the evidence as `evidence.report` shows it, decisions among its notes: `safetake
evidence export` writes the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.clock import go_time, parse_go_time
from safetake.errors import SafetakeError
from safetake.evidence import Check, Draft, Evidence, Step, each, save
from safetake.evidence.document import finished
from safetake.evidence.report import html, markdown
from safetake.evidence.versions import place, versions
from safetake.runbook.walk import FAILED, STEPS, UNKNOWN
from safetake.state import write_durably

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository
    from safetake.runbook.journal import Journal
    from safetake.runbook.words import Words

HTML, MARKDOWN = "incident.html", "incident.md"


@dataclass(frozen=True, slots=True)
class Report:
    """How the runbook ended."""

    evidence: Evidence
    kept: bool
    """Whether the repository has it."""
    why: str
    files: list[Path]

    @property
    def exit_code(self) -> int:
        """0 when everything that was asked is good."""
        return 0 if self.evidence.verdict == "passed" else 1

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `safetake runbook`."""
        return {
            "evidence": self.evidence.as_dict(),
            "kept": self.kept,
            "reason": self.why,
            "files": [str(file) for file in self.files],
        }


def draft(journal: Journal, words: Words, repository: str, problems: list[str]) -> Draft:
    """What the journal says, as evidence."""
    host, user = place()
    facts = journal.facts
    started_ns = int(journal.plan["time_ns"])
    began_ns = int(facts.get("began_ns", started_ns))
    rto = facts.get("rto_seconds")
    steps, checks, notes = [], [], []
    for step in (step for step in STEPS if step in journal.done):
        found = journal.done[step]
        at = max(journal.begun[step], started_ns)
        steps.append(
            Step(
                name=f"{step}. {words(f'step{step}')}",
                started_ns=at,
                seconds=max(0, found["time_ns"] - at) / 1e9,
                ok=found["state"] != FAILED,
                detail=found["detail"],
                known=found["state"] != UNKNOWN,
            )
        )
        checks += [Check(**{**one, "name": f"{step}. {one['name']}"}) for one in found["checks"]]
    notes += [decision(words, one) for one in journal.answers]
    notes += facts.get("unreadable", [])
    if journal.interruptions:
        notes.append(words("note_resumed", count=journal.interruptions))
    measured = {}
    works = recovered(journal)
    if works:
        measured["rto_seconds"] = max(0, journal.done[7]["time_ns"] - began_ns) / 1e9
    if 4 in journal.done:
        taken_ns = parse_go_time(facts["snapshot"]["time"])
        measured["rpo_seconds"] = max(0, began_ns - taken_ns) / 1e9
    unsaid = 7 in journal.done and not works  # no measurement, so there is nothing to compare
    promised = {"rto_seconds": None if unsaid else rto, "rpo_seconds": facts.get("rpo_seconds")}
    promised_ns = None if rto is None else began_ns + int(rto * 1e9)
    ended = max([one["time_ns"] for one in journal.done.values()], default=started_ns)
    return Draft(
        kind="runbook",
        name=words("title"),
        started_ns=started_ns,
        ended_ns=max(ended, started_ns),
        host=host,
        user=user,
        repository=repository,
        snapshot=facts.get("snapshot", {}).get("id", ""),
        versions=versions(),
        checks=checks,
        steps=steps,
        measured=measured,
        targets={name: value for name, value in promised.items() if value is not None},
        deadline_ns=promised_ns if "began_ns" in facts else None,
        problems=problems,
        notes=notes,
    )


def recovered(journal: Journal) -> bool:
    """Whether anybody said that it works: a person, or the health of all services that have one."""
    said = journal.done.get(7, {}).get("state")
    return said == "ok" or (said == UNKNOWN and bool(journal.facts.get("gated")))


def decision(words: Words, one: dict[str, Any]) -> str:
    """One line for one answer."""
    by = words("by_default") if one["by"] == "default" else one["by"]
    return words(
        "decision",
        step=one["step"],
        time=go_time(one["time_ns"])[:19] + "Z",
        question=one["question"],
        value=one["shown"],
        by=by,
    )


def make(config: Config, journal: Journal, words: Words, problems: list[str]) -> Report:
    """Keep the evidence and write the report. Raises SafetakeError when that cannot be written."""
    from safetake.connect import open_repository

    why = ""
    try:
        with open_repository(config) as repository:
            wanted = draft(journal, words, repository.id, problems)
            again = bool(journal.facts.get("reporting"))
            journal.fact("reporting", True)
            document = (again and _kept(repository, wanted)) or save(repository, wanted)
    except SafetakeError as error:  # the report is written all the same
        why = str(error)
        document = finished(draft(journal, words, "", problems), [])
    files = [journal.folder / HTML, journal.folder / MARKDOWN]
    try:
        write_durably(files[0], html(document, words.language).encode())
        write_durably(files[1], markdown(document, words.language).encode())
    except OSError as error:
        raise SafetakeError(
            f"the report in {journal.folder} cannot be written: {error.strerror}",
            hint="free space there, then `safetake runbook --resume`",
        ) from error
    return Report(document, not why, why, files)


def _kept(repository: Repository, wanted: Draft) -> Evidence | None:
    """What a process that was killed right after it kept the evidence has kept."""
    for one in each(repository):
        when = (one.started_ns, one.ended_ns, one.host)
        if (
            one.kind == "runbook"
            and when == (wanted.started_ns, wanted.ended_ns, wanted.host)
            and one.problems == wanted.problems
        ):
            return one
    return None
