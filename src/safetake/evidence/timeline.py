"""The timeline of a report: a row for each step, its bar drawn to scale beside its name and time.

Each row is a picture of its own (SVG, in percent of the room that there is), its words are text: so
it is legible on a telephone and on paper. What failed is hatched, what nobody knows is an outline;
neither needs colour. A bar is never thinner than can be seen, so a step of milliseconds is there.
"""

from __future__ import annotations

from collections.abc import Sequence

from safetake.clock import go_time
from safetake.evidence.document import Step
from safetake.evidence.labels import Say, escaped
from safetake.wording import duration

STYLE = """
.steps{display:grid;grid-template-columns:minmax(9rem,17rem) 1fr max-content}
.step{display:contents}.step>*{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line)}
.step small{display:block;opacity:.8}.step .took{text-align:right;
white-space:nowrap;padding-right:0}
.track{width:100%;height:1.4rem;display:block;overflow:visible;box-sizing:content-box}
.axis{grid-column:2;padding-right:.8rem;display:flex;justify-content:space-between;gap:1rem;font-size:.85rem}
.meter{width:100%;height:1.4rem;display:block;overflow:visible}
.target{stroke:currentColor;stroke-width:2;stroke-dasharray:3 2}
.bar-good{fill:var(--good);stroke:var(--good);stroke-width:2}
.bar-bad{fill:url(#bad);stroke:var(--bad);stroke-width:2}
.bar-unknown{fill:none;stroke:currentColor;stroke-width:2;stroke-dasharray:4 3}
.defs{position:absolute}
@media (max-width:42rem){.steps{grid-template-columns:1fr max-content}
.step .bar{grid-column:1/3;padding:0 0 .35rem}
.step .name,.step .took{border:0;padding-bottom:.1rem}
.step{display:grid;grid-column:1/3;grid-template-columns:1fr max-content;gap:0 .8rem}
.step .bar{order:3}.axis{grid-column:1/3}}
"""
DEFINITIONS = (
    "<svg class=defs width=0 height=0 aria-hidden=true><pattern id=bad width=7 height=7 "
    "patternUnits=userSpaceOnUse patternTransform='rotate(45)'>"
    "<rect width=4 height=7 style='fill:var(--bad)'></rect></pattern></svg>"
)
_THIN = 0.005
_NEAR = 1.5
"""A target that lies further away than so many times the whole is said, not drawn."""


def timeline(steps: Sequence[Step], say: Say, deadline_ns: int | None = None) -> str:
    """The rows of the steps, and below them when it began and how long all of it took.

    `deadline_ns` is for all steps together: a mark in each row.
    """
    start = min(step.started_ns for step in steps)
    whole = max(_end(step, start) for step in steps)
    drawn = [
        at for step in steps if (at := _target(step, start)) is not None and at <= whole * _NEAR
    ]
    deadline = None if deadline_ns is None else (deadline_ns - start) / 1e9
    if deadline is not None and deadline <= whole * _NEAR:
        drawn.append(deadline)
    scale = max([whole, *drawn]) or 1.0
    rows = [_row(step, start, scale, deadline, say) for step in steps]
    until = "" if deadline_ns is None else say("all_by", at=clock(deadline_ns))
    label = escaped(say("timeline_of", count=len(steps)))
    return (
        f"{DEFINITIONS}<div class=steps role=list aria-label='{label}'>{''.join(rows)}"
        f"<div class=axis><span>{clock(start)}</span>"
        f"<span>{escaped(until)}</span><span>{duration(scale)}</span></div></div>"
    )


def meter(measured: float, target: float) -> str:
    """A measured value as a bar, and its target as a mark."""
    scale = max(measured, target) * 1.02 or 1.0
    kind = "good" if measured <= target else "bad"
    return (
        f"<svg class=meter aria-hidden=true>{_bar(0, measured / scale, kind)}"
        f"{_mark(target / scale)}</svg>"
    )


def spent(seconds: float) -> str:
    """How long it took, also of what is too short for `duration`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else duration(seconds)


def state(step: Step) -> str:
    """`FAILED`, `unknown` or `ok`."""
    return "FAILED" if not step.good else "ok" if step.known else "unknown"


def clock(ns: int) -> str:
    """`2026-11-22 21:58:00 UTC`."""
    return go_time(ns // 10**9 * 10**9).replace("T", " ").replace("Z", " UTC")


def _row(step: Step, start: int, scale: float, deadline: float | None, say: Say) -> str:
    kind = {"FAILED": "bad", "unknown": "unknown", "ok": "good"}[state(step)]
    said = "" if kind == "good" else f" <b class={kind}>{escaped(say(state(step)))}</b>"
    detail = f"<small>{escaped(step.detail)}</small>" if step.detail else ""
    target = _target(step, start)
    most = mark = ""
    if step.target_seconds is not None and target is not None:
        most = f"<small>{escaped(say('at_most', target=duration(step.target_seconds)))}</small>"
        mark = _mark(target / scale) if target <= scale else ""
    if deadline is not None:
        late = _end(step, start) > deadline
        most = f"<small>{escaped(say('late'))}</small>" if late else ""
        mark = _mark(deadline / scale) if 0 <= deadline <= scale else ""
    at = (step.started_ns - start) / 1e9
    return (
        f"<div class=step role=listitem><div class=name>{escaped(step.name)}{said}{detail}</div>"
        f"<div class=bar><svg class=track aria-hidden=true>"
        f"{_bar(at / scale, step.seconds / scale, kind)}{mark}</svg></div>"
        f"<div class=took>{spent(step.seconds)}{most}</div></div>"
    )


def _bar(left: float, length: float, kind: str) -> str:
    x, width = min(left, 1 - _THIN), max(length, _THIN)
    return f"<rect class=bar-{kind} x='{x:.3%}' y=4 width='{width:.3%}' height=14 rx=2></rect>"


def _mark(at: float) -> str:
    return f"<line class=target x1='{at:.3%}' x2='{at:.3%}' y1=0 y2=22></line>"


def _end(step: Step, start: int) -> float:
    return (step.started_ns - start) / 1e9 + step.seconds


def _target(step: Step, start: int) -> float | None:
    if step.target_seconds is None:
        return None
    return (step.started_ns - start) / 1e9 + step.target_seconds
