"""Files stored as columns come back byte for byte, and a hostile layout gets nowhere."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.columns import (
    JOIN_SCRIPT,
    LAYOUT_NAME,
    ColumnWriter,
    Layout,
    join,
    load_layout,
    make_layout,
)
from safetake.errors import DamagedError


def split(data: bytes, layout: Layout, parts: Path) -> None:
    """The plainest way to take a file apart: what the fast ways are compared with."""
    parts.mkdir()
    (parts / LAYOUT_NAME).write_bytes(layout.dump())
    for column in layout.columns:
        (parts / column.file).write_bytes(column_bytes(data, layout, column.offset, column.width))
    if layout.tail is not None:
        (parts / layout.tail).write_bytes(data[layout.record * layout.records :])


def column_bytes(data: bytes, layout: Layout, offset: int, width: int) -> bytes:
    starts = range(offset, layout.record * layout.records, layout.record)
    return b"".join(data[at : at + width] for at in starts)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, Layout]:
    widths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    records = draw(st.integers(1, 60))
    tail = draw(st.integers(0, sum(widths) - 1))
    size = sum(widths) * records + tail
    data = random.Random(draw(st.integers(0, 1 << 32))).randbytes(size)
    layout = make_layout(size, sum(widths), [(f"c{i}", w) for i, w in enumerate(widths)])
    assert layout is not None
    return data, layout


@given(files())
@settings(max_examples=60, deadline=None)
def test_join_returns_the_original_bytes(tmp_path_factory: pytest.TempPathFactory, file) -> None:  # type: ignore[no-untyped-def]  # a Hypothesis strategy
    data, layout = file
    folder = tmp_path_factory.mktemp("join")
    split(data, layout, folder / "x.bin.parts")
    assert load_layout(layout.dump()) == layout
    join(folder / "x.bin.parts", folder / "x.bin")
    assert (folder / "x.bin").read_bytes() == data


@given(files(), st.randoms(use_true_random=False), st.integers(1, 500), st.integers(0, 5000))
@settings(max_examples=120, deadline=None)
def test_column_writer_takes_pieces_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    file: tuple[bytes, Layout],
    rng: random.Random,
    cut: int,
    held: int,
) -> None:
    data, layout = file
    pieces = []
    for number, name in enumerate(layout.part_sizes()):
        if name == layout.tail:
            whole = data[layout.record * layout.records :]
        else:
            column = layout.columns[number]
            whole = column_bytes(data, layout, column.offset, column.width)
        pieces += [(number, at, whole[at : at + cut]) for at in range(0, len(whole), cut)]
    rng.shuffle(pieces)
    target = tmp_path_factory.mktemp("scatter") / "out"
    fd = os.open(target, os.O_RDWR | os.O_CREAT)
    try:
        writer = ColumnWriter(fd, layout, held=held)  # little: blocks leave before they are whole
        writer._rows = rng.randint(1, 20)  # many small blocks
        for piece in pieces:
            writer.write(*piece)
            assert writer._held <= held
        writer.finish()
    finally:
        os.close(fd)
    assert target.read_bytes() == data


def test_column_writer_takes_pieces_from_several_threads(tmp_path: Path) -> None:
    rng = random.Random(5)
    data = rng.randbytes(1676 * 20_000 + 11)
    layout = make_layout(len(data), 1676, [("links", 132), ("vectors", 1536), ("labels", 8)])
    assert layout is not None
    pieces = []
    for number, column in enumerate(layout.columns):
        whole = column_bytes(data, layout, column.offset, column.width)
        pieces += [(number, at, whole[at : at + 70_001]) for at in range(0, len(whole), 70_001)]
    pieces.append((3, 0, data[-11:]))
    rng.shuffle(pieces)
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    try:
        writer = ColumnWriter(fd, layout, held=8 << 20)
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda piece: writer.write(*piece), pieces):
                pass
        writer.finish()
        assert not writer._held
    finally:
        os.close(fd)
    assert (tmp_path / "out").read_bytes() == data


def test_column_writer_names_missing_bytes(tmp_path: Path) -> None:
    layout = make_layout(40, 10, [("a", 4), ("b", 6)])
    assert layout is not None
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    try:
        writer = ColumnWriter(fd, layout)
        writer.write(0, 0, bytes(16))
        with pytest.raises(DamagedError, match="missing"):
            writer.finish()
        with pytest.raises(DamagedError, match="past the end"):
            writer.write(0, 10, bytes(7))
    finally:
        os.close(fd)


def test_join_script_joins_a_restored_tree(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(1676 * 5000 + 17)
    place = tmp_path / "vectors" / "segment"
    place.mkdir(parents=True)
    (place / "plain").write_text("left alone")
    (place / "original").write_bytes(data)
    os.utime(place / "original", ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    (place / "original").chmod(0o640)
    stat = (place / "original").stat()
    layout = make_layout(len(data), 1676, [("links", 132), ("vectors", 1536), ("labels", 8)], stat)
    assert layout is not None
    (place / "original").unlink()
    split(data, layout, place / "data_level0.bin.parts")
    script = tmp_path / "join.py"
    script.write_text(JOIN_SCRIPT)
    # a half-finished earlier run, and a trap: neither may be followed or harmed
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (place / "data_level0.bin.joining").symlink_to(outside)
    done = subprocess.run(
        [sys.executable, "-I", script, tmp_path / "vectors"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    joined = place / "data_level0.bin"
    assert joined.read_bytes() == data
    assert joined.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert joined.stat().st_mode == stat.st_mode
    assert sorted(path.name for path in place.iterdir()) == ["data_level0.bin", "plain"]
    assert outside.read_text() == "mine"


BAD = [
    {"version": 2},
    {"size": 41},
    {"size": -1},
    {"size": "40"},
    {"size": True},
    {"record": 0},
    {"records": 0},
    {"records": 3},
    {"record": 5, "records": 8},
    {"columns": []},
    {"columns": None},
    {"columns": [{"file": "0-a", "offset": 0, "width": 10}, {"file": "0-a"}]},
    {"columns": [{"file": "../0-a", "offset": 0, "width": 10}]},
    {"columns": [{"file": "/etc/passwd", "offset": 0, "width": 10}]},
    {"columns": [{"file": "layout.json", "offset": 0, "width": 10}]},
    {"columns": [{"file": "..", "offset": 0, "width": 10}]},
    {"columns": [{"file": "", "offset": 0, "width": 10}]},
    {"columns": [{"file": 7, "offset": 0, "width": 10}]},
    {"columns": [{"file": ["x"], "offset": 0, "width": 10}]},
    {"columns": [{"file": "a", "offset": 1, "width": 9}]},
    {"columns": [{"file": "a", "width": 10}]},
    {"columns": [{"file": "a", "offset": 0, "width": -10}]},
    {"columns": [{"file": "a", "offset": 0, "width": 4}, {"file": "b", "offset": 5, "width": 6}]},
    {"tail": "tail"},
    {"tail": "../tail", "size": 41},
    {"mode": None},
]


@pytest.mark.parametrize("change", BAD, ids=lambda change: json.dumps(change)[:60])
def test_a_layout_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    layout = make_layout(40, 10, [("a", 4), ("b", 6)])
    assert layout is not None
    parts = tmp_path / "x.parts"
    split(bytes(40), layout, parts)
    document = json.loads(layout.dump()) | change
    (parts / LAYOUT_NAME).write_text(json.dumps(document))
    with pytest.raises(DamagedError):
        load_layout(json.dumps(document).encode())
    with pytest.raises(DamagedError):
        join(parts, tmp_path / "x")
    done = subprocess.run(
        [sys.executable, "-I", "-c", JOIN_SCRIPT, tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("join.py: ")
    assert not (tmp_path / "x").exists()
    assert parts.exists()


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"version": 1}'])
def test_bytes_that_are_no_layout_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        load_layout(data)


def test_a_part_of_the_wrong_length_or_a_link_is_refused(tmp_path: Path) -> None:
    layout = make_layout(40, 10, [("a", 4), ("b", 6)])
    assert layout is not None
    parts = tmp_path / "x.parts"
    split(bytes(40), layout, parts)
    (parts / "0-a").write_bytes(bytes(15))
    with pytest.raises(DamagedError, match="16 bytes"):
        join(parts, tmp_path / "x")
    (parts / "0-a").unlink()
    (tmp_path / "secret").write_bytes(bytes(16))
    (parts / "0-a").symlink_to(tmp_path / "secret")
    with pytest.raises(DamagedError, match="16 bytes"):
        join(parts, tmp_path / "x")


def test_a_file_that_does_not_split_is_left_whole() -> None:
    assert make_layout(9, 10, [("a", 10)]) is None
    assert make_layout(100, 10, [("a", 9)]) is None
    assert make_layout(100, 0, []) is None
