"""Judges a restored folder by the load driver's journal: what must be there, what must not.

With `cut` the span of time in which the snapshot was fixed, a restored state is right when
- everything acknowledged before the cut is there, equal to the last bit;
- nothing is there that was requested only after the cut, or never;
- it is a prefix: whatever was acknowledged before something that is there was requested, is there
  too, across all stores (this needs no cut times, only one moment);
- the application's order holds: no queue entry without its file, no file without its vector, no
  vector without its row.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import jobs
from .journal import Record, read_journal
from .restored import Restored, read_restored
from .writing import expected_script

STORES = ("rows", "vectors", "files", "keys")
_MISSED = 0.2
"""HNSW is approximate: a sound index misses a vector's own search now and then (1 of 700 here)."""
_SLACK_NS = 2_000_000_000
"""Redis counts a TTL in its own clock, and reading it takes a moment."""


@dataclass(frozen=True, slots=True)
class Cut:
    """When the snapshot was fixed, in `time.time_ns()`: not before `start_ns`, not after `end_ns`.

    The start and end of the whole backup command are always right; the barrier's are sharper.
    """

    start_ns: int
    end_ns: int


@dataclass(slots=True)
class StoreResult:
    """One store. `expected` items had to be there, `found` of them are, and equal."""

    expected: int = 0
    found: int = 0
    in_flight: int = 0
    """There and right, under way at the cut: either answer would have been right."""
    after: int = 0
    """Acknowledged, but not before the cut, and not there: what a disaster loses (the RPO)."""
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.wrong or self.phantom)


@dataclass(slots=True)
class Comparison:
    """The verdict over all stores."""

    stores: dict[str, StoreResult]
    unreadable: dict[str, str]
    torn: list[str]
    """Items that are missing although something requested later is there."""
    order: list[str]
    """Later writes without the earlier (row, vector, file, queue entry)."""
    lost_items: int = 0
    """Projects, episodes and scripts that were acknowledged and are not wholly there."""
    lost_seconds: float = 0.0
    """From the cut's start to the last acknowledgement in the journal."""

    @property
    def ok(self) -> bool:
        """Whether the restored state is what it has to be."""
        clean = not (self.unreadable or self.torn or self.order)
        return clean and all(result.ok for result in self.stores.values())

    def problems(self) -> list[str]:
        """Every difference, for people."""
        told = [f"{store}: cannot be read: {why}" for store, why in self.unreadable.items()]
        for store, result in self.stores.items():
            for kind in ("missing", "wrong", "phantom"):
                told += [f"{store}: {kind}: {item}" for item in getattr(result, kind)]
        told += [f"torn: {item}" for item in self.torn]
        return told + [f"order: {item}" for item in self.order]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with `ok` and `problems`."""
        return {"ok": self.ok, "problems": self.problems(), **asdict(self)}


@dataclass(slots=True)
class _Item:
    """One thing in one store, as the journal says it and as it was found."""

    store: str
    name: str
    record: Record
    present: bool
    difference: str = ""
    """Why what is present is not equal."""
    may_be_absent: bool = False


def compare(
    restored: Path, journal: Path, cut: Cut, *, redis_server: Path | None = None
) -> Comparison:
    """Read the folder `restored` and judge it. Raises BadRequestError for a damaged journal."""
    return judge(read_journal(journal), read_restored(restored, redis_server=redis_server), cut)


def judge(records: list[Record], found: Restored, cut: Cut) -> Comparison:
    """The comparison itself, on what was read."""
    items = [item for record in records for item in _items(record, found)]
    results = {store: StoreResult() for store in STORES}
    for item in items:
        if item.store not in found.unreadable:
            _count(results[item.store], item, cut)
    for store, name in _unknown(items, found):
        results[store].phantom.append(f"{name}, which nobody asked for")
    if "vectors" not in found.unreadable:
        missed = len(found.not_found)
        if missed > found.sampled * _MISSED:
            results["vectors"].wrong.append(f"a search misses {missed} of {found.sampled} vectors")
    if "keys" not in found.unreadable and found.marker != jobs.MARKER_VALUE:
        results["keys"].missing.append(jobs.MARKER)
    readable = [item for item in items if item.store not in found.unreadable]
    acknowledged = [r for r in records if r.acknowledged_ns is not None]
    gone = {item.record.seq for item in readable if not item.present and not item.may_be_absent}
    last = max((r.acknowledged_ns or 0 for r in acknowledged), default=cut.start_ns)
    return Comparison(
        stores=results,
        unreadable=dict(found.unreadable),
        torn=_torn(readable),
        order=_order(found),
        lost_items=sum(record.seq in gone for record in acknowledged),
        lost_seconds=max(0.0, (last - cut.start_ns) / 1e9),
    )


def _count(result: StoreResult, item: _Item, cut: Cut) -> None:
    acknowledged = item.record.acknowledged_ns
    due = acknowledged is not None and acknowledged <= cut.start_ns
    if not item.present:
        if due and not item.may_be_absent:
            result.expected += 1
            result.missing.append(item.name)
        elif acknowledged is not None and not due:
            result.after += 1
        return
    result.expected += due
    if item.difference:
        result.wrong.append(f"{item.name}: {item.difference}")
    elif item.record.requested_ns > cut.end_ns:
        result.phantom.append(f"{item.name}, which was requested after the cut")
    elif due:
        result.found += 1
    else:
        result.in_flight += 1


def _items(record: Record, found: Restored) -> list[_Item]:
    name, data = record.id, record.data
    if record.kind != "script":
        table = found.projects if record.kind == "project" else found.episodes
        row = table.get(name)
        differing = [
            key for key, value in data.items() if row is not None and row.get(key) != value
        ]
        why = f"{', '.join(differing)} differ" if differing else ""
        return [_Item("rows", f"{record.kind} {name}", record, row is not None, why)]

    text, vector = expected_script(name, data["title"], data["synopsis"])
    file = f"{data['project_id']}/{name}.txt"
    stored = found.vectors.get(name)
    why = ""
    if stored is not None and stored != (vector, text):
        why = "the document differs" if stored[0] == vector else "the vector differs"
    content = found.files.get(file)
    return [
        _Item("vectors", name, record, stored is not None, why),
        _Item(
            "files",
            file,
            record,
            content is not None,
            "the content differs" if content != text.encode() else "",
        ),
        *_keys(record, file, text, found),
    ]


def _keys(record: Record, file: str, text: str, found: Restored) -> list[_Item]:
    name = record.id
    entries = found.queue.count(_entry(name, file))
    job = found.jobs.get(name)
    wanted = {"project_id": record.data["project_id"], "file": file, "state": "queued"}
    cached = found.cache.get(name)
    seconds = record.data.get("cache_seconds")
    expired, why = False, ""
    if seconds is not None:
        earliest = record.requested_ns + seconds * 1_000_000_000
        latest = (record.acknowledged_ns or earliest) + seconds * 1_000_000_000
        expired = found.loaded_ns + _SLACK_NS > earliest
        if cached is not None and cached[1] is None:
            why = "its expiry is gone"
        elif cached is not None and cached[1] is not None:
            late = max(cached[1] - latest, min(0, cached[1] - earliest))
            if abs(late) > _SLACK_NS:
                why = f"its expiry differs by {late / 1e9:+.1f} s"
    if cached is not None and cached[0] != text:
        why = "the script differs"
    return [
        _Item(
            "keys", jobs.JOB + name, record, job is not None, "" if job == wanted else "it differs"
        ),
        _Item(
            "keys",
            f"{jobs.QUEUE}[{name}]",
            record,
            entries > 0,
            "" if entries == 1 else f"queued {entries} times",
        ),
        _Item("keys", jobs.CACHE + name, record, cached is not None, why, may_be_absent=expired),
    ]


def _entry(episode_id: str, file: str) -> str:
    return json.dumps({"episode_id": episode_id, "file": file})


def _unknown(items: list[_Item], found: Restored) -> list[tuple[str, str]]:
    """What is there that no request of the journal explains."""
    known = {store: {item.name for item in items if item.store == store} for store in STORES}
    there = {
        "rows": [f"project {name}" for name in found.projects]
        + [f"episode {name}" for name in found.episodes],
        "vectors": list(found.vectors),
        "files": list(found.files),
        "keys": [jobs.JOB + name for name in found.jobs]
        + [jobs.CACHE + name for name in found.cache],
    }
    unknown = [(s, name) for s, names in there.items() for name in names if name not in known[s]]
    scripts = {_entry(item.record.id, item.name) for item in items if item.store == "files"}
    queued = Counter(found.queue)
    unknown += [("keys", f"queue entry {entry}") for entry in queued if entry not in scripts]
    return unknown + [("keys", name) for name in found.other_keys]


def _torn(items: list[_Item]) -> list[str]:
    newest = max(
        (item for item in items if item.present),
        key=lambda item: item.record.requested_ns,
        default=None,
    )
    if newest is None:
        return []
    return [
        f"{item.store} lacks {item.name}, acknowledged before {newest.store} got {newest.name}"
        for item in items
        if not item.present
        and not item.may_be_absent
        and item.record.acknowledged_ns is not None
        and item.record.acknowledged_ns < newest.record.requested_ns
    ]


def _order(found: Restored) -> list[str]:
    told = []
    queued = {json.loads(entry)["episode_id"]: json.loads(entry)["file"] for entry in found.queue}
    files = {Path(name).stem: name for name in found.files}
    chain = (
        ("keys", "a queue entry", set(queued), "files", "file", set(files)),
        ("files", "a file", set(files), "vectors", "vector", set(found.vectors)),
        ("vectors", "a vector", set(found.vectors), "rows", "row", set(found.episodes)),
        ("keys", "a job", set(found.jobs), "keys", "queue entry", set(queued)),
        ("keys", "a queue entry", set(queued), "keys", "job", set(found.jobs)),
    )
    for store, later, these, before, earlier, those in chain:
        if store not in found.unreadable and before not in found.unreadable:
            told += [f"{name} has {later} but no {earlier}" for name in sorted(these - those)]
    if "rows" not in found.unreadable:
        told += [
            f"episode {row['id']} has a row but its project has none"
            for row in found.episodes.values()
            if row["project_id"] not in found.projects
        ]
    return told
