"""The files of a persisted HNSW segment: what the header says, and whether a set is complete.

The format is that of Chroma's hnswlib fork (`persistDirty`, `loadPersistedIndex`): header first,
then records, lengths and upper links, all in place through long-lived descriptors, and at last the
pickle with the ids, which is truncated and written anew. Nothing here reads a whole file.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

HEADER = "header.bin"
DATA = "data_level0.bin"
LENGTH = "length.bin"
LINKS = "link_lists.bin"
PICKLE = "index_metadata.pickle"
FILES = (HEADER, DATA, LENGTH, LINKS, PICKLE)

_HEADER = struct.Struct("<iQQQQQQiIQQQdQ")
HEADER_BYTES = _HEADER.size
LABEL_BYTES = 8

# the first numbers of both pickles: serde_pickle's (1.x) and Python's protocol 4 and 5 (0.x)
_TOTAL = re.compile(rb"total_elements_added(?:\x94)?([KMJ])(....)", re.DOTALL)
_HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Header:
    """header.bin, decoded; sizes in bytes."""

    max_elements: int
    count: int
    """records in use, deleted ones included"""
    record: int
    label_offset: int
    data_offset: int
    max_level: int
    enter_point: int
    m0: int
    m: int

    @property
    def widths(self) -> tuple[tuple[str, int], ...]:
        """The columns of a record: links, vector, label."""
        return (
            ("links", self.data_offset),
            ("vectors", self.label_offset - self.data_offset),
            ("labels", self.record - self.label_offset),
        )

    @property
    def dimension(self) -> int:
        """Floats in a vector."""
        return (self.label_offset - self.data_offset) // 4


def parse_header(data: bytes) -> Header | None:
    """Decode header.bin; None when it is of an unknown version or contradicts itself."""
    if len(data) != HEADER_BYTES:
        return None
    (version, offset0, max_elements, count, record, label_at, data_at, level, enter, m_max, m0) = (
        _HEADER.unpack(data)[:11]
    )
    sound = (
        version == 1
        and offset0 == 0
        and count <= max_elements
        and 0 < data_at == 4 + 4 * m0 < label_at
        and record == label_at + LABEL_BYTES
        and record <= 1 << 20
        and (label_at - data_at) % 4 == 0
    )
    if not sound:
        return None
    return Header(max_elements, count, record, label_at, data_at, level, enter, m0, m_max)


def pickle_total(head: bytes) -> int | None:
    """`total_elements_added` out of the first bytes of the pickle; None when it is not there."""
    found = _TOTAL.search(head[:_HEAD_BYTES])
    if found is None:
        return None
    width = {b"K": 1, b"M": 2, b"J": 4}[found[1]]
    return int.from_bytes(found[2][:width], "little")


def pickle_ends(head: bytes, tail: bytes) -> bool:
    """Whether the pickle's last bytes are its end, without reading what is between.

    A pickle is written front to back after it was truncated, so that one with its end is whole.
    1.x closes with the field id_to_seq_id (filled only in folders that 0.x began), 0.x with the
    BUILD of its one object.
    """
    if head[:1] != b"\x80" or not tail.endswith(b"."):
        return False
    if head[1:2] in (b"\x02", b"\x03"):
        return tail.endswith((b"id_to_seq_id}u.", b"uu."))
    return tail.endswith(b"b.")


def pickle_empty(head: bytes) -> bool:
    """Whether the pickle has no ids at all, so that Chroma ignores the other files."""
    return b"id_to_label}X\x0b\x00\x00\x00label_to_id" in head or (
        b"id_to_label\x94}\x94\x8c\x0blabel_to_id" in head
    )
