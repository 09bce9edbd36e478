"""What the history says now, without reading years of it at each look.

Runs that ended two days ago or earlier are boiled down once a day to counts, to the few records
that still say something (the newest of each job, kind and source, what predictions are made from),
and to one sum a day of what was added and freed. That is a cache in the state folder: where it is
missing, damaged or a month old, the whole history is read again, which also takes in what another
machine brought late. `View` says the same as the whole history to whoever looks for the newest.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.errors import SafetakeError
from safetake.operate.history.record import Record
from safetake.operate.objectives import GROWTH_OVER_S, PAST, RATES_FROM, is_part, is_restore

if TYPE_CHECKING:
    from pathlib import Path

    from safetake.operate.history import History

DAY_NS = 86400 * 10**9
_RECENT_DAYS = 2
_AGAIN_DAYS = 30
_MAX_BYTES = 64 << 20
_FORMAT = 1


@dataclass(slots=True)
class Counts:
    """Of one job, over all time."""

    runs: int = 0
    failures: int = 0
    in_a_row: int = 0
    """Failures since the last success."""
    missed: int = 0

    def take(self, record: Record) -> None:
        """The next record, in order."""
        if record.kind == "missed":
            count = record.facts.get("count", 1)
            self.missed += count if isinstance(count, int) and count > 0 else 1
            return
        self.runs += 1
        self.in_a_row = 0 if record.ok else self.in_a_row + 1
        self.failures += not record.ok


@dataclass(slots=True)
class View:
    """The history, as far as anybody asks for the newest of something."""

    records: list[Record] = field(default_factory=list)
    """Oldest first; of older ones only those that still say something."""
    growing: list[Record] = field(default_factory=list)
    """For `objectives.growth`: of older ones one for each day."""
    counts: dict[str, Counts] = field(default_factory=dict)
    """By job."""
    begin_ns: int = 0
    """When the oldest run on record began; 0: there is none."""


@dataclass(slots=True)
class _Past:
    """What ended before `until_ns`."""

    until_ns: int = 0
    made_ns: int = 0
    """When the whole history was read."""
    begin_ns: int = 0
    counts: dict[str, Counts] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    days: list[Record] = field(default_factory=list)

    def fold(self, records: Iterable[Record], until_ns: int) -> list[Record]:
        """Take in what ended before `until_ns`; the rest is returned. All is newer than before."""
        mine: list[Record] = []
        rest: list[Record] = []
        for record in records:
            (mine if record.ended_ns < until_ns else rest).append(record)
        _count(self.counts, mine)
        self.begin_ns = min([self.begin_ns or until_ns, *(record.started_ns for record in mine)])
        self.records = worth_keeping([*self.records, *mine])
        self.days = sums([*self.days, *mine], until_ns)
        self.until_ns = until_ns
        return rest


def view(history: History) -> View:
    """The history now. Raises nothing of its own, as `History.records` does not."""
    now_ns = history.now_ns()
    until_ns = now_ns // DAY_NS * DAY_NS - _RECENT_DAYS * DAY_NS
    place = _place(history)
    past = _load(place, now_ns)
    whole = past is None
    past = past or _Past(made_ns=now_ns)
    recent = history.records(since_ns=past.until_ns)
    if past.until_ns < until_ns:
        recent = past.fold(recent, until_ns)
        if past.records and not (whole and history.trouble):
            _save(place, past)
    begins = [record.started_ns for record in recent]
    if past.records:
        begins.append(past.begin_ns)
    counts = {name: Counts(**asdict(one)) for name, one in past.counts.items()}
    _count(counts, recent)
    return View([*past.records, *recent], [*past.days, *recent], counts, min(begins, default=0))


def _count(counts: dict[str, Counts], records: Iterable[Record]) -> None:
    for record in records:
        if record.job:
            counts.setdefault(record.job, Counts()).take(record)


# ----------------------------------------------------------------------------- what is kept


def worth_keeping(records: Sequence[Record]) -> list[Record]:
    """Of records that are oldest first, those that nothing newer among them has made worthless."""
    kept: dict[str, Record] = {}
    seen: set[tuple[str, ...]] = set()
    snapshots: set[str] = set()
    rates = 0
    for record in reversed(records):
        marks = {*_marks(record)} - seen
        if _measures(record) and rates < RATES_FROM:
            rates += 1
            kept[record.id] = record
        if record.kind == "backup" and record.facts.get("snapshot") in snapshots:
            kept[record.id] = record
        if marks:
            seen |= marks
            kept[record.id] = record
        if record.id in kept and record.kind == "verify":
            snapshots |= set(_names(record.facts.get("snapshots")))
            snapshots.add(str(record.facts.get("snapshot")))
    return sorted(kept.values(), key=lambda record: (record.ended_ns, record.id))


def _marks(record: Record) -> Iterable[tuple[str, ...]]:
    """What it may be the newest of."""
    how = "good" if record.ok else "bad"
    kind = record.kind
    for word in (how, "any"):
        yield "kind", kind, word
        if record.job:
            yield "job", record.job, "missed" if kind == "missed" else word
    for name in _names(record.facts.get("sources")):
        if is_restore(record):
            yield "restored", name, "part" if is_part(record) else "whole"
        elif kind in ("backup", "integrity"):
            yield "source", kind, name
            if record.facts.get("snapshot"):
                yield "stored", name
    if is_restore(record):
        yield "restored", "", "part" if is_part(record) else "whole"
    if kind == "verify":
        yield "verify", how, str(record.facts.get("rung"))


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list | dict) else []


def _measures(record: Record) -> bool:
    """Whether it says how fast data comes back."""
    opened = record.kind == "verify" and record.facts.get("rung") == "opened"
    size, seconds = record.facts.get("bytes"), record.facts.get("seconds")
    return (
        record.ok
        and not is_part(record)
        and (opened or is_restore(record))
        and isinstance(size, int)
        and size > 0
        and isinstance(seconds, int | float)
        and seconds > 0
    )


def sums(records: Sequence[Record], until_ns: int) -> list[Record]:
    """What was added and freed, by day, as far back as growth is measured."""
    days: dict[int, list[Record]] = {}
    oldest = until_ns - round(GROWTH_OVER_S * 1e9) - DAY_NS
    for record in records:
        if record.ended_ns >= oldest:
            days.setdefault(record.ended_ns // DAY_NS, []).append(record)
    return [_sum(days[day]) for day in sorted(days)]


def _sum(records: Sequence[Record]) -> Record:
    facts = {
        fact: sum(
            value
            for record in records
            if record.kind in (PAST, kind) and isinstance(value := record.facts.get(fact), int)
        )
        for kind, fact in (("backup", "added_bytes"), ("prune", "freed_bytes"))
    }
    return Record(
        id="",
        previous=(),
        kind=PAST,
        job="",
        started_ns=min(record.started_ns for record in records),
        ended_ns=max(record.ended_ns for record in records),
        exit_code=0,
        host="",
        user="",
        trigger="",
        facts=facts,
    )


# ------------------------------------------------------------------------------- where it lies


def _place(history: History) -> Path | None:
    """The file; None where there is no place for it."""
    try:
        return history.local().folder / "past.json"
    except SafetakeError:
        return None


def _load(place: Path | None, now_ns: int) -> _Past | None:
    if place is None:
        return None
    try:
        with place.open("rb") as file:
            document = json.loads(file.read(_MAX_BYTES))
        past = _past(document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not now_ns - _AGAIN_DAYS * DAY_NS <= past.made_ns <= now_ns or past.until_ns > now_ns:
        return None
    return past


def _past(document: Any) -> _Past:
    if document["format"] != _FORMAT:
        raise ValueError("of another version")
    return _Past(
        int(document["until_ns"]),
        int(document["made_ns"]),
        int(document["begin_ns"]),
        {str(name): Counts(**one) for name, one in document["counts"].items()},
        [_record(one) for one in document["records"]],
        [_record(one) for one in document["days"]],
    )


def _record(document: Any) -> Record:
    record = Record(**{**document, "previous": ()})
    if not isinstance(record.facts, dict) or not isinstance(record.ended_ns, int):
        raise TypeError("no record")
    return record


def _save(place: Path | None, past: _Past) -> None:
    from safetake.state import write_json

    if place is None:
        return
    document = {"format": _FORMAT, **asdict(past)}
    with contextlib.suppress(OSError):  # then the whole history is read again
        write_json(place, document)
