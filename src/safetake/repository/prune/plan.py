"""What a prune will do, decided from the snapshots, the indexes and the list of packs.

Packs of which nothing is used go. Of a blob that is stored several times one place stays. The packs
in which most lies unused for the least that has to be written again are packed anew, until at most
the tolerated share of the repository is unused; and small packs are put together when there are
many. A pack that is needed and missing, or not as long as its blobs, ends it: nothing is ever
removed from a repository of which it is not known that what stays is enough.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.errors import DamagedError, SafetakeError
from safetake.repository.documents import load_unpacked
from safetake.repository.index import Index
from safetake.repository.pack import PACK_BYTES
from safetake.repository.prune.table import DATA, PACK_OVERHEAD, TREE, Table
from safetake.repository.prune.used import mark_used, root_of
from safetake.repository.reader import RepositoryReader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safetake.model import Progress
    from safetake.repository import Repository

    Bools = NDArray[np.bool_]
    Rows = NDArray[np.int64]

MAX_UNUSED = 0.05
SMALL_BYTES = PACK_BYTES // 4
MANY_SMALL = 10
"""So many small packs of one kind are put together."""
MANY_INDEXES = 32
"""So many index files are put together even when no pack goes."""


@dataclass(slots=True)
class PrunePlan:
    """What will be done, in bytes and names; `run` carries it out."""

    forget: list[str]
    """Snapshots that go."""
    kept: list[str]
    """Snapshots that stay."""
    max_unused: float
    index_files: list[str]
    """What the plan is made from."""
    table: Table
    keep: Bools
    """Rows: the one place of each used blob."""
    remove: Bools
    """Packs of which nothing is used."""
    repack: Bools
    """Packs of which the used blobs are written anew."""
    gone: Bools
    """Packs that an index names and that are not there; nothing of them is needed."""
    sizes: Rows
    """Bytes of each pack that is there."""
    reader: RepositoryReader
    """Reads what the indexes of the plan name."""
    roots: set[bytes] = field(default_factory=set)
    """The trees of the snapshots that stay."""
    digest_files: list[str] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    """Packs that no index names, with their bytes: left over, or of a backup that is at work."""
    used_bytes: int = 0
    unused_bytes: int = 0
    """Before anything is removed."""
    unused_after: int = 0

    @property
    def freed_bytes(self) -> int:
        """What the packs will take less."""
        going = int(self.sizes[self.remove | self.repack].sum()) + sum(self.unknown.values())
        return going - self.repacked_bytes

    @property
    def repacked_bytes(self) -> int:
        """What is written anew, with the ends of packs that are full."""
        used = int(self.table.sum(self.keep)[self.repack].sum())
        return used + PACK_OVERHEAD * -(-used // PACK_BYTES)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.rewrites_index or self.unknown or self.forget)

    @property
    def rewrites_index(self) -> bool:
        """Whether the index files are replaced."""
        packs = self.remove | self.repack | self.gone
        return bool(packs.any()) or self.table.repeated or len(self.index_files) > MANY_INDEXES

    def problems(self, unknown: int) -> list[str]:
        """What is not as it should be, and is put right; `unknown` packs were in no index."""
        found = [
            f"pack {self.table.packs[number]} is in the index and missing; nothing that is kept "
            "needs it, and it is taken out of the index"
            for number in self.gone.nonzero()[0]
        ]
        if unknown:
            found.append(f"{unknown} packs were in no index: left by an interrupted run")
        return found

    def as_dict(self) -> dict[str, Any]:
        """The JSON of a dry run."""
        return {
            "packs": len(self.table.packs) - int(self.gone.sum()),
            "packs_removed": int(self.remove.sum()),
            "packs_repacked": int(self.repack.sum()),
            "packs_unknown": len(self.unknown),
            "used_bytes": self.used_bytes,
            "unused_bytes": self.unused_bytes,
            "unused_bytes_after": self.unused_after,
            "repacked_bytes": self.repacked_bytes,
            "freed_bytes": self.freed_bytes,
            "problems": self.problems(0),
        }


def plan_prune(
    repository: Repository,
    forget: Collection[str],
    *,
    max_unused: float = MAX_UNUSED,
    progress: Progress | None = None,
) -> PrunePlan:
    """Find out what a prune would do once the snapshots `forget` are gone; changes nothing.

    `max_unused` is the share of the repository that may lie unused afterwards. Holds a shared lock
    meanwhile. Raises DamagedError when what stays would not be whole, RepositoryLockedError,
    StorageError, SafetakeError for format version 1.
    """
    if repository.version != 2:
        raise SafetakeError(
            "safetake writes format version 2 only; this repository has version 1",
            hint="upgrade it with `restic migrate upgrade_repo_v2`",
        )
    alone = repository.locks.alone()
    with contextlib.nullcontext() if alone else repository.lock(exclusive=False):
        return make_plan(repository, forget, max_unused, progress)


def make_plan(
    repository: Repository,
    forget: Collection[str],
    max_unused: float,
    progress: Progress | None = None,
) -> PrunePlan:
    """`plan_prune` under a lock that is held already."""
    storage = repository.storage
    # in this order: digests say nothing of blobs that are indexed later, snapshots need no later
    # index than the one that is read after them
    digest_files = sorted(name for name, _ in storage.list("digests"))
    snapshots = sorted(name for name, _ in storage.list("snapshots"))
    kept, roots = [], []
    for name in snapshots:
        if name not in forget:
            with contextlib.suppress(FileNotFoundError):  # removed since the listing
                roots.append(root_of(repository, name))
                kept.append(name)
    names, index = load_index(repository)
    table = Table(index)
    reader = RepositoryReader(storage, repository.key, index, None)
    mark_used(table, reader.tree_blob, roots, progress)
    plan = _decide(table, dict(storage.list("data")), max_unused, reader)
    plan.roots = set(roots)
    plan.forget = [name for name in snapshots if name in forget]
    plan.kept = kept
    plan.index_files = names
    plan.digest_files = digest_files
    return plan


def load_index(repository: Repository) -> tuple[list[str], Index]:
    """Every index file, read afresh: what is deleted is not decided from a cache.

    Raises DamagedError.
    """
    names = repository.index_names()
    index = Index()
    for name in names:
        index.load(name, load_unpacked(repository.storage, repository.key, "index", name))
    index.freeze()
    return names, index


def _decide(
    table: Table, listed: dict[str, int], max_unused: float, reader: RepositoryReader
) -> PrunePlan:
    import numpy as np

    unknown = dict(listed)
    sizes = np.array([unknown.pop(pack, -1) for pack in table.packs], np.int64)
    gone = sizes < 0
    used = table.spread()
    keep = _one_place(table, used, gone)
    every = np.ones(len(table), np.bool_)
    payload = table.sum(every) + PACK_OVERHEAD
    kept = table.sum(keep)
    _as_long_as_needed(table, sizes, payload, kept)
    remove = (kept == 0) & ~gone
    there = (kept > 0) & ~gone
    unused = np.where(there, payload - PACK_OVERHEAD - kept, 0)
    repack = _chosen(table, kept, unused, payload, there, max_unused)
    total = int(np.where(gone, 0, payload - PACK_OVERHEAD).sum())
    return PrunePlan(
        forget=[],
        kept=[],
        max_unused=max_unused,
        index_files=[],
        table=table,
        keep=keep,
        remove=remove,
        repack=repack,
        gone=gone,
        sizes=np.where(gone, 0, sizes),
        reader=reader,
        unknown=unknown,
        used_bytes=int(kept.sum()),
        unused_bytes=total - int(kept.sum()),
        unused_after=int(unused[~repack].sum()),
    )


def _one_place(table: Table, used: Bools, gone: Bools) -> Bools:
    """Of each used blob the place that stays: in the pack with the smallest unused share, so that
    what an interrupted prune wrote anew is what stays. Raises DamagedError."""
    import numpy as np

    weight = table.weight
    every = np.bincount(table.pack, weight, len(table.packs))
    unused = np.bincount(table.pack, np.where(used, 0, weight), len(table.packs))
    share = unused / np.maximum(every, 1)
    tree = table.tree
    keep = np.zeros(len(table), np.bool_)
    for kind, of_kind in ((TREE, tree), (DATA, ~tree)):
        rows = np.flatnonzero(used & of_kind)
        if not len(rows):
            continue
        group = table.groups(rows)
        there = ~gone[table.pack[rows]]
        safe = np.zeros(int(group[-1]) + 1, np.bool_)
        safe[group[there]] = True
        if not safe.all():
            row = int(rows[~safe[group]][0])
            pack = table.packs[table.pack[row]]
            what = "tree" if kind == TREE else "data"
            raise DamagedError(
                f"data/{pack[:2]}/{pack} is missing, and snapshots need what was in it ({what} "
                f"blob {table.id(row).hex()[:12]} and perhaps more)",
                hint="nothing was removed; bring this file back from a copy of the repository, "
                "then run `safetake check`",
            )
        rows, group = rows[there], group[there]
        number = table.pack[rows]
        order = np.lexsort((table.offset[rows], number, share[number], group))
        first = np.ones(len(order), np.bool_)
        first[1:] = group[order][1:] != group[order][:-1]
        keep[rows[order[first]]] = True
    return keep


def _as_long_as_needed(table: Table, sizes: Rows, payload: Rows, kept: Rows) -> None:
    import numpy as np

    for number in np.flatnonzero((sizes >= 0) & (sizes != payload) & (kept > 0)):
        pack = table.packs[number]
        raise DamagedError(
            f"data/{pack[:2]}/{pack} is damaged: {sizes[number]} bytes long, its blobs need "
            f"{payload[number]}",
            hint="nothing was removed; run `safetake check --read-data` to see how much is damaged",
        )


def _chosen(
    table: Table, kept: Rows, unused: Rows, payload: Rows, there: Bools, max_unused: float
) -> Bools:
    """The packs to be packed anew."""
    import numpy as np

    repack = np.zeros(len(table.packs), np.bool_)
    trees = np.bincount(table.pack, table.tree, len(table.packs))
    blobs = np.bincount(table.pack, minlength=len(table.packs))
    pure_tree, pure_data = trees == blobs, trees == 0
    repack |= there & ~pure_tree & ~pure_data  # as ancient versions of restic wrote them
    for kind in (pure_tree, pure_data):
        small = there & kind & (payload < SMALL_BYTES)
        if np.count_nonzero(small) >= MANY_SMALL:
            repack |= small
    used = int(kept.sum())
    tolerated = used * max_unused / (1 - max_unused) if max_unused < 1 else float("inf")
    partly = np.flatnonzero(there & ~repack & (unused > 0))
    left = int(unused[partly].sum())
    if left > tolerated:
        partly = partly[np.argsort(kept[partly] / unused[partly], kind="stable")]
        freed = np.cumsum(unused[partly])
        repack[partly[: int(np.searchsorted(freed, left - tolerated)) + 1]] = True
    return repack
