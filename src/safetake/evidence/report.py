"""Evidence for people: one HTML page that opens without a network, or Markdown.

Everything that evidence holds is text to these pages: names of files, answers of servers and rows
of databases are escaped, and nothing is fetched or run by the page. A report is worked out of the
document and a language alone, so that it can be written once more and compared. That of a runbook
has room for what only the review can say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from safetake.clock import go_time
from safetake.evidence.document import Check, Evidence
from safetake.evidence.labels import Say, amount, escaped, quantity, speaker, visible
from safetake.evidence.timeline import STYLE, clock, meter, spent, state, timeline
from safetake.wording import duration

_STYLE = (
    """
:root{color-scheme:light dark;--good:#18794e;--bad:#b42318;--line:#8886}
@media (prefers-color-scheme:dark){:root{--good:#4cc38a;--bad:#ff8f84}}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
overflow-wrap:anywhere}:lang(ko){word-break:keep-all}
h1{font-size:1.5rem;margin-bottom:.4rem}h2{font-size:1.1rem;margin-top:2rem}h3{font-size:1rem}
table{border-collapse:collapse;width:100%;table-layout:fixed}
td,th{text-align:left;padding:.35rem .6rem .35rem 0;border-bottom:1px solid var(--line);
vertical-align:top}th{font-weight:600}
code,pre{font:13px/1.45 ui-monospace,monospace;white-space:pre-wrap}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}
.unknown{font-weight:600}
.verdict{display:inline-block;padding:.1rem .8rem;border-radius:1rem;border:2px solid;
font-size:1.1rem;margin-right:.4rem}
.checks th:nth-child(1){width:4.5rem}.checks th:nth-child(2){width:6rem}
.checks th:nth-child(3){width:28%}.checks th:nth-child(4){width:14%}
.facts td:first-child{width:7rem}.measured th:nth-child(1){width:34%}
.measured th:nth-child(2),.measured th:nth-child(3){width:17%}
.measured th:nth-child(4){width:5rem}
.room{min-height:3.2rem;border-bottom:1px solid var(--line);margin:0}
@media (max-width:42rem){.checks tr:first-child{display:none}
.checks,.checks tbody,.checks tr,.checks td{display:block}
.checks tr{border-bottom:1px solid var(--line);padding:.4rem 0}
.checks td{border:0;padding:.05rem 0}.checks td:empty{display:none}
.checks td[data-label]::before{content:attr(data-label) ": ";opacity:.75}
.measured td:last-child,.measured th:last-child{display:none}
.measured{table-layout:auto;overflow-wrap:normal}.measured th{width:auto!important}
ul{padding-left:1.2rem}
.facts td:first-child{width:5.5rem}}
@media print{body{margin:0;max-width:none}h2,h3{break-after:avoid}tr,.step{break-inside:avoid}}
"""
    + STYLE
)
_LONGEST, _NAMED = 300, 8
_REVIEW = ("review_what", "review_why", "review_impact", "review_actions")


def html(document: Evidence, language: str = "en") -> str:
    """The whole page."""
    say = speaker(language)
    passed = document.verdict == "passed"
    kind = "bad" if not passed else "unknown" if document.unknown else "good"
    title = f"{say(document.kind)}: {document.name}"
    parts = [
        f"<!doctype html><html lang={'ko' if language == 'ko' else 'en'}><meta charset=utf-8>",
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none';"
        " style-src 'unsafe-inline'\">",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{escaped(title)}</title><style>{_STYLE}</style>",
        f"<h1>{escaped(title)}</h1>",
        f"<p><span class='verdict {kind}'>{'✓' if passed else '✗'} "
        f"{escaped(_verdict(document, say))}</span> "
        f"{escaped(_summary(document, say))}</p>",
    ]
    if problems := _problems(document, say):
        items = "".join(f"<li class=bad>{escaped(text)}</li>" for text in problems)
        parts.append(f"<h2>{escaped(say('problems'))}</h2><ul>{items}</ul>")
    if document.unknown:
        items = "".join(f"<li>{escaped(text)}</li>" for text in _unknown(document))
        parts.append(f"<h2>{escaped(say('unknowns'))}</h2><ul>{items}</ul>")
    if document.measured or document.targets:
        parts.append(f"<h2>{escaped(say('measured_heading'))}</h2>" + _quantities(document, say))
    if document.steps:
        parts.append(
            f"<h2>{escaped(say('timeline'))}</h2>"
            + timeline(document.steps, say, document.deadline_ns)
        )
    parts.append(f"<h2>{escaped(say('checks', count=len(document.checks)))}</h2>")
    heads = [say("source"), say("check"), say("expected"), say("found")]
    rows = [
        [
            _mark("ok" if check.ok else "FAILED", say),
            escaped(check.source),
            escaped(check.name) + (f"<br>{escaped(check.detail)}" if check.detail else ""),
            _code(check.expected),
            _code(check.found),
        ]
        for check in _worst_first(document.checks)
    ]
    parts.append(_table("checks", ["", *heads], rows, {1: heads[0], 3: heads[2], 4: heads[3]}))
    if document.notes:
        notes = "".join(f"<li>{escaped(note)}</li>" for note in document.notes)
        parts.append(f"<h2>{escaped(say('notes'))}</h2><ul>{notes}</ul>")
    facts = [[escaped(name), escaped(value)] for name, value in _facts(document, say)]
    parts.append(f"<h2>{escaped(say('document'))}</h2>" + _table("facts", [], facts))
    parts.append(f"<p>{escaped(say('about_id'))}</p>")
    if document.kind == "runbook":
        room = "".join(f"<h3>{escaped(say(key))}</h3><p class=room></p>" for key in _REVIEW)
        parts.append(_review_heading(say, page=True) + room)
    return "\n".join(parts) + "\n"


def markdown(document: Evidence, language: str = "en") -> str:
    """The same in Markdown."""
    say = speaker(language)
    lines = [f"# {_md(say(document.kind))}: {_md(document.name)}", ""]
    lines += [f"**{_verdict(document, say)}**: {_md(_summary(document, say))}", ""]
    if problems := _problems(document, say):
        lines += [f"## {say('problems')}", "", *(f"- {_md(text)}" for text in problems), ""]
    if document.unknown:
        lines += [f"## {say('unknowns')}", ""]
        lines += [*(f"- {_md(text)}" for text in _unknown(document)), ""]
    if document.measured or document.targets:
        rows = [
            [quantity(name, say), amount(name, measured), amount(name, target), say(word)]
            for name, measured, target, word in _measured(document)
        ]
        heads = ["", say("measured"), say("target"), ""]
        lines += [f"## {say('measured_heading')}", "", *_md_table(heads, rows)]
    if document.steps:
        rows = [
            [
                clock(step.started_ns),
                step.name + (f" ({step.detail})" if step.detail else ""),
                spent(step.seconds),
                "" if step.target_seconds is None else duration(step.target_seconds),
                say(state(step)),
            ]
            for step in document.steps
        ]
        heads = [say("at"), say("step"), say("took"), say("target"), ""]
        lines += [f"## {say('timeline')}", "", *_md_table(heads, rows)]
    rows = [
        [
            say("ok" if check.ok else "FAILED"),
            check.source,
            check.name + (f" ({check.detail})" if check.detail else ""),
            _value(check.expected),
            _value(check.found),
        ]
        for check in _worst_first(document.checks)
    ]
    heads = ["", say("source"), say("check"), say("expected"), say("found")]
    lines += [f"## {say('checks', count=len(document.checks))}", "", *_md_table(heads, rows)]
    if document.notes:
        lines += [f"## {say('notes')}", "", *(f"- {_md(note)}" for note in document.notes), ""]
    lines += [f"## {say('document')}", ""]
    lines += [*(f"- {_md(name)}: {_md(value)}" for name, value in _facts(document, say)), ""]
    if document.kind == "runbook":
        lines += [_review_heading(say, page=False), ""]
        lines += [line for key in _REVIEW for line in (f"### {say(key)}", "", "…", "")]
    return "\n".join(lines)


def review_of(text: str, document: Evidence, language: str) -> int | None:
    """Where in a report what people fill in begins; None when it has no room for that."""
    if document.kind != "runbook":
        return None
    heading = _review_heading(speaker(language), page=text.startswith("<"))
    return text.rindex("\n" + heading) + 1 + len(heading)


def _review_heading(say: Say, *, page: bool) -> str:
    return f"<h2>{escaped(say('review'))}</h2>" if page else f"## {say('review')}"


def _summary(document: Evidence, say: Say) -> str:
    count, bad = len(document.checks), sum(not check.ok for check in document.checks)
    key = "none" if not count else "some_bad" if bad else "one_good" if count == 1 else "all_good"
    took = duration((document.ended_ns - document.started_ns) / 1e9)
    when = say("when", at=clock(document.started_ns), took=took)
    return f"{say(key, count=count, bad=bad)}; {when}"


def _verdict(document: Evidence, say: Say) -> str:
    """Never `passed` alone when something stayed unknown."""
    unknown = len(document.unknown)
    key = "one_unknown" if unknown == 1 else "some_unknown"
    more = f", {say(key, count=unknown)}" if unknown else ""
    return say(document.verdict) + more


def _facts(document: Evidence, say: Say) -> list[tuple[str, str]]:
    found = [
        ("began", go_time(document.started_ns)),
        ("ended", go_time(document.ended_ns)),
        ("by", say("by_whom", user=document.user, host=document.host)),
        ("repository", document.repository),
        ("snapshot", document.snapshot),
        ("with", ", ".join(f"{k} {v}" for k, v in document.versions.items())),
        ("id", document.id),
    ]
    return [(say(name), value) for name, value in found if value]


def _problems(document: Evidence, say: Say) -> list[str]:
    """All that keeps it from being passed: in a few lines, since all checks are below."""
    found = list(document.problems)
    for name in document.missed:
        measured = document.measured.get(name)
        found.append(
            say(
                "missed",
                name=quantity(name, say),
                found=say("not_measured") if measured is None else amount(name, measured),
                target=amount(name, document.targets[name]),
            )
        )
    for step in document.steps:
        if not step.ok:
            found.append(step.name + (f": {step.detail}" if step.detail else ""))
        elif not step.good:
            took, target = duration(step.seconds), duration(step.target_seconds or 0)
            found.append(say("step_slow", name=step.name, took=took, target=target))
    for check in document.checks:
        if not check.ok:
            name = f"{check.source}: {check.name}" if check.source else check.name
            answers = {"expected": _short(check.expected), "found": _short(check.found)}
            found.append(say("check_bad", name=name, **answers))
    more = len(found) - _NAMED
    return [*found[:_NAMED], *([say("more", count=more)] if more > 0 else [])]


def _unknown(document: Evidence) -> list[str]:
    return [step.name + (f": {step.detail}" if step.detail else "") for step in document.unknown]


def _measured(document: Evidence) -> list[tuple[str, float | None, float | None, str]]:
    found = []
    for name in sorted({*document.measured, *document.targets}):
        word = "MISSED" if name in document.missed else "ok"
        measured, target = document.measured.get(name), document.targets.get(name)
        found.append((name, measured, target, "no_target" if target is None else word))
    return found


def _quantities(document: Evidence, say: Say) -> str:
    rows = [
        [
            escaped(quantity(name, say)),
            escaped(amount(name, measured) or say("not_measured")),
            escaped(amount(name, target)),
            _mark(word, say),
            "" if measured is None or target is None else meter(measured, target),
        ]
        for name, measured, target, word in _measured(document)
    ]
    return _table("measured", ["", say("measured"), say("target"), "", ""], rows)


def _worst_first(checks: Sequence[Check]) -> list[Check]:
    return sorted(checks, key=lambda check: check.ok)


def _value(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _short(value: Any) -> str:
    text = _value(value) or "-"
    return text if len(text) <= _LONGEST // 3 else text[: _LONGEST // 3 - 1] + "…"


def _code(value: Any) -> str:
    text = _value(value)
    return f"<code>{escaped(text)}</code>" if text else ""


def _mark(word: str, say: Say) -> str:
    kind = {"ok": "good", "FAILED": "bad", "MISSED": "bad"}.get(word)
    text = escaped(say(word))
    return f"<span class={kind}>{text}</span>" if kind else text


def _table(
    name: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    labels: Mapping[int, str] | None = None,
) -> str:
    """Cells are HTML; `labels` by column stand before a cell where there is no room for heads."""
    marked = {at: f" data-label='{escaped(text)}'" for at, text in (labels or {}).items()}
    head = "".join(f"<th>{escaped(word)}</th>" for word in heads)
    lines = [f"<tr>{head}</tr>"] if heads else []
    for row in rows:
        cells = (f"<td{marked.get(at, '')}>{cell}</td>" for at, cell in enumerate(row))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table class={name}>{''.join(lines)}</table>"


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = visible(" ".join(text.split()))
    for mark in "\\`*_[]<>|#&~":
        text = text.replace(mark, "\\" + mark)
    return text


def _md_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    return [*lines, *("| " + " | ".join(map(_md, row)) + " |" for row in rows), ""]
