"""Restore beside the live data: into a folder of its own, proven while it is written.

`DIR/SOURCE-NAME/…` is exactly the snapshot's tree. Every blob is proven before it is written, and
the tree is the one that the manifest names, so the bytes are those of the cut or the restore fails.
The result is durable when it returns.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.errors import DamagedError, RestoreError, UsageError
from safetake.model import Progress, Wanted
from safetake.restore.durable import kept_durable
from safetake.restore.plan import RestorePlan, plan_node
from safetake.restore.sparse import zeros
from safetake.restore.write import TreeWriter
from safetake.scratch import scratch_database
from safetake.snapshots import META_FOLDER, SnapshotInfo, read_manifest, root_nodes
from safetake.wording import size

if TYPE_CHECKING:
    from safetake.model import Node
    from safetake.repository import Repository
    from safetake.repository.reader import RepositoryReader


@dataclass(slots=True)
class RestoreReport:
    """What was brought back."""

    snapshot: str
    target: str
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Owners or attributes that could not be set; the bytes are right."""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """3 when some metadata could not be set."""
        return 3 if self.problems else 0

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `safetake restore`."""
        return {
            "snapshot": self.snapshot,
            "target": self.target,
            "sources": self.sources,
            "bytes": sum(source["bytes"] for source in self.sources.values()),
            "problems": self.problems,
            "seconds": round(self.seconds, 3),
        }


def restore_to(
    repository: Repository,
    snapshot: SnapshotInfo,
    sources: list[str],
    target: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    durable: bool = True,
    wanted: Wanted | None = None,
    sparse: bool = False,
) -> RestoreReport:
    """Write the sources (all when the list is empty) of a snapshot below `target`.

    With `wanted` only that of each, and the report has the facts of what that is. With `sparse`
    blocks of zeros in files of files sources become holes.
    A target that holds anything is refused unless `overwrite`, which replaces entries of the
    same name and keeps others. Raises UsageError, DamagedError, RestoreError.
    """
    started = time.perf_counter()
    reader = repository.reader()
    chosen = choose(reader, snapshot, sources)
    stores = (read_manifest(reader, snapshot) or {"sources": {}})["sources"]
    in_parts = {name for name, entry in stores.items() if entry.get("type") == "chroma"}
    _prepare(target, overwrite)
    report = RestoreReport(snapshot.id, str(target))
    done = 0
    with contextlib.ExitStack() as stack:
        plans = {}
        for name, node in chosen.items():
            plan = RestorePlan(
                stack.enter_context(scratch_database(target)), split=name in in_parts
            )
            plan_node(reader, node, name, plan, wanted=wanted)
            plans[name] = plan
        total = sum(plan.bytes for plan in plans.values())
        with_holes = {name for name in plans if sparse and _may_have_holes(stores.get(name))}
        holes = sum(_holes(reader, plan) for name, plan in plans.items() if name in with_holes)
        _refuse_without_room(target, plans.values(), holes)
        wrote = stack.enter_context(kept_durable(target)) if durable else None

        def count(written: int) -> None:
            nonlocal done
            done += written
            if wrote is not None:
                wrote(written)
            if progress is not None:
                progress("restore", done, total)

        writer = TreeWriter(reader, target, count)
        for name, plan in plans.items():
            begun = time.perf_counter()
            writer.write(plan, overwrite=overwrite, sparse=name in with_holes)
            report.sources[name] = _summary(target, name, plan, time.perf_counter() - begun)
            if wanted is not None:
                report.sources[name]["facts"] = plan.facts()
    report.problems = writer.problems
    report.seconds = time.perf_counter() - started
    return report


def _may_have_holes(entry: dict[str, Any] | None) -> bool:
    """A database's room is its own affair; what restic saved is files."""
    return entry is None or entry.get("type") == "files"


def _holes(reader: RepositoryReader, plan: RestorePlan) -> int:
    return sum(zeros(reader, file.node.content or []) for file in plan.files())


def _refuse_without_room(target: Path, plans: Collection[RestorePlan], holes: int) -> None:
    """Raise RestoreError before anything is written: a full disk would stop who else uses it."""
    free = shutil.disk_usage(target).free
    need = sum(plan.room for plan in plans) - holes
    if need <= free:
        return
    for plan in plans:
        for file in plan.files():  # what is replaced makes room for what takes its place
            with contextlib.suppress(OSError):
                there = os.lstat(target / file.path)
                if file.node.links <= 1 and there.st_nlink == 1:
                    need -= there.st_blocks * 512
    if need > free:
        raise RestoreError(
            f"{target} has {size(free)} free, and the restore needs {size(need)} there",
            hint="nothing was written; free space there, name fewer sources, or another folder",
        )


def _summary(target: Path, name: str, plan: RestorePlan, seconds: float) -> dict[str, Any]:
    return {
        "path": str(target / name),
        "bytes": plan.bytes,
        "files": plan.count,
        "seconds": round(seconds, 3),
    }


def choose(reader: RepositoryReader, snapshot: SnapshotInfo, sources: list[str]) -> dict[str, Node]:
    """The folders to restore; each is the one that the manifest names.

    Raises UsageError for a source that the snapshot does not have, DamagedError when manifest and
    tree disagree.
    """
    nodes = root_nodes(reader, snapshot)
    manifest = read_manifest(reader, snapshot)
    entries: dict[str, Any] = dict.fromkeys(nodes) if manifest is None else manifest["sources"]
    for name in sources:
        if name not in entries:
            raise UsageError(
                f"snapshot {snapshot.id[:8]} has no source {name!r}",
                hint="it has: " + ", ".join(sorted(entries)),
            )
    chosen = {}
    for name in sources or list(entries):
        node, entry = nodes.get(name), entries[name]
        if name == META_FOLDER or node is None:
            raise DamagedError(f"snapshot {snapshot.id[:8]} has no folder {name!r}")
        if entry is not None and (node.subtree is None or entry.get("tree") != node.subtree.hex()):
            raise DamagedError(
                f"snapshot {snapshot.id[:8]}: the folder {name!r} is not the one in its manifest"
            )
        chosen[name] = node
    return chosen


def _prepare(target: Path, overwrite: bool) -> None:
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not overwrite and any(target.iterdir()):
            raise UsageError(
                f"{target} is not empty",
                hint="name a new folder, or add --overwrite to replace what has the same name",
            )
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{target} is not a folder", hint="name a new folder") from error
    except OSError as error:
        raise RestoreError(
            f"cannot write {target}: {error.strerror}", hint="restore to a folder you may write"
        ) from error
