"""Ids of a collection: a real folder and server, a snapshot, an export, a queue to replay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from safetake.config import ChromaConfig
from safetake.errors import SourceError
from safetake.model import CaptureContext
from safetake.sources.chroma.ids import FolderIds, live_ids, staged_ids, stored_ids
from safetake.sources.chroma.rest_ids import ExportIds, ServerIds
from safetake.sources.chroma.source import ChromaSource
from tests.support.chroma_live import Load, bring_back, server, take, writers
from tests.support.memory_writer import MemoryRepository, materialise

FILL = """
import sys, chromadb
client = chromadb.PersistentClient(sys.argv[1])
made = client.create_collection("scripts", embedding_function=None)
ids = [f"e{i}" for i in range(30)]
made.add(ids=ids, embeddings=[[i, 1.0] for i in range(30)],
         metadatas=[{"project_id": i % 3, "tags": ["a", f"t{i}"]} for i in range(30)])
made.update(ids=["e1"], metadatas=[{"project_id": "말"}])
made.upsert(ids=["e2", "new"], embeddings=[[1, 1], [2, 2]], metadatas=[{"project_id": 7.0}] * 2)
made.delete(ids=["e3"])
other = client.create_collection("others", embedding_function=None)
other.add(ids=["e99"], embeddings=[[1, 2, 3]], metadatas=[{"project_id": "p99"}])
client.create_collection("nothing", embedding_function=None)
"""
IDS = {f"e{i}" for i in range(30)} - {"e3"} | {"new"}
PROJECTS = {"0", "1", "2", "7", "말"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chroma") / "store"
    subprocess.run([sys.executable, "-c", FILL, made], check=True, capture_output=True)
    return made


def answers(reader: FolderIds | ServerIds | ExportIds) -> None:
    """The ids themselves."""
    assert set(reader.ids()) == IDS
    assert reader.among({"e1", "e3", "new", "\udcff", "말"}) == {"e1", "new"}


def projects(reader: FolderIds | ServerIds | ExportIds) -> None:
    """A key of the metadata."""
    assert set(reader.ids()) == PROJECTS
    assert reader.among({"7", "말", "e1", "8"}) == {"7", "말"}


def test_a_folder_live_and_in_a_snapshot(folder: Path, tmp_path: Path) -> None:
    answers(live_ids(folder, "scripts"))
    answers(live_ids(folder, "default_database/scripts"))
    projects(live_ids(folder, "scripts", "project_id"))
    assert set(live_ids(folder, "scripts", "tags").ids()) >= {"a", "t0", "t29"}
    assert set(live_ids(folder, "nothing").ids()) == set()
    taken = take(folder, tmp_path / "scratch")
    with taken.repository:
        node = taken.captured.node
        answers(stored_ids(taken.repository, node, "scripts"))
        projects(stored_ids(taken.repository, node, "scripts", "project_id"))
        copy = bring_back(taken, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    answers(staged_ids(copy, "scripts"))
    projects(staged_ids(copy, "scripts", "project_id"))
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_a_server_and_its_export(folder: Path, tmp_path: Path) -> None:
    with server(folder) as address, MemoryRepository() as repository:
        config = ChromaConfig(type="chroma", url=f"http://{address}")
        for at_once in (50_000, 0):
            answers(ServerIds(config, "scripts", at_once=at_once))
            projects(ServerIds(config, "scripts", "project_id", at_once=at_once))
        with pytest.raises(SourceError, match="no collection 'script'"):
            list(ServerIds(config, "script").ids())
        (tmp_path / "scratch").mkdir()
        context = CaptureContext(repository, None, tmp_path / "scratch", reader=repository)
        session = ChromaSource("vectors", config).session(context)
        session.prepare()
        session.hold(1)
        node = session.capture().node
        session.close()
        answers(ExportIds((repository, node), "scripts"))
        projects(ExportIds((repository, node), "scripts", "project_id"))
        materialise(repository, node, tmp_path / "copy")
        answers(ExportIds(tmp_path / "copy", "scripts"))


def test_a_collection_that_is_not_there_is_no_empty_one(folder: Path) -> None:
    with pytest.raises(SourceError, match="no collection 'lost'") as caught:
        list(live_ids(folder, "lost").ids())
    assert "restore" in caught.value.hint


def test_what_the_queue_still_holds_is_replayed(folder: Path, tmp_path: Path) -> None:
    """A copy whose metadata lags behind its queue is what Chroma makes of it at its start."""
    taken = take(folder, tmp_path / "scratch")
    taken.repository.close()
    copy = bring_back(taken, tmp_path / "copy")
    db = apsw.Connection(str(copy / "chroma.sqlite3"))
    key = db.execute("SELECT id FROM collections WHERE name = 'scripts'").get
    changes = [
        (0, "q1", '{"project_id": "queued"}'),  # new
        (0, "e4", '{"project_id": "ignored"}'),  # there already
        (1, "e5", '{"project_id": "changed"}'),
        (1, "none", '{"project_id": "ignored"}'),  # not there
        (2, "e6", '{"project_id": null}'),
        (3, "e7", None),
        (0, "e8", None),
        (3, "e8", None),
        (0, "e8", '{"project_id": "again"}'),
    ]
    for operation, one, text in changes:
        db.execute(
            "INSERT INTO embeddings_queue (operation, topic, id, metadata) VALUES (?, ?, ?, ?)",
            (operation, f"persistent://default/default/{key}", one, text),
        )
    db.close()
    assert set(staged_ids(copy, "scripts").ids()) == IDS - {"e7"} | {"q1"}
    asked = {"q1", "none", "e7", "e8", "e4"}
    assert staged_ids(copy, "scripts").among(asked) == {"q1", "e8", "e4"}
    found = set(staged_ids(copy, "scripts", "project_id").ids())
    assert found == PROJECTS | {"queued", "changed", "again"}


def test_a_record_that_is_there_all_the_time_is_always_met(tmp_path: Path) -> None:
    """Pages of a store that is written to miss nothing that stays."""
    store = tmp_path / "store"
    load = Load("busy", batch=10, preload=800)
    stay = {f"busy-p{number}" for number in range(800)}
    with writers(str(store), [load], 30, tmp_path):
        reader = live_ids(store, "busy")
        seen: set[str] = set()
        for _ in range(40):
            found = set(reader.ids())
            assert stay <= found
            assert reader.among(stay) == stay
            seen |= found
        assert len(seen) > 800, "nobody wrote"
