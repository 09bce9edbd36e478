"""A few nearest-neighbour answers that a snapshot remembers, and a restored copy must give again.

Records are picked by a seed made of the segment's id, in runs of neighbouring rows, and answered by
brute force among themselves with numpy: at most 1,024 records and 3 questions per segment, so the
cost does not grow with the store. It proves vectors, labels and their order, not the graph.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetake.columns import Layout
from safetake.sources.chroma.pieces import blob_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUESTIONS = 3
ANSWERS = 5
RUNS = 8
RUN_ROWS = 128
_DELETED = 0x01

ReadColumn = Callable[[int, int, int], bytes]
"""(column number, first record, number of records) to the bytes of that column."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Live records of a segment, taken by the seed."""

    rows: NDArray[np.int64]
    labels: NDArray[np.uint64]
    vectors: NDArray[np.float32]


def sample(segment: str, layout: Layout, count: int, read: ReadColumn) -> Sample:
    """The records that the seed picks out of the first `count`, or of those that a file which was
    cut short still has."""
    import numpy as np

    count = min(count, layout.records)
    run = min(RUN_ROWS, blob_rows(layout.columns[1].width))
    seed = int.from_bytes(hashlib.sha256(segment.encode()).digest()[:8], "big")
    starts = range(0, count, run)
    picked = sorted(random.Random(seed).sample(starts, min(RUNS, len(starts))))
    rows, links, vectors, labels = [], [], [], []
    for first in picked:
        number = min(run, count - first)
        rows.append(np.arange(first, first + number))
        links.append(_cells(read(0, first, number), number, np.uint8))
        vectors.append(_cells(read(1, first, number), number, np.float32))
        labels.append(_cells(read(2, first, number), number, np.uint64))
    # the third byte of the link count marks a deleted record (hnswlib markDeletedInternal)
    alive = (np.concatenate(links)[:, 2] & _DELETED) == 0
    return Sample(
        np.concatenate(rows)[alive],
        np.concatenate(labels)[alive, 0],
        np.concatenate(vectors)[alive],
    )


def answers(taken: Sample, space: str) -> list[dict[str, Any]]:
    """Nearest neighbours of the first, the middle and the last record among the sample."""
    import numpy as np

    total = len(taken.rows)
    found = []
    for index in sorted({0, total // 2, total - 1}) if total else []:
        distances = distance(taken.vectors, taken.vectors[index], space)
        nearest = np.lexsort((taken.rows, distances))[:ANSWERS]
        found.append(
            {
                "label": int(taken.labels[index]),
                "neighbours": [
                    [int(taken.labels[other]), float(distances[other])] for other in nearest
                ],
            }
        )
    return found


def distance(
    vectors: NDArray[np.float32], query: NDArray[np.float32], space: str
) -> NDArray[np.float64]:
    """Chroma's distances, in double precision: squared l2, or 1 minus the inner product.

    Vectors of a cosine space are stored normalised.
    """
    import numpy as np

    wide, one = vectors.astype(np.float64), query.astype(np.float64)
    if space == "l2":
        return np.asarray(((wide - one) ** 2).sum(axis=1))
    return np.asarray(1.0 - wide @ one)


def _cells(data: bytes, count: int, kind: Any) -> NDArray[Any]:
    import numpy as np

    return np.frombuffer(data, kind).reshape(count, -1)
