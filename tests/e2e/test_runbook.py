"""The whole application is destroyed, and a person brings it back at a terminal, in both languages.

In the middle of the restore the machine fails: the runbook and its restore are killed, and the
runbook is resumed. What came back is judged by what the load driver saw acknowledged.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from safetake.clock import parse_go_time
from safetake.runbook.words import TABLE, Words
from tests.cli.conftest import Workplace
from tests.e2e.test_recovery import Site, site, wait_healthy
from tests.operate.notify.receivers import webhook
from tests.runbook.conftest import Terminal, restore_of, terminal
from tests.runbook.test_calendar import parsed
from tests.support.browser import browser
from tests.support.jobs import until
from tests.support.report import looked_at
from tests.support.sample_application import running_load

__all__ = ["site"]

RTO_S = 3600.0


class Spoken:
    """A person who reads one language, and answers in it."""

    def __init__(self, person: Terminal, words: Words) -> None:
        self._person, self.words = person, words

    def answer(self, key: str, text: str = "") -> None:
        """Wait for a question, and type."""
        self._person.answer(re.escape(said(self.words, key)), text)

    def sees(self, key: str) -> None:
        """Wait for a text."""
        self._person.expect(re.escape(said(self.words, key)))


def said(words: Words, key: str) -> str:
    """The longest part of a text that is always the same."""
    return max(re.split(r"\{\w+\}", TABLE[key][words.language]), key=len).strip()


def destroy(site: Site) -> None:
    """The services in the middle of their work, every file, every key."""
    site.kill()
    site.redis.client.flushall()
    for path in site.data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def switching(site: Site) -> bool:
    """Whether the restore has begun to replace live data."""
    found = list((site.folder / "state" / "restores").glob("*/journal"))
    return any(b'"begin":"switch:' in journal.read_bytes() for journal in found)


def leftovers(folder: Path) -> list[str]:
    """Processes that have to do with this folder's restores: what was killed may leave none."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = one.read_bytes()
        except OSError:
            continue
        if b".safetake-restore-" in words and str(folder).encode() in words:
            found.append(words.replace(b"\0", b" ").decode("utf-8", "replace"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ko"])
def test_from_a_destroyed_application_to_the_incident_report(
    site: Site, tmp_path: Path, language: str
) -> None:
    journal = tmp_path / "load.jsonl"
    words = Words(language)
    locale = {"LC_ALL": "ko_KR.UTF-8" if language == "ko" else "C.UTF-8", "PYTHONUTF8": "1"}
    with webhook() as hook:
        urls = tmp_path / "urls"
        urls.write_text(hook.url() + "\n")
        urls.chmod(0o600)
        site.config.write_text(site.config.read_text() + f'\n[notify]\nurls_file = "{urls}"\n')
        with running_load(site.services, journal, "--workers", "2") as load:
            load.wait_for(150)
            taken = site.safetake("backup")
            load.wait_for(load.lines() + 60)
            destroy(site)  # under load
        place = Workplace(site.folder, site.environment)

        with terminal(place, "runbook", **locale) as person:
            reader = Spoken(person, words)
            reader.sees("step1")
            reader.answer("q_snapshot")
            reader.answer("q_level")
            reader.sees("proven")
            reader.answer("q_rto")
            reader.answer("q_began", "5m")
            reader.answer("q_sources")
            reader.sees("gap")
            reader.answer("q_restore")
            until(lambda: switching(site), "the switch")
            child = restore_of(person.process.pid)
            os.kill(person.process.pid, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
            person.process.wait()
        assert site.safetake("restore", "--list")[0]["ended"] == "open", "it was killed too late"

        with terminal(place, "runbook", "--resume", "--output", "out", **locale) as person:
            reader = Spoken(person, words)
            reader.sees("open_restore")
            reader.answer("q_open_restore")
            reader.sees("restored")
            reader.sees("integrity_ok")
            reader.answer("q_tested", words("yes"))
            reader.answer("q_monitored", words("yes"))
            reader.answer("q_note", "미안합니다 & <sorry>")
            reader.answer("q_send")
            reader.sees("told")
            reader.answer("q_meeting")
            reader.answer("q_people", "lee@example.org, kim@example.org")
            reader.sees("in_time")
            assert person.end() == 0, person.seen
        told = [one for one in hook.documents if one["title"].startswith("safetake: ")]

    for client in (site.services.projects, site.services.generation):
        wait_healthy(client)
    site.service("stop")
    verdict = site.judge(journal, parse_go_time(taken["time"]), "judged")
    assert verdict["problems"] == []
    assert leftovers(tmp_path) == []
    assert not list(tmp_path.rglob(".safetake-restore-*"))

    (message,) = [one for one in told if said(words, "message_title") in one["title"]]
    assert "미안합니다 & <sorry>" in message["message"]
    assert taken["id"][:8] in message["message"]
    meeting = parsed((site.folder / "out" / "review-meeting.ics").read_bytes())
    assert meeting["ATTENDEE"] == ["mailto:lee@example.org", "mailto:kim@example.org"]
    assert said(words, "meeting_summary") in meeting["SUMMARY"][0]
    judge_evidence(site, taken["id"])
    page = site.folder / "out" / "incident.html"
    with browser(tmp_path) as shown:
        for width in (1000, 400):
            looked_at(shown, page, width, [f"{n}. {words(f'step{n}')}" for n in range(1, 11)])


def judge_evidence(site: Site, snapshot: str) -> None:
    """Ten steps, good, timed, chained with the rest."""
    assert site.safetake("evidence", "verify")["problems"] == []
    listed: Any = site.safetake("evidence", "list", "--kind", "runbook")
    (document,) = listed
    assert document["verdict"] == "passed", json.dumps(document, indent=1)
    assert document["snapshot"] == snapshot
    assert all(step["ok"] and step.get("known", True) for step in document["steps"])
    assert len(document["steps"]) == 10
    assert document["targets"]["rto_seconds"] == RTO_S
    assert 300 < document["measured"]["rto_seconds"] < RTO_S
    print("\n".join(f"{one['name']:<40} {one['seconds']:7.2f} s" for one in document["steps"]))
