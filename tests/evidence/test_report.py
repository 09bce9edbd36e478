"""Reports show everything, and believe nothing that evidence holds."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from safetake.evidence import Check, Step
from safetake.evidence.document import finished
from safetake.evidence.report import html, markdown
from tests.evidence.test_evidence import draft

NASTY = "<script>alert(1)</script>|`*\x1b[31m"


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
        assert "missed its target: 3, promised 2" in page.replace("\\", "")
        assert page.index("vectors") < page.index("rows")
