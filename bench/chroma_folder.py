"""A Chroma folder of any size in seconds, and what appending vectors does to it.

chromadb itself makes the folder, its schema, the collection and the first thousand records.
Inserting 400,000 vectors through it takes many minutes (300 to 5,000 a second here), so the rest
is written into the same files in Chroma's format: rows, metadata and full-text index by SQL, and
the HNSW files (header.bin, data_level0.bin, length.bin, link_lists.bin, index_metadata.pickle)
with true vectors, labels and bounds but *random links*. Sizes, record layout and what changes are
the real ones; the folder opens, but its nearest neighbours mean nothing.
"""

from __future__ import annotations

import io
import pickle
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.text import Prose

DIMENSION = 384
FIRST = 1000
M, M0 = 16, 32
RECORD = 4 + 4 * M0 + 4 * DIMENSION + 8
LABEL_AT = RECORD - 8
_SLICE = 20_000
_HEADER = struct.Struct("<iQQQQQQiI")

_BEGIN = """
import sys
import chromadb
import numpy as np
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
collection = client.create_collection(
    "scripts", embedding_function=None,
    configuration={"hnsw": {"sync_threshold": 1000, "batch_size": 100}},
)
vectors = np.random.default_rng(1).standard_normal((1000, 384), dtype=np.float32)
collection.add(
    ids=[f"{n:012d}" for n in range(1, 1001)], embeddings=vectors,
    documents=[f"scene {n}" for n in range(1000)],
    metadatas=[{"episode": n // 10, "scene": n % 10} for n in range(1000)],
)
"""


def build(folder: Path, count: int, seed: int) -> None:
    """Make a folder with `count` records (at least 1000)."""
    # In a process of its own: an embedded client keeps its files open for as long as it lives.
    subprocess.run([sys.executable, "-c", _BEGIN, str(folder)], check=True)
    segment, metadata = _segments(folder)
    _add_rows(folder, metadata, segment, FIRST, count, Prose(seed, 2 << 20))
    random = np.random.default_rng(seed)
    hnsw = folder / segment
    with (hnsw / "data_level0.bin").open("r+b") as file:
        for first in range(0, count, _SLICE):
            file.write(_records(first, min(_SLICE, count - first), count, random).tobytes())
    _finish(hnsw, count, random)


def append(folder: Path, share: float, touched: float, seed: int) -> None:
    """Add `share` new records, which changes links in the part `touched` of the old ones.

    Like Chroma, it rewrites all files in place and the pickle last.
    """
    random = np.random.default_rng(seed)
    segment, metadata = _segments(folder)
    hnsw = folder / segment
    old = _count(hnsw)
    count = old + max(1, int(old * share))
    _add_rows(folder, metadata, segment, old, count, Prose(seed, 2 << 20))
    with (hnsw / "data_level0.bin").open("r+b") as file:
        for first in range(0, old, _SLICE):
            rows = min(_SLICE, old - first)
            file.seek(first * RECORD)
            data = np.frombuffer(file.read(rows * RECORD), np.uint8).reshape(rows, RECORD).copy()
            chosen = np.nonzero(random.random(rows) < touched)[0]
            links = data[:, : 4 + 4 * M0].copy().view("<u4")
            slots = random.integers(1, 1 + M, size=len(chosen))
            links[chosen, slots] = random.integers(old, count, size=len(chosen))
            data[:, : 4 + 4 * M0] = links.view(np.uint8)
            file.seek(first * RECORD)
            file.write(data.tobytes())
        for first in range(old, count, _SLICE):
            file.write(_records(first, min(_SLICE, count - first), count, random).tobytes())
    _finish(hnsw, count, random)


def _segments(folder: Path) -> tuple[str, str]:
    """Ids of the vector and of the metadata segment."""
    database = sqlite3.connect(folder / "chroma.sqlite3")
    try:
        found = dict(database.execute("SELECT scope, id FROM segments"))
        return found["VECTOR"], found["METADATA"]
    finally:
        database.close()


def _count(hnsw: Path) -> int:
    header = _HEADER.unpack_from((hnsw / "header.bin").read_bytes())
    return int(header[3])


def _records(first: int, rows: int, count: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Records `first` to `first + rows`: links, vector, label."""
    data = np.zeros((rows, RECORD), np.uint8)
    links = np.zeros((rows, 1 + M0), "<u4")
    degrees = random.integers(M, M0 + 1, size=rows)
    links[:, 0] = degrees
    targets = random.integers(0, count, size=(rows, M0))
    links[:, 1:] = np.where(np.arange(M0)[None, :] < degrees[:, None], targets, 0)
    data[:, : 4 + 4 * M0] = links.view(np.uint8)
    vectors = random.standard_normal((rows, DIMENSION), dtype=np.float32)
    data[:, 4 + 4 * M0 : LABEL_AT] = vectors.view(np.uint8)
    labels = np.arange(first + 1, first + rows + 1, dtype="<u8")
    data[:, LABEL_AT:] = labels[:, None].view(np.uint8)
    return data


def _finish(hnsw: Path, count: int, random: np.random.Generator) -> None:
    """Header, lengths, upper links and ids for `count` records."""
    levels = np.minimum(random.geometric(1 - 1 / M, size=count) - 1, 5)
    top = int(levels.max())
    # A link on a level may only lead to a record that has this level: hnswlib follows it unasked.
    above = [np.nonzero(levels >= level)[0] for level in range(1, top + 1)]
    parts = []
    for record, level in enumerate(levels):
        parts.append(struct.pack("<I", int(level) * (4 + 4 * M)))
        for there in above[: int(level)]:
            chosen = random.choice(there, size=min(M + 1, len(there)), replace=len(there) > 99)
            others = np.unique(chosen[chosen != record])[:M]
            links = np.zeros(1 + M, "<u4")
            links[0] = len(others)
            links[1 : 1 + len(others)] = others
            parts.append(links.tobytes())
    header = bytearray((hnsw / "header.bin").read_bytes())
    fields = list(_HEADER.unpack_from(header))
    fields[2], fields[3] = int(count * 1.2), count
    fields[7], fields[8] = top, int(levels.argmax())
    _HEADER.pack_into(header, 0, *fields)
    _in_place(hnsw / "header.bin", bytes(header))
    _in_place(hnsw / "length.bin", np.ones(count, "<f4").tobytes())
    _in_place(hnsw / "link_lists.bin", b"".join(parts))
    names = [f"{label:012d}" for label in range(1, count + 1)]
    # As Rust's serde_pickle writes it: protocol 3, nothing memoized.
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 3)
    pickler.fast = True
    pickler.dump(
        {
            "dimensionality": None,
            "total_elements_added": count,
            "max_seq_id": None,
            "id_to_label": {name: label for label, name in enumerate(names, 1)},
            "label_to_id": dict(enumerate(names, 1)),
            "id_to_seq_id": {},
        }
    )
    _in_place(hnsw / "index_metadata.pickle", buffer.getvalue())


def _in_place(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def _add_rows(folder: Path, metadata: str, vector: str, old: int, count: int, prose: Prose) -> None:
    """The rows that Chroma has once records `old` to `count` went through its queue."""
    database = sqlite3.connect(folder / "chroma.sqlite3")
    try:
        with database:
            rows = [(n, prose.piece(prose.size(55))) for n in range(old + 1, count + 1)]
            database.executemany(
                "INSERT INTO embeddings (id, segment_id, embedding_id, seq_id) VALUES (?, ?, ?, ?)",
                ((n, metadata, f"{n:012d}", n) for n, _ in rows),
            )
            for key, column in (("episode", 10), ("scene", 0)):
                database.executemany(
                    "INSERT INTO embedding_metadata (id, key, int_value) VALUES (?, ?, ?)",
                    ((n, key, n // column if column else n % 10) for n, _ in rows),
                )
            database.executemany(
                "INSERT INTO embedding_metadata (id, key, string_value)"
                " VALUES (?, 'chroma:document', ?)",
                rows,
            )
            database.executemany(
                "INSERT INTO embedding_fulltext_search (rowid, string_value) VALUES (?, ?)", rows
            )
            # The queue is purged up to its last row; both segments have seen all of it.
            database.execute(
                "UPDATE embeddings_queue SET seq_id = ?, id = ?"
                " WHERE seq_id = (SELECT max(seq_id) FROM embeddings_queue)",
                (count, f"{count:012d}"),
            )
            for segment in (metadata, vector):
                database.execute(
                    "UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?", (count, segment)
                )
    finally:
        database.close()
