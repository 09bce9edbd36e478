"""The log's parser against a slow model, and against damage: a clear error, or the right pages."""

from __future__ import annotations

import os
import random
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.errors import SourceError
from safetake.sources.sqlite import chunks, rawfile, wal

PAGE = 512


def make_log(frames: list[tuple[int, int]], page_size: int = PAGE, big: bool = False) -> bytes:
    """A log with (page number, commit size) frames; frame n is filled with byte n."""
    salts = (0x11223344, 0x55667788)
    magic = 0x377F0683 if big else 0x377F0682
    head = struct.pack(">6I", magic, 3007000, page_size, 0, *salts)
    sums = wal.checksum(head, big)
    log = bytearray(head + struct.pack(">2I", *sums))
    for number, (page, commit) in enumerate(frames, start=1):
        body = bytes([number % 256]) * page_size
        front = struct.pack(">2I", page, commit)
        sums = wal.checksum(front + body, big, sums)
        log += front + struct.pack(">2I", *salts) + struct.pack(">2I", *sums) + body
    return bytes(log)


def index(log: bytes, mx_frame: int, pages: int) -> dict[int, int]:
    """Page to frame, through the real reader."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "db-wal"
        path.write_bytes(log)
        with rawfile.opened(path) as raw:
            header = wal.parse_wal_header(rawfile.read(raw, 32, 0), "db-wal")
            table = wal.read_index(raw, header, mx_frame, pages, Path(name))
            try:
                found = {page: frame for page, frame in enumerate(table.frames) if frame}
                assert table.pages == len(found)
                return found
            finally:
                table.close()


pages_written = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(pages_written, st.integers(1, 40), st.booleans())
def test_the_last_frame_of_each_page_wins(written: list[int], pages: int, big: bool) -> None:
    frames = [(page, 0) for page in written[:-1]] + [(written[-1], pages)]
    model = {page: number for number, page in enumerate(written, start=1) if page <= pages}
    assert index(make_log(frames, big=big), len(frames), pages) == model


@given(pages_written, pages_written)
def test_frames_after_the_cut_are_not_looked_at(cut: list[int], later: list[int]) -> None:
    frames = [(page, 40) for page in cut] + [(page, 0) for page in later]
    model = {page: number for number, page in enumerate(cut, start=1)}
    assert index(make_log(frames), len(cut), 40) == model
    short = make_log(frames)[: 32 + len(cut) * (24 + PAGE)]
    assert index(short, len(cut), 40) == model


@given(pages_written, st.data())
def test_a_shortened_log_is_an_error(written: list[int], data: st.DataObject) -> None:
    log = make_log([(page, 40) for page in written])
    length = data.draw(st.integers(0, len(log) - 1))
    with pytest.raises(SourceError, match="cut short"):
        index(log[:length], len(written), 40)


@given(st.integers(0, 32 * 8 - 1))
def test_a_flipped_bit_in_the_header_is_an_error(bit: int) -> None:
    log = bytearray(make_log([(1, 3), (2, 3)]))
    log[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SourceError):
        index(bytes(log), 2, 3)


@given(pages_written, st.data())
def test_a_flipped_bit_in_a_salt_is_an_error(written: list[int], data: st.DataObject) -> None:
    log = bytearray(make_log([(page, 40) for page in written]))
    frame = data.draw(st.integers(0, len(written) - 1))
    bit = data.draw(st.integers(0, 63))
    log[32 + frame * (24 + PAGE) + 8 + bit // 8] ^= 1 << bit % 8
    with pytest.raises(SourceError, match="not of this log"):
        index(bytes(log), len(written), 40)


@given(st.binary(max_size=200))
def test_garbage_is_an_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(SourceError):
        wal.parse_wal_header(data, "db-wal")


def test_a_cut_that_does_not_end_in_its_commit_is_an_error() -> None:
    with pytest.raises(SourceError, match="should commit 3 pages"):
        index(make_log([(1, 3), (2, 0)]), 2, 3)
    with pytest.raises(SourceError, match="should commit 4 pages"):
        index(make_log([(1, 3), (2, 3)]), 2, 4)


def test_a_long_log_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "_READ_BYTES", 3 * (24 + PAGE))
    chooser = random.Random(7)
    written = [chooser.randrange(1, 100) for _ in range(1000)]
    log = make_log([(page, 100) for page in written])
    assert index(log, 1000, 100) == {page: n for n, page in enumerate(written, start=1)}


def test_a_large_table_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wal, "_TABLE_IN_MEMORY", 10)
    assert index(make_log([(5, 0), (900, 1000)]), 2, 1000) == {5: 1, 900: 2}


@pytest.mark.parametrize("page_size", [512, 1024, 65536])
def test_frame_offsets(page_size: int) -> None:
    log = make_log([(1, 2), (2, 2)], page_size)
    for frame in (1, 2):
        start = wal.frame_offset(frame, page_size)
        assert log[start : start + page_size] == bytes([frame]) * page_size


@given(st.lists(st.integers(1, 40), min_size=1, max_size=120), st.integers(1, 5))
def test_the_overlay_is_what_a_checkpoint_would_leave(written: list[int], run: int) -> None:
    main = bytes(40 * PAGE)
    model = bytearray(main)
    for number, page in enumerate(written, start=1):
        model[(page - 1) * PAGE : page * PAGE] = bytes([number]) * PAGE
    with (
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(chunks, "_RUN", run)
        path = Path(name) / "db-wal"
        path.write_bytes(make_log([(page, 40) for page in written]))
        with rawfile.opened(path) as raw:
            header = wal.parse_wal_header(rawfile.read(raw, 32, 0), "db-wal")
            table = wal.read_index(raw, header, len(written), 40, Path(name))
            laid = bytearray(main)
            for offset in range(0, len(laid), 16 * PAGE):
                with memoryview(laid)[offset : offset + 16 * PAGE] as view:
                    chunks.overlay(raw, table, PAGE)(view, offset)
            table.close()
    assert laid == model


def test_a_log_cut_short_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "db-wal"
    path.write_bytes(make_log([(1, 2), (2, 2)]))
    with rawfile.opened(path) as raw:
        header = wal.parse_wal_header(rawfile.read(raw, 32, 0), "db-wal")
        table = wal.read_index(raw, header, 2, 2, tmp_path)
        os.truncate(path, 600)
        with pytest.raises(SourceError, match="cut short"):
            chunks.overlay(raw, table, PAGE)(memoryview(bytearray(2 * PAGE)), 0)
        table.close()
