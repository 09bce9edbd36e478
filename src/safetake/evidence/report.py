"""Evidence for people: one HTML page that opens without a network, or Markdown.

Everything that evidence holds is text to these pages: names of files, answers of servers and rows
of databases are escaped, and nothing is fetched or run by the page.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from safetake.clock import go_time
from safetake.evidence.document import Check, Evidence, Step
from safetake.wording import duration

_STYLE = """
:root{color-scheme:light dark;--good:#18794e;--bad:#b42318;--line:#8884;--soft:#8881}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.35rem .6rem;
border-bottom:1px solid var(--line);vertical-align:top}th{font-weight:600}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
code,pre{font:13px/1.45 ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}
.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}
.verdict{display:inline-block;padding:.1rem .7rem;border-radius:1rem;border:1.5px solid}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:currentColor}
@media print{body{margin:0}h2{break-after:avoid}tr{break-inside:avoid}}
"""
_ROW, _LEFT, _WIDTH = 26, 230, 900
_LONGEST = 300


def html(document: Evidence) -> str:
    """The whole page."""
    good = document.verdict == "passed"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none';"
        " style-src 'unsafe-inline'\">",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{escape(document.kind)}: {escape(document.name)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(document.kind)}: {escape(document.name)}</h1>",
        f"<p><span class='verdict {'good' if good else 'bad'}'>{document.verdict}</span> "
        f"{escape(_summary(document))}</p>",
    ]
    if document.problems or document.missed:
        parts.append("<h2>Problems</h2><ul>")
        parts += [f"<li class=bad>{escape(text)}</li>" for text in _problems(document)]
        parts.append("</ul>")
    parts.append(_table(["", ""], [[escape(k), escape(v)] for k, v in _facts(document)]))
    if document.measured or document.targets:
        parts.append("<h2>Measured, and promised</h2>")
        parts.append(
            _table(
                ["", "measured", "target", ""],
                [
                    [escape(name), _cell(measured), _cell(target), _mark(ok)]
                    for name, measured, target, ok in _measured(document)
                ],
            )
        )
    if document.steps:
        parts.append("<h2>Timeline</h2>" + timeline(document.steps))
    parts.append(f"<h2>Checks ({len(document.checks)})</h2>")
    parts.append(
        _table(
            ["", "source", "check", "expected", "found"],
            [
                [
                    _mark(check.ok),
                    escape(check.source),
                    escape(check.name) + (f"<br>{escape(check.detail)}" if check.detail else ""),
                    f"<code>{escape(_value(check.expected))}</code>",
                    f"<code>{escape(_value(check.found))}</code>",
                ]
                for check in _worst_first(document.checks)
            ],
        )
    )
    if document.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in document.notes)
        parts.append(f"<h2>Notes</h2><ul>{notes}</ul>")
    parts.append(
        f"<h2>This document</h2><p>Its id is the SHA-256 of its canonical form; "
        f"<code>safetake evidence verify</code> compares it with the repository.</p>"
        f"<pre>{escape(document.id)}</pre>"
    )
    return "\n".join(parts) + "\n"


def timeline(steps: Sequence[Step]) -> str:
    """An SVG picture: a bar for each step, and a mark where its target lies."""
    start = min(step.started_ns for step in steps)
    end = max(step.started_ns + int(max(step.seconds, step.target_seconds or 0) * 1e9)
              for step in steps)  # fmt: skip
    scale = (_WIDTH - _LEFT - 90) / max(end - start, 1)
    height = _ROW * (len(steps) + 1)
    parts = [
        f"<svg viewBox='0 0 {_WIDTH} {height}' role=img aria-label='timeline of "
        f"{len(steps)} steps'>"
    ]
    for number, step in enumerate(steps):
        top = number * _ROW
        left = _LEFT + (step.started_ns - start) * scale
        length = max(step.seconds * 1e9 * scale, 1.5)
        colour = "var(--good)" if _good(step) else "var(--bad)"
        parts.append(f"<text x=0 y={top + 17}>{escape(_cut(step.name, 34))}</text>")
        parts.append(
            f"<rect x='{left:.1f}' y={top + 5} width='{length:.1f}' height=16 rx=3 "
            f"fill='{colour}'><title>{escape(step.name)}: {duration(step.seconds)}"
            f"{'; ' + escape(step.detail) if step.detail else ''}</title></rect>"
        )
        if step.target_seconds is not None:
            at = left + step.target_seconds * 1e9 * scale
            parts.append(
                f"<line x1='{at:.1f}' x2='{at:.1f}' y1={top + 2} y2={top + 24} "
                f"stroke='currentColor' stroke-dasharray='3 2'><title>target "
                f"{duration(step.target_seconds)}</title></line>"
            )
        parts.append(
            f"<text x='{left + length + 6:.1f}' y={top + 17}>{duration(step.seconds)}</text>"
        )
    axis = _ROW * len(steps) + 14
    parts.append(f"<text x={_LEFT} y={axis}>{escape(_clock(start))}</text>")
    parts.append(
        f"<text x={_WIDTH} y={axis} text-anchor=end>{duration((end - start) / 1e9)}</text></svg>"
    )
    return "".join(parts)


def markdown(document: Evidence) -> str:
    """The same in Markdown."""
    lines = [f"# {_md(document.kind)}: {_md(document.name)}", ""]
    lines += [f"**{document.verdict}**: {_md(_summary(document))}", ""]
    if document.problems or document.missed:
        lines += ["## Problems", "", *(f"- {_md(text)}" for text in _problems(document)), ""]
    lines += [*(f"- {_md(name)}: {_md(value)}" for name, value in _facts(document)), ""]
    if document.measured or document.targets:
        rows = [
            [name, _number(measured), _number(target), "ok" if ok else "MISSED"]
            for name, measured, target, ok in _measured(document)
        ]
        lines += ["## Measured, and promised", "", *_md_table(["", "measured", "target", ""], rows)]
    if document.steps:
        rows = [
            [
                _clock(step.started_ns),
                step.name,
                duration(step.seconds),
                "" if step.target_seconds is None else duration(step.target_seconds),
                "ok" if _good(step) else "FAILED",
            ]
            for step in document.steps
        ]
        lines += ["## Timeline", "", *_md_table(["at", "step", "took", "target", ""], rows)]
    rows = [
        [
            "ok" if check.ok else "FAILED",
            check.source,
            check.name + (f" ({check.detail})" if check.detail else ""),
            _value(check.expected),
            _value(check.found),
        ]
        for check in _worst_first(document.checks)
    ]
    heading = ["", "source", "check", "expected", "found"]
    lines += [f"## Checks ({len(document.checks)})", "", *_md_table(heading, rows)]
    if document.notes:
        lines += ["## Notes", "", *(f"- {_md(note)}" for note in document.notes), ""]
    lines += ["## This document", "", f"`{document.id}`", ""]
    return "\n".join(lines)


def _summary(document: Evidence) -> str:
    bad = sum(not check.ok for check in document.checks)
    checks = f"{len(document.checks)} checks, {bad} failed" if bad else (
        f"all of {len(document.checks)} checks are good"
    )  # fmt: skip
    took = duration((document.ended_ns - document.started_ns) / 1e9)
    return f"{checks}; {_clock(document.started_ns)}, {took}"


def _facts(document: Evidence) -> list[tuple[str, str]]:
    found = [
        ("began", go_time(document.started_ns)),
        ("ended", go_time(document.ended_ns)),
        ("by", f"{document.user} on {document.host}"),
        ("repository", document.repository),
    ]
    if document.snapshot:
        found.append(("snapshot", document.snapshot))
    found.append(("with", ", ".join(f"{k} {v}" for k, v in document.versions.items())))
    return found


def _problems(document: Evidence) -> list[str]:
    missed = []
    for name in document.missed:
        found = document.measured.get(name)
        missed.append(
            f"{name} missed its target: {_number(found) or 'not measured'}, "
            f"promised {_number(document.targets[name])}"
        )
    return [*document.problems, *missed]


def _measured(document: Evidence) -> list[tuple[str, float | None, float | None, bool]]:
    names = sorted({*document.measured, *document.targets})
    missed = document.missed
    return [
        (name, document.measured.get(name), document.targets.get(name), name not in missed)
        for name in names
    ]


def _good(step: Step) -> bool:
    return step.ok and (step.target_seconds is None or step.seconds <= step.target_seconds)


def _worst_first(checks: Sequence[Check]) -> list[Check]:
    return sorted(checks, key=lambda check: check.ok)


def _clock(ns: int) -> str:
    return go_time(ns // 10**9 * 10**9).replace("T", " ").replace("Z", " UTC")


def _value(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _cut(text, _LONGEST)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".")


def _cell(value: float | None) -> str:
    return escape(_number(value))


def _mark(ok: bool) -> str:
    return "<span class=good>ok</span>" if ok else "<span class=bad>FAILED</span>"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(word)}</th>" for word in heading) if any(heading) else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = " ".join(text.split())
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, "\\" + mark)
    return text


def _md_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    return [*lines, *("| " + " | ".join(map(_md, row)) + " |" for row in rows), ""]
