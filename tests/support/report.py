"""A report as a person has it before their eyes: in a real browser, wide or narrow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.browser import Browser

_SEEN = """(() => {
  const box = e => {
    const b = e.getBoundingClientRect();
    return [b.left, b.right, b.width, b.height];
  };
  const steps = [...document.querySelectorAll('.step')].map(step => ({
    text: step.querySelector('.name').innerText,
    name: box(step.querySelector('.name')),
    bar: step.querySelector('rect') && box(step.querySelector('rect')),
    room: box(step.querySelector('svg')),
  }));
  const cut = [...document.querySelectorAll('h1,h2,p,li,td,th,.name,.took')]
    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.innerText);
  return {wide: document.documentElement.scrollWidth, window: innerWidth, steps, cut};
})()"""


def looked_at(browser: Browser, page: Path, width: int, names: Sequence[str]) -> None:
    """Nothing is fetched, refused, cut off or beyond the edge, and each step has name and bar."""
    browser.look(page, width)
    assert browser.complaints == []
    assert browser.requests == [page.as_uri()]
    seen = browser.value(_SEEN)
    assert seen["window"] == width
    assert seen["wide"] <= width
    assert seen["cut"] == []
    assert len(seen["steps"]) == len(names)
    for step, name in zip(seen["steps"], names, strict=True):
        assert step["text"].startswith(name)
        assert step["bar"], "no bar"
        left, right, wide, high = step["bar"]
        assert wide >= 1
        assert high >= 10
        assert step["room"][0] - 2 <= left
        assert right <= step["room"][1] + 2
        assert step["name"][2] >= 100
