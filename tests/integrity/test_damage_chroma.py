"""Each damage of facts/chroma.md, made on a live folder: named, or said to be unseen."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from safetake.config import ChromaConfig
from safetake.errors import SafetakeError
from safetake.sources import hotcopy
from safetake.sources.chroma import hnsw, proof
from safetake.sources.chroma.pieces import stat_key
from safetake.sources.sqlite.rot import CHECK
from tests.integrity.support import ask, by_check, picture, table, wrong
from tests.sources.chroma import test_chroma_proof as builders
from tests.sources.chroma.test_chroma_proof import persisted, record, sql
from tests.support.chroma_live import server, take
from tests.support.memory_writer import entry_of

NEAR = "collection near: "


def unsearchable(folder: Path) -> None:
    sql(folder, "DELETE FROM embedding_fulltext_search_content WHERE id = 5")


def other_document(folder: Path) -> None:
    sql(folder, "UPDATE embedding_metadata SET string_value = 'x' WHERE id = 5")


def short_vector_in_queue(folder: Path) -> None:
    sql(folder, "UPDATE embeddings_queue SET vector = x'00000000' WHERE seq_id = 900")


def record_without_segment(folder: Path) -> None:
    sql(folder, "DELETE FROM segments WHERE scope = 'METADATA' AND collection IN"
                " (SELECT id FROM collections WHERE name = 'angle')")  # fmt: skip


def zeroed_table(folder: Path) -> None:
    """The last page of the records' metadata."""
    path = folder / "chroma.sqlite3"
    connection = apsw.Connection(str(path))
    query = "SELECT rootpage FROM sqlite_schema WHERE name = 'embedding_metadata'"
    root = connection.execute(query).get
    connection.close()
    data = path.read_bytes()
    page = int.from_bytes(data[(root - 1) * 4096 + 8 :][:4], "big")
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))


def other_neighbour(folder: Path) -> None:
    """A link to another record than the index was built with, within bounds."""
    segment = persisted(folder)
    with (segment / hnsw.DATA).open("r+b") as file:
        file.seek(record(segment, 5, 4))
        file.write(struct.pack("<I", 17))


SEEN: dict[str, tuple[Any, str]] = {
    "`data_level0.bin` cut in half": (builders.halve, NEAR + "records"),
    "a link to a record that is not there": (builders.break_link, NEAR + "links"),
    "more links than there is room for": (builders.too_many_links, NEAR + "links"),
    "an upper link out of bounds": (builders.bad_upper_link, NEAR + "upper links"),
    "`link_lists.bin` cut short": (builders.cut_upper_links, NEAR + "upper links"),
    "two records with one label": (builders.double_label, NEAR + "labels"),
    "deleted records that are back": (builders.undelete, NEAR + "labels have ids"),
    "missing pickle": (builders.no_pickle, "complete"),
    "torn pickle": (builders.torn_pickle, NEAR + "ids"),
    "a pickle that runs code": (builders.evil_pickle, NEAR + "ids"),
    "an older pickle": (builders.older_pickle, NEAR + "vectors and metadata"),
    "missing segment folder": (builders.no_folder, "complete"),
    "`length.bin` cut short": (builders.short_lengths, NEAR + "lengths"),
    "a damaged header": (builders.bad_header, NEAR + "header"),
    "a header that counts otherwise": (builders.other_count, NEAR + "count"),
    "a record's row is gone": (builders.missing_row, NEAR + "vectors and metadata"),
    "a purged queue": (builders.purged_queue, "collection angle: vectors and metadata"),
    "forgotten positions": (builders.forgotten_position, "positions are recorded"),
    "a collection's row is gone": (builders.missing_collection, "every segment has its collection"),
    "a segment's row is gone": (record_without_segment, "every collection has its segments"),
    "a document that searches do not find": (
        unsearchable,
        "every document is in the full-text index",
    ),
    "a document unlike the one searched": (
        other_document,
        "every document is in the full-text index",
    ),
    "a vector of another length in the queue": (
        short_vector_in_queue,
        "vectors in the queue have the collection's length",
    ),
    "a zeroed page of the schema": (builders.flipped_page, "opens"),
    "a zeroed page of a table": (zeroed_table, "chroma.sqlite3: integrity_check"),
    "`chroma.sqlite3` cut in half": (builders.truncated_database, "opens"),
    "no `chroma.sqlite3`": (builders.no_database, "opens"),
    "the folder is gone": (shutil.rmtree, "opens"),
}
"""Damage to the check that names it."""

UNSEEN: dict[str, Any] = {
    "a flipped bit of a vector": builders.flip_vector,
    "a link to another record": other_neighbour,
}
"""What is a sound store, only another one."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A store at rest, and its entry in a snapshot."""
    place = tmp_path_factory.mktemp("integrity")
    folder = place / "chroma"
    subprocess.run([sys.executable, "-c", builders.MAKE, folder], check=True)
    settle(folder)
    taken = take(folder, place / "scratch")
    taken.repository.close()
    entry = entry_of(taken.captured)
    # as if all had lain still for a while
    entry["fingerprint"]["sqlite"]["taken_ns"] += 3 * 10**9
    for segment, files in entry["fingerprint"]["segments"].items():
        for path in (folder / segment).glob("*"):
            files[path.name] = list(stat_key(path.stat()))
    return folder, entry


@pytest.fixture
def folder(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "data" / "chroma"))


@pytest.fixture
def without_chromadb(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen without it is seen everywhere; and it takes seconds to start."""
    monkeypatch.setattr(proof, "find_spec", lambda name: None)


def settle(folder: Path) -> None:
    """As if nobody had written for a while: what was written just now may be half written."""
    then = time.time() - 1000
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def config(folder: Path, **more: Any) -> ChromaConfig:
    return ChromaConfig(type="chroma", path=folder, **more)


def test_a_sound_store_answers_well_and_stays_as_it_is(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    before = picture(made[0])
    asked = ask(config(made[0]), tmp_path / "scratch")
    assert wrong(asked) == {}
    assert picture(made[0]) == before
    found = by_check(asked)
    assert found["a vector finds itself"].asked
    assert {"chromadb opens", "near: count", "angle: ids", NEAR + "links"} <= set(found)
    assert asked.facts["collections"] == {"near": 478, "angle": 478, "untouched": 0}


@pytest.mark.usefixtures("without_chromadb")
@pytest.mark.parametrize(("damage", "check"), SEEN.values(), ids=SEEN)
def test_damage_is_named_and_nothing_is_changed(
    folder: Path, tmp_path: Path, damage: Any, check: str
) -> None:
    damage(folder)
    settle(folder)
    before = picture(folder)
    found = wrong(ask(config(folder), tmp_path / "scratch"))
    assert check in found, found
    assert picture(folder) == before
    assert not (folder / "touched").exists()


@pytest.mark.usefixtures("without_chromadb")
@pytest.mark.parametrize("damage", UNSEEN.values(), ids=UNSEEN)
def test_what_it_cannot_see_it_sees_by_a_snapshot_when_nobody_wrote(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, damage: Any
) -> None:
    folder, entry = made
    asked = by_check(ask(config(folder), tmp_path / "scratch", entry=entry))[CHECK]
    assert asked.asked
    assert asked.ok, asked
    path = persisted(folder) / hnsw.DATA
    good = path.read_bytes()
    state = path.stat()
    try:
        damage(folder)
        assert path.read_bytes() != good
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
        others = by_check(ask(config(folder), tmp_path / "scratch2", entry=entry))
        assert wrong(others.values()) == {}
        assert others[CHECK].asked, "of the other files"
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        found = wrong(ask(config(folder), tmp_path / "scratch3", entry=entry))
        assert list(found) == [CHECK]
        assert found[CHECK].ids == [f"{path.parent.name}/{hnsw.DATA}"]
    finally:
        path.write_bytes(good)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("damage", [one for one, _ in SEEN.values()], ids=SEEN)
def test_a_backup_of_it_ends_in_words(folder: Path, tmp_path: Path, damage: Any) -> None:
    damage(folder)
    if folder.exists():
        settle(folder)
    with suppress(SafetakeError):  # anything else is a crash
        take(folder, tmp_path / "scratch").repository.close()


@pytest.mark.usefixtures("without_chromadb")
def test_no_flipped_bit_makes_it_fail_otherwise_than_by_a_finding(
    folder: Path, tmp_path: Path
) -> None:
    chooser = random.Random(4)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for number in range(40):
        path = chooser.choice(files)
        good = path.read_bytes()
        if not good:
            continue
        data = bytearray(good)
        for _ in range(chooser.randrange(1, 200)):
            at = chooser.randrange(min(len(data), chooser.choice([200, 1 << 30])))
            data[at] ^= 1 << chooser.randrange(8)
        path.write_bytes(data)
        settle(folder)
        for finding in wrong(ask(config(folder), tmp_path / f"scratch{number}")).values():
            assert finding.detail, finding
        for left in folder.glob("chroma.sqlite3-*"):
            left.unlink()
        path.write_bytes(good)
    settle(folder)
    assert wrong(ask(config(folder), tmp_path / "last")) == {}


def test_offenders_are_listed(folder: Path, tmp_path: Path) -> None:
    builders.missing_row(folder)
    found = wrong(ask(config(folder), tmp_path / "scratch"))
    assert found[NEAR + "vectors and metadata"].ids == ["id30"]
    assert not by_check(ask(config(folder), tmp_path / "again"))["chromadb"].asked


@pytest.mark.usefixtures("without_chromadb")
def test_a_crashed_writers_journal_is_told_and_not_rolled_back(
    folder: Path, tmp_path: Path
) -> None:
    program = (
        "import os, sys, apsw; c = apsw.Connection(sys.argv[1]); c.execute('BEGIN IMMEDIATE');"
        "c.execute('DELETE FROM embeddings').fetchall(); c.cache_flush(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, folder / "chroma.sqlite3"], check=False)
    before = picture(folder)
    assert "chroma.sqlite3-journal" in before
    found = wrong(ask(config(folder), tmp_path / "scratch"))
    assert list(found) == ["no crashed writer"]
    assert picture(folder) == before


def test_without_chromadb_or_room_that_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "find_spec", lambda name: None)
    asked = by_check(ask(config(folder), tmp_path / "scratch"))
    assert asked["chromadb"].detail == "not installed"
    assert not asked["chromadb"].asked
    monkeypatch.setattr(hotcopy, "NEEDED", 1e12)
    asked = by_check(ask(config(folder), tmp_path / "scratch2"))
    assert not asked["structure of the folder"].asked


def test_a_running_server_is_asked_as_well(folder: Path, tmp_path: Path) -> None:
    with server(folder) as where:
        url = f"http://{where}"
        both = ask(config(folder, server=url), tmp_path / "scratch")
        assert wrong(both) == {}
        assert both.facts["server_collections"] == {"near": 478, "angle": 478, "untouched": 0}
        alone = ask(ChromaConfig(type="chroma", url=url), tmp_path / "scratch2")
        assert wrong(alone) == {}
        assert by_check(alone)["collection near: a vector finds itself"].detail == "4 asked"
    gone = wrong(ask(ChromaConfig(type="chroma", url=url), tmp_path / "scratch3"))
    assert list(gone) == ["server answers"]


def test_the_page_says_the_same() -> None:
    said = table("Chroma")
    assert {damage for damage, word in said.items() if word == "named"} == set(SEEN)
    assert {damage for damage, word in said.items() if word != "named"} == set(UNSEEN)
