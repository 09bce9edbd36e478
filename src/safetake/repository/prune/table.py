"""All blobs of the indexes as arrays: which blob is in which pack, and what is known of each.

The index keeps 49 bytes a blob, sorted by id; this looks at the same bytes as columns and adds 17
of its own: the beginning of the id, which is searched, the pack, and marks. There is never an
object for each blob: a million of them take 70 MB and some passing arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetake.repository.crypto import OVERHEAD
from safetake.repository.pack import Entry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from safetake.repository.index import Index

    Bools = NDArray[np.bool_]
    Rows = NDArray[np.int64]

DATA, TREE = 1, 2
"""Marks: used as a data blob, used as a tree. One id may be both."""
_RECORD = 49
_STEP = 1 << 16
PACK_OVERHEAD = OVERHEAD + 4
"""Bytes of a pack beside its blobs and their entries in its header."""


class Table:
    """The blobs of an index, each place once. Nothing may be added to that index any more."""

    def __init__(self, index: Index) -> None:
        import numpy as np

        self.packs, content = index.table()
        raw = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
        every = len(raw)
        raw = self._once(raw)
        self.repeated = len(raw) < every
        """Whether some packs are described more than once."""
        self._raw = raw
        self._ids = raw[:, :32]
        self.heads: NDArray[np.uint64] = (
            np.ascontiguousarray(raw[:, :8]).view(">u8").ravel().astype(np.uint64)
        )
        self.pack: Rows = self._column(32).astype(np.int64)
        self.marks = np.zeros(len(raw), np.uint8)

    def __len__(self) -> int:
        return len(self._raw)

    @staticmethod
    def _once(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Without repetitions: one pack may be described by two index files."""
        import numpy as np

        again = np.zeros(len(raw), np.bool_)
        for at in range(1, len(raw), _STEP):
            end = min(at + _STEP, len(raw))
            again[at:end] = (raw[at:end] == raw[at - 1 : end - 1]).all(axis=1)
        return raw[~again] if again.any() else raw

    def _column(self, at: int) -> NDArray[Any]:
        import numpy as np

        return np.ascontiguousarray(self._raw[:, at : at + 4]).view("<u4").ravel()

    @property
    def tree(self) -> Bools:
        """Whether each is a tree."""
        import numpy as np

        return self._raw[:, 48].astype(np.bool_)

    @property
    def weight(self) -> Rows:
        """Bytes of each in its pack, with its entry in the header."""
        import numpy as np

        entry = np.where(self._column(44) > 0, 41, 37)
        return self._column(40).astype(np.int64) + entry

    @property
    def offset(self) -> Rows:
        """Where each begins in its pack."""
        import numpy as np

        return self._column(36).astype(np.int64)

    def id(self, row: int) -> bytes:
        """The blob's id."""
        return bytes(self._ids[row])

    def entry(self, row: int) -> Entry:
        """One place of a blob."""
        record = bytes(self._raw[row])
        number = int.from_bytes
        return Entry(
            record[:32],
            bool(record[48]),
            number(record[36:40], "little"),
            number(record[40:44], "little"),
            number(record[44:48], "little"),
        )

    def mark(self, ids: bytes, kind: int) -> list[bytes]:
        """Mark blobs, 32 bytes each, as used in that way; returns those that are nowhere.

        Of a blob that is at several places the first is marked, see `spread`.
        """
        import numpy as np

        wanted = np.frombuffer(ids, np.uint8).reshape(-1, 32)
        heads = np.ascontiguousarray(wanted[:, :8]).view(">u8").ravel().astype(np.uint64)
        at = np.searchsorted(self.heads, heads)
        at[at == len(self)] = 0
        found = (
            (self._ids[at] == wanted).all(axis=1) if len(self) else np.zeros(len(wanted), np.bool_)
        )
        is_kind = (self._raw[at, 48] == (kind == TREE)) if len(self) else found
        good = found & is_kind
        self.marks[at[good]] |= kind
        lost = []
        for number in np.flatnonzero(~good):  # two ids that begin alike, or two kinds of one
            blob_id = bytes(wanted[number])
            row = self.find(blob_id, kind)
            if row is None:
                lost.append(blob_id)
            else:
                self.marks[row] |= kind
        return lost

    def find(self, blob_id: bytes, kind: int) -> int | None:
        """The first row of a blob."""
        rows = self.rows(blob_id, kind)
        return rows[0] if rows else None

    def rows(self, blob_id: bytes, kind: int) -> list[int]:
        """Every row of a blob."""
        import numpy as np

        head = np.uint64(int.from_bytes(blob_id[:8]))
        first = int(np.searchsorted(self.heads, head))
        found = []
        while first < len(self) and self.heads[first] == head:
            if self.id(first) == blob_id and bool(self._raw[first, 48]) == (kind == TREE):
                found.append(first)
            first += 1
        return found

    def spread(self) -> Bools:
        """Which rows hold a blob that is used as what they are: every place of each."""
        import numpy as np

        used = np.zeros(len(self), np.bool_)
        tree = self.tree
        for kind, rows in ((TREE, np.flatnonzero(tree)), (DATA, np.flatnonzero(~tree))):
            if len(rows):
                group = self.groups(rows)
                some = np.zeros(int(group[-1]) + 1, np.bool_)
                some[group[(self.marks[rows] & kind) != 0]] = True
                used[rows] = some[group]
        return used

    def groups(self, rows: Rows) -> Rows:
        """For rows of one kind, in order: a number that is the same for the same blob."""
        import numpy as np

        fresh = np.zeros(len(rows), np.bool_)
        for at in range(1, len(rows), _STEP):
            end = min(at + _STEP, len(rows))
            fresh[at:end] = (self._ids[rows[at:end]] != self._ids[rows[at - 1 : end - 1]]).any(
                axis=1
            )
        return np.cumsum(fresh)

    def of_packs(self, chosen: Bools) -> Rows:
        """The rows of the packs whose number is chosen, pack by pack, in their order there."""
        import numpy as np

        rows = np.flatnonzero(chosen[self.pack])
        return rows[np.lexsort((self.offset[rows], self.pack[rows]))]

    def sum(self, chosen: Bools) -> Rows:
        """Bytes of the chosen rows, for each pack."""
        import numpy as np

        weights = np.where(chosen, self.weight, 0)
        return np.bincount(self.pack, weights, len(self.packs)).astype(np.int64)
