"""How a database is cut, and when a fingerprint may be believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.errors import DamagedError
from safetake.model import BATCH_BYTES
from safetake.sources.sqlite import rawfile
from safetake.sources.sqlite.chunks import batches, chunk_bytes, cut, store_file
from safetake.sources.sqlite.fingerprint import RACY_NS, fingerprint, unchanged
from safetake.sources.sqlite.header import Header
from safetake.sources.sqlite.stored import LiveFirst
from tests.support.memory_writer import MemoryRepository

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
page_sizes = st.sampled_from([512 << n for n in range(8)])


@pytest.mark.parametrize(
    ("size", "before", "chunk"),
    [
        (1 * MIB, None, 16 * KIB),
        (63 * MIB, None, 16 * KIB),
        (64 * MIB, None, 64 * KIB),
        (1 * GIB, None, 64 * KIB),
        (8 * GIB, None, 256 * KIB),
        (100 * GIB, None, 1 * MIB),
        (100 * MIB, 16 * KIB, 16 * KIB),  # grown a little past its step: kept
        (128 * MIB, 16 * KIB, 64 * KIB),
        (40 * MIB, 64 * KIB, 64 * KIB),  # shrunk a little below: kept
        (30 * MIB, 64 * KIB, 16 * KIB),
        (10 * GIB, 1 * MIB, 1 * MIB),
        (7 * GIB, 1 * MIB, 64 * KIB),
        (1 * GIB, 12345, 64 * KIB),  # a parent of another make
    ],
)
def test_chunk_length_follows_the_size(size: int, before: int | None, chunk: int) -> None:
    assert chunk_bytes(size, 4096, before) == chunk


@given(st.integers(0, 10**13), page_sizes, st.sampled_from([None, 16 * KIB, 64 * KIB, MIB]))
def test_chunks_are_whole_pages_that_fit_a_buffer(
    size: int, page_size: int, before: int | None
) -> None:
    chunk = chunk_bytes(size, page_size, before)
    assert chunk % page_size == 0
    assert BATCH_BYTES % chunk == 0


@given(st.integers(0, 5 * BATCH_BYTES), st.sampled_from([16 * KIB, 64 * KIB, MIB]))
def test_batches_cover_the_file_once(total: int, chunk: int) -> None:
    position = 0
    for offset, length in batches(total, chunk):
        assert offset == position
        assert sum(cut(length, chunk)) == length <= BATCH_BYTES
        position += length
    assert position == total


@pytest.mark.parametrize("length", [1, 16 * KIB, 3 * MIB + 512])
def test_a_file_is_stored_and_zeros_stand_for_what_is_past_its_end(
    tmp_path: Path, length: int
) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(os.urandom(length))
    total = length + 2 * MIB
    seen: list[int] = []
    with rawfile.opened(path) as raw, MemoryRepository() as repository:
        ids = store_file(repository, raw, total, 16 * KIB, seen.append)
        data = b"".join(repository.blob(blob_id) for blob_id in ids)
    assert data == path.read_bytes() + bytes(2 * MIB)
    assert seen[-1] == total


def test_live_first_returns_what_is_stored_and_asks_the_repository_only_for_the_rest(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(os.urandom(100 * KIB))
    stored = path.read_bytes()
    with rawfile.opened(path) as raw, MemoryRepository() as repository:
        ids = store_file(repository, raw, len(stored), 16 * KIB, lambda done: None)
        with path.open("r+b") as file:
            file.seek(20 * KIB)
            file.write(b"moved on")
        reader = LiveFirst(repository, raw, ids, 16 * KIB, len(stored))
        assert b"".join(reader.blob(blob_id) for blob_id in ids) == stored
        assert sum(reader.sizes(ids)) == len(stored)
        assert repository.fetched == [ids[1]]
        with pytest.raises(DamagedError):
            LiveFirst(None, raw, ids, 16 * KIB, len(stored)).blob(ids[1])


def test_a_fingerprint_is_believed_when_every_field_agrees_and_it_is_old_enough(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"x")
    header = Header(4096, True, 3, 1)
    first = fingerprint(path.stat(), header, ("aabb", 7))
    later = fingerprint(path.stat(), header, ("aabb", 7))
    assert not unchanged(first, later)  # taken in the same moment as the write
    first["taken_ns"] = first["mtime_ns"] + RACY_NS
    assert unchanged(first, later)
    assert not unchanged({}, later)
    for key in later:
        if key != "taken_ns":
            assert not unchanged(first, later | {key: "other"}), key
