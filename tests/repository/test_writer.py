"""Blobs in and out: any cut, any order, several threads; the same ids and the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.errors import DamagedError, SafetakeError, StorageError
from safetake.model import BATCH_BYTES, MAX_BLOB_BYTES, BlobId, Node
from safetake.repository import Repository
from safetake.repository.check import check
from safetake.repository.pack import PACK_BYTES
from safetake.repository.writer import BUFFERS, RepositoryWriter
from tests.support.repositories import (
    batches,
    file_node,
    folder_node,
    memory_folder,
    new_repository,
    open_repository,
    plain_snapshot,
    restic,
    store_all,
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with memory_folder() as base:
        new_repository(base / "repository")
        yield base / "repository"


@pytest.fixture
def fresh() -> Iterator[Path]:
    with memory_folder() as base:
        new_repository(base / "repository")
        yield base / "repository"


def sha(chunk: bytes) -> BlobId:
    return hashlib.sha256(chunk).digest()


def submit(writer: RepositoryWriter, chunks: list[bytes]) -> list[BlobId]:
    """Store one batch of chunks through a pooled buffer."""
    buffer = writer.buffer()
    assert len(buffer) == BATCH_BYTES
    whole = b"".join(chunks)
    buffer[: len(whole)] = whole
    return writer.submit(buffer, [len(chunk) for chunk in chunks]).result()


chunk = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.builds(
        lambda n, size: random.Random(n).randbytes(size), st.integers(0, 9), st.integers(1, 70_000)
    ),
    st.builds(lambda n, size: bytes([n]) * size, st.integers(0, 9), st.integers(1, 90_000)),
)


@settings(max_examples=25)
@given(st.lists(st.lists(chunk, min_size=1, max_size=8), max_size=5), st.randoms())
def test_chunks_come_back_by_every_way(
    folder: Path, jobs: list[list[bytes]], chance: random.Random
) -> None:
    everything = [chunk for job in jobs for chunk in job]
    repository = open_repository(folder)
    with repository.lock(exclusive=False), repository.writer() as writer:
        for job in jobs:
            assert submit(writer, job) == [sha(chunk) for chunk in job]
        assert store_all(writer, everything) == [sha(chunk) for chunk in everything]
        assert writer.has(map(sha, everything))
        own = writer.reader(repository)
        for found in everything[:3]:
            assert own.blob(sha(found)) == found
        writer.flush()
        assert writer.stats.new_blobs <= len(set(everything))
    for trust in (True, False):
        reader = open_repository(folder).reader(trust_digests=trust)
        wanted = list({sha(chunk): chunk for chunk in everything}.items())
        chance.shuffle(wanted)
        assert reader.sizes([blob_id for blob_id, _ in wanted]) == [len(c) for _, c in wanted]
        assert all(reader.blob(blob_id) == chunk for blob_id, chunk in wanted)
        got: dict[BlobId, bytes] = {}
        guard = threading.Lock()

        def sink(
            blob_id: BlobId,
            plain: bytes | bytearray,
            got: dict[BlobId, bytes] = got,
            guard: threading.Lock = guard,
        ) -> None:
            with guard:
                assert blob_id not in got
                got[blob_id] = bytes(plain)

        reader.stream([blob_id for blob_id, _ in wanted], sink)
        assert got == dict(wanted)


def test_several_threads_store_each_blob_once(fresh: Path) -> None:
    data = random.Random(7).randbytes(12 << 20)
    repository = open_repository(fresh)
    ids: dict[int, list[BlobId]] = {}
    with repository.lock(exclusive=False), repository.writer() as writer:

        def source(number: int) -> None:
            pending = []
            for batch, sizes in batches(data, 16384 + 4096 * (number % 2)):
                buffer = writer.buffer()
                buffer[: len(batch)] = batch
                pending.append(writer.submit(buffer, sizes))
            ids[number] = [blob_id for each in pending for blob_id in each.result()]

        threads = [threading.Thread(target=source, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.drain()
        writer.flush()
        assert writer.stats.bytes == 6 * len(data)
        assert writer.stats.new_bytes == 2 * len(data)
        assert writer.stats.new_blobs == len(set(ids[0]) | set(ids[1]))
    assert ids[0] == ids[2] == ids[4]
    assert ids[1] == ids[3] == ids[5]
    again = open_repository(fresh)
    reader = again.reader()
    for number in (0, 1):
        assert b"".join(map(reader.blob, ids[number])) == data
    report = check(again, read_data=True, trust_digests=False)
    assert report.errors == []
    assert report.notes == []
    assert report.packs >= 2 * len(data) // (2 * PACK_BYTES)
    restic(fresh, "check", "--read-data")


def test_what_is_stored_already_is_not_stored_again(fresh: Path) -> None:
    data = random.Random(9).randbytes(3 << 20)
    for digests in (True, False):
        repository = open_repository(fresh)
        if not digests:  # without them, SHA-256 alone finds the same
            for name, _ in list(repository.storage.list("digests")):
                repository.storage.remove("digests", name)
        with repository.lock(exclusive=False), repository.writer() as writer:
            for batch, sizes in batches(data, 65536):
                submit(
                    writer, [batch[n * 65536 : n * 65536 + size] for n, size in enumerate(sizes)]
                )
            tree = writer.save_tree([file_node("a", [], 0)])
            assert writer.save_tree([file_node("a", [], 0)]) == tree
            writer.flush()
            first = writer.stats.new_blobs if digests else 0
        assert first == (49 if digests else 0)
    repository = open_repository(fresh)
    with repository.lock(exclusive=False), repository.writer() as writer:
        store_all(writer, [data[:65536]])
        writer.flush()
        assert writer.stats.new_blobs == 0
        assert writer.stats.stored_bytes == 0
    assert len(list(repository.storage.list("index"))) == 1


def test_without_a_flush_nothing_is_visible_and_nothing_is_left(fresh: Path) -> None:
    repository = open_repository(fresh)
    with repository.lock(exclusive=False), repository.writer() as writer:
        store_all(writer, [os.urandom(100_000) for _ in range(5)])
        writer.save_tree([Node("a", "fifo")])
    assert not list((fresh / "tmp").iterdir())
    assert not list(repository.storage.list("index"))
    with pytest.raises(SafetakeError, match="closed"):
        writer.store(b"x")
    writer.close()


def test_bad_calls_are_refused_and_harm_nothing(fresh: Path) -> None:
    repository = open_repository(fresh)
    with repository.lock(exclusive=False), repository.writer() as writer:
        for sizes in ([0], [-1], [BATCH_BYTES + 1], [BATCH_BYTES, 1]):
            buffer = writer.buffer()
            with pytest.raises(ValueError):
                writer.submit(buffer, sizes)
            writer.discard(buffer)
        for bad in (b"", bytes(MAX_BLOB_BYTES + 1)):
            with pytest.raises(ValueError):
                writer.store(bad)
        held = [writer.buffer() for _ in range(BUFFERS)]
        assert len({id(buffer) for buffer in held}) == BUFFERS
        for buffer in held:
            writer.discard(buffer)
        largest = random.Random(3).randbytes(MAX_BLOB_BYTES)
        assert store_all(writer, [largest]) == [sha(largest)]
        content = [sha(largest)]
        tree = writer.save_tree([file_node("big", content, len(largest))])
        writer.flush()
        plain_snapshot(repository, tree)
    assert open_repository(fresh).reader().blob(content[0]) == largest
    restic(fresh, "check", "--read-data")


def test_a_disk_error_reaches_every_caller(fresh: Path) -> None:
    repository = open_repository(fresh)
    for path in (fresh / "data").iterdir():
        path.rmdir()
    (fresh / "data").rmdir()
    with repository.writer() as writer:
        pending = [writer.store(os.urandom(1 << 20)) for _ in range(3)]
        for each in pending:
            each.result()
        (fresh / "data").write_bytes(b"a file where the folder was")
        with pytest.raises(StorageError, match="cannot store"):
            writer.flush()
        with pytest.raises(StorageError):
            writer.store(b"x")
        with pytest.raises(StorageError):
            writer.buffer()
        with pytest.raises(StorageError):
            writer.save_tree([])
    assert not list((fresh / "tmp").iterdir())


def test_a_second_copy_is_read_when_the_first_is_damaged(fresh: Path) -> None:
    chunk = random.Random(1).randbytes(50_000)
    twins: list[Repository] = [open_repository(fresh), open_repository(fresh)]
    for repository in twins:  # opened before: neither knows what the other stores
        assert not repository.index.has(sha(chunk), False)
    for repository in twins:
        with repository.lock(exclusive=False), repository.writer() as writer:
            store_all(writer, [chunk])
            writer.flush()
    repository = open_repository(fresh)
    places = repository.index.locations(sha(chunk), False)
    assert len(places) == 2
    restic(fresh, "check", "--read-data")

    def hurt(number: int) -> None:
        pack = repository.storage.path("data", places[number][0])  # type: ignore[attr-defined]
        content = bytearray(pack.read_bytes())
        content[100] ^= 1
        pack.write_bytes(content)

    hurt(0)
    got: list[bytes] = []
    assert repository.reader().blob(sha(chunk)) == chunk
    repository.reader().stream([sha(chunk)], lambda _, plain: got.append(bytes(plain)))
    assert got == [chunk]
    assert any(places[0][0] in error for error in check(repository, read_data=True).errors)
    hurt(1)
    with pytest.raises(DamagedError, match=places[1][0]):
        repository.reader().blob(sha(chunk))
    lost: list[BlobId] = []
    repository.reader().stream(
        [sha(chunk), bytes(32)], lambda _, plain: None, failed=lambda blob, _: lost.append(blob)
    )
    assert sorted(lost) == sorted([sha(chunk), bytes(32)])
    with pytest.raises(DamagedError):
        repository.reader().stream([sha(chunk)], lambda _, plain: None)


def test_what_a_sink_raises_ends_the_stream(fresh: Path) -> None:
    repository = open_repository(fresh)
    chunks = [os.urandom(1000) for _ in range(50)]
    with repository.lock(exclusive=False), repository.writer() as writer:
        store_all(writer, chunks)
        writer.flush()

    def full(_blob: BlobId, _plain: bytes | bytearray) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        repository.reader().stream(map(sha, chunks), full)


INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
from safetake.repository.check import check
from tests.support.repositories import open_repository

# a shell starts what it does not wait for with SIGINT ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
first = threading.Lock()
calls = []

def interrupt(*_):
    calls.append(1)
    if first.acquire(blocking=False):
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)  # long enough for the main thread to hear it

repository = open_repository(Path(sys.argv[1]))
ids = [entry.id for entries in repository.index.packs().values() for entry in entries]
try:
    if sys.argv[2] == "stream":
        repository.reader().stream(ids, interrupt)
    else:
        check(repository, read_data=True, progress=interrupt)
except KeyboardInterrupt:
    few, end = len(calls) < len(ids), time.monotonic() + 60
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(0.01)  # a thread that has ended its work is counted for a moment more
    print(few, threading.active_count(), list(repository.storage.list("locks")))
"""


@pytest.mark.parametrize("what", ["stream", "check"])
def test_ctrl_c_ends_it_at_the_next_read(fresh: Path, what: str) -> None:
    repository = open_repository(fresh)
    with repository.lock(exclusive=False), repository.writer() as writer:
        store_all(writer, [random.Random(n).randbytes(3 << 20) for n in range(24)])
        writer.flush()
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, fresh, what], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True 1 []\n"


def test_ctrl_c_while_a_flush_waits_leaves_no_thread(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = open_repository(fresh)
    before = threading.active_count()
    writer = RepositoryWriter(repository, workers=2)
    acquire = threading.Semaphore.acquire

    def interrupted(semaphore: threading.Semaphore, *arguments: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Semaphore, "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.drain()
    monkeypatch.setattr(threading.Semaphore, "acquire", acquire)
    writer.close()
    assert threading.active_count() == before
    assert not list((fresh / "tmp").iterdir())


@pytest.mark.slow
def test_four_hundred_thousand_tiny_blobs_fit_restics_headers(fresh: Path) -> None:
    repository = open_repository(fresh)
    with repository.lock(exclusive=False), RepositoryWriter(repository, workers=1) as writer:
        pending = []
        for batch in range(2):
            buffer = writer.buffer()
            buffer[:] = b"".join((batch << 18 | n).to_bytes(4, "big") for n in range(1 << 18))
            pending.append(writer.submit(buffer, [4] * (1 << 18)))
        ids = [blob_id for each in pending for blob_id in each.result()]
        tree = writer.save_tree([file_node("tiny", ids[::5], 4 * len(ids[::5]))])
        root = writer.save_tree([folder_node("x", tree)])
        writer.flush()
        plain_snapshot(repository, root)
    assert "no errors were found" in restic(fresh, "check")


def test_a_repository_of_format_1_is_not_written_to(fresh: Path) -> None:
    repository = open_repository(fresh)
    repository.version = 1
    with pytest.raises(SafetakeError, match="version 1") as caught:
        repository.writer()
    assert "restic migrate upgrade_repo_v2" in caught.value.hint
