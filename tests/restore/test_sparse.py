"""Holes: the bytes are the same, and blocks of zeros take no room."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetake.restore.sparse import BLOCK, write_sparse

RUNS = st.lists(
    st.tuples(
        st.booleans(), st.one_of(st.integers(0, 3 * BLOCK), st.integers(0, 4).map(BLOCK.__mul__))
    ),
    max_size=8,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=RUNS, cuts=st.lists(st.integers(0, 30_000), max_size=5))
def test_the_bytes_are_the_same_however_they_are_cut(
    tmp_path: Path, runs: list[tuple[bool, int]], cuts: list[int]
) -> None:
    whole = b"".join(bytes([zero is False]) * length for zero, length in runs)
    path = tmp_path / "file"
    with path.open("w+b") as file:
        os.ftruncate(file.fileno(), len(whole))
        places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
        for begin, end in pairwise(places):
            write_sparse(file.fileno(), bytearray(whole[begin:end]), begin)
    assert path.read_bytes() == whole
    path.unlink()


@pytest.mark.parametrize(
    ("data", "written"),
    [
        (bytes(8 * BLOCK), []),
        (b"x" + bytes(2 * BLOCK) + b"x", [(0, BLOCK), (2 * BLOCK, 2)]),
        (bytes(BLOCK - 1), [(0, BLOCK - 1)]),
        (b"x" * 2 * BLOCK, [(0, 2 * BLOCK)]),
        (bytes(BLOCK) + b"x" * BLOCK + bytes(BLOCK), [(BLOCK, BLOCK)]),
    ],
    ids=["zeros", "in between", "less than a block", "no zeros", "around"],
)
def test_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, written: list[tuple[int, int]]
) -> None:
    seen: list[tuple[int, int]] = []

    def pwrite(_fd: int, view: memoryview, at: int) -> int:
        seen.append((at, len(view)))
        return len(view)

    monkeypatch.setattr(os, "pwrite", pwrite)
    write_sparse(-1, data, 0)
    assert seen == written
