"""Copying snapshots into another repository, which may have other keys and other snapshots.

Blobs that are there already are not read. What is copied is opened with one key, proven, and sealed
with the other. The order is that of a backup: packs, indexes, then snapshots, so that a copy that
is cut off leaves nothing half-done, and the next one goes on with what is there. A copied snapshot
keeps the id of the first one as `original`, as with `restic copy`: each is copied once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.clock import parse_go_time
from safetake.errors import DamagedError, SafetakeError, SnapshotNotFoundError
from safetake.repository.prune.used import references as tree_references

if TYPE_CHECKING:
    from safetake.model import BlobId, Progress
    from safetake.repository import Repository
    from safetake.repository.reader import RepositoryReader
    from safetake.repository.writer import RepositoryWriter

_WINDOW = 64 << 20
_BATCH = 50_000
"""So many blobs that the target lacks are gathered before they are read, pack by pack."""
_GROUP_BYTES = 512 << 20
"""Small snapshots share packs and index files: they appear after so much was stored."""
_SAME = ("tree", "hostname", "username", "uid", "gid", "paths", "excludes", "tags")
"""What a copy has as its original has it; tags that were changed since make it another snapshot."""


@dataclass(slots=True)
class CopyResult:
    """What was copied."""

    copied: dict[str, str] = field(default_factory=dict)
    """Id in the source, id in the target."""
    skipped: list[str] = field(default_factory=list)
    """Ids in the source that the target had already."""
    proofs: int = 0
    evidence: int = 0
    """Documents that arrived; whoever knows what they say copies them."""
    problems: list[str] = field(default_factory=list)
    """What could not be read, and stayed behind."""
    blobs: int = 0
    """That were read and stored."""
    bytes: int = 0
    """Of their content."""
    stored_bytes: int = 0
    """What the target grew by in packs."""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """3 when something stayed behind."""
        return 3 if self.problems else 0

    def facts(self, name: str) -> dict[str, Any]:
        """What the history keeps of a copy to the repository of that name."""
        return {"to": name, "copied": len(self.copied), "bytes": self.bytes}

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "copied": self.copied,
            "skipped": self.skipped,
            "proofs": self.proofs,
            "evidence": self.evidence,
            "problems": self.problems,
            "blobs": self.blobs,
            "bytes": self.bytes,
            "stored_bytes": self.stored_bytes,
            "seconds": round(self.seconds, 3),
        }


def copy(
    source: Repository,
    target: Repository,
    snapshots: Collection[str] | None = None,
    progress: Progress | None = None,
) -> CopyResult:
    """Copy the snapshots with these ids, or all; those that the target has are left out.

    Both are locked against being pruned. A snapshot is there when all that it needs is durable;
    they come in groups, the oldest first. Raises DamagedError, StorageError, RepositoryLockedError,
    SnapshotNotFoundError, SafetakeError when both are one repository.
    """
    began = time.perf_counter()
    if source.storage.location == target.storage.location:
        raise SafetakeError(
            f"a repository is not copied into itself: {source.storage.location}",
            hint="name another location in the [copies] section",
        )
    result = CopyResult()
    with source.lock(exclusive=False), target.lock(exclusive=False):
        for repository in (source, target):
            repository.reload()
        target.storage.sweep()
        documents = _documents(source, snapshots)
        there = _originals(target)
        with target.writer() as writer:
            work = _Work(source, target, writer, result, progress)
            for name, document in documents:
                original = str(document.get("original") or name)
                if any(_same(document, one) for one in there.get(original, ())):
                    result.skipped.append(name)
                    continue
                work.tree(_root(name, document))
                work.waiting.append((name, _copied(document, original)))
                there.setdefault(original, []).append(document)
                if writer.stats.stored_bytes - work.flushed_bytes >= _GROUP_BYTES:
                    work.flush()
            work.flush()
            result.stored_bytes = writer.stats.stored_bytes
        result.proofs = _copy_proofs(source, target)
    source.reload()
    target.reload()
    result.seconds = time.perf_counter() - began
    return result


class _Work:
    """What is below trees, stored once; and the snapshots that wait for it to be durable."""

    def __init__(
        self,
        source: Repository,
        target: Repository,
        writer: RepositoryWriter,
        result: CopyResult,
        progress: Progress | None,
    ) -> None:
        self.waiting: list[tuple[str, dict[str, Any]]] = []
        self.flushed_bytes = 0
        self._reader: RepositoryReader = source.reader()
        self._target = target
        self._writer = writer
        self._result = result
        self._progress = progress
        self._done: set[BlobId] = set()
        self._lock = threading.Lock()
        assert target.digests is not None  # loaded, so that the next backup there has them, too

    def tree(self, root: BlobId) -> None:
        """A tree with all below it. Raises DamagedError."""
        batch: dict[BlobId, None] = {}
        for blob_id in self._walk(root):
            batch[blob_id] = None
            if len(batch) >= _BATCH:
                self._data(batch)
                batch = {}
        self._data(batch)

    def flush(self) -> None:
        """Make durable what was stored, then the snapshots that need it."""
        if not self.waiting:
            return
        self._writer.flush()
        for name, document in self.waiting:
            self._result.copied[name] = self._target.save_snapshot(document)
        self.waiting = []
        self.flushed_bytes = self._writer.stats.stored_bytes

    def _walk(self, root: BlobId) -> Iterator[BlobId]:
        """The data blobs that the target lacks; trees that it lacks are stored by the way.

        A tree that is there is walked all the same: what is below it may have been cut off.
        """
        waiting = [root]
        while waiting:
            tree = waiting.pop()
            if tree in self._done:
                continue
            self._done.add(tree)
            blob = bytes(self._reader.tree_blob(tree))
            subtrees, content = tree_references(blob, tree)
            waiting += subtrees
            self._writer.store_tree(tree, blob)
            for at in range(0, len(content), 32):
                blob_id = content[at : at + 32]
                if not self._writer.has((blob_id,)):
                    yield blob_id

    def _data(self, batch: dict[BlobId, None]) -> None:
        self._reader.stream(batch, self._store, window=_WINDOW)

    def _store(self, blob_id: BlobId, plain: bytes | bytearray) -> None:
        (stored,) = self._writer.store(bytes(plain)).result()
        if stored != blob_id:
            raise DamagedError(f"blob {blob_id.hex()[:12]} is damaged: its content changed")
        with self._lock:
            self._result.blobs += 1
            self._result.bytes += len(plain)
            if self._progress is not None:
                self._progress("bytes copied", self._result.bytes, self._result.bytes)


def _documents(
    source: Repository, wanted: Collection[str] | None
) -> list[tuple[str, dict[str, Any]]]:
    """The snapshots to be copied, oldest first."""
    found = list(source.documents("snapshots"))
    if wanted is not None:
        missing = set(wanted) - {name for name, _ in found}
        if missing:
            raise SnapshotNotFoundError(
                f"there is no snapshot {min(missing)[:16]} in {source.storage.location}",
                hint="list them with `safetake snapshots`",
            )
        found = [(name, document) for name, document in found if name in wanted]

    return sorted(found, key=lambda one: (f"{_time(one[1]):>20}", one[0]))


def _root(name: str, document: dict[str, Any]) -> BlobId:
    try:
        root = bytes.fromhex(document["tree"])
        if len(root) == 32:
            return root
    except (KeyError, TypeError, ValueError):
        pass
    raise DamagedError(f"snapshots/{name} is damaged: it has no tree")


def _originals(target: Repository) -> dict[str, list[dict[str, Any]]]:
    """The target's snapshots, by their own id and by that of which each is a copy."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, document in target.documents("snapshots"):
        for each in {name, str(document.get("original") or name)}:
            found.setdefault(each, []).append(document)
    return found


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return _time(one) == _time(other) and all(
        (one.get(field) or None) == (other.get(field) or None) for field in _SAME
    )


def _time(document: dict[str, Any]) -> int | str:
    """One moment may be written in several zones."""
    text = str(document.get("time"))
    try:
        return parse_go_time(text)
    except ValueError:
        return text


def _copied(document: dict[str, Any], original: str) -> dict[str, Any]:
    found = {key: value for key, value in document.items() if key != "parent"}
    return {**found, "original": original}


def _copy_proofs(source: Repository, target: Repository) -> int:
    """Proofs of trees that the target has now: they are about content, wherever it lies."""
    trees = {document.get("tree") for _, document in target.documents("snapshots")}
    known = {_key(document) for _, document in target.documents("proofs")}
    count = 0
    for _, document in source.documents("proofs"):
        if document.get("tree") in trees and _key(document) not in known:
            target.save_document("proofs", document)
            count += 1
    return count


def _key(document: dict[str, Any]) -> str:
    import json

    return json.dumps(document, sort_keys=True)
