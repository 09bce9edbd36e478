"""Collections and records brought back into a running server: exact, undoable, killed half way."""

from __future__ import annotations

import os
import shutil
import signal
import tarfile
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetake.config import ChromaConfig
from safetake.errors import ConfigError, RefusedError, UsageError
from safetake.model import CaptureContext
from safetake.sources.chroma import records, rest_write, takeback, undo
from safetake.sources.chroma.record import Record
from safetake.sources.chroma.records import RecordsPlan, RecordsReport
from safetake.sources.chroma.rest_write import WritableServer
from safetake.sources.chroma.source import ChromaSource
from safetake.sources.chroma.stored import StoredStore
from tests.support.chroma_live import Load, Taken, server, take, writers
from tests.support.memory_writer import MemoryRepository, entry_of

PLACE = ("default_tenant", "default_database")
SPACES = {"euclid": "l2", "product": "ip", "cosine": "cosine"}
DIM = 24
COUNT = 150
CHANGES = ("add", "update", "delete", "collections")


@dataclass
class Live:
    """A running server with three collections, and the snapshot of it."""

    folder: Path
    address: str
    taken: Taken
    before: dict[str, dict[str, Record]]

    @property
    def config(self) -> ChromaConfig:
        return ChromaConfig(type="chroma", path=self.folder, server=f"http://{self.address}")

    @property
    def server(self) -> WritableServer:
        return WritableServer(ChromaConfig(type="chroma", url=f"http://{self.address}"))

    def plan(self, *names: str, ids: tuple[str, ...] = (), **choices: Any) -> RecordsPlan:
        return records.plan(
            "vectors",
            self.config,
            entry_of(self.taken.captured),
            self.taken.repository,
            self.taken.captured.node,
            names,
            ids,
            snapshot="5" * 64,
            **choices,
        )

    def find(self, name: str) -> dict[str, Any]:
        found = self.server.find(*PLACE, name)
        assert found is not None
        return found

    def all(self, name: str) -> dict[str, Record]:
        collection = self.find(name)
        return self.server.read(collection, self.server.ids(collection))

    def restore(self, path: Path, *names: str, **choices: Any) -> RecordsReport:
        plan = self.plan(*names, **choices)
        try:
            return records.apply(plan, path)
        finally:
            plan.close()


def record(number: int, rng: np.random.Generator) -> Record:
    """Every kind of document, metadata and uri, in turn."""
    vector = (rng.standard_normal(DIM) * rng.uniform(0.1, 9)).astype(np.float32)
    metadata: dict[str, Any] = {}
    if number % 2:
        metadata = {"n": number, "f": float(number), "b": number % 4 == 1, "장면": "텍스트"}
    if number % 5 == 3:
        metadata["list"] = [1, 2, number]
    return Record(
        f"id {number}/ü",
        None if number % 3 == 1 else f"문서 {number}",
        metadata,
        f"file:///{number}" if number % 7 == 2 else None,
        vector.tobytes(),
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Taken, dict[str, Any]]:
    """A folder taken while its server runs: part of each collection is in the queue only."""
    place = tmp_path_factory.mktemp("filled")
    folder = place / "db"
    rng = np.random.default_rng(5)
    before = {}
    with server(folder) as address:
        here = WritableServer(ChromaConfig(type="chroma", url=f"http://{address}"))
        for name, space in SPACES.items():
            hnsw = {"space": space, "sync_threshold": 40, "batch_size": 10, "ef_construction": 77}
            made = here.create(
                *PLACE, name, {"configuration": {"hnsw": hnsw}, "metadata": {"by": "test"}}
            )
            some = [record(number, rng) for number in range(COUNT)]
            for first in range(0, COUNT, 50):
                here.add(made, some[first : first + 50])
            here.delete(made, ["id 3/ü", "id 149/ü"])
            here.update(made, [(some[8], record(8, rng)), (some[147], record(147, rng))])
            before[name] = here.read(made, here.ids(made))
            assert len(before[name]) == COUNT - 2
        taken = take(folder, place / "scratch")
    return folder, taken, before


@pytest.fixture(scope="module")
def running(
    filled: tuple[Path, Taken, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    folder, taken, before = filled
    copy = tmp_path_factory.mktemp("running") / "db"
    shutil.copytree(folder, copy)
    with server(copy) as address:
        yield Live(copy, address, taken, before)


@pytest.fixture
def live(running: Live, tmp_path: Path) -> Live:
    """The state of the snapshot, and nothing else."""
    for collection in running.server.collections(*PLACE):
        running.server.drop(collection | dict(zip(("tenant", "database"), PLACE, strict=True)))
    (tmp_path / "reset").mkdir()
    running.restore(tmp_path / "reset" / "undo.jsonl")
    return running


def test_a_snapshot_tells_every_record_as_the_server_did(
    filled: tuple[Path, Taken, dict[str, Any]],
) -> None:
    _, taken, before = filled
    store = StoredStore(taken.repository, taken.captured.node)
    try:
        found = {collection.name: collection for collection in store.collections()}
        assert set(found) == set(SPACES)
        for name, expected in before.items():
            collection = found[name]
            assert collection.space == SPACES[name]
            ids = collection.ids()
            assert sorted(ids) == sorted(expected)
            got = collection.records(ids)
            for one, known in expected.items():
                assert got[one].words() == known.words()
                assert got[one].vector == known.vector, f"{name} {one}: not bit for bit"
    finally:
        store.close()


def test_a_deleted_collection_comes_back_exactly_and_goes_again(live: Live, tmp_path: Path) -> None:
    before = live.find("cosine")
    for space in SPACES:
        live.server.drop(live.find(space))
    path = tmp_path / "undo.jsonl"
    plan = live.plan()
    assert [one.live for one in plan.collections] == [None] * 3
    plan.close()
    report = live.restore(path)
    assert sorted(report.created) == sorted(SPACES)
    assert (report.added, report.different, report.kept) == (3 * (COUNT - 2), [], [])
    assert report.ulps == 0
    for space in SPACES:
        assert live.all(space).keys() == live.before[space].keys()
        for one, known in live.before[space].items():
            found = live.all(space)[one] if one == "id 0/ü" else None
            assert found is None or found.vector == known.vector
    again = live.find("cosine")
    assert again["id"] != before["id"]
    for key in ("metadata", "configuration_json"):
        assert again[key] == before[key]
    assert path.stat().st_mode & 0o777 == 0o600
    assert live.restore(tmp_path / "nothing.jsonl", changed=True).added == 0

    back = takeback.undo("vectors", live.config, path)
    assert (back.removed, back.kept, back.different) == (3 * (COUNT - 2), [], [])
    assert sorted(back.dropped) == sorted(SPACES)
    assert live.server.collections(*PLACE) == []


def spoil(live: Live, name: str) -> dict[str, Record]:
    """What goes wrong after a snapshot: records deleted, changed, new."""
    here, collection = live.server, live.find(name)
    known = live.all(name)
    here.delete(collection, ["id 0/ü", "id 7/ü"])
    rng = np.random.default_rng(77)
    for number, other in ((10, 11), (20, 31), (30, 37), (40, 49)):
        one = f"id {number}/ü"
        new = record(other, rng)
        changed = Record(one, new.document, new.metadata, new.uri, new.vector)
        here.update(collection, [(known[one], changed)])
    # only the words, only the vector
    words, vector = known["id 50/ü"], known["id 52/ü"]
    for old, new in (
        (words, Record(words.id, "other", words.metadata, words.uri, words.vector)),
        (
            vector,
            Record(vector.id, vector.document, vector.metadata, vector.uri, record(1, rng).vector),
        ),
    ):
        here.update(collection, [(old, new)])
    here.add(collection, [Record(f"new {n}", "neu", {}, None, record(n, rng).vector)
                          for n in range(5)])  # fmt: skip
    return live.all(name)


@pytest.mark.parametrize("name", [pytest.param("euclid", marks=pytest.mark.slow), "cosine"])
def test_deleted_and_changed_records_under_writers_elsewhere(
    live: Live, tmp_path: Path, name: str
) -> None:
    load = Load("busy", threshold=50)
    with writers(live.address, [load], 60, tmp_path):
        spoiled = spoil(live, name)
        original = live.before[name]

        plan = live.plan(name, exact=True)
        (one,) = plan.collections
        plan.close()
        assert sorted(one.missing) == ["id 0/ü", "id 7/ü"]
        assert len(one.changed) == 6
        assert one.newer == [f"new {n}" for n in range(5)]

        missing = live.restore(tmp_path / "1.jsonl", name)
        assert (missing.added, missing.updated, missing.deleted) == (2, 0, 0)
        now = live.all(name)
        assert now == spoiled | {each: original[each] for each in ("id 0/ü", "id 7/ü")}

        changed = live.restore(tmp_path / "2.jsonl", name, changed=True)
        assert (changed.added, changed.updated, changed.deleted) == (0, 6, 0)
        assert changed.different == []
        now = live.all(name)
        assert now == original | {each: now[each] for each in now if each.startswith("new")}

        exact = live.restore(tmp_path / "3.jsonl", name, exact=True)
        assert (exact.added, exact.updated, exact.deleted) == (0, 0, 5)
        assert live.all(name) == original

        for number in (3, 2, 1):
            back = takeback.undo("vectors", live.config, tmp_path / f"{number}.jsonl")
            assert (back.kept, back.different) == ([], [])
        assert live.all(name) == spoiled


def test_single_records(live: Live, tmp_path: Path) -> None:
    spoil(live, "product")
    report = live.restore(tmp_path / "1.jsonl", "product", ids=("id 7/ü", "id 10/ü"))
    assert (report.added, report.updated) == (1, 0)
    assert "id 0/ü" not in live.all("product")
    plan = live.plan("product", ids=("id 10/ü",))
    assert plan.collections[0].changed == ["id 10/ü"]
    assert plan.nothing
    plan.close()
    report = live.restore(tmp_path / "2.jsonl", "product", ids=("id 10/ü",), changed=True)
    assert (report.added, report.updated) == (0, 1)
    assert live.all("product")["id 10/ü"] == live.before["product"]["id 10/ü"]
    with pytest.raises(UsageError, match="no record 'nowhere'"):
        live.plan("product", ids=("nowhere",))
    with pytest.raises(UsageError, match="need one collection"):
        live.plan(ids=("id 1/ü",))
    with pytest.raises(UsageError, match=r"there is no collection 'cosin'.*cosine"):
        live.plan("cosin")


def test_an_undo_leaves_what_applications_wrote_since(live: Live, tmp_path: Path) -> None:
    spoil(live, "euclid")
    path = tmp_path / "1.jsonl"
    live.restore(path, "euclid", changed=True)
    collection, now = live.find("euclid"), live.all("euclid")
    for one in ("id 0/ü", "id 10/ü"):
        newer = Record(one, "written since", {}, None, now[one].vector)
        live.server.update(collection, [(now[one], newer)])
    live.server.delete(collection, ["id 20/ü"])
    there = live.all("euclid")
    back = takeback.undo("vectors", live.config, path)
    assert sorted(back.kept) == ["euclid: id 0/ü", "euclid: id 10/ü", "euclid: id 20/ü"]
    after = live.all("euclid")
    assert after["id 0/ü"] == there["id 0/ü"]
    assert after["id 10/ü"] == there["id 10/ü"]
    assert "id 20/ü" not in after
    assert "id 7/ü" not in after


def killed_at(live: Live, path: Path, number: int, when: str) -> bool:
    """A process that is killed at its n-th change; False when it had fewer to make."""
    pid = os.fork()
    if not pid:
        try:
            changes = 0
            inner = WritableServer._call

            def call(self: WritableServer, verb: str, path: str, body: Any = None) -> Any:
                nonlocal changes
                if verb == "POST" and path.rsplit("/", 1)[-1] in CHANGES:
                    changes += 1
                    if changes == number:
                        if when == "after":
                            inner(self, verb, path, body)
                        os.kill(os.getpid(), signal.SIGKILL)
                return inner(self, verb, path, body)

            WritableServer._call = call  # type: ignore[method-assign,assignment]
            rest_write.MOST_RECORDS = 75
            live.restore(path, "cosine", "euclid", exact=True)
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


@pytest.mark.parametrize("end", ["resume", "undo"])
@pytest.mark.parametrize(
    "numbers", [(2,), pytest.param(range(1, 99), marks=pytest.mark.slow)], ids=["one", "all"]
)
def test_killed_before_or_after_any_change(
    live: Live, tmp_path: Path, end: str, numbers: Iterable[int]
) -> None:
    """Each call that changes something, killed with SIGKILL; both ends are exact after it."""
    live.server.drop(live.find("cosine"))
    spoiled = spoil(live, "euclid")
    killed = 0
    for number in numbers:
        for when in ("before", "after"):
            path = tmp_path / f"{number}-{when}.jsonl"
            if not killed_at(live, path, number, when):
                takeback.undo("vectors", live.config, path)
                assert killed >= 10
                return
            killed += 1
            assert undo.unfinished(tmp_path) == [path]
            if end == "resume":
                live.restore(path, "cosine", "euclid", exact=True)
                assert live.all("euclid") == live.before["euclid"]
                assert live.all("cosine") == live.before["cosine"]
                assert undo.unfinished(tmp_path) == []
            back = takeback.undo("vectors", live.config, path)
            assert (back.kept, back.different) == ([], [])
            assert live.all("euclid") == spoiled
            assert live.server.find(*PLACE, "cosine") is None
            assert undo.unfinished(tmp_path) == []


def test_an_export_of_a_server_comes_back_exactly(live: Live, tmp_path: Path) -> None:
    repository = MemoryRepository()
    (tmp_path / "scratch").mkdir()
    config = ChromaConfig(type="chroma", url=f"http://{live.address}")
    session = ChromaSource("vectors", config).session(
        CaptureContext(repository, None, tmp_path / "scratch", reader=repository)
    )
    session.prepare()
    session.hold(1)
    session.release()
    captured = session.capture()
    session.close()
    spoil(live, "cosine")
    live.server.drop(live.find("euclid"))
    plan = records.plan(
        "vectors", config, entry_of(captured), repository, captured.node, [], [], exact=True
    )
    report = records.apply(plan, tmp_path / "1.jsonl")
    plan.close()
    assert report.different == []
    assert report.ulps == 0
    for space in SPACES:
        assert live.all(space) == live.before[space]


def test_a_folder_of_an_older_chroma_comes_back_into_a_newer_server(
    live: Live, tmp_path: Path
) -> None:
    with tarfile.open(Path(__file__).parent / "chroma-0.6.3.tar.gz") as packed:
        packed.extractall(tmp_path / "old", filter="data")
    (folder,) = (path.parent for path in (tmp_path / "old").rglob("chroma.sqlite3"))
    taken = take(folder, tmp_path / "scratch")
    config = ChromaConfig(type="chroma", url=f"http://{live.address}")
    plan = records.plan(
        "v", config, entry_of(taken.captured), taken.repository, taken.captured.node, [], []
    )
    report = records.apply(plan, tmp_path / "1.jsonl")
    plan.close()
    assert (sorted(report.created), report.added) == (["alpha", "beta"], 98)
    assert (report.different, report.ulps) == ([], 0)
    assert live.find("beta")["configuration_json"]["hnsw"]["space"] == "cosine"


def test_the_wrong_server_and_none_are_refused(live: Live, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(live.folder, other)
    with server(tmp_path / "empty") as address:
        here = WritableServer(ChromaConfig(type="chroma", url=f"http://{address}"))
        here.create(*PLACE, "something", {"metadata": None})
        wrong = Live(other, address, live.taken, live.before)
        with pytest.raises(RefusedError, match="does not use"):
            wrong.plan("euclid")
    none = ChromaConfig(type="chroma", path=live.folder)
    with pytest.raises(ConfigError, match="no server") as error:
        records.plan(
            "vectors", none, {}, live.taken.repository, live.taken.captured.node, ["euclid"], []
        )
    assert "server =" in error.value.hint


def test_an_undo_file_with_a_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "1.jsonl"
    file = undo.UndoFile(path)
    file.write_begin({"source": "vectors"})
    one = Record("a", None, {"k": 1.0}, None, b"\0\0\x80\x3f")
    place = {"tenant": "t", "database": "d", "name": "n", "space": "l2", "id": "i"}
    file.write_batch(place, undo.UPDATE, ["a"], {"a": one}, {"a": one}, ["a"])
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:cut])
        found = undo.read(path)
        assert (found.begin, found.places) == ({"source": "vectors"}, [])
        assert path.read_bytes() == whole[:cut], "a reader changed it"
        found.write_done({})
        assert path.read_bytes().startswith(whole[: whole.index(b"\n") + 1] + b'{"done"')
    path.write_bytes(whole)
    (batch,) = undo.read(path).batches_back()
    assert batch.old == {"a": one}
    assert batch.new["a"].is_now(one, "l2")
    assert not batch.new["a"].is_now(None, "l2")
    assert undo.unfinished(tmp_path) == [path]
    undo.read(path).write_done({})
    assert undo.unfinished(tmp_path) == []
    assert undo.latest_done(tmp_path) == path
