"""What live data is measured against: the snapshots of the last days, not the newest alone.

With a backup each hour and a check each day the newest snapshot was mostly taken after a loss, and
would say that all is as before. So the largest count of the window is the base, and content is
compared with the oldest snapshot in it; both begin anew where somebody accepted what there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from safetake.counts import Counts, counts_of, largest
from safetake.hostname import host_name
from safetake.snapshots import SnapshotInfo, list_snapshots, read_manifest, root_nodes

if TYPE_CHECKING:
    from safetake.integrity.accepted import Accepted
    from safetake.model import Node, Reader
    from safetake.repository import Repository

T = TypeVar("T")

READ = 24
"""Snapshots of a window whose manifests are read, at most: spread evenly, both ends among them."""


@dataclass(slots=True)
class Base:
    """Of one source."""

    counts: Counts | None = None
    """None: nothing tells how much there was."""
    since_ns: int = 0
    """Time of the oldest snapshot (or acceptance) that counts."""
    oldest: tuple[SnapshotInfo, dict[str, Any], Node] | None = None
    """The snapshot that content is compared with, the source's manifest entry and its folder."""
    snapshots: int = 0


@dataclass(slots=True)
class Bases:
    """Finds bases; what is read of a snapshot is kept for the other sources."""

    repository: Repository
    window_ns: int
    now_ns: int
    _snapshots: list[SnapshotInfo] = field(default_factory=list)
    _manifests: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _reader: Reader | None = None

    @property
    def reader(self) -> Reader:
        """Of the repository."""
        if self._reader is None:
            self._reader = self.repository.reader(trust_digests=False)
        return self._reader

    def of(self, name: str, kind: str, accepted: Accepted | None) -> Base:
        """The base of one source. Raises DamagedError, StorageError."""
        chosen = self._chosen(name, accepted)
        base = Base(snapshots=len(chosen))
        counts: list[Counts] = []
        if accepted is not None:
            counts.append(accepted.counts)
            base.since_ns = accepted.time_ns
        for snapshot in chosen:
            entry = self._manifest(snapshot).get("sources", {}).get(name)
            if entry is None or entry.get("type") != kind:
                continue
            found = counts_of(kind, entry.get("facts") or {})
            if found is not None:
                counts.append(found)
            node = None
            if base.oldest is None:
                node = root_nodes(self.reader, snapshot).get(name)
            if node is not None:
                base.oldest = (snapshot, entry, node)
                base.since_ns = base.since_ns or snapshot.time_ns
        base.counts = largest(counts)
        return base

    def _chosen(self, name: str, accepted: Accepted | None) -> list[SnapshotInfo]:
        """Oldest first; of this host where it has any (others may have a store of that name)."""
        if not self._snapshots:
            self._snapshots = list_snapshots(self.repository, proofs=False)
        there = [s for s in self._snapshots if name in s.sources and not s.safety]
        there = [s for s in there if s.document.get("hostname") == host_name()] or there
        if accepted is not None:
            there = [s for s in there if s.time_ns > accepted.time_ns]
        since = self.now_ns - self.window_ns
        inside = [s for s in there if s.time_ns >= since] or there[-1:]
        return spread(inside, READ)

    def _manifest(self, snapshot: SnapshotInfo) -> Mapping[str, Any]:
        if snapshot.id not in self._manifests:
            self._manifests[snapshot.id] = read_manifest(self.reader, snapshot) or {}
        return self._manifests[snapshot.id]


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    step = (len(items) - 1) / (count - 1)
    return [items[round(number * step)] for number in range(count)]
