"""Every damage that Chroma opens without a word is seen by the proof, and the rest as well."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from safetake.model import Check
from safetake.sources.chroma import hnsw, proof
from safetake.sources.chroma.proof import questions
from tests.support.chroma_live import bring_back, take
from tests.support.memory_writer import entry_of

MAKE = """
import sys
import chromadb, numpy as np
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], Settings(anonymized_telemetry=False))
for name, space, threshold in (("near", "l2", 50), ("angle", "cosine", 1000)):
    rows = client.create_collection(name, embedding_function=None, metadata={
        "hnsw:space": space, "hnsw:sync_threshold": threshold, "hnsw:batch_size": 50})
    vectors = np.random.default_rng(1).random((420, 12), dtype=np.float32)
    for first in range(0, 420, 60):
        part = range(first, first + 60)
        rows.add(ids=[f"id{n}" for n in part], embeddings=vectors[part.start:part.stop],
                 documents=[f"text {n}" for n in part])
    rows.delete(ids=["id7", "id400"])
    rows.update(ids=["id9"], embeddings=vectors[:1])
    rows.add(ids=[f"late{n}" for n in range(60)], embeddings=vectors[100:160])
client.create_collection("untouched", embedding_function=None)
gone = client.create_collection("gone", embedding_function=None)
gone.add(ids=["x"], embeddings=[[1.0, 2.0]])
client.delete_collection("gone")
"""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A brought-back copy of a store at rest, and its manifest entry."""
    place = tmp_path_factory.mktemp("proof")
    folder = place / "chroma"
    subprocess.run([sys.executable, "-c", MAKE, folder], check=True)
    taken = take(folder, place / "scratch")
    assert taken.captured.unread == []
    assert [note for note in taken.captured.notes if "left out" in note]
    taken.repository.close()
    return bring_back(taken, place / "copy"), entry_of(taken.captured)


@pytest.fixture
def copy(snapshot: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(snapshot[0], tmp_path / "copy"))


def persisted(folder: Path) -> Path:
    return next(path.parent for path in folder.glob("*/" + hnsw.PICKLE))


def failures(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.ok]


def test_a_good_copy_passes_everything_and_chroma_agrees(
    snapshot: tuple[Path, dict[str, Any]], copy: Path
) -> None:
    checks = questions(copy, snapshot[1])
    assert failures(checks) == []
    names = {check.name for check in checks}
    assert {"chromadb opens", "near: count", "near: ids", "angle: ids", "untouched: count"} <= names
    assert sum("near: record" in name for name in names) >= 3


def test_without_chromadb_the_check_is_reported_as_not_asked(
    snapshot: tuple[Path, dict[str, Any]], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "find_spec", lambda name: None)
    checks = questions(copy, snapshot[1])
    assert failures(checks) == []
    assert [check for check in checks if check.name.startswith("chromadb")] == [
        Check("chromadb (not asked: not installed)", True, None, "not asked")
    ]


def flip(path: Path, at: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)


def record(folder: Path, row: int, offset: int) -> int:
    header = hnsw.parse_header((folder / hnsw.HEADER).read_bytes())
    assert header is not None
    return row * header.record + offset


def halve(folder: Path) -> None:
    path = persisted(folder) / hnsw.DATA
    os.truncate(path, path.stat().st_size // 2)


def flip_vector(folder: Path) -> None:
    segment = persisted(folder)
    flip(segment / hnsw.DATA, record(segment, 0, 135), 0x20)


def break_link(folder: Path) -> None:
    segment = persisted(folder)
    with (segment / hnsw.DATA).open("r+b") as file:
        file.seek(record(segment, 5, 4))
        file.write(struct.pack("<I", 1 << 30))


def too_many_links(folder: Path) -> None:
    segment = persisted(folder)
    with (segment / hnsw.DATA).open("r+b") as file:
        file.seek(record(segment, 5, 0))
        file.write(struct.pack("<H", 4000))


def double_label(folder: Path) -> None:
    segment = persisted(folder)
    data = bytearray((segment / hnsw.DATA).read_bytes())
    first, second = record(segment, 1, 180), record(segment, 2, 180)
    data[first : first + 8] = data[second : second + 8]
    (segment / hnsw.DATA).write_bytes(data)


def undelete(folder: Path) -> None:
    segment = persisted(folder)
    data = bytearray((segment / hnsw.DATA).read_bytes())
    for row in range(300):
        data[record(segment, row, 2)] = 0
    (segment / hnsw.DATA).write_bytes(data)


def no_pickle(folder: Path) -> None:
    (persisted(folder) / hnsw.PICKLE).unlink()


def torn_pickle(folder: Path) -> None:
    path = persisted(folder) / hnsw.PICKLE
    os.truncate(path, path.stat().st_size - 9)


def evil_pickle(folder: Path) -> None:
    target = folder / "touched"
    command = f"open({str(target)!r}, 'w')".encode()
    (persisted(folder) / hnsw.PICKLE).write_bytes(b"cbuiltins\nexec\n(V" + command + b"\ntR.")


def older_pickle(folder: Path) -> None:
    path = persisted(folder) / hnsw.PICKLE
    fields = pickle.loads(path.read_bytes())
    label = fields["id_to_label"].pop("id20")
    del fields["label_to_id"][label]
    path.write_bytes(pickle.dumps(fields, 2))


def no_folder(folder: Path) -> None:
    shutil.rmtree(persisted(folder))


def cut_upper_links(folder: Path) -> None:
    path = persisted(folder) / hnsw.LINKS
    os.truncate(path, path.stat().st_size - 1)


def bad_upper_link(folder: Path) -> None:
    path = persisted(folder) / hnsw.LINKS
    data = bytearray(path.read_bytes())
    at = next(n for n in range(0, len(data), 4) if data[n : n + 4] == struct.pack("<I", 68))
    data[at + 8 : at + 12] = struct.pack("<I", 1 << 29)
    path.write_bytes(data)


def short_lengths(folder: Path) -> None:
    os.truncate(persisted(folder) / hnsw.LENGTH, 40)


def bad_header(folder: Path) -> None:
    flip(persisted(folder) / hnsw.HEADER, 28, 0x40)


def other_count(folder: Path) -> None:
    flip(persisted(folder) / hnsw.HEADER, 20, 0x01)


def missing_row(folder: Path) -> None:
    sql(folder, "DELETE FROM embeddings WHERE embedding_id = 'id30'")


def purged_queue(folder: Path) -> None:
    sql(folder, "DELETE FROM embeddings_queue")


def forgotten_position(folder: Path) -> None:
    sql(folder, "DELETE FROM max_seq_id")


def missing_collection(folder: Path) -> None:
    sql(folder, "DELETE FROM collections WHERE name = 'angle'")


def flipped_page(folder: Path) -> None:
    path = folder / "chroma.sqlite3"
    with path.open("r+b") as file:
        for page in range(20, path.stat().st_size // 4096):
            file.seek(page * 4096)
            if file.read(1) == b"\x0d":
                file.seek(page * 4096)
                file.write(b"\x00" * 4096)
                return
    raise AssertionError


def truncated_database(folder: Path) -> None:
    path = folder / "chroma.sqlite3"
    os.truncate(path, path.stat().st_size // 2)


def no_database(folder: Path) -> None:
    (folder / "chroma.sqlite3").unlink()


def sql(folder: Path, statement: str) -> None:
    connection = apsw.Connection(str(folder / "chroma.sqlite3"))
    connection.execute(statement).fetchall()
    connection.close()


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (halve, "records"),
    (flip_vector, "nearest neighbours"),
    (break_link, "links"),
    (too_many_links, "links"),
    (double_label, "labels"),
    (undelete, "labels have ids"),
    (no_pickle, "persisted"),
    (torn_pickle, "ids"),
    (evil_pickle, "ids"),
    (older_pickle, "vectors and metadata"),
    (no_folder, "persisted"),
    (cut_upper_links, "upper links"),
    (bad_upper_link, "upper links"),
    (short_lengths, "lengths"),
    (bad_header, "header"),
    (other_count, "count"),
    (missing_row, "vectors and metadata"),
    (purged_queue, "vectors and metadata"),
    (forgotten_position, "collections"),
    (missing_collection, "collections"),
    (flipped_page, "chroma.sqlite3: content"),
    (truncated_database, "chroma.sqlite3: size"),
    (no_database, "chroma.sqlite3"),
]


@pytest.mark.parametrize(("damage", "seen"), DAMAGES, ids=[one.__name__ for one, _ in DAMAGES])
def test_damage_is_seen_by_digest_and_by_structure(
    snapshot: tuple[Path, dict[str, Any]],
    copy: Path,
    damage: Callable[[Path], None],
    seen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(proof, "find_spec", lambda name: None)
    damage(copy)
    failed = failures(questions(copy, snapshot[1]))
    assert any(
        name.endswith((hnsw.DATA, hnsw.PICKLE, hnsw.HEADER, hnsw.LINKS, hnsw.LENGTH))
        or "chroma.sqlite3" in name
        for name in failed
    ), failed
    assert any(name.endswith(seen) for name in failed), failed
    assert not (copy / "touched").exists()


def test_a_flipped_bit_anywhere_is_seen(
    snapshot: tuple[Path, dict[str, Any]], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "find_spec", lambda name: None)
    for path in sorted(persisted(copy).iterdir()):
        size = path.stat().st_size
        for at in {0, size // 3, size - 1}:
            flip(path, at, 0x10)
            assert failures(questions(copy, snapshot[1])), f"{path.name} at {at}"
            flip(path, at, 0x10)
    assert failures(questions(copy, snapshot[1])) == []


def test_a_manifest_that_lacks_what_is_asked_fails_and_does_not_raise(copy: Path) -> None:
    empty: dict[str, Any] = {
        "facts": {"segments": {}, "sqlite": {}, "collections": {}, "databases": []}
    }
    assert failures(questions(copy, empty))
