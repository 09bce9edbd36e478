"""Index and digests: the sorted tables answer as plain dicts would, and survive foreign files."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.errors import DamagedError
from safetake.repository import digests as digests_module
from safetake.repository.crypto import MasterKey, Sealer
from safetake.repository.digests import DIGEST_BYTES, BlobDigest, Digests, Hasher
from safetake.repository.index import Index, encode_index
from safetake.repository.pack import Entry
from safetake.storage import LocalStorage
from tests.support.repositories import memory_folder

# few different beginnings, so that buckets and neighbours are met
ids = st.builds(
    lambda head, rest, tail: bytes([0, head]) + bytes([rest]) * 29 + bytes([tail]),
    st.integers(0, 2), st.sampled_from([0, 255]), st.integers(0, 5),
)  # fmt: skip
wide_ids = st.one_of(ids, st.binary(min_size=32, max_size=32))
blobs = st.tuples(wide_ids, st.booleans(), st.integers(32, 1 << 23), st.integers(0, 1 << 23))
packs = st.lists(
    st.tuples(st.binary(min_size=32, max_size=32).map(bytes.hex), st.lists(blobs, max_size=8)),
    max_size=5,
    unique_by=lambda pack: pack[0],
)


def laid_out(pack: list[tuple[bytes, bool, int, int]]) -> list[Entry]:
    placed, at = [], 0
    for blob_id, tree, length, plain in pack:
        placed.append(Entry(blob_id, tree, at, length, plain))
        at += length
    return placed


@settings(max_examples=30)
@given(packs, packs, st.lists(wide_ids, max_size=5))
def test_the_index_answers_as_a_dict(
    loaded: list[tuple[str, list[tuple[bytes, bool, int, int]]]],
    added: list[tuple[str, list[tuple[bytes, bool, int, int]]]],
    others: list[bytes],
) -> None:
    index = Index()
    model: dict[tuple[bytes, bool], set[tuple[str, Entry]]] = {}
    by_pack: dict[str, list[Entry]] = {}
    for name, pack in loaded:  # each in an index file of its own
        index.load("name", encode_index([(name, laid_out(pack))], ["00" * 32]))
    index.freeze()
    for name, pack in added:
        index.add(name, laid_out(pack))
    for name, pack in loaded + added:
        by_pack.setdefault(name, [])
        for entry in laid_out(pack):
            model.setdefault((entry.id, entry.tree), set()).add((name, entry))
            by_pack[name].append(entry)
    assert len(index) == sum(map(len, by_pack.values()))
    for blob_id in [*others, *(found[0] for found in model)]:
        for tree in (False, True):
            wanted = model.get((blob_id, tree), set())
            assert set(index.locations(blob_id, tree)) == wanted
            assert index.has(blob_id, tree) == bool(wanted)
    for name, entries in index.packs().items():
        assert sorted(entries, key=lambda e: e.offset) == sorted(
            by_pack[name], key=lambda e: e.offset
        )


GOOD = {"id": "ab" * 32, "type": "data", "offset": 0, "length": 100}


@pytest.mark.parametrize(
    "document",
    [
        5, [], {}, None, {"packs": 5}, {"packs": [5]}, {"packs": [{}]},
        {"packs": [{"id": "zz", "blobs": []}]},
        {"packs": [{"id": "ab", "blobs": []}]},
        {"packs": [{"id": "ab" * 32}]},
        *({"packs": [{"id": "ab" * 32, "blobs": [blob]}]} for blob in (
            5, {}, {**GOOD, "id": "ab"}, {**GOOD, "type": "other"}, {**GOOD, "offset": -1},
            {**GOOD, "offset": 1 << 32}, {**GOOD, "offset": 0.5}, {**GOOD, "length": 5},
            {**GOOD, "length": 1 << 31}, {**GOOD, "length": "5"}, {**GOOD, "length": None},
            {**GOOD, "uncompressed_length": -1}, {**GOOD, "uncompressed_length": 1 << 24},
        )),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_index_is_damage(document: object) -> None:
    with pytest.raises(DamagedError, match="index/ab is damaged"):
        Index().load("ab", json.dumps(document).encode())


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[" * 100_000, b'{"packs":' * 60_000])
def test_what_is_no_json_is_damage(content: bytes) -> None:
    with pytest.raises(DamagedError, match="index/ab is damaged"):
        Index().load("ab", content)


# digests

KEY = MasterKey(bytes(32), bytes(16), bytes(range(16)))
digests = st.one_of(
    st.builds(
        lambda head, tail: bytes([0, head]) + bytes(DIGEST_BYTES - 3) + bytes([tail]),
        st.integers(0, 2), st.integers(0, 5),
    ),
    st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES),
)  # fmt: skip
pairs = st.dictionaries(digests, st.binary(min_size=32, max_size=32), max_size=12)


@pytest.fixture(scope="module")
def storage() -> Iterator[LocalStorage]:
    with memory_folder() as base:
        made = LocalStorage(base / "repository")
        made.create()
        yield made


def empty(storage: LocalStorage) -> None:
    for name, _ in list(storage.list("digests")):
        storage.remove("digests", name)


def loaded(storage: LocalStorage, key: MasterKey = KEY) -> Digests:
    table = Digests(storage, key)
    table.load()
    return table


@settings(max_examples=30)
@given(known=pairs, fresh=pairs, others=st.lists(digests, max_size=5))
def test_digests_answer_as_a_dict(
    storage: LocalStorage, known: dict[bytes, bytes], fresh: dict[bytes, bytes], others: list[bytes]
) -> None:
    empty(storage)
    first = loaded(storage)
    for digest, blob_id in known.items():
        first.add(digest, blob_id)
    first.save()
    second = loaded(storage)
    for digest, blob_id in fresh.items():
        if digest not in known:
            second.add(digest, blob_id)
    second.save()
    model = {**fresh, **known}
    for table in (second, loaded(storage)):
        for digest in [*model, *others]:
            assert table.find(digest) == model.get(digest)
    assert len(loaded(storage)) == len(model)


def test_many_files_are_merged_and_nothing_is_lost(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests_module, "MERGE_FILES", 3)
    empty(storage)
    for number in range(10):
        table = loaded(storage)
        table.add(bytes([number]) * DIGEST_BYTES, bytes([number]) * 32)
        table.save()
        assert len(list(storage.list("digests"))) <= 4
    table = loaded(storage)
    assert all(
        table.find(bytes([number]) * DIGEST_BYTES) == bytes([number]) * 32 for number in range(10)
    )


def test_nothing_new_writes_no_file(storage: LocalStorage) -> None:
    empty(storage)
    loaded(storage).save()
    assert list(storage.list("digests")) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage" * 20,
        bytes(Sealer(MasterKey.generate()).seal(b"\x01")),
        bytes(Sealer(KEY).seal(b"")),
        bytes(Sealer(KEY).seal(b"\x02" + bytes(DIGEST_BYTES + 32))),
        bytes(Sealer(KEY).seal(b"\x01" + bytes(DIGEST_BYTES + 31))),
    ],
    ids=["empty", "garbage", "other key", "nothing", "version", "cut record"],
)
def test_a_damaged_file_is_remembered_and_not_used(storage: LocalStorage, content: bytes) -> None:
    empty(storage)
    storage.put("digests", "ab" * 32, content)
    table = loaded(storage)
    assert table.damaged == ["ab" * 32]
    assert len(table) == 0
    table.add(bytes(DIGEST_BYTES), bytes(32))
    table.save()
    assert loaded(storage).find(bytes(DIGEST_BYTES)) == bytes(32)


def test_a_blob_fits_by_either_digest_and_no_other(storage: LocalStorage) -> None:
    import hashlib

    empty(storage)
    plain, other = b"plain" * 100, b"other" * 100
    blob_id = hashlib.sha256(plain).digest()
    table = loaded(storage)
    assert BlobDigest(table, KEY).fits(plain, blob_id)
    table.add(Hasher(KEY).digest(plain), blob_id)
    for known in (table, None):
        judge = BlobDigest(known, KEY)
        assert judge.fits(plain, blob_id)
        assert judge.fits(memoryview(plain), blob_id)
        assert not judge.fits(other, blob_id)
        assert not judge.fits(plain[:-1], blob_id)
        assert not judge.fits(plain, bytes(32))


def test_digests_of_two_repositories_have_nothing_in_common() -> None:
    one, two = Hasher(KEY), Hasher(MasterKey.generate())
    assert one.digest(b"x") != two.digest(b"x")
    assert one.digest(b"x") == Hasher(KEY).digest(b"x")
    assert len(one.digest(b"x")) == DIGEST_BYTES
