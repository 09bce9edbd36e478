"""How much a store holds, in the few numbers that a sudden loss shows in, and what was lost.

Out of a snapshot's facts or of the live store: rows by table, records by collection, keys that do
not expire by database, files. Pure functions over numbers; nothing here looks at a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LEAST = 10
"""Fewer lost rows, records, keys or files than these are ordinary work, whatever share they are."""

LOST = "since the snapshot before"
"""How a note of a backup about a loss begins."""

_WHAT = {"sqlite": "rows", "chroma": "records", "redis": "keys", "files": "files"}


@dataclass(frozen=True, slots=True)
class Counts:
    """One store at one time."""

    what: str
    """`rows`, `records`, `keys` (without those that expire) or `files`."""
    total: int
    parts: dict[str, int] = field(default_factory=dict)
    """By table, `DATABASE/COLLECTION` or database; empty for files."""
    bytes: int | None = None
    """Of files only: what is emptied is lost, too."""
    uncounted: tuple[str, ...] = ()
    """Parts that are there and could not be counted."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"what": self.what, "total": self.total, "parts": self.parts, "bytes": self.bytes}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Counts:
        """What `as_dict` gave. Raises KeyError, TypeError, ValueError."""
        size = told["bytes"]
        return cls(
            str(told["what"]),
            int(told["total"]),
            {str(name): int(count) for name, count in told["parts"].items()},
            None if size is None else int(size),
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """One count that fell."""

    part: str
    """Table, collection or database; empty for the whole store."""
    what: str
    before: int
    after: int | None
    """None: the part itself is gone."""

    @property
    def vanished(self) -> bool:
        """Whether the part itself is gone."""
        return self.after is None

    def __str__(self) -> str:
        where = f"{self.part}: " if self.part else ""
        if self.after is None:
            return f"{where}gone, with {self.before:,} {self.what}"
        return f"{where}{self.before:,} {self.what} became {self.after:,}"


def counts_of(kind: str, facts: Mapping[str, Any]) -> Counts | None:
    """Out of a manifest entry's facts; None when they do not say."""
    try:
        if kind == "sqlite":
            return rows(facts["rows"], facts.get("virtual_tables") or ())
        if kind == "chroma":
            return records(facts["collections"], facts.get("databases") or ())
        if kind == "redis":
            databases = facts.get("databases") or facts.get("keyspace")
            return None if databases is None else keys(databases)
        if kind == "files":
            return Counts("files", int(facts["files"]), bytes=int(facts["bytes"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return None


def rows(tables: Mapping[str, int | None], virtual: Iterable[str]) -> Counts:
    """Of a database. SQLite's own tables do not count, nor what a virtual table keeps its index in:
    that shrinks when it is merged."""
    inside = tuple(f"{name}_" for name in virtual)
    mine = {
        name: count
        for name, count in tables.items()
        if not name.startswith("sqlite_")
        and (not name.startswith(inside) or name.endswith("_content"))
    }
    known = {name: count for name, count in mine.items() if count is not None}
    unknown = tuple(sorted(mine.keys() - known.keys()))
    return Counts(_WHAT["sqlite"], sum(known.values()), known, uncounted=unknown)


def records(collections: Mapping[str, Mapping[str, Any]], databases: Iterable[Any]) -> Counts:
    """Of a Chroma store, collections by name: one that was made anew has another id."""
    names = {one["id"]: one["name"] for one in databases if isinstance(one, Mapping)}
    parts: dict[str, int] = {}
    for known in collections.values():
        database = names.get(known["database"], known["database"] or "default_database")
        part = f"{database}/{known['name']}"
        parts[part] = parts.get(part, 0) + int(known["records"])
    return Counts(_WHAT["chroma"], sum(parts.values()), parts)


def keys(databases: Mapping[str, Mapping[str, int]]) -> Counts:
    """Of a Redis server: keys with an expiry are meant to go."""
    parts = {
        f"database {number}": int(entry["keys"]) - int(entry["expires"])
        for number, entry in databases.items()
    }
    parts = {name: count for name, count in parts.items() if count > 0}
    return Counts(_WHAT["redis"], sum(parts.values()), parts)


def largest(several: Iterable[Counts]) -> Counts | None:
    """The largest of each count; None of nothing."""
    found: Counts | None = None
    for one in several:
        if found is None:
            found = one
            continue
        parts = dict(found.parts)
        for name, count in one.parts.items():
            parts[name] = max(count, parts.get(name, 0))
        sizes = [size for size in (found.bytes, one.bytes) if size is not None]
        found = Counts(one.what, max(found.total, one.total), parts, max(sizes) if sizes else None)
    return found


def losses(before: Counts, after: Counts, share: float) -> list[Loss]:
    """What lost `share` of its content or more (and LEAST at least), and what is gone.

    A database of Redis exists while it has keys: one that is gone has lost them all.
    """
    found: list[Loss] = []
    for part, count in before.parts.items():
        now = after.parts.get(part)
        if now is None and part in after.uncounted:
            continue
        if now is None and before.what == "keys":
            now = 0
        if now is None or _fell(count, now, share):
            found.append(Loss(part, before.what, count, now))
    if _fell(before.total, after.total, share):
        found.append(Loss("", before.what, before.total, after.total))
    sizes = before.bytes, after.bytes
    if sizes[0] is not None and sizes[1] is not None and _fell(sizes[0], sizes[1], share):
        found.append(Loss("", "bytes", sizes[0], sizes[1]))
    return found


def shrink_limit(config: Any, name: str) -> float | None:
    """The share of a source's content whose loss is a finding; None: not asked.

    What may be empty may shrink, unless it has limits of its own. `config` is the whole
    configuration, or what `ahead` kept of one: values without methods.
    """
    drift = config.drift
    if name not in drift.sources and getattr(config.sources[name], "may_be_empty", False):
        return None
    share: float | None = drift.sources.get(name, drift).shrink
    return share


def _fell(before: int, after: int, share: float) -> bool:
    lost = before - after
    return lost >= LEAST and lost >= share * before
