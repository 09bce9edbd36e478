"""What was edited in an export is named, whatever its form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from safetake.errors import DamagedError
from safetake.evidence import Evidence, Step, parse
from safetake.evidence.document import finished
from safetake.evidence.exported import Compared, check_file
from safetake.evidence.report import html, markdown
from tests.evidence.test_evidence import draft

DOCUMENT = finished(draft(), [])
KNOWN = {DOCUMENT.id: DOCUMENT}
INCIDENT = finished(
    draft(
        kind="runbook",
        steps=[Step(name="1. step", started_ns=10**9, seconds=3)],
        deadline_ns=3 * 10**9,
    ),
    [],
)
FORMS: dict[str, Callable[[Evidence], str]] = {
    ".json": lambda one: one.canonical().decode(),
    ".html": html,
    ".md": markdown,
}


@pytest.mark.parametrize("suffix", list(FORMS))
def test_what_was_exported_is_well_and_of_another_repository_is_not(
    tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"exported{suffix}"
    file.write_text(FORMS[suffix](DOCUMENT))
    assert check_file(file, KNOWN) == Compared()
    problem = check_file(file, {}).problem
    assert "no such document" in problem or "no document of the repository" in problem


@pytest.mark.parametrize(
    ("suffix", "old", "new", "told"),
    [
        (".json", '"found":3', '"found":4', "another checks.0.found: 3, not 4"),
        (".json", '"user":"user"', '"user":"me"', 'another user: "user", not "me"'),
        (".json", "passed", "failed", 'another verdict: "passed", not "failed"'),
        (".json", "{", "", "is no evidence: not JSON"),
        (".html", "<code>3</code>", "<code>4</code>", "<code>4</code>"),
        (".html", "user on host", "me on host", "instead of"),
        (".md", "**passed**", "**failed**", "line 3 is not what evidence"),
        (".md", DOCUMENT.id, "0" * 64, "it names no document of the repository"),
    ],
)
def test_an_edit_is_named(tmp_path: Path, suffix: str, old: str, new: str, told: str) -> None:
    text = FORMS[suffix](DOCUMENT)
    assert old in text
    file = tmp_path / f"edited{suffix}"
    file.write_text(text.replace(old, new, 1))
    problem = check_file(file, KNOWN).problem
    assert problem.startswith(f"{file}: ")
    assert told in problem


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_every_form_that_is_written_is_well_and_an_edit_of_it_is_named(
    tmp_path: Path, suffix: str, language: str
) -> None:
    text = {".html": html, ".md": markdown}[suffix](INCIDENT, language)
    file = tmp_path / f"incident{suffix}"
    file.write_text(text, encoding="utf-8")
    assert check_file(file, {INCIDENT.id: INCIDENT}) == Compared()
    for old in (
        {"en": "passed", "ko": "통과"}[language],
        {"en": "For the review", "ko": "사후 검토"}[language],
        {"en": "after the RTO", "ko": "RTO 이후"}[language] if suffix == ".html" else "00:00:01",
    ):
        at = text.splitlines()
        number = next(i for i, line in enumerate(at, 1) if old in line)
        file.write_text(text.replace(old, "well", 1), encoding="utf-8")
        problem = check_file(file, {INCIDENT.id: INCIDENT}).problem
        assert f"line {number} is not what evidence" in problem
        assert "well" in problem
        assert old in problem.split("instead of")[1]


def test_a_deadline_is_part_of_what_the_id_says_and_is_not_there_without_one() -> None:
    assert b"deadline_ns" not in DOCUMENT.canonical()
    assert parse(INCIDENT.canonical(), INCIDENT.id).deadline_ns == 3 * 10**9
    later = finished(INCIDENT.model_copy(update={"deadline_ns": 4 * 10**9}), [])
    assert later.id != INCIDENT.id
    without = DOCUMENT.canonical().replace(b"{", b'{"deadline_ns":null,', 1)
    with pytest.raises(DamagedError):
        parse(without)


def test_a_cut_and_a_longer_report(tmp_path: Path) -> None:
    file = tmp_path / "exported.md"
    text = markdown(DOCUMENT)
    file.write_text(text + "and more\n")
    longer = check_file(file, KNOWN).problem
    assert "'and more'" in longer
    file.write_text(text[: text.index(DOCUMENT.id)])
    cut = check_file(file, KNOWN).problem
    assert "it names no document" in cut
    gone = check_file(tmp_path / "gone.json", KNOWN).problem
    assert "No such file" in gone


FILLED_IN = {
    ".html": (
        "<p class=room></p>",
        "<p class=room>AT&T; a <b>disk</b> &lt; 3 days old<br></p><ul><li>Kim, 2026-12-01</ul>",
    ),
    ".md": ("…", "A disk < 3 days old, <https://example.org/42>.\n\n- Kim: until 2026-12-01\n"),
}


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("suffix", list(FILLED_IN))
def test_a_review_that_was_filled_in_is_told_apart_from_an_edited_fact(
    tmp_path: Path, suffix: str, language: str
) -> None:
    text = {".html": html, ".md": markdown}[suffix](INCIDENT, language)
    room, words = FILLED_IN[suffix]
    filled = text[::-1].replace(room[::-1], words[::-1], 2)[::-1]
    file = tmp_path / f"incident{suffix}"
    known = {DOCUMENT.id: DOCUMENT, INCIDENT.id: INCIDENT}
    for written in (filled, filled.replace("\n", "\r\n"), "\ufeff" + filled):
        file.write_text(written, encoding="utf-8", newline="")
        assert check_file(file, known) == Compared(filled_in=True)
    # the id of another document in the review does not make it that one's report
    file.write_text(filled + DOCUMENT.id + "\n", encoding="utf-8")
    assert check_file(file, known) == Compared(filled_in=True)
    for old in ("user", "1970-01-01 00:00:01", "1. step"):
        file.write_text(filled.replace(old, "well", 1), encoding="utf-8")
        assert "is not what evidence" in check_file(file, known).problem


@pytest.mark.parametrize("suffix", list(FILLED_IN))
@pytest.mark.parametrize(
    "more",
    [
        "<style>.bad{display:none}</style>",
        "<script>1</script>",
        "<p style='position:fixed;top:0'>passed",
        "</div>",
        "<!-- ",
        "<STYLE",
    ],
)
def test_a_review_is_text_and_can_not_change_how_the_facts_look(
    tmp_path: Path, suffix: str, more: str
) -> None:
    text = {".html": html, ".md": markdown}[suffix](INCIDENT)
    file = tmp_path / f"incident{suffix}"
    file.write_text(text + more, encoding="utf-8")
    found = check_file(file, {INCIDENT.id: INCIDENT})
    assert "its review holds" in found.problem
    assert not found.filled_in
