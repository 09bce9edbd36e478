"""Which blob is in which pack, in memory as one sorted table of 49 bytes a blob.

A dict of the same content takes six times as much: 49 bytes keep the index of a terabyte in 64 KiB
blobs under 800 MB, and that of 100 GB under 80 MB. New blobs are in a small dict on top until they
are merged. Lookups are a bisection within a bucket of the id's first two bytes. `dump` and
`restore` give and take the table as bytes, for `cache`.
"""

from __future__ import annotations

import json
import struct
import threading
from array import array
from collections.abc import Iterable
from typing import Any

from safetake.errors import DamagedError
from safetake.model import MAX_BLOB_BYTES
from safetake.repository.crypto import OVERHEAD
from safetake.repository.pack import MAX_TREE_BYTES, Entry

_RECORD = struct.Struct("<32sIIIIB")
_SIZE = _RECORD.size
_VALUE = struct.Struct("<IIIIB")
MAX_ENTRIES = 50_000
"""Blobs in one index file (restic's own bound)."""
_FEW = 4096
"""So many blobs stay in the dict (400 bytes each): sorting a table costs a second per million."""
_BUCKETS = 65537


def encode_index(packs: Iterable[tuple[str, list[Entry]]], supersedes: list[str]) -> bytes:
    """The JSON of one index file."""
    document: dict[str, Any] = {}
    if supersedes:
        document["supersedes"] = supersedes
    document["packs"] = [
        {"id": pack, "blobs": [_blob(entry) for entry in entries]} for pack, entries in packs
    ]
    return json.dumps(document, separators=(",", ":")).encode()


def _blob(entry: Entry) -> dict[str, Any]:
    blob: dict[str, Any] = {
        "id": entry.id.hex(),
        "type": "tree" if entry.tree else "data",
        "offset": entry.offset,
        "length": entry.length,
    }
    if entry.plain_length:
        blob["uncompressed_length"] = entry.plain_length
    return blob


class Index:
    """All blobs of a repository. Reading is safe from several threads; so is `add`."""

    def __init__(self) -> None:
        self._packs: list[str] = []
        self._numbers: dict[str, int] = {}
        self._loading: list[bytes] = []
        self._sorted = (b"", array("Q", [0]) * _BUCKETS)
        self._recent: dict[bytes, list[tuple[int, int, int, int, bool]]] = {}
        self._lock = threading.Lock()
        self.files: set[str] = set()
        """Names of the index files that are in it."""
        self.whole: dict[bytes, None] = {}
        """Trees of which everything below is known to be in it; the newest last."""

    def __len__(self) -> int:
        recent = sum(len(entries) for entries in self._recent.values())
        return len(self._sorted[0]) // _SIZE + recent

    def load(self, name: str, content: bytes) -> None:
        """Take in one index file's JSON; `freeze` makes it searchable. Raises DamagedError."""
        what = f"index/{name}"
        try:
            document = json.loads(content)
            records = []
            pack_record = _RECORD.pack
            fromhex = bytes.fromhex
            for pack in document["packs"]:
                pack_id = pack["id"]
                if len(fromhex(pack_id)) != 32:
                    raise DamagedError(f"{what} is damaged: impossible pack id")
                number = self._number(pack_id)
                for blob in pack["blobs"]:
                    blob_id = fromhex(blob["id"])
                    kind = blob["type"]
                    limit = MAX_TREE_BYTES if kind == "tree" else MAX_BLOB_BYTES
                    size = blob.get("uncompressed_length", 0)
                    if (
                        len(blob_id) != 32
                        or kind not in ("data", "tree")
                        or not OVERHEAD <= blob["length"] <= 2 * limit  # zstd may grow a blob
                        or not 0 <= size <= limit
                    ):
                        raise DamagedError(f"{what} is damaged: impossible blob")
                    records.append(
                        pack_record(
                            blob_id,
                            number,
                            blob["offset"],
                            blob["length"],
                            size,
                            kind == "tree",
                        )
                    )
            self._loading.extend(records)
            self.files.add(name)
        except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
            raise DamagedError(f"{what} is damaged: not an index ({error})") from error
        except RecursionError as error:
            raise DamagedError(f"{what} is damaged: nested too deeply") from error

    def freeze(self) -> None:
        """Make what was loaded searchable; call after the last `load`."""
        records, self._loading = self._loading, []
        if len(records) > _FEW or not self._sorted[0]:
            self._sort(records)
            return
        for record in records:
            number, offset, length, plain, tree = _VALUE.unpack_from(record, 32)
            place = (number, offset, length, plain, bool(tree))
            self._recent.setdefault(record[:32], []).append(place)

    def merge(self, few: int = _FEW) -> None:
        """Move the blobs in the dict (400 bytes each) into the table (49 bytes), if they are more
        than `few`."""
        if len(self._recent) <= few:
            return
        with self._lock:
            recent = dict(self._recent)
            records = [
                _RECORD.pack(blob_id, *place)
                for blob_id, places in recent.items()
                for place in places
            ]
            self._sort(records)
            for blob_id in recent:  # only now: a lookup meanwhile finds them in one or in both
                del self._recent[blob_id]

    def _sort(self, records: list[bytes]) -> None:
        table = self._sorted[0]
        records.extend(table[at : at + _SIZE] for at in range(0, len(table), _SIZE))
        records.sort()
        buckets = array("Q")
        append = buckets.append
        filled = 0
        for position, record in enumerate(records):
            bucket = (record[0] << 8) | record[1]
            while filled <= bucket:
                append(position)
                filled += 1
        while filled <= 65536:
            append(len(records))
            filled += 1
        self._sorted = (b"".join(records), buckets)

    def dump(self) -> tuple[bytes, bytes, bytes]:
        """(names of the packs, buckets, table) as bytes: all of it, for `restore`."""
        self.merge(0)
        table, buckets = self._sorted
        return bytes.fromhex("".join(self._packs)), buckets.tobytes(), table

    def table(self) -> tuple[list[str], bytes]:
        """(names of the packs, all blobs): for each 49 bytes, id ‖ number of the pack ‖ offset ‖
        length ‖ plain length (0: stored without compression) ‖ whether it is a tree. The numbers
        have four bytes, little-endian; the records are sorted."""
        self.merge(0)
        return list(self._packs), self._sorted[0]

    @staticmethod
    def restore(packs: bytes, buckets: bytes, table: bytes) -> Index:
        """What `dump` gave. Raises ValueError for lengths that no `dump` has."""
        index = Index()
        index._packs = [packs[at : at + 32].hex() for at in range(0, len(packs), 32)]
        index._numbers = {pack: number for number, pack in enumerate(index._packs)}
        places = array("Q")
        places.frombytes(buckets)
        if len(packs) % 32 or len(places) != _BUCKETS or places[-1] * _SIZE != len(table):
            raise ValueError("not a dumped index")
        index._sorted = (table, places)
        return index

    def _number(self, pack: str) -> int:
        number = self._numbers.get(pack)
        if number is None:
            number = self._numbers[pack] = len(self._packs)
            self._packs.append(pack)
        return number

    def add(self, pack: str, entries: Iterable[Entry]) -> None:
        """Blobs of a pack that is durable now."""
        with self._lock:
            number = self._number(pack)
            for entry in entries:
                self._recent.setdefault(entry.id, []).append(
                    (number, entry.offset, entry.length, entry.plain_length, entry.tree)
                )

    def _first(self, blob_id: bytes, table: bytes, buckets: array[int]) -> int:
        """Where the first record of the id is in the table, or would be."""
        bucket = (blob_id[0] << 8) | blob_id[1]
        low, high = buckets[bucket], buckets[bucket + 1]
        while low < high:
            middle = (low + high) >> 1
            at = middle * _SIZE
            if table[at : at + 32] < blob_id:
                low = middle + 1
            else:
                high = middle
        return low * _SIZE

    def _find(self, blob_id: bytes) -> list[tuple[int, int, int, int, bool]]:
        found = list(self._recent.get(blob_id, ()))
        table, buckets = self._sorted
        at = self._first(blob_id, table, buckets)
        while table[at : at + 32] == blob_id:
            number, offset, length, plain, tree = _VALUE.unpack_from(table, at + 32)
            found.append((number, offset, length, plain, bool(tree)))
            at += _SIZE
        return found

    def has(self, blob_id: bytes, tree: bool) -> bool:
        """Whether the blob is stored as that type."""
        table, buckets = self._sorted
        at = self._first(blob_id, table, buckets)
        if table[at : at + 32] == blob_id and table[at + _SIZE - 1] == tree:
            return True
        return any(found[4] == tree for found in self._find(blob_id))

    def size(self, blob_id: bytes) -> int | None:
        """Plaintext bytes of a data blob; None when it is nowhere."""
        table, buckets = self._sorted
        at = self._first(blob_id, table, buckets)
        if table[at : at + 32] == blob_id and not table[at + _SIZE - 1]:
            _, _, length, plain, _ = _VALUE.unpack_from(table, at + 32)
            return int(plain or length - OVERHEAD)
        for _, _, length, plain, tree in self._find(blob_id):
            if not tree:
                return plain or length - OVERHEAD
        return None

    def locations(self, blob_id: bytes, tree: bool) -> list[tuple[str, Entry]]:
        """(pack, entry) of every place that the blob is at; empty when it is nowhere."""
        return [
            (self._packs[number], Entry(blob_id, is_tree, offset, length, plain))
            for number, offset, length, plain, is_tree in self._find(blob_id)
            if is_tree == tree
        ]

    def packs(self) -> dict[str, list[Entry]]:
        """Every pack with its entries by offset. For check: takes memory for all entries."""
        found: dict[str, list[Entry]] = {pack: [] for pack in self._packs}
        table = self._sorted[0]
        for at in range(0, len(table), _SIZE):
            blob_id, number, offset, length, plain, tree = _RECORD.unpack_from(table, at)
            found[self._packs[number]].append(Entry(blob_id, bool(tree), offset, length, plain))
        for blob_id, entries in self._recent.items():
            for number, offset, length, plain, is_tree in entries:
                found[self._packs[number]].append(Entry(blob_id, is_tree, offset, length, plain))
        for entries_of in found.values():
            entries_of.sort(key=lambda entry: entry.offset)
        return found
