"""The restricted unpickler takes what Chroma writes and nothing else."""

from __future__ import annotations

import pickle
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safetake.sources.chroma import hnsw
from safetake.sources.chroma.pickles import BadPickleError, Ids, load_ids, parse_ids


def serde(ids: dict[str, int]) -> bytes:
    """The bytes that Chroma 1.x writes for a map of ids."""

    def text(value: str) -> bytes:
        data = value.encode()
        return b"X" + struct.pack("<I", len(data)) + data

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def table(items: list[bytes]) -> bytes:
        return b"}" + (b"(" + b"".join(items) + b"u" if items else b"")

    return b"".join(
        [
            b"\x80\x03}(",
            text("dimensionality") + b"N",
            text("total_elements_added") + number(len(ids)),
            text("max_seq_id") + b"N",
            text("id_to_label") + table([text(k) + number(v) for k, v in ids.items()]),
            text("label_to_id") + table([number(v) + text(k) for k, v in ids.items()]),
            text("id_to_seq_id") + b"}u.",
        ]
    )


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), unique=True, max_size=30))
@settings(deadline=None)
def test_what_chroma_writes_is_read(names: list[str]) -> None:
    ids = {name: number for number, name in enumerate(names, 1)}
    data = serde(ids)
    found = parse_ids(data)
    assert found == Ids(ids, {v: k for k, v in ids.items()}, len(ids), None, None)
    assert hnsw.pickle_total(data) == len(ids)
    assert hnsw.pickle_ends(data, data[-64:])
    assert hnsw.pickle_empty(data) is (not ids)


def test_the_object_of_chroma_0x_becomes_an_inert_bag(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parent / "chroma-0.6.3.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    golden = sorted(tmp_path.glob("*/" + hnsw.PICKLE))
    found = load_ids(golden[0])
    assert (len(found.label_of), found.total, found.dimension) == (40, 40, 4)
    data = golden[0].read_bytes()
    assert hnsw.pickle_total(data) == 40
    assert hnsw.pickle_ends(data, data[-64:])


@given(st.data())
@settings(deadline=None)
def test_a_torn_pickle_never_passes(data: st.DataObject) -> None:
    whole = serde({f"id{n}": n for n in range(1, 40)})
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert not hnsw.pickle_ends(whole[:cut], whole[:cut][-64:])
    with pytest.raises(BadPickleError):
        parse_ids(whole[:cut])


EVIL = [
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    b"\x80\x02X\xff\xff\xff\x7fabc.",  # a string of 2 GB in 10 bytes
    b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x00.",
    b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00.",
    b"\x80\x02}r\xff\xff\xff\x07.",  # a memo of 134 million places
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"P1\n.",
    b"\x80\x02K\x01Q.",
    b"(" * 200_000,
    b"]" + b"]a" * 5_000 + b".",
    b"\x80\x02\x8a\x01\x05.",
    b"N.",
    b"}.",
    b"",
    b"\x80\x63.",
    pickle.dumps({"id_to_label": {"a": "1"}, "label_to_id": {}, "total_elements_added": 0}),
    pickle.dumps({"id_to_label": {"a": 1}, "label_to_id": {2: "a"}, "total_elements_added": 1}),
    pickle.dumps({"id_to_label": {"a": 1}, "label_to_id": {1: "b"}, "total_elements_added": 1}),
    pickle.dumps({"id_to_label": [], "label_to_id": [], "total_elements_added": 1}),
    serde({}) + b"more",
]


@pytest.mark.parametrize("data", EVIL, ids=range(len(EVIL)))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(BadPickleError):
        parse_ids(data)


@given(st.binary(max_size=200))
@example(b"\x80\x04\x95")
@settings(max_examples=400, deadline=None)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(BadPickleError):
        parse_ids(data)
    hnsw.pickle_total(data)
    hnsw.pickle_ends(data, data[-64:])


@given(st.binary(max_size=140))
@settings(max_examples=300, deadline=None)
def test_a_header_is_sound_or_refused(data: bytes) -> None:
    header = hnsw.parse_header(data)
    assert header is None or sum(width for _, width in header.widths) == header.record
