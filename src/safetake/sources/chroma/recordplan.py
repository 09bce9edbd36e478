"""What it would take to bring collections and records back into a running Chroma server.

The snapshot is compared with the server; nothing is changed. Ids are compared always, contents only
where they matter (`changed`, `exact`, or ids that were named), since that reads every vector.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from safetake.config import ChromaConfig
from safetake.errors import RefusedError, UsageError
from safetake.model import Node, Progress, Reader
from safetake.sources.chroma.record import Record, same
from safetake.sources.chroma.rest_write import WritableServer, batch_of, server_of, space_of
from safetake.wording import nearest

EXAMPLES = 10


class SnapshotCollection(Protocol):
    """A collection in a snapshot: `stored` and `exported` have them."""

    id: str
    name: str
    tenant: str
    database: str
    space: str
    dimension: int | None
    """None where no vector was ever added."""

    def definition(self) -> dict[str, Any]:
        """What makes a collection like it."""

    def ids(self) -> list[str]:
        """All ids."""

    def records(self, ids: Sequence[str]) -> dict[str, Record]:
        """The records of ids."""


@dataclass(slots=True)
class CollectionPlan:
    """What would be done to one collection."""

    stored: SnapshotCollection
    live: dict[str, Any] | None
    """The server's; None when it has to be made."""
    missing: list[str] = field(default_factory=list)
    """In the snapshot and not there now: they come back."""
    changed: list[str] = field(default_factory=list)
    """In both, and different: they go back only when that was asked for."""
    newer: list[str] = field(default_factory=list)
    """There now and not in the snapshot: they go only when an exact copy was asked for."""
    equal: int = 0

    @property
    def label(self) -> str:
        """The name for people."""
        return self.stored.name

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.stored.name,
            "tenant": self.stored.tenant,
            "database": self.stored.database,
            "create": self.live is None,
            "id_in_snapshot": self.stored.id,
            "id": self.live["id"] if self.live is not None else None,
            "missing": len(self.missing),
            "changed": len(self.changed),
            "newer": len(self.newer),
            "equal": self.equal,
            "examples": {
                "missing": self.missing[:EXAMPLES],
                "changed": self.changed[:EXAMPLES],
                "newer": self.newer[:EXAMPLES],
            },
        }


@dataclass(slots=True)
class RecordsPlan:
    """What would be done. Made by `plan`; close it."""

    server: WritableServer
    facts: dict[str, Any]
    collections: list[CollectionPlan]
    changed: bool
    exact: bool
    close: Callable[[], None]

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to do."""
        return not any(True for _ in self._work())

    def _work(self) -> Iterator[str]:
        for one in self.collections:
            if one.live is None:
                yield one.label
            yield from one.missing
            yield from one.changed if self.changed else ()
            yield from one.newer if self.exact else ()


def plan(
    name: str,
    config: ChromaConfig,
    entry: Any,
    reader: Reader,
    node: Node,
    collections: Sequence[str],
    ids: Sequence[str],
    *,
    snapshot: str = "",
    changed: bool = False,
    exact: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> RecordsPlan:
    """Compare collections (all when none is named) of a snapshot with the running server.

    Nothing is changed. Raises ConfigError, UsageError, SourceError, RefusedError, DamagedError.
    """
    if ids and exact:
        raise UsageError(
            "single ids and an exact copy exclude each other", hint="leave one of them out"
        )
    if ids and len(collections) != 1:
        raise UsageError("ids need one collection", hint="name it with --collection")
    changed = changed or exact
    server = server_of(name, config)
    store = _store(entry, reader, node)
    try:
        server.version()
        chosen = _choose(store, collections)
        if config.path is not None:
            _refuse_other_server(server, config.path, chosen)
        plans = []
        for stored in chosen:
            one = CollectionPlan(stored, server.find(stored.tenant, stored.database, stored.name))
            _refuse_another_shape(one)
            _compare(server, one, ids, changed, progress)
            plans.append(one)
    except BaseException:
        store.close()
        server.close()
        raise
    facts = {
        "version": 1,
        "snapshot": snapshot,
        "source": name,
        "server": server.where,
        "collections": list(collections),
        "ids": list(ids),
        "changed": changed,
        "exact": exact,
    }

    def close() -> None:
        store.close()
        server.close()

    return RecordsPlan(server, facts, plans, changed, exact, close)


def _store(entry: Any, reader: Reader, node: Node) -> Any:
    if entry.get("method") == "rest":
        from safetake.sources.chroma.exported import ExportedStore

        return ExportedStore(reader, node)
    if (entry.get("facts") or {}).get("raw"):
        raise RefusedError(
            "the snapshot holds the raw files of a damaged store",
            hint="restore them with `--to DIR`, and look at what can be saved of them",
        )
    from safetake.sources.chroma.stored import StoredStore

    return StoredStore(reader, node)


def _choose(store: Any, wanted: Sequence[str]) -> list[SnapshotCollection]:
    """By name, or `DATABASE/NAME` or `TENANT/DATABASE/NAME` where several have it."""
    there: list[SnapshotCollection] = list(store.collections())
    if not wanted:
        return there
    chosen = []
    for name in dict.fromkeys(wanted):
        found = [one for one in there if name in _names_of(one)]
        if not found:
            raise UsageError(
                f"there is no collection {name!r} in the snapshot"
                + nearest(name, [one.name for one in there]),
                hint="`safetake show ID --json` lists what it has",
            )
        if len(found) > 1:
            several = ", ".join(sorted(_names_of(one)[-1] for one in found))
            raise UsageError(f"{name!r} names several collections", hint=f"name one of {several}")
        chosen += found
    return chosen


def _names_of(one: SnapshotCollection) -> tuple[str, str, str]:
    inner = f"{one.database}/{one.name}"
    return one.name, inner, f"{one.tenant}/{inner}"


def _refuse_other_server(
    server: WritableServer, folder: Path, chosen: list[SnapshotCollection]
) -> None:
    """A `server` that does not use the source's folder would be given another one's data."""
    import apsw

    from safetake.sources.chroma import catalogue, residents
    from safetake.sources.chroma.database import NAME

    try:
        connection = residents.connect(Path(os.path.realpath(folder)) / NAME)
        try:
            there = set(catalogue.describe(connection)["collections"])
        finally:
            connection.close()
    except (apsw.Error, OSError):
        return  # gone or in a crash: nothing to compare with
    for place in {(one.tenant, one.database) for one in chosen}:
        served = server.collection_ids(*place)
        if served and served.isdisjoint(there):
            raise RefusedError(
                f"the server at {server.where} does not use {folder}: it has none of its"
                " collections",
                hint="correct `server` of the source",
            )


def _refuse_another_shape(one: CollectionPlan) -> None:
    """A collection that was made anew since takes no vectors of another length."""
    if one.live is None:
        return
    for what, now, then in (
        ("vectors have {} numbers", one.live.get("dimension"), one.stored.dimension),
        ("distance is {}", space_of(one.live), one.stored.space),
    ):
        if now is not None and then is not None and now != then:
            raise RefusedError(
                f"the collection {one.label} is another one now: its {what.format(now)},"
                f" and in the snapshot {then}",
                hint="rename it (`collection.modify(name=…)`) or delete it: then it is made anew as"
                " it was; or restore with `--to DIR`",
            )


def _compare(
    server: WritableServer,
    one: CollectionPlan,
    ids: Sequence[str],
    changed: bool,
    progress: Progress,
) -> None:
    stored = one.stored.ids()
    if ids:
        there = set(stored)
        if unknown := [each for each in ids if each not in there]:
            raise UsageError(
                f"collection {one.label} has no record {unknown[0]!r} in the snapshot"
                + (f", nor {len(unknown) - 1} others that were named" if unknown[1:] else ""),
                hint="look for it in an older snapshot",
            )
        wanted = set(ids)
        stored = [each for each in stored if each in wanted]
    live = set(server.ids(one.live)) if one.live is not None else set()
    one.missing = [each for each in stored if each not in live]
    if not ids:
        there = set(stored)
        one.newer = sorted(live - there)
    both = [each for each in stored if each in live]
    if not (changed or ids) or one.live is None:
        one.equal = len(both)  # as far as was looked
        return
    step = batch_of(int(one.live.get("dimension") or 1))
    for first in range(0, len(both), step):
        some = both[first : first + step]
        old, now = one.stored.records(some), server.read(one.live, some)
        for each in some:
            if same(old[each], now.get(each), one.stored.space):
                one.equal += 1
            else:
                one.changed.append(each)
        progress(f"compare {one.label}", first + len(some), len(both))
