"""Sealing, packs, compression, times and polynomials: what one piece of the format promises."""

from __future__ import annotations

import contextlib
import os
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.clock import go_time, parse_go_time
from safetake.errors import DamagedError
from safetake.model import MAX_BLOB_BYTES
from safetake.repository.codec import (
    compress,
    decode_unpacked,
    decompress,
    encode_unpacked,
)
from safetake.repository.crypto import OVERHEAD, MasterKey, Sealer
from safetake.repository.pack import (
    MAX_HEADER_BYTES,
    PACK_BLOBS,
    Entry,
    decode_header,
    encode_header,
    header_length,
)
from safetake.repository.polynomial import DEGREE, irreducible, random_polynomial

KEY = MasterKey(bytes(range(32)), bytes(range(16)), bytes(range(16, 32)))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_what_was_sealed_is_unsealed(plains: list[bytes]) -> None:
    sealer, other = Sealer(KEY), Sealer(KEY)
    for plain, sealed in zip(plains, sealer.seal_all(plains), strict=True):
        assert len(sealed) == len(plain) + OVERHEAD
        assert other.unseal(sealed, "it") == plain
        assert other.unseal(memoryview(bytes(sealed)), "it") == plain


@given(st.binary(max_size=60), st.data())
def test_every_wrong_bit_and_length_is_noticed(plain: bytes, data: st.DataObject) -> None:
    sealed = Sealer(KEY).seal(plain)
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    wrong = bytearray(sealed)
    wrong[bit // 8] ^= 1 << bit % 8
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    for bad in (wrong, cut, sealed + b"\0"):
        with pytest.raises(DamagedError, match="the box is"):
            Sealer(KEY).unseal(bad, "the box")


def test_the_same_plaintext_is_never_sealed_alike() -> None:
    sealer = Sealer(KEY)
    assert len({bytes(sealer.seal(b"x")) for _ in range(100)}) == 100


def test_another_key_does_not_open_it() -> None:
    sealed = Sealer(KEY).seal(b"secret")
    with pytest.raises(DamagedError):
        Sealer(MasterKey.generate()).unseal(sealed, "it")


def test_a_key_is_not_in_its_repr() -> None:
    assert repr(MasterKey.generate()) == "MasterKey()"
    with pytest.raises(DamagedError):
        MasterKey(b"", b"", b"")


# packs

entries = st.lists(
    st.tuples(
        st.binary(min_size=32, max_size=32),
        st.booleans(),
        st.integers(OVERHEAD, 1 << 24),
        st.integers(0, MAX_BLOB_BYTES),
    ),
    min_size=1,
    max_size=8,
)


def laid_out(rows: list[tuple[bytes, bool, int, int]]) -> list[Entry]:
    """Entries one after the other."""
    placed, at = [], 0
    for blob_id, tree, length, plain in rows:
        placed.append(Entry(blob_id, tree, at, length, plain))
        at += length
    return placed


@given(entries)
def test_a_header_comes_back(rows: list[tuple[bytes, bool, int, int]]) -> None:
    placed = laid_out(rows)
    end = encode_header(placed, Sealer(KEY))
    size = placed[-1].offset + placed[-1].length + len(end)
    length = header_length(end[-4:], size, "pack")
    assert length == len(end) - 4
    assert decode_header(end[:-4], size, Sealer(KEY), "pack") == placed
    for wrong in (size - 1, size + 1):
        with pytest.raises(DamagedError, match="pack is damaged"):
            decode_header(end[:-4], wrong, Sealer(KEY), "pack")


@given(st.binary(max_size=200))
def test_any_plain_header_is_read_or_refused(plain: bytes) -> None:
    sealed = Sealer(KEY).seal(plain)
    with contextlib.suppress(DamagedError):
        decode_header(bytes(sealed), len(sealed) + 4, Sealer(KEY), "pack")


@pytest.mark.parametrize("tail", [b"", b"\0", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x20\0\0\0"])
def test_an_impossible_header_length_is_damage(tail: bytes) -> None:
    with pytest.raises(DamagedError):
        header_length(tail, 1 << 30, "pack")
    with pytest.raises(DamagedError):
        header_length(struct.pack("<I", 1000), 900, "pack")


def test_the_header_of_a_pack_full_of_tiny_blobs_is_short_enough_for_restic() -> None:
    batch = 1 << 18  # 1 MiB in the smallest chunks that can all differ in such numbers, 4 bytes
    assert (PACK_BLOBS + batch) * 41 + OVERHEAD + 4 < MAX_HEADER_BYTES


# compression


@given(st.binary(max_size=3000))
def test_what_was_compressed_is_decompressed(plain: bytes) -> None:
    assert decompress(compress(plain), len(plain), "it") == plain
    assert decode_unpacked(encode_unpacked(plain), "it") == plain


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_a_frame_longer_than_declared_is_refused(plain: bytes, data: st.DataObject) -> None:
    packed = compress(plain)
    with pytest.raises(DamagedError, match="it is damaged"):
        decompress(packed, data.draw(st.integers(0, len(plain) - 1)), "it")
    for bad in (packed + b"x", packed + packed, packed[:-1]):
        with pytest.raises(DamagedError, match="it is damaged"):
            decompress(bad, 10_000, "it")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_damage(packed: bytes) -> None:
    with contextlib.suppress(DamagedError):
        decompress(packed, 1000, "it")
    with contextlib.suppress(DamagedError):
        decode_unpacked(packed, "it")


def test_a_bomb_costs_no_more_than_it_declares() -> None:
    bomb = compress(bytes(200 << 20))
    assert len(bomb) < 1 << 20
    with pytest.raises(DamagedError, match="larger than the 1000 bytes"):
        decompress(bomb, 1000, "it")


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x02", b"\x02{", b"x", b"\x00{}"])
def test_an_unknown_unpacked_file_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedError, match="index/ab is damaged"):
        decode_unpacked(data, "index/ab")


def test_plain_json_is_known_by_its_first_byte() -> None:
    assert decode_unpacked(b'{"a":1}', "it") == b'{"a":1}'
    assert decode_unpacked(b"[]", "it") == b"[]"


# times


@given(st.integers(-62135596800 * 10**9, 253402300799 * 10**9))
def test_a_time_comes_back(ns: int) -> None:
    text = go_time(ns)
    assert parse_go_time(text) == ns
    assert len(text.split(".")[0].rstrip("Z")) == 19


@given(st.integers(-62135596800, 253402300799 - 86400), st.integers(-839, 839))
def test_a_time_of_another_zone_is_the_same_moment(seconds: int, minutes: int) -> None:
    seconds = max(seconds, -62135596800 + 86400)
    local = go_time((seconds + minutes * 60) * 10**9).removesuffix("Z")
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    assert parse_go_time(local + zone) == seconds * 10**9


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (-62135596800 * 10**9, "0001-01-01T00:00:00Z"),
        (253402300799 * 10**9, "9999-12-31T23:59:59Z"),
        (1 << 80, "9999-12-31T23:59:59Z"),
        (-(1 << 80), "0001-01-01T00:00:00Z"),
        (4102444800 * 10**9, "2100-01-01T00:00:00Z"),
    ],
)
def test_known_times(ns: int, text: str) -> None:
    assert go_time(ns) == text


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_go_time(text), int)


# the chunker's polynomial


def slow_irreducible(polynomial: int) -> bool:
    """By the definition: no factor of half the degree or less (small degrees only)."""
    half = (polynomial.bit_length() - 1) // 2
    return not any(_remainder(polynomial, factor) == 0 for factor in range(2, 1 << (half + 1)))


def _remainder(a: int, b: int) -> int:
    while a.bit_length() >= b.bit_length():
        a ^= b << (a.bit_length() - b.bit_length())
    return a


def test_known_polynomials_are_judged_rightly() -> None:
    # from restic's design document, and from repositories that restic made
    for polynomial in (0x3DA3358B4DC173, 0x25B468838DCB75):
        assert irreducible(polynomial)
    assert not irreducible(0x3DA3358B4DC173 ^ 2)
    assert not irreducible(1 << DEGREE)
    assert not irreducible(0x25B468838DCB75 << 1)
    assert not irreducible(0x25B468838DCB75 >> 1)
    assert not irreducible(0)
    assert slow_irreducible(0b111)
    assert not slow_irreducible(0b101)


@given(st.integers(2, 1 << 20))
def test_a_product_is_never_irreducible(factor: int) -> None:
    other = random.Random(factor).getrandbits(DEGREE + 1 - factor.bit_length()) | 1
    other |= 1 << (DEGREE + 1 - factor.bit_length())
    product = 0
    for bit in range(factor.bit_length()):
        if factor >> bit & 1:
            product ^= other << bit
    assert product.bit_length() == DEGREE + 1
    assert not irreducible(product)


def test_random_polynomials_have_no_small_factor() -> None:
    found = {random_polynomial() for _ in range(5)}
    assert len(found) == 5
    for polynomial in found:
        assert polynomial.bit_length() == DEGREE + 1
        assert all(_remainder(polynomial, factor) for factor in range(2, 1 << 12))


def test_derived_keys_differ_by_purpose_and_key() -> None:
    other = MasterKey(os.urandom(32), KEY.mac_k, KEY.mac_r)
    assert len({KEY.derive(b"one"), KEY.derive(b"two"), other.derive(b"one")}) == 3
