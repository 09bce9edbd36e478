"""An exported document of evidence against the one in the repository: what was edited, by name.

JSON is compared field by field. A report (HTML, Markdown) is written once more from the document
that it names, in each language, and compared line by line: it must be one of those, so it must have
been written by this version. What comes below the heading of the review is a person's, and only
text: nothing that could change how the facts above it look.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from safetake.errors import DamagedError
from safetake.evidence.document import MAX_BYTES, parse
from safetake.evidence.labels import LANGUAGES
from safetake.evidence.report import html, markdown, review_of

if TYPE_CHECKING:
    from pathlib import Path

    from safetake.evidence.document import Evidence

_REPORTS = {".html": html, ".md": markdown}
_ID = re.compile(r"\b[0-9a-f]{64}\b")
_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Compared:
    """What a file is, next to the repository."""

    problem: str = ""
    """What is wrong with it; empty: it is what the repository says."""
    filled_in: bool = False
    """Whether somebody wrote the review, and touched nothing else."""


def check_file(file: Path, documents: Mapping[str, Evidence]) -> Compared:
    """An exported file against `documents`, which are those of the repository, by id."""
    try:
        with file.open("rb") as opened:
            data = opened.read(4 * MAX_BYTES)  # a report is longer than its document
    except OSError as error:
        return Compared(f"{file}: {error.strerror}")
    suffix = file.suffix.lower()
    found = _report(data, suffix, documents) if suffix in _REPORTS else _json(data, documents)
    return Compared(f"{file}: {found.problem}") if found.problem else found


def _report(data: bytes, suffix: str, documents: Mapping[str, Evidence]) -> Compared:
    text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").rstrip("\n")
    named = [found for found in _ID.findall(text) if found in documents]
    if not named:
        return Compared("it names no document of the repository: it was changed, or is of another")
    for document in (documents[one] for one in dict.fromkeys(named)):
        for language in LANGUAGES:
            form = _REPORTS[suffix](document, language).rstrip("\n")
            if text == form:
                return Compared()
            at = review_of(form, document, language)
            if at is not None and text.startswith(form[:at]):
                return _review(text[at:], suffix)
    document = documents[named[-1]]
    lines = text.splitlines()
    forms = [_REPORTS[suffix](document, language).splitlines() for language in LANGUAGES]
    # what was edited shows against the form that it was made from: the one it is most like
    written = max(forms, key=lambda form: sum(map(str.__eq__, lines, form)))
    for number, (here, there) in enumerate(zip_longest(lines, written), 1):
        if here != there:
            return Compared(
                f"line {number} is not what evidence {document.id[:8]} says: {_around(here, there)}"
            )
    return Compared("its lines end in another way than they are written")


_TEXT_TAGS = {"h3", "p", "br", "b", "strong", "i", "em", "ul", "ol", "li", "code", "pre"}
_AUTOLINK = re.compile(r"<(?:https?://|mailto:|[^\s<>@]+@)[^\s<>]*>")
_TAG = re.compile(r"<[A-Za-z/!?][^>\n]{0,40}>?")


class _Tags(HTMLParser):
    """The first thing in a piece of HTML that is more than text."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _TEXT_TAGS or any(one != ("class", "room") for one in attrs):
            self._more(self.get_starttag_text() or tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _TEXT_TAGS:
            self._more(f"</{tag}>")

    def handle_comment(self, data: str) -> None:
        self._more(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self._more(f"<!{decl}>")

    def unknown_decl(self, data: str) -> None:
        self._more(f"<![{data}]>")

    def handle_pi(self, data: str) -> None:
        self._more(f"<?{data}>")

    def _more(self, what: str) -> None:
        self.found = self.found or what


def _review(text: str, suffix: str) -> Compared:
    """What people wrote: anything that is text."""
    if suffix == ".md":
        tag = _TAG.search(_AUTOLINK.sub("", text))
        more = tag[0] if tag else ""
    else:
        reading = _Tags()
        reading.feed(text)
        left = reading.rawdata  # a tag that does not end; or text, which is none
        more = reading.found or (left if left.startswith("<") else "")
    if more:
        return Compared(
            f"its review holds {more[:_SHOWN]!r}: only text may stand there, since anything else "
            "could change how the facts look"
        )
    return Compared(filled_in=True)


def _around(here: str | None, there: str | None) -> str:
    """Where two lines part."""
    if here is None or there is None:
        return "it ends before" if here is None else f"it has {here[:_SHOWN]!r} more"
    pairs = zip_longest(here, there)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    start = max(at - _SHOWN // 4, 0)
    return f"{here[start : start + _SHOWN]!r} instead of {there[start : start + _SHOWN]!r}"


def _json(data: bytes, documents: Mapping[str, Evidence]) -> Compared:
    try:
        found = parse(data)
        if found.id in documents:
            return Compared()
        told = "the repository has no such document: it was changed, or is of another"
    except DamagedError as error:
        told = str(error)
    original = _same(data, documents)
    if original is not None:
        content = original.model_dump(mode="json")
        if where := next(_different(json.loads(data), content), ""):
            return Compared(f"it was changed: evidence {original.id[:8]} has another {where}")
    return Compared(told)


def _same(data: bytes, documents: Mapping[str, Evidence]) -> Evidence | None:
    """The document that an edited one was made from: of the same moment, or else nothing."""
    try:
        moment = json.loads(data)["started_ns"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return next((one for one in documents.values() if one.started_ns == moment), None)


def _different(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Where two JSON values differ, as `checks.3.found (1, not 2)`."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _different(one.get(key), other.get(key), f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        for number, (a, b) in enumerate(zip_longest(one, other)):
            yield from _different(a, b, f"{where}.{number}")
    elif one != other:
        yield f"{where.lstrip('.')}: {_short(other)}, not {_short(one)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
