"""Carrying a plan out, so that a kill at any moment leaves a whole repository.

Beside running backups, under a shared lock: new packs become durable, in no index; new index files
are written, under no name. Then alone, under an exclusive lock: snapshots and indexes are listed
again, and packs that hold what a new snapshot uses are taken out of the deletion. From there:

    1. snapshots are removed        what they alone used is unused from here on
    2. new indexes get their names  packs are named twice, which is harmless
    3. old indexes are removed      what goes is in no index from here on
    4. proofs, packs, digests       nothing leads to them any more

Each step is durable before the next. Where it stops before 2, the new packs are in no index: they
are removed here, or by the next prune when the process was killed. Before each removal the lock is
looked at: a process that stood still for half an hour is no longer alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetake.errors import DamagedError, RepositoryLockedError, SafetakeError, StorageError
from safetake.repository.documents import load_unpacked
from safetake.repository.index import Index
from safetake.repository.prune.drafts import IndexDrafts, packs_of
from safetake.repository.prune.plan import PrunePlan, make_plan
from safetake.repository.prune.repack import NewPacks, prove_duplicates, repack
from safetake.repository.prune.table import DATA, TREE
from safetake.repository.prune.tidy import proofs_by_name, useful_pairs
from safetake.repository.prune.used import mark_used, root_of
from safetake.repository.reader import RepositoryReader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safetake.model import Progress
    from safetake.repository import Repository

WAIT_S = 600.0
_UNDO_WAIT_S = 5.0
_ATTEMPTS = 3

Confirm = Callable[[], Collection[str]]


@dataclass(slots=True)
class PruneResult:
    """What was done."""

    removed: list[str]
    """Snapshots."""
    kept: int
    freed_bytes: int = 0
    """What the packs take less."""
    repacked_bytes: int = 0
    packs_removed: int = 0
    packs_written: int = 0
    packs_rescued: int = 0
    """Taken out of the deletion for snapshots that were taken meanwhile."""
    unused_bytes: int = 0
    """What lies unused now."""
    proofs_removed: int = 0
    problems: list[str] = field(default_factory=list)
    """What was not as it should be, and was put right."""
    seconds: float = 0.0
    alone_seconds: float = 0.0
    """So long nobody else could use the repository."""

    def as_dict(self) -> dict[str, Any]:
        """JSON."""
        return {
            "removed": len(self.removed),
            "kept": self.kept,
            "freed_bytes": self.freed_bytes,
            "repacked_bytes": self.repacked_bytes,
            "packs_removed": self.packs_removed,
            "packs_written": self.packs_written,
            "packs_rescued": self.packs_rescued,
            "unused_bytes": self.unused_bytes,
            "proofs_removed": self.proofs_removed,
            "problems": self.problems,
            "seconds": round(self.seconds, 3),
            "alone_seconds": round(self.alone_seconds, 3),
        }


class _StaleError(SafetakeError):
    """Another process changed what the plan was made from."""


def run(
    repository: Repository,
    plan: PrunePlan,
    progress: Progress | None = None,
    *,
    wait: float = WAIT_S,
    confirm: Confirm | None = None,
) -> PruneResult:
    """Carry out a plan.

    Waits at most `wait` seconds for running backups to end. `confirm` is called when nobody else is
    at work any more, and gives the snapshots that may go then; of the plan's it takes away, it adds
    none. Raises RepositoryLockedError, StorageError (also for a storage that refuses removal) and
    DamagedError: the snapshots are all there then, but for a storage that fails while they are
    removed.
    """
    began = time.perf_counter()
    _assure_removal(repository, plan)
    alone = repository.locks.alone()
    attempt = 1
    while True:
        try:
            result = _Run(repository, plan, progress, wait, confirm, alone).go()
        except _StaleError as error:
            if attempt == _ATTEMPTS:
                raise RepositoryLockedError(
                    f"others prune the repository at {repository.storage.location} at the same "
                    f"time: {error}",
                    hint="nothing was removed; let one of them finish, then run it again",
                ) from error
            attempt += 1
            with contextlib.nullcontext() if alone else repository.lock(exclusive=False):
                plan = make_plan(repository, plan.forget, plan.max_unused, progress)
            continue
        result.seconds = time.perf_counter() - began
        return result


def _assure_removal(repository: Repository, plan: PrunePlan) -> None:
    storage = repository.storage
    packs = [plan.table.packs[number] for number in (plan.remove | plan.repack).nonzero()[0]]
    storage.assure_removal("snapshots", plan.forget)
    if plan.rewrites_index:
        storage.assure_removal("index", plan.index_files)
    storage.assure_removal("data", [*packs, *plan.unknown])


class _Run:
    def __init__(
        self,
        repository: Repository,
        plan: PrunePlan,
        progress: Progress | None,
        wait: float,
        confirm: Confirm | None,
        alone: bool,
    ) -> None:
        self._repository = repository
        self._storage = repository.storage
        self._plan = plan
        self._progress = progress
        self._wait = wait
        self._confirm = confirm
        self._alone = alone
        self._drafts = IndexDrafts(repository)
        self._new = NewPacks(self._drafts)
        self._published = False
        self._proofs: dict[str, str] = {}
        self._pairs: tuple[list[str], bytes] | None = None

    def go(self) -> PruneResult:
        """Both parts. What was written is taken back when the second one is not begun."""
        try:
            with self._lock(exclusive=False, wait=self._repository.lock_wait):
                self._prepare()
            if self._plan.idle and not self._orphans(self._plan.roots):
                plan = self._plan
                return PruneResult([], len(plan.kept), unused_bytes=plan.unused_after)
            with self._lock(exclusive=True, wait=self._wait):
                since = time.perf_counter()
                result = self._delete()
                result.alone_seconds = time.perf_counter() - since
        except BaseException:
            self._drafts.abort()
            self._take_back()
            raise
        finally:
            self._repository.reload()
        return result

    def _lock(self, *, exclusive: bool, wait: float) -> contextlib.AbstractContextManager[None]:
        if self._alone:
            return contextlib.nullcontext()
        return self._held(exclusive, wait)

    @contextlib.contextmanager
    def _held(self, exclusive: bool, wait: float) -> Iterator[None]:
        lock = self._repository.lock(exclusive=exclusive, wait=wait)
        try:
            lock.__enter__()
        except RepositoryLockedError as error:
            raise RepositoryLockedError(
                f"nothing was pruned: {error}",
                hint="run it when no backup is at work; if that process is really gone: "
                "`safetake unlock --all`",
            ) from error
        with contextlib.ExitStack() as stack:
            stack.push(lock)
            yield

    # beside others

    def _prepare(self) -> None:
        plan, repository = self._plan, self._repository
        self._storage.sweep()
        self._still_as_planned()
        prove_duplicates(repository, plan)
        repack(repository, plan, self._new, self._progress)
        stays = ~(plan.remove | plan.repack | plan.gone)
        if plan.rewrites_index:
            self._drafts.add_packs(plan.table, stays)
            self._drafts.finish()
        self._proofs = proofs_by_name(repository)
        if plan.rewrites_index:
            rows = plan.keep | stays[plan.table.pack]
            self._pairs = useful_pairs(repository, plan.digest_files, plan.table, rows)

    def _still_as_planned(self) -> list[str]:
        """The index files that were added since. Raises _StaleError."""
        names = set(self._repository.index_names())
        if not names.issuperset(self._plan.index_files):
            raise _StaleError("its indexes were replaced")
        return sorted(names.difference(self._plan.index_files))

    # alone

    def _delete(self) -> PruneResult:
        repository, storage, plan = self._repository, self._storage, self._plan
        repository.locks.assure()
        added = self._still_as_planned()
        listed = dict(storage.list("data"))
        self._packs_are_there(listed)
        later = Index()
        for name in added:
            later.load(name, load_unpacked(storage, repository.key, "index", name))
        later.freeze()
        names = {name for name, _ in storage.list("snapshots")}
        forget = names.intersection(plan.forget)
        if self._confirm is not None:
            forget.intersection_update(self._confirm())
        fresh = sorted(names - forget - set(plan.kept))
        roots = [root_of(repository, name) for name in fresh]
        rescued = self._rescued(roots, later)
        going = (plan.remove | plan.repack) & ~rescued
        packs = [plan.table.packs[number] for number in going.nonzero()[0]]
        known = {*plan.table.packs, *later.table()[0], *self._new.packs}
        unknown = [name for name in listed if name not in known]
        proofs = self._orphans({*plan.roots, *roots})
        self._drafts.add_packs(plan.table, rescued)

        repository.locks.assure()
        storage.remove_all("snapshots", sorted(forget))
        if plan.rewrites_index:
            self._published = True
            self._drafts.publish()
            repository.locks.assure()
            storage.remove_all("index", plan.index_files)
        storage.remove_all("proofs", proofs)
        repository.locks.assure()
        storage.remove_all("data", [*packs, *unknown])
        if self._pairs is not None:
            from safetake.repository.digests import write_pairs

            files, pairs = self._pairs
            with contextlib.suppress(StorageError):  # only a faster way to the same answers
                name = write_pairs(storage, repository.key, pairs) if pairs else ""
                storage.remove_all("digests", [one for one in files if one != name])

        freed = sum(listed.get(name, 0) for name in (*packs, *unknown))
        written = sum(self._new.packs.values())
        return PruneResult(
            removed=sorted(forget),
            kept=len(names) - len(forget),
            freed_bytes=freed - written,
            repacked_bytes=written,
            packs_removed=len(packs) + len(unknown),
            packs_written=len(self._new.packs),
            packs_rescued=int(rescued.sum()),
            unused_bytes=plan.unused_after,
            proofs_removed=len(proofs),
            problems=plan.problems(len(unknown)),
        )

    def _orphans(self, roots: Collection[bytes]) -> list[str]:
        """Proofs of trees that no snapshot has."""
        trees = {root.hex() for root in roots}
        return [name for name, tree in self._proofs.items() if tree not in trees]

    def _packs_are_there(self, listed: dict[str, int]) -> None:
        """What the new indexes will name. Raises _StaleError."""
        plan = self._plan
        for name, length in self._new.packs.items():
            if listed.get(name) != length:
                raise _StaleError("packs that were just written are gone")
        stays = ~(plan.remove | plan.repack | plan.gone)
        for number in stays.nonzero()[0]:
            if plan.table.packs[number] not in listed:
                raise _StaleError("packs are gone")

    def _rescued(self, roots: list[bytes], later: Index) -> NDArray[np.bool_]:
        """The packs that were to go and hold what these trees use. Raises DamagedError."""
        import numpy as np

        plan, table = self._plan, self._plan.table
        rescued = np.zeros(len(table.packs), np.bool_)
        if not roots:
            return rescued
        reader = RepositoryReader(self._storage, self._repository.key, later, None)

        def tree_blob(tree: bytes) -> bytes | bytearray:
            return (reader if later.has(tree, True) else plan.reader).tree_blob(tree)

        before = table.marks.copy()
        try:
            mark_used(table, tree_blob, roots, elsewhere=later.has)
            after = table.marks.copy()
        finally:
            table.marks[:] = before  # a plan may be carried out again after a failure
        stays = ~(plan.remove | plan.repack | plan.gone)
        for row in np.flatnonzero(after != before):
            blob_id, fresh = table.id(int(row)), int(after[row]) & ~int(before[row])
            for kind in (DATA, TREE):
                if not fresh & kind or later.has(blob_id, kind == TREE):
                    continue
                places = table.rows(blob_id, kind)
                if any(plan.keep[at] or stays[table.pack[at]] for at in places):
                    continue
                packs = [int(table.pack[at]) for at in places if not plan.gone[table.pack[at]]]
                if not packs:
                    raise DamagedError(
                        f"blob {blob_id.hex()[:12]} was in a pack that is missing, and a new "
                        "snapshot needs it",
                        hint="nothing was removed; run `safetake check`",
                    )
                if not rescued[packs].any():
                    rescued[packs[0]] = True
        return rescued

    # otherwise

    def _take_back(self) -> None:
        """Remove the new packs, unless an index names them. They are harmless where it fails."""
        if self._published or not self._new.packs:
            return
        try:
            with self._lock(exclusive=False, wait=_UNDO_WAIT_S):
                known = packs_of(self._repository.index_names(), self._repository)
                left = [name for name in self._new.packs if name not in known]
                self._storage.remove_all("data", left)
        except (SafetakeError, FileNotFoundError):
            return
