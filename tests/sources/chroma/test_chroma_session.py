"""What goes into a snapshot of a folder, what an increment costs, and what is refused, and how."""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
import time
from pathlib import Path

import apsw
import pytest

from safetake.config import ChromaConfig
from safetake.errors import BarrierTimeoutError, SourceError
from safetake.model import CaptureContext, Session
from safetake.sources.chroma import hnsw
from safetake.sources.chroma.proof import questions
from safetake.sources.chroma.source import ChromaSource
from tests.support.chroma_live import bring_back, take
from tests.support.memory_writer import MemoryRepository, entry_of, find

GOLDEN = Path(__file__).parent / "chroma-0.6.3.tar.gz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Written by Chroma 0.6.3: one collection is persisted, the other in the queue."""
    with tarfile.open(GOLDEN) as packed:
        packed.extractall(tmp_path / "chroma", filter="data")
    return tmp_path / "chroma"


def persisted(folder: Path) -> Path:
    return next(path.parent for path in folder.glob("*/" + hnsw.PICKLE))


def session_of(
    folder: Path, scratch: Path, repository: MemoryRepository, max_hold: float = 10
) -> Session:
    scratch.mkdir(exist_ok=True)
    config = ChromaConfig(type="chroma", path=folder, max_hold=max_hold)
    context = CaptureContext(repository, None, scratch, reader=repository)
    return ChromaSource("vectors", config).session(context)


def files(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        str(path.relative_to(folder)): (
            path.read_bytes(),
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_folder_of_chroma_06_comes_back_byte_for_byte_and_opens(
    folder: Path, tmp_path: Path
) -> None:
    taken = take(folder, tmp_path / "scratch")
    assert (taken.captured.unread, taken.captured.notes) == ([], [])
    copy = bring_back(taken, tmp_path / "copy")
    assert files(copy) == files(folder)
    node = find(taken.repository, taken.captured.node, persisted(folder).name)
    names = {entry.name for entry in taken.repository.tree(node.subtree or b"")}
    assert names == {*hnsw.FILES} - {hnsw.DATA} | {"data_level0.bin.parts"}
    checks = questions(copy, entry_of(taken.captured))
    assert [check for check in checks if not check.ok] == []
    assert "alpha: record 'id2'" in {check.name for check in checks}


def test_a_second_snapshot_stores_and_reads_nothing(folder: Path, tmp_path: Path) -> None:
    time.sleep(2.1)  # files that were made just now are not trusted to be unchanged
    first = take(folder, tmp_path / "scratch")
    asked, read = len(first.repository.fetched), first.repository.submitted_bytes
    again = take(folder, tmp_path / "scratch", repository=first.repository, parent=first.parent())
    assert again.added == 0
    assert (len(first.repository.fetched), first.repository.submitted_bytes) == (asked, read)
    assert again.captured.facts == first.captured.facts
    assert again.captured.node.subtree == first.captured.node.subtree


def test_a_changed_vector_costs_its_blobs(folder: Path, tmp_path: Path) -> None:
    first = take(folder, tmp_path / "scratch")
    with (persisted(folder) / hnsw.DATA).open("r+b") as file:
        file.seek(156 * 3 + 140)
        file.write(b"\x01")
    old = time.time_ns() - 60_000_000_000
    os.utime(persisted(folder) / hnsw.DATA, ns=(old, old))
    taken = take(folder, tmp_path / "scratch", repository=first.repository, parent=first.parent())
    assert 0 < taken.added < 20_000  # one blob of vectors (16 of 156 bytes), and layout.json
    assert files(bring_back(taken, tmp_path / "copy")) == files(folder)


def test_what_belongs_to_no_collection_is_left_out_and_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(persisted(folder), folder / "11111111-2222-3333-4444-555555555555")
    (folder / "notes.txt").write_text("mine")
    (folder / "chroma.log").touch()
    os.mkfifo(folder / "pipe")
    taken = take(folder, tmp_path / "scratch")
    names = {node.name for node in taken.repository.tree(taken.captured.node.subtree or b"")}
    assert {"notes.txt", "chroma.log"} <= names
    assert not any(name.startswith("1111") for name in names)
    assert taken.captured.notes == [
        "11111111-2222-3333-4444-555555555555: left out, no live collection has this folder"
    ]
    assert taken.captured.unread == ["pipe: neither file nor folder"]


def test_times_in_any_order_do_not_matter_once_they_are_old(folder: Path, tmp_path: Path) -> None:
    old = time.time_ns() - 3_600_000_000_000
    for number, name in enumerate((hnsw.PICKLE, hnsw.DATA, hnsw.HEADER, hnsw.LENGTH, hnsw.LINKS)):
        os.utime(persisted(folder) / name, ns=(old + number, old + number))
    assert take(folder, tmp_path / "scratch").captured.unread == []


def test_files_that_contradict_each_other_make_the_backup_incomplete(
    folder: Path, tmp_path: Path
) -> None:
    path = persisted(folder) / hnsw.PICKLE
    os.truncate(path, path.stat().st_size - 1)
    old = time.time_ns() - 3_600_000_000_000
    os.utime(path, ns=(old, old))
    for name in hnsw.FILES:
        os.utime(persisted(folder) / name, ns=(old, old))
    taken = take(folder, tmp_path / "scratch")
    assert taken.captured.unread == [
        f"{persisted(folder).name}: Chroma did not leave it complete: {hnsw.PICKLE} has no end"
    ]


def test_vectors_that_are_lost_already_make_the_backup_incomplete(
    folder: Path, tmp_path: Path
) -> None:
    segment = persisted(folder)
    (segment / hnsw.PICKLE).unlink()
    unread = take(folder, tmp_path / "scratch").captured.unread
    assert [text for text in unread if segment.name in text and "lost" in text]
    shutil.rmtree(segment)
    assert take(folder, tmp_path / "scratch").captured.unread == unread


def test_a_hold_keeps_writers_out_and_a_second_one_is_newer(folder: Path, tmp_path: Path) -> None:
    with MemoryRepository() as repository:
        session = session_of(folder, tmp_path / "scratch", repository)
        other = apsw.Connection(str(folder / "chroma.sqlite3"))
        try:
            session.prepare()
            first = session.hold(2)
            with pytest.raises(apsw.BusyError):
                other.execute("INSERT INTO tenants VALUES ('late')").fetchall()
            session.release()
            session.release()
            other.execute("INSERT INTO tenants VALUES ('late')").fetchall()
            second = session.hold(2)
            session.release()
            assert second.held_ns > first.fixed_ns
            assert session.capture().facts["tenants"] == ["default_tenant", "late"]
        finally:
            session.close()
            session.close()
            other.close()


def test_a_store_that_stays_locked_ends_in_a_timeout_with_nothing_held(
    folder: Path, tmp_path: Path
) -> None:
    with MemoryRepository() as repository:
        session = session_of(folder, tmp_path / "scratch", repository)
        other = apsw.Connection(str(folder / "chroma.sqlite3"))
        try:
            session.prepare()
            other.execute("BEGIN IMMEDIATE").fetchall()
            with pytest.raises(BarrierTimeoutError) as raised:
                session.hold(0.3)
            assert raised.value.hint
            other.execute("COMMIT").fetchall()
            session.hold(2)
            session.release()
        finally:
            session.close()
            other.close()


def rewrite_for_ever(segment: Path, stop: threading.Event) -> None:
    """A persist that never ends: the header changes, the pickle never follows."""
    data = (segment / hnsw.HEADER).read_bytes()
    while not stop.wait(0.005):
        (segment / hnsw.HEADER).write_bytes(data)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_persist_in_flight(folder: Path, tmp_path: Path, recorded: bool) -> None:
    """With a copy from before it and m unchanged it does not matter; else the hold gives up."""
    stop, segment = threading.Event(), persisted(folder)
    writing = threading.Thread(target=rewrite_for_ever, args=(segment, stop))
    connection = apsw.Connection(str(folder / "chroma.sqlite3"))
    with MemoryRepository() as repository:
        session = session_of(folder, tmp_path / "scratch", repository, max_hold=0.2)
        try:
            session.prepare()
            before = (segment / hnsw.DATA).read_bytes()
            writing.start()
            time.sleep(0.05)
            if recorded:
                session.hold(0.5)
                session.release()
                captured = session.capture()
                assert captured.unread == []
                assert (
                    len(before)
                    == captured.facts["segments"][segment.name]["files"][hnsw.DATA]["size"]
                )
                return
            connection.execute(
                "UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?",
                ((52).to_bytes(8, "big"), segment.name),
            ).fetchall()
            with pytest.raises(BarrierTimeoutError, match="did not come to rest"):
                session.hold(0.5)
            connection.execute("INSERT INTO tenants VALUES ('free again')").fetchall()
        finally:
            stop.set()
            writing.join()
            session.close()
            connection.close()


def test_missing_things_have_their_own_errors(folder: Path, tmp_path: Path) -> None:
    empty, old = tmp_path / "empty", tmp_path / "old"
    empty.mkdir()
    old.mkdir()
    (old / "chroma-embeddings.parquet").touch()
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    apsw.Connection(str(wrong / "chroma.sqlite3")).execute("CREATE TABLE t (a)").fetchall()
    zero = tmp_path / "zero"
    zero.mkdir()
    (zero / "chroma.sqlite3").touch()
    for path, said in (
        (tmp_path / "nowhere", "does not exist"),
        (empty, "is empty"),
        (old, "no chroma.sqlite3"),
        (folder / "chroma.sqlite3", "is a file"),
        (wrong, "not a Chroma store"),
        (zero, "0 bytes"),
    ):
        with pytest.raises(SourceError, match=said) as raised:
            take(path, tmp_path / "scratch")
        assert raised.value.hint
        state = ChromaSource("vectors", ChromaConfig(type="chroma", path=path)).inspect()
        assert not state.ok
        assert state.problems[0][1]


def test_inspect_tells_what_is_there_and_what_is_lost(folder: Path) -> None:
    source = ChromaSource("vectors", ChromaConfig(type="chroma", path=folder))
    state = source.inspect()
    assert state.ok
    assert state.summary == "2 collections, 98 records"
    assert state.details["collections"] == {"alpha": 49, "beta": 49}
    (persisted(folder) / hnsw.PICKLE).unlink()
    state = source.inspect()
    assert not state.ok
    assert "lost" in state.problems[0][0]
