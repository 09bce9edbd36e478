"""An exported document of evidence against the one in the repository: what was edited, by name.

JSON is compared field by field. A report (HTML, Markdown) is written once more from the document
that it names, in each language, and compared line by line: it must be one of those, so it must have
been written by this version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from safetake.errors import DamagedError
from safetake.evidence.document import MAX_BYTES, parse
from safetake.evidence.labels import LANGUAGES
from safetake.evidence.report import html, markdown

if TYPE_CHECKING:
    from pathlib import Path

    from safetake.evidence.document import Evidence

_REPORTS = {".html": html, ".md": markdown}
_ID = re.compile(r"\b[0-9a-f]{64}\b")
_SHOWN = 120


def check_file(file: Path, documents: Mapping[str, Evidence]) -> list[str]:
    """What is wrong with an exported file; `documents` are those of the repository, by id."""
    try:
        with file.open("rb") as opened:
            data = opened.read(4 * MAX_BYTES)  # a report is longer than its document
    except OSError as error:
        return [f"{file}: {error.strerror}"]
    if file.suffix in _REPORTS:
        told = _report(data, file.suffix, documents)
    else:
        told = _json(data, documents)
    return [f"{file}: {told}"] if told else []


def _report(data: bytes, suffix: str, documents: Mapping[str, Evidence]) -> str:
    text = data.decode("utf-8", "replace")
    named = [found for found in _ID.findall(text) if found in documents]
    if not named:
        return "it names no document of the repository: it was changed, or is of another"
    document = documents[named[-1]]
    lines = text.splitlines()
    forms = [_REPORTS[suffix](document, language).splitlines() for language in LANGUAGES]
    if lines in forms:
        return ""
    # what was edited shows against the form that it was made from: the one it is most like
    written = max(forms, key=lambda form: sum(map(str.__eq__, lines, form)))
    for number, (here, there) in enumerate(zip_longest(lines, written), 1):
        if here != there:
            return (
                f"line {number} is not what evidence {document.id[:8]} says: {_around(here, there)}"
            )
    return ""


def _around(here: str | None, there: str | None) -> str:
    """Where two lines part."""
    if here is None or there is None:
        return "it ends before" if here is None else f"it has {here[:_SHOWN]!r} more"
    pairs = zip_longest(here, there)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    start = max(at - _SHOWN // 4, 0)
    return f"{here[start : start + _SHOWN]!r} instead of {there[start : start + _SHOWN]!r}"


def _json(data: bytes, documents: Mapping[str, Evidence]) -> str:
    try:
        found = parse(data)
        if found.id in documents:
            return ""
        told = "the repository has no such document: it was changed, or is of another"
    except DamagedError as error:
        told = str(error)
    original = _same(data, documents)
    if original is not None:
        content = original.model_dump(mode="json")
        if where := next(_different(json.loads(data), content), ""):
            return f"it was changed: evidence {original.id[:8]} has another {where}"
    return told


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
