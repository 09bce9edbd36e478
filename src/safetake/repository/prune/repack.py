"""Packing anew: the used blobs of some packs go into new packs, sealed as they are.

Each blob is opened and its content proven before it is written, so that damage is found while the
old pack is still there; the sealed bytes are then taken over, because a blob is sealed for itself
and not for its pack. New packs are durable under their names when this returns, and in no index
yet.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safetake.errors import DamagedError
from safetake.repository.crypto import Sealer
from safetake.repository.digests import BlobDigest
from safetake.repository.packer import ClosedPack, Packer
from safetake.repository.prune.table import DATA, TREE
from safetake.repository.reader import READ_BYTES, blob_name, open_blob
from safetake.repository.threads import run_in_threads

if TYPE_CHECKING:
    from safetake.model import Progress
    from safetake.repository import Repository
    from safetake.repository.pack import Entry
    from safetake.repository.prune.drafts import IndexDrafts
    from safetake.repository.prune.plan import PrunePlan

_BYTES_A_THREAD = 64 << 20
"""Each thread fills packs of its own; for less than this the last ones would only be smaller."""
_HINT = "nothing was removed; run `safetake check --read-data` to see how much is damaged"


@dataclass(slots=True)
class NewPacks:
    """What was written: each pack with its length; its blobs are in the drafts."""

    drafts: IndexDrafts
    packs: dict[str, int] = field(default_factory=dict)


def repack(
    repository: Repository, plan: PrunePlan, written: NewPacks, progress: Progress | None = None
) -> None:
    """Write the used blobs of `plan.repack` into new packs, told in `written` as each is durable.

    Raises DamagedError for a blob that has no good copy, StorageError.
    """
    numbers = [int(number) for number in plan.repack.nonzero()[0]]
    total = int(plan.table.sum(plan.keep)[plan.repack].sum())
    work = _Work(repository, plan, numbers, total, written, progress)
    count = max(1, min(8, os.cpu_count() or 2, total // _BYTES_A_THREAD))
    run_in_threads(work.run, count, "repack", work.broken)


class _Work:
    def __init__(
        self,
        repository: Repository,
        plan: PrunePlan,
        numbers: list[int],
        total: int,
        written: NewPacks,
        progress: Progress | None,
    ) -> None:
        self.broken: list[BaseException] = []
        self._repository = repository
        self._plan = plan
        self._waiting = iter(numbers)
        self._total = total
        self._done = 0
        self._written = written
        self._progress = progress
        self._lock = threading.Lock()
        rows = plan.table.of_packs(plan.repack)
        self._rows = rows[plan.keep[rows]]
        self._packs = plan.table.pack[self._rows]

    def run(self) -> None:
        """One thread: packs until there is none left."""
        sealer = Sealer(self._repository.key)
        digest = BlobDigest(self._repository.loaded_digests, self._repository.key)
        packers = {tree: Packer(self._repository.storage) for tree in (False, True)}
        try:
            while not self.broken:
                with self._lock:
                    number = next(self._waiting, None)
                if number is None:
                    break
                for run in self._runs(number):
                    self._copy(number, run, packers, sealer, digest)
            if not self.broken:
                for packer in packers.values():
                    self._commit(packer.close(sealer))
        except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
            self.broken.append(error)
        finally:
            for packer in packers.values():
                packer.abort()

    def _runs(self, number: int) -> list[list[Entry]]:
        """What is read at once: neighbours of one kind, together at most READ_BYTES."""
        import numpy as np

        first, end = np.searchsorted(self._packs, [number, number + 1])
        runs: list[list[Entry]] = []
        for row in self._rows[first:end]:
            entry = self._plan.table.entry(int(row))
            last = runs[-1] if runs else []
            if (
                last
                and last[0].tree == entry.tree
                and last[-1].offset + last[-1].length == entry.offset
                and entry.offset + entry.length - last[0].offset <= READ_BYTES
            ):
                last.append(entry)
            else:
                runs.append([entry])
        return runs

    def _copy(
        self,
        number: int,
        run: list[Entry],
        packers: dict[bool, Packer],
        sealer: Sealer,
        digest: BlobDigest,
    ) -> None:
        pack = self._plan.table.packs[number]
        start = run[0].offset
        length = run[-1].offset + run[-1].length - start
        data = memoryview(self._range(pack, start, length))
        blobs: list[tuple[bytes, int]] = []
        sealed: list[bytearray | memoryview] = []
        for entry in run:
            part = data[entry.offset - start : entry.offset - start + entry.length]
            try:
                open_blob(part, entry, sealer, digest, blob_name(pack, entry.id))
            except DamagedError as error:
                good = self._other(pack, entry, sealer, digest)
                if good is None:
                    raise DamagedError(str(error), hint=_HINT) from error
                entry, part = good
            blobs.append((entry.id, entry.plain_length))
            sealed.append(part)
        packer = packers[run[0].tree]
        packer.append(blobs, sealed, tree=run[0].tree)
        if packer.full:
            self._commit(packer.close(sealer))
        with self._lock:
            self._done += length
            if self._progress is not None:
                self._progress("repack", self._done, max(self._total, self._done))

    def _range(self, pack: str, start: int, length: int) -> bytes:
        try:
            return self._repository.storage.get_range("data", pack, start, length)
        except (FileNotFoundError, DamagedError):
            return b""  # then each blob is looked for at its other places

    def _other(
        self, pack: str, entry: Entry, sealer: Sealer, digest: BlobDigest
    ) -> tuple[Entry, memoryview] | None:
        """The same blob from another pack, when it is stored twice and whole there."""
        table = self._plan.table
        for row in table.rows(entry.id, TREE if entry.tree else DATA):
            place, name = table.entry(row), table.packs[table.pack[row]]
            if (name, place.offset) == (pack, entry.offset):
                continue
            part = memoryview(self._range(name, place.offset, place.length))
            try:
                open_blob(part, place, sealer, digest, blob_name(name, entry.id))
            except DamagedError:
                continue
            return place, part
        return None

    def _commit(self, pack: ClosedPack | None) -> None:
        if pack is None:
            return
        try:
            pack.upload.commit("data", pack.name)
        except BaseException:
            pack.upload.abort()
            raise
        with self._lock:
            self._written.packs[pack.name] = pack.length
            self._written.drafts.add(pack.name, pack.entries)


def prove_duplicates(repository: Repository, plan: PrunePlan) -> None:
    """Before one copy of a used blob goes: the one that stays, where it lies, reads back whole.

    Raises DamagedError.
    """
    import numpy as np

    table, going = plan.table, plan.remove | plan.repack
    rows = np.flatnonzero(table.spread() & ~plan.keep & going[table.pack])
    sealer = Sealer(repository.key)
    digest = BlobDigest(None, repository.key)
    proven: set[int] = set()
    for row in rows:
        kind = TREE if table.entry(int(row)).tree else DATA
        for stays in table.rows(table.id(int(row)), kind):
            # what is packed anew is proven when it is written
            if plan.keep[stays] and not going[table.pack[stays]] and stays not in proven:
                proven.add(stays)
                _prove(
                    repository, table.packs[table.pack[stays]], table.entry(stays), sealer, digest
                )


def _prove(
    repository: Repository, pack: str, entry: Entry, sealer: Sealer, digest: BlobDigest
) -> None:
    what = blob_name(pack, entry.id)
    try:
        data = repository.storage.get_range("data", pack, entry.offset, entry.length)
        open_blob(data, entry, sealer, digest, what)
    except (FileNotFoundError, DamagedError) as error:
        raise DamagedError(
            f"{what} is damaged, and a pack that holds it once more was to be removed",
            hint=_HINT,
        ) from error
