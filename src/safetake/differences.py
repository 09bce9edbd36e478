"""What is different between two snapshots, source by source: out of manifests and trees alone.

No content is read. Databases, collections and keys are told by the facts of their cuts (counts,
and hashes of the rows where both have them), files by their trees: equal folders are not entered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from safetake.errors import DamagedError
from safetake.model import Node, Reader
from safetake.snapshots import SnapshotInfo, read_manifest, root_nodes

KEPT_PATHS = 1000
"""Paths that are named of each kind; all are counted."""


@dataclass(slots=True)
class Part:
    """One table, collection, database, or the files of a source."""

    name: str
    before: int | None
    """None: it was not there, or not counted."""
    after: int | None
    changed: bool | None = None
    """Whether its content differs, where equal counts do not tell; None: not known."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Paths:
    """Entries of folders that are different."""

    count: int = 0
    bytes: int = 0
    """Of those that were added or modified: as they are after; removed: as they were."""
    paths: list[str] = field(default_factory=list)

    def add(self, path: str, size: int) -> None:
        """One more."""
        self.count += 1
        self.bytes += size
        if len(self.paths) < KEPT_PATHS:
            self.paths.append(path)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"count": self.count, "bytes": self.bytes, "paths": self.paths}


@dataclass(slots=True)
class SourceDifference:
    """One source in both snapshots, or in one of them."""

    name: str
    type: str
    state: str
    """`same`, `changed`, `added` (only in the second) or `removed` (only in the first)."""
    bytes: tuple[int, int]
    parts: list[Part] = field(default_factory=list)
    files: dict[str, Paths] = field(default_factory=dict)
    """`added`, `removed`, `modified` and `touched` (the same content), for folders of files."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "type": self.type,
            "state": self.state,
            "bytes_before": self.bytes[0],
            "bytes_after": self.bytes[1],
            "parts": [part.as_dict() for part in self.parts],
            "files": {kind: paths.as_dict() for kind, paths in self.files.items()},
        }


def difference(reader: Reader, first: SnapshotInfo, second: SnapshotInfo) -> list[SourceDifference]:
    """Every source of either snapshot, by name.

    Raises DamagedError, also for a snapshot that safetake did not make.
    """
    manifests = [_manifest(reader, snapshot) for snapshot in (first, second)]
    nodes = [root_nodes(reader, snapshot) for snapshot in (first, second)]
    names = dict.fromkeys(sorted({*manifests[0], *manifests[1]}))
    found = []
    for name in names:
        before, after = manifests[0].get(name), manifests[1].get(name)
        entry = after or before or {}
        one = SourceDifference(
            name,
            str(entry.get("type")),
            "changed",
            (int((before or {}).get("bytes") or 0), int((after or {}).get("bytes") or 0)),
        )
        found.append(one)
        if before is None or after is None:
            one.state = "added" if before is None else "removed"
        elif before.get("tree") == after.get("tree"):
            one.state = "same"
            continue
        one.parts = _parts(one.type, _facts(before), _facts(after))
        if one.type == "files" and one.state == "changed":
            one.files = {kind: Paths() for kind in ("added", "removed", "modified", "touched")}
            _compare(reader, nodes[0].get(name), nodes[1].get(name), "", one.files)
    return found


def _manifest(reader: Reader, snapshot: SnapshotInfo) -> Mapping[str, Any]:
    manifest = read_manifest(reader, snapshot)
    if manifest is None:
        raise DamagedError(
            f"snapshot {snapshot.id[:8]} was not made by safetake: there are no facts to compare",
            hint="compare its trees with `restic diff`",
        )
    return dict(manifest["sources"])


def _facts(entry: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return dict((entry or {}).get("facts") or {})


# ---------------------------------------------------------------------------------------- facts


def _parts(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Part]:
    told = {"sqlite": _tables, "chroma": _collections, "redis": _databases, "files": _files}
    if kind not in told:
        return []
    one, other = told[kind](before), told[kind](after)
    parts = []
    for name in sorted({*one, *other}):
        count, digest = one.get(name, (None, None))
        now, other_digest = other.get(name, (None, None))
        changed = None if None in (digest, other_digest) else digest != other_digest
        parts.append(Part(name, count, now, changed))
    return parts


_Told = dict[str, tuple[int | None, str | None]]
"""By name: how much there is, and a hash of it where there is one."""


def _tables(facts: Mapping[str, Any]) -> _Told:
    hashes = facts.get("row_hashes") or {}
    return {
        f"rows of {name}": (n, hashes.get(name)) for name, n in (facts.get("rows") or {}).items()
    }


def _collections(facts: Mapping[str, Any]) -> _Told:
    databases = {one["id"]: one["name"] for one in facts.get("databases") or () if "id" in one}
    found: _Told = {}
    for known in (facts.get("collections") or {}).values():
        database = databases.get(known.get("database"), known.get("database"))
        name = str(known["name"])
        place = name if database in (None, "default_database") else f"{database}/{name}"
        found[f"records of {place}"] = (known.get("records"), None)
    return found


def _databases(facts: Mapping[str, Any]) -> _Told:
    found: _Told = {}
    for number, entry in (facts.get("databases") or facts.get("keyspace") or {}).items():
        found[f"keys of database {number}"] = (entry["keys"], None)
        found[f"expiring keys of database {number}"] = (entry["expires"], None)
    return found


def _files(facts: Mapping[str, Any]) -> _Told:
    kinds = ("files", "dirs", "symlinks")
    return {kind: (facts[kind], None) for kind in kinds if isinstance(facts.get(kind), int)}


# ---------------------------------------------------------------------------------------- trees


def _compare(
    reader: Reader, before: Node | None, after: Node | None, path: str, into: dict[str, Paths]
) -> None:
    """The entries of one folder and all below it."""
    if before is not None and after is not None and before.subtree == after.subtree:
        return
    old = {node.name: node for node in _entries(reader, before)}
    for node in _entries(reader, after):
        inner = f"{path}/{node.name}" if path else node.name
        other = old.pop(node.name, None)
        if other is not None and other.type != node.type:
            _all(reader, other, inner, into["removed"])
            other = None
        if other is None:
            _all(reader, node, inner, into["added"])
        elif node.type == "dir":
            _compare(reader, other, node, inner, into)
        elif (other.content, other.linktarget) != (node.content, node.linktarget):
            into["modified"].add(inner, node.size)
        elif _look(other) != _look(node):
            into["touched"].add(inner, node.size)
    for name, node in old.items():
        _all(reader, node, f"{path}/{name}" if path else name, into["removed"])


def _all(reader: Reader, node: Node, path: str, into: Paths) -> None:
    """An entry with everything below it; folders themselves do not count."""
    if node.type != "dir":
        into.add(path, node.size)
        return
    for inner in _entries(reader, node):
        _all(reader, inner, f"{path}/{inner.name}", into)


def _look(node: Node) -> tuple[Any, ...]:
    """What a restore would set; inodes and times of reading do not count."""
    return node.mode, node.mtime_ns, node.uid, node.gid, node.xattrs


def _entries(reader: Reader, node: Node | None) -> Iterator[Node]:
    if node is not None and node.subtree is not None:
        yield from reader.tree(node.subtree)
