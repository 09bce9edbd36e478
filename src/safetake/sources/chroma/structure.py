"""The structure of a restored HNSW segment, read without Chroma and believed in nothing.

Chroma opens half a file, links that lead nowhere, a missing pickle or a flipped bit without a word,
and some of these make it crash or hang later. Each has a check here: ids against labels, labels
against records, links within bounds, upper links to the end of their file. Arrays are read in
slices, so memory does not grow with the number of vectors except for the ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.model import Check
from safetake.sources.chroma import hnsw
from safetake.sources.chroma.pickles import BadPickleError, Ids, load_ids

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SLICE_BYTES = 8 << 20
_DELETED = 1 << 16


def read_ids(folder: Path) -> tuple[Ids | None, Check]:
    """The ids of a segment's pickle, and the check of it."""
    name = f"{folder.name}: ids"
    try:
        found = load_ids(folder / hnsw.PICKLE)
    except (BadPickleError, OSError) as error:
        return None, Check(name, False, "a pickle of ids", None, f"{hnsw.PICKLE}: {error}")
    return found, Check(name, True, None, len(found.label_of))


def structure(folder: Path, ids: Ids, dimension: int | None) -> Iterator[Check]:
    """Checks of header, records, links and lengths of a segment with these ids. May raise OSError.

    A segment whose ids are all deleted is not looked at: Chroma begins it anew.
    """
    if not ids.label_of:
        return
    name = folder.name
    header = hnsw.parse_header((folder / hnsw.HEADER).read_bytes()[: hnsw.HEADER_BYTES + 1])
    yield Check(f"{name}: header", header is not None, "a known header", header is not None)
    if header is None:
        return
    yield Check(f"{name}: count", header.count == ids.total, ids.total, header.count)
    if dimension is not None:
        yield Check(
            f"{name}: dimension", header.dimension == dimension, dimension, header.dimension
        )
    size = (folder / hnsw.DATA).stat().st_size
    needed = header.count * header.record
    yield Check(f"{name}: records", size >= needed, f"at least {needed} bytes", size)
    lengths = (folder / hnsw.LENGTH).stat().st_size
    yield Check(f"{name}: lengths", lengths >= 4 * header.count, 4 * header.count, lengths)
    if size < needed:
        return
    yield from _records(folder, header, ids)
    yield _upper_links(folder, header)


def _records(folder: Path, header: hnsw.Header, ids: Ids) -> Iterator[Check]:
    import numpy as np

    alive: list[NDArray[np.uint64]] = []
    everything: list[NDArray[np.uint64]] = []
    bad_links = bad_vectors = 0
    slots = np.arange(header.m0, dtype=np.uint32)
    for rows in _slices(folder / hnsw.DATA, header):
        links = np.ascontiguousarray(rows[:, : header.data_offset]).view("<u4")
        vectors = np.ascontiguousarray(rows[:, header.data_offset : header.label_offset])
        labels = np.ascontiguousarray(rows[:, header.label_offset :]).view("<u8")[:, 0]
        counts = links[:, 0] & 0xFFFF
        used = slots[None, :] < counts[:, None]
        wrong = (counts > header.m0) | ((links[:, 1:] >= header.count) & used).any(axis=1)
        bad_links += int(wrong.sum())
        bad_vectors += int((~np.isfinite(vectors.view("<f4"))).any(axis=1).sum())
        everything.append(labels)
        alive.append(labels[(links[:, 0] & _DELETED) == 0])
    name = folder.name
    yield Check(f"{name}: links", not bad_links, 0, bad_links, "records with links out of bounds")
    yield Check(f"{name}: vectors", not bad_vectors, 0, bad_vectors, "records not finite")
    all_labels, live = np.concatenate(everything), np.concatenate(alive)
    different = len(np.unique(all_labels))
    yield Check(f"{name}: labels", different == len(all_labels), len(all_labels), different)
    wanted = np.sort(np.fromiter(ids.id_of, np.uint64, len(ids.id_of)))
    same = bool(np.array_equal(np.sort(live), wanted))
    yield Check(f"{name}: labels have ids", same, len(wanted), len(live))


def _slices(path: Path, header: hnsw.Header) -> Iterator[NDArray[np.uint8]]:
    import numpy as np

    rows = max(1, _SLICE_BYTES // header.record)
    with path.open("rb") as file:
        for first in range(0, header.count, rows):
            count = min(rows, header.count - first)
            data = np.frombuffer(file.read(count * header.record), np.uint8)
            yield data.reshape(count, header.record)


def _upper_links(folder: Path, header: hnsw.Header) -> Check:
    """Walk link_lists.bin: for each record a length, then that many bytes of links by level."""
    name = f"{folder.name}: upper links"
    path, level_bytes = folder / hnsw.LINKS, 4 + 4 * header.m
    at = highest = 0
    data = memoryview(path.read_bytes())
    size = len(data)
    for record in range(header.count):
        if at + 4 > size:
            return Check(name, False, header.count, record, "the file ends before its records do")
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if not length:
            continue
        if length % level_bytes or at + length > size:
            return Check(name, False, header.count, record, f"a record has {length} bytes of links")
        highest = max(highest, length // level_bytes)
        for level in range(at, at + length, level_bytes):
            count = int.from_bytes(data[level : level + 2], "little")
            targets = data[level + 4 : level + 4 + 4 * count].cast("I")
            if count > header.m or any(target >= header.count for target in targets):
                return Check(name, False, header.count, record, "a link leads out of bounds")
        at += length
    ends = at == size and highest == header.max_level and header.enter_point < header.count
    expected: dict[str, Any] = {"bytes": size, "levels": header.max_level}
    return Check(name, ends, expected, {"bytes": at, "levels": highest})
