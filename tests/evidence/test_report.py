"""Reports show everything, and believe nothing that evidence holds."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.evidence import Check, Evidence, Step, parse
from safetake.evidence.document import finished
from safetake.evidence.labels import speaker
from safetake.evidence.report import html, markdown
from tests.evidence.test_evidence import draft
from tests.support.browser import browser
from tests.support.report import looked_at

NASTY = "<script>alert(1)</script>|`*\x1b[31m\u202edessap"


class Elements(HTMLParser):
    """Names of the elements, and all attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [name for name, _ in attrs]


@given(st.text(max_size=60) | st.just(NASTY))
def test_given_any_words_no_element_comes_of_them(words: str) -> None:
    document = finished(
        draft(
            words,
            host=words,
            checks=[Check(name=words, source=words, ok=False, expected=words, found=[words])],
            steps=[Step(name=words, started_ns=5, seconds=2, target_seconds=1, detail=words)],
            problems=[words],
            notes=[words],
            targets={"rto_seconds": 1.0},
        ),
        [],
    )
    for text in (html(document), markdown(document)):
        assert not [c for c in text if not (c.isprintable() or c.isspace())], "it is obeyed"
    found = Elements()
    found.feed(html(document))
    plain = Elements()
    plain.feed(html(finished(document.model_copy(update={
        "name": "x", "host": "x", "notes": ["x"], "problems": ["x"],
        "checks": [Check(name="x", source="x", ok=False, detail="", expected="x", found=["x"])],
        "steps": [Step(name="x", started_ns=5, seconds=2, target_seconds=1, detail="x")],
    }), [])))  # fmt: skip
    assert set(found.names) <= set(plain.names) | {"br"}
    assert "script" not in found.names
    assert not any(name.startswith("on") for name in found.attributes)
    table = [line for line in markdown(document).splitlines() if line.startswith("| FAILED")]
    assert len(table) == 1
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 6


def test_a_report_names_what_failed_and_what_was_missed() -> None:
    document = finished(
        draft(
            checks=[
                Check(name="rows", source="projects", ok=True, expected=3, found=3),
                Check(name="vectors", source="vectors", ok=False, expected="a", found="b"),
            ],
            steps=[Step(name="restore", started_ns=10**18, seconds=3, target_seconds=2)],
            measured={"rto_seconds": 3},
            targets={"rto_seconds": 2},
        ),
        [],
    )
    for page in (html(document), markdown(document)):
        assert "failed" in page
        assert "missed its target: 3.0 s, promised 2.0 s" in page.replace("\\", "")
        assert page.index("vectors") < page.index("rows")


SECOND = 10**9
BEGAN = 1_795_822_439 * SECOND


def step(name: str, at: float, seconds: float, **more: object) -> Step:
    values = {"name": name, "started_ns": BEGAN + int(at * SECOND), "seconds": seconds, **more}
    return Step.model_validate(values)


def bad_night() -> Evidence:
    """All that a page has to bear at once: attacks, long words, 4 ms beside an hour, a missed
    target, a failed step, an unknown one."""
    checks = [
        Check(
            name=f"row {i} {'x' * 300}", source=NASTY, ok=i > 3, expected=NASTY, found=["y" * 400]
        )
        for i in range(30)
    ]
    steps = [
        step("stop the services", 0, 0.004),
        step("recover: with the commands that an operator types", 1, 3700, target_seconds=900),
        step("compare every item", 3701, 12, ok=False, detail=NASTY),
        step("ask a person", 3713, 60, known=False, detail="nobody answered"),
        step(NASTY + "z" * 200, 3773, 1),
    ]
    return finished(
        draft(
            NASTY,
            checks=checks,
            steps=steps,
            measured={"rto_seconds": 3700, "bytes": 2048},
            targets={"rto_seconds": 900, "rpo_seconds": 60},
            problems=[NASTY],
            notes=["w" * 500],
        ),
        [],
    )


@pytest.mark.parametrize("language", ["en", "ko"])
def test_what_is_bad_and_what_is_unknown_comes_first_and_needs_no_colour(language: str) -> None:
    say = speaker(language)
    document = bad_night()
    for made in (html(document, language), markdown(document, language)):
        page = re.sub(r"<[^>]*>", "\n", made.split("</style>")[-1])
        heads = ["problems", "unknowns", "measured_heading", "timeline", "notes", "document"]
        order = [page.index(f"{say(key)}\n") for key in heads]
        assert [page.index(say("failed")), *order] == sorted([page.index(say("failed")), *order])
        assert say("not_measured") in page
        steps = page[order[3] :].split(say("checks", count=30))[0]
        assert steps.count(say("FAILED")) == 2
        assert steps.count(say("unknown")) == 1


def test_an_unknown_step_is_no_success_in_any_count() -> None:
    document = finished(draft(steps=[step("ask", 0, 1, known=False, detail="nobody said")]), [])
    assert document.verdict == "passed"
    for page in (html(document), markdown(document)):
        assert "1 step unknown" in page
        assert "ask: nobody said" in page
    assert (
        "unknown" not in html(finished(draft(steps=[step("ask", 0, 1)]), [])).split("</style>")[1]
    )


def test_only_an_unknown_step_says_so_and_older_documents_keep_their_id() -> None:
    known = finished(draft(steps=[step("ask", 0, 1)]), [])
    assert b"known" not in known.canonical()
    unknown = finished(draft(steps=[step("ask", 0, 1, known=False)]), [])
    assert parse(unknown.canonical(), unknown.id).unknown
    wordy = known.canonical().replace(b'"name":"ask"', b'"known":true,"name":"ask"')
    assert wordy != known.canonical()
    with pytest.raises(Exception, match="not in its canonical form"):
        parse(wordy)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_real_browser_shows_all_of_it_wide_and_narrow(language: str, tmp_path: Path) -> None:
    late = {"deadline_ns": BEGAN + 900 * SECOND}
    document = finished(bad_night().model_copy(update=late), [])
    page = tmp_path / "report.html"
    page.write_text(html(document, language), encoding="utf-8")
    with browser(tmp_path) as shown:
        for width in (1000, 400):
            looked_at(shown, page, width, [one.name[:20] for one in document.steps])
        light = shown.value("getComputedStyle(document.querySelector('.bad')).color")
        shown.look(page, 400, dark=True)
        assert shown.value("getComputedStyle(document.querySelector('.bad')).color") != light
        shown.paper(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_the_browser_would_have_seen_what_is_wrong(tmp_path: Path) -> None:
    """The eyes of the test above: a page that is too wide, that fetches, that complains."""
    page = tmp_path / "report.html"
    good = html(bad_night())
    names = [one.name[:20] for one in bad_night().steps]
    with browser(tmp_path) as shown:
        for wrong in (
            "<p style='width:2000px'>wide</p>",
            "<p style='width:50px;overflow-wrap:normal'>unbreakableword</p>",
            "<img src='http://127.0.0.1:9/x.png'>",
            "<script>1</script>",
        ):
            page.write_text(good + wrong, encoding="utf-8")
            with pytest.raises(AssertionError):
                looked_at(shown, page, 1000, names)
        page.write_text(re.sub(r"<rect class=bar-good[^>]*></rect>", "", good), encoding="utf-8")
        with pytest.raises(AssertionError, match="no bar"):
            looked_at(shown, page, 1000, names)
        page.write_text(good, encoding="utf-8")
        looked_at(shown, page, 1000, names)
