"""The RDB slicer: payloads equal to DUMP, every type, and no other end than DamagedError."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.errors import DamagedError
from safetake.sources.redis import rdb, rdbformat
from safetake.sources.redis.canonical import Tally, canonicalise
from safetake.sources.redis.rdb import RdbFile, Record, UnsupportedRdbError
from safetake.sources.redis.rdbformat import encode_length
from tests.support.redis_server import VERSIONS, running


def text(value: bytes) -> bytes:
    return encode_length(len(value)) + value


def build(*parts: bytes, magic: str = "REDIS", version: int = 12) -> bytes:
    body = rdbformat.header(magic, version) + b"".join(parts) + b"\xff"
    return body + rdbformat.crc64(body).to_bytes(8, "little")


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "dump.rdb"
    path.write_bytes(data)
    return path


def parse(path: Path) -> list[Record]:
    with RdbFile(path) as file:
        return list(file.records())


ID = bytes(16)
STREAM_3 = (
    encode_length(1) + text(ID) + text(b"listpack") + encode_length(1) * 8
    + encode_length(1) + text(b"group") + encode_length(1) * 3
    + encode_length(1) + ID + bytes(8) + encode_length(2)
    + encode_length(1) + text(b"consumer") + bytes(16) + encode_length(1) + ID
)  # fmt: skip
STREAM_1 = (
    encode_length(1) + text(ID) + text(b"listpack") + encode_length(1) * 3
    + encode_length(1) + text(b"group") + encode_length(1) * 2 + encode_length(0)
    + encode_length(1) + text(b"consumer") + bytes(8) + encode_length(0)
)  # fmt: skip
MODULE = b"\x81" + bytes(8) + b"\x02\x05\x03" + bytes(4) + b"\x04" + bytes(8) + b"\x05\x01x\x00"
VALUES: list[tuple[str, int, bytes]] = [
    ("REDIS", 0, text(b"value")),
    ("REDIS", 0, b"\xc0\x05"),
    ("REDIS", 0, b"\xc1\x05\x00"),
    ("REDIS", 0, b"\xc2\x05\x00\x00\x00"),
    ("REDIS", 0, b"\xc3\x04\x0aabcd"),
    ("REDIS", 0, b"\x80\x00\x00\x00\x01x"),
    ("REDIS", 0, b"\x81" + bytes(7) + b"\x01x"),
    ("REDIS", 1, encode_length(2) + text(b"a") + text(b"b")),
    ("REDIS", 2, encode_length(100) + b"\x01x" * 100),
    ("REDIS", 3, encode_length(3) + b"\x01x\x031.5" + b"\x01y\xfd" + b"\x01z\xff"),
    ("REDIS", 4, encode_length(1) + text(b"f") + text(b"v")),
    ("REDIS", 5, encode_length(1) + text(b"m") + bytes(8)),
    ("REDIS", 7, MODULE),
    *(("REDIS", kind, text(b"blob")) for kind in (9, 10, 11, 12, 13, 16, 17, 20)),
    ("REDIS", 14, encode_length(1) + text(b"ziplist")),
    ("REDIS", 15, STREAM_1),
    ("REDIS", 18, encode_length(1) + encode_length(2) + text(b"listpack")),
    ("REDIS", 21, STREAM_3),
    ("REDIS", 22, encode_length(1) + encode_length(7) + text(b"f") + text(b"v")),
    ("REDIS", 23, text(b"listpack")),
    ("REDIS", 24, bytes(8) + encode_length(1) + encode_length(7) + text(b"f") + text(b"v")),
    ("REDIS", 25, bytes(8) + text(b"listpack")),
    ("VALKEY", 22, encode_length(1) + text(b"f") + text(b"v") + bytes(8)),
]


@pytest.mark.parametrize(("magic", "kind", "value"), VALUES)
def test_every_type_is_measured(magic: str, kind: int, value: bytes, tmp_path: Path) -> None:
    version = 80 if magic == "VALKEY" else 12
    one = bytes((kind,)) + text(b"key") + value
    expiry = b"\xfc" + struct.pack("<q", 1234)
    path = write(tmp_path, build(one, expiry, b"\xf8\x05", one, magic=magic, version=version))
    with RdbFile(path) as file:
        first, second = list(file.records())
        body = bytes((kind,)) + value + version.to_bytes(2, "little")
        assert file.dump_payload(first) == body + rdbformat.crc64(body).to_bytes(8, "little")
        assert (first.expire_ms, second.expire_ms) == (None, 1234)
        assert file.check_crc()
        assert file.end == path.stat().st_size


@pytest.mark.parametrize("kind", [6, 8, 26, 99, 242])
def test_unknown_types_are_refused_clearly(kind: int, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedRdbError, match=f"type {kind}"):
        parse(write(tmp_path, build(bytes((kind,)) + text(b"k") + text(b"v"))))


def test_unknown_sections_are_refused_clearly(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedRdbError, match="section 243"):
        parse(write(tmp_path, build(b"\xf3\x01x")))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"REDIS",
        b"REDIS00",
        b"PK\x03\x04 no RDB at all",
        b"REDIS0009",
        b"REDIS0009\xff",
        b"REDIS0009\x00\x01k\x81" + b"\xff" * 8,
        b"REDIS0009\x02\x01k\x81" + b"\xff" * 8 + b"\x01",
        b"REDIS0009\x0f\x01k\x00" + b"\x00" * 3 + b"\x81" + b"\xff" * 8,
        b"REDIS0009\xfc\x01\x02",
        b"REDIS0009\xfc" + bytes(8) + b"\xfe\x00\xff" + bytes(8),
        b"REDIS0009\x00\x01k\xc3\x02\x81" + b"\x7f" * 8 + b"ab",
        b"REDIS0009\x00\xc3\x03\x40\x99\x20\xff\xff\x00\x01v",
        b"REDIS0009\x00\xc4\x01v",
        b"REDIS0009\x07\x01k\x01\x09\x01",
        b"REDIS0009\xfe\x81" + b"\x01" * 8,
    ],
)
def test_hostile_files_end_in_damaged(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(DamagedError):
        parse(write(tmp_path, data))


keys = st.binary(max_size=40)
values = st.sampled_from([(kind, value) for magic, kind, value in VALUES if magic == "REDIS"])
SAMPLE = build(
    b"\xfa" + text(b"redis-ver") + text(b"7.0.15"),
    b"\xf5" + text(b"#!lua name=x\n"),
    b"\xf7" + bytes(1) + b"\x02\x01\x00",
    b"\xfe\x00\xfb\x14\x00\xf4\x01\x02\x03",
    *(bytes((kind,)) + text(b"k%d" % i) + value
      for i, (magic, kind, value) in enumerate(VALUES) if magic == "REDIS"),
    b"\xfe\x07\xfd" + bytes(4) + b"\x00\x01z\x01z",
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1,
                max_size=6), st.integers(0, len(SAMPLE)), st.binary(max_size=20))  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_mutations_parse_or_are_damaged(
    changes: list[tuple[int, int]], cut: int, insert: bytes
) -> None:
    data = bytearray(SAMPLE)
    for position, value in changes:
        data[position] = value
    if insert:
        data[cut:cut] = insert
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), bytes(data))
        try:
            with RdbFile(path) as file:
                for record in file.records():
                    assert 9 <= record.start < record.value <= record.end <= len(data)
                    file.dump_payload(record)
                file.check_crc()
            canonicalise(path, Path(folder) / "out", Path(folder))
        except DamagedError:
            return


@given(st.binary(max_size=300), st.sampled_from(["REDIS", "VALKEY"]))
@settings(max_examples=500, deadline=None)
def test_noise_parses_or_is_damaged(noise: bytes, magic: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), rdbformat.header(magic, 80) + noise)
        try:
            parse(path)
        except DamagedError:
            return


@given(st.integers(0, 2**64 - 1))
def test_lengths_round_trip(n: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with RdbFile(write(Path(folder), b"REDIS0009" + encode_length(n) + bytes(9))) as file:
            file._pos, file._base = 0, 9
            assert file._length() == n


@given(st.binary(max_size=60), st.integers(0, 500))
@settings(deadline=None)
def test_lzf_either_fits_or_is_damaged(data: bytes, length: int) -> None:
    try:
        assert len(rdbformat.lzf_decompress(data, length)) == length
    except DamagedError:
        return


def test_records_across_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is an implementation detail: any size gives the same records."""
    path = write(tmp_path, SAMPLE)
    whole = parse(path)
    for window in (40, 41, 64, 100, 1000):
        monkeypatch.setattr(rdb, "WINDOW", window)
        assert parse(path) == whole


entries = st.dictionaries(
    st.tuples(st.integers(0, 20), keys), st.tuples(values, st.none() | st.integers(1, 2**40)),
    max_size=30,
)  # fmt: skip


@given(entries, st.randoms(use_true_random=False), st.sampled_from([1, 3, 100_000]))
@settings(deadline=None, max_examples=60)
def test_any_order_gives_the_same_file(
    content: dict[tuple[int, bytes], tuple[tuple[int, bytes], int | None]],
    shuffle: object,
    run: int,
) -> None:
    def image(order: list[tuple[int, bytes]]) -> bytes:
        parts = []
        for db, key in order:
            (kind, value), expiry = content[db, key]
            parts.append(b"\xfe" + encode_length(db))
            if expiry is not None:
                parts.append(b"\xfc" + struct.pack("<q", expiry))
            parts.append(bytes((kind,)) + text(key) + value)
        return build(*parts)

    order = list(content)
    mixed = list(content)
    shuffle.shuffle(mixed)  # type: ignore[attr-defined]  # a random.Random, untyped in hypothesis
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr("safetake.sources.redis.canonical.RUN_KEYS", run)
        patch.setattr("safetake.sources.redis.canonical.FAN_IN", 3)
        patch.setattr("safetake.sources.redis.canonical.PIECE_KEYS", 2)
        folder = Path(name)
        written = []
        for index, one in enumerate((order, mixed)):
            source = folder / f"in{index}"
            source.write_bytes(image(one))
            target = folder / f"out{index}"
            _, tally = canonicalise(source, target, folder)
            written.append((target.read_bytes(), tally.facts()))
        assert written[0] == written[1]
        assert len(list(folder.iterdir())) == 4  # the runs are gone
        again = Tally()
        with RdbFile(folder / "out0") as file:
            found = {}
            for record in file.records():
                again.add(file, record)
                kind = (record.type, b"".join(file.value(record))[1:])
                found[record.db, record.key] = (kind, record.expire_ms)
            assert file.check_crc()
        assert found == content
        assert again.facts() == written[0][1]


def test_a_key_that_comes_twice_is_damage(tmp_path: Path) -> None:
    one = b"\x00" + text(b"k") + text(b"v")
    path = write(tmp_path, build(one, one))
    with pytest.raises(DamagedError, match="twice"):
        canonicalise(path, tmp_path / "out", tmp_path)
    _, tally = canonicalise(path, tmp_path / "out", tmp_path, duplicates=True)
    assert tally.total == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_payloads_equal_dump(version: str, tmp_path: Path) -> None:
    with running(version, tmp_path / "live") as server, server.client() as client:
        client.set("a", "text")
        client.set("b", 12345, ex=10_000)
        client.set("c" * 300, "x" * 5000)
        client.rpush("list", *range(2000))
        client.zadd("zset", {f"m{i}": i / 3 for i in range(400)})
        client.hset("hash", mapping={f"f{i}": i for i in range(800)})
        client.sadd("set", *range(900), "x")
        for i in range(120):
            client.xadd("stream", {"i": i})
        client.xgroup_create("stream", "g", 0)
        client.xreadgroup("g", "c", {"stream": ">"}, count=9)
        try:
            client.execute_command("HEXPIRE", "hash", 9999, "FIELDS", 1, "f1")
        except redis.ResponseError:
            assert version in ("redis-6.2", "redis-7.0")
        client.save()
        with RdbFile(tmp_path / "live" / "dump.rdb") as file:
            records = list(file.records())
            assert len(records) == client.dbsize()
            for record in records:
                assert file.dump_payload(record) == client.dump(record.key)
