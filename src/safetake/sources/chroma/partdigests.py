"""The digests of a file's parts as `pieces` cuts them, read from the file itself.

They are the ones that `facts` recorded, so that a restored file is proven without the repository.
Memory holds one blob of each column.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetake.columns import Layout, make_layout
from safetake.sources.chroma import hnsw
from safetake.sources.chroma.pieces import (
    PICKLE_CHUNK_BYTES,
    PLAIN_CHUNK_BYTES,
    blob_rows,
)
from safetake.sources.sqlite.proof import content_of


def part_digests(path: Path, size: int, known: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each part of a file of `size` bytes, cut as its facts `known` say."""
    if "record" not in known:
        chunk = PICKLE_CHUNK_BYTES if path.name == hnsw.PICKLE else PLAIN_CHUNK_BYTES
        return {"": content_of(path, chunk)}
    names = [f"column{number}" for number in range(len(known["widths"]))]
    layout = make_layout(size, known["record"], list(zip(names, known["widths"], strict=True)))
    if layout is None:
        return {}
    parts = list(known["parts"])
    found = _column_digests(path, layout)
    return dict(zip(parts, found, strict=False))


def _column_digests(path: Path, layout: Layout) -> list[str]:
    import numpy as np

    step = max(blob_rows(column.width) for column in layout.columns)
    wholes = [hashlib.sha256() for _ in layout.columns]
    batch = min(step, max(1, (8 << 20) // layout.record))
    batch = 1 << (batch.bit_length() - 1)
    rest: list[list[bytes]] = [[] for _ in layout.columns]
    with path.open("rb") as file:
        for first in range(0, layout.records, batch):
            count = min(batch, layout.records - first)
            data = np.frombuffer(file.read(count * layout.record), np.uint8)
            rows = data.reshape(count, layout.record)
            for number, column in enumerate(layout.columns):
                each = blob_rows(column.width)
                cells = rows[:, column.offset : column.offset + column.width]
                for start in range(0, count, each):
                    stop = min(start + each, count)
                    rest[number].append(np.ascontiguousarray(cells[start:stop]).tobytes())
                    if (first + stop) % each == 0 or first + stop == layout.records:
                        blob = b"".join(rest[number])
                        wholes[number].update(hashlib.sha256(blob).digest())
                        rest[number] = []
        digests = [whole.hexdigest() for whole in wholes]
        if layout.tail is not None:
            tail = hashlib.sha256(file.read(layout.tail_bytes)).digest()
            digests.append(hashlib.sha256(tail).hexdigest())
    return digests
