"""A copy in pieces is the file, the first time and after any change, and stores what changed."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.columns import join
from safetake.sources.chroma import hnsw, pieces
from safetake.sources.chroma.nodes import copy_nodes
from safetake.sources.chroma.pieces import FileCopy, SpoolSink, WriterSink, copy_file
from safetake.sources.chroma.segments import at_rest, copy_segment, scan
from safetake.sources.chroma.spool import Spool
from tests.support.memory_writer import MemoryRepository, materialise


def header(dimension: int, count: int) -> hnsw.Header:
    record = 132 + 4 * dimension + 8
    return hnsw.Header(count, count, record, record - 8, 132, 1, 0, 32, 16)


def back(repository: MemoryRepository, copy: FileCopy, spool: Spool, place: Path) -> bytes:
    """The bytes of a copied data_level0.bin, by way of the tree."""
    node, _ = copy_nodes(hnsw.DATA, copy, spool, repository)
    folder = repository.save_tree([node])
    from safetake.model import Node

    shutil.rmtree(place, ignore_errors=True)
    materialise(repository, Node("x", "dir", 0o40700, subtree=folder), place)
    if copy.layout is not None:
        join(place / (hnsw.DATA + ".parts"), place / hnsw.DATA)
    return (place / hnsw.DATA).read_bytes()


@given(
    dimension=st.integers(1, 60),
    count=st.integers(0, 900),
    tail=st.integers(0, 150),
    blob=st.sampled_from([512, 4096, 20_000]),
    threads=st.integers(1, 2),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=40, deadline=None)
def test_a_copy_is_the_file_before_and_after_a_change(
    tmp_path_factory: pytest.TempPathFactory,
    dimension: int,
    count: int,
    tail: int,
    blob: int,
    threads: int,
    seed: int,
) -> None:
    place, rng = tmp_path_factory.mktemp("pieces"), random.Random(seed)
    kept = pieces.COLUMN_BLOB_BYTES
    pieces.COLUMN_BLOB_BYTES = blob
    head = header(dimension, count)
    path = place / hnsw.DATA
    path.write_bytes(rng.randbytes(count * head.record + tail))
    spool = Spool(place, memory_bytes=rng.choice([0, 5000, 1 << 20]))
    try:
        with MemoryRepository() as repository:
            first = copy_file(path, WriterSink(repository), header=head)
            assert back(repository, first, spool, place / "one") == path.read_bytes()
            data = bytearray(path.read_bytes())
            for _ in range(rng.randint(0, 3) if data else 0):
                data[rng.randrange(len(data))] ^= 0xFF
            data += rng.randbytes(rng.randint(0, 3 * head.record))
            path.write_bytes(data)
            second = copy_file(path, SpoolSink(spool), before=first, header=head, threads=threads)
            changed = sum(piece.place is not None for piece in second.pieces.values())
            assert changed <= 4 * 3 + 3 * 4 + 2 or blob == 512
            assert back(repository, second, spool, place / "two") == bytes(data)
    finally:
        pieces.COLUMN_BLOB_BYTES = kept
        spool.close()
    assert not (place / "hnsw.spool").exists()


def segment(place: Path, ages: dict[str, float]) -> Path:
    """A folder of segment files that were modified so many seconds ago."""
    place.mkdir()
    now = time.time_ns()
    for name, age in ages.items():
        (place / name).write_bytes(b"x" * 100)
        at = now - int(age * 1e9)
        os.utime(place / name, ns=(at, at))
    return place


OLD = dict.fromkeys(hnsw.FILES, 100.0)


@pytest.mark.parametrize(
    ("ages", "rest"),
    [
        ({}, True),
        (OLD, True),
        ({**OLD, hnsw.PICKLE: 200.0}, True),  # unpacked in any order, long ago
        ({**OLD, hnsw.HEADER: 1.0}, False),  # a persist has begun
        ({**OLD, hnsw.HEADER: 1.0, hnsw.PICKLE: 0.5}, True),
        ({**OLD, hnsw.PICKLE: 0.001}, False),  # the pickle may still be growing
        ({hnsw.HEADER: 1.0, hnsw.DATA: 1.0, hnsw.LENGTH: 1.0, hnsw.LINKS: 1.0}, False),
        ({**OLD, "notes.txt": 0.0}, True),
    ],
)
def test_files_are_at_rest_when_no_persist_can_be_half_way(
    tmp_path: Path, ages: dict[str, float], rest: bool
) -> None:
    now = time.time_ns()
    stats, _ = scan(segment(tmp_path / "segment", ages))
    assert (at_rest(stats, now) == 0) is rest


def test_a_folder_that_is_not_there_is_an_empty_segment(tmp_path: Path) -> None:
    with MemoryRepository() as repository:
        copy = copy_segment(tmp_path / "none", None, lambda: WriterSink(repository))
    assert (copy.complete, copy.files, copy.persisted) == (True, {}, False)
    assert copy.serves(None, None)
    assert not copy.serves(7, None)
