"""Records restored where something is unusual: long documents, a collection that was made anew
since, records that vanish meanwhile, headers that cannot be sent, undo files of any size."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetake.config import ChromaConfig
from safetake.errors import ConfigError, RefusedError, UsageError
from safetake.model import CaptureContext
from safetake.sources.chroma import records, takeback, undo
from safetake.sources.chroma.losses import losses
from safetake.sources.chroma.record import Record
from safetake.sources.chroma.records import RecordsReport
from safetake.sources.chroma.rest import RestSession, Server
from safetake.sources.chroma.rest_write import WritableServer
from tests.support.chroma_live import Taken, server, take
from tests.support.memory_writer import MemoryRepository, entry_of

PLACE = ("default_tenant", "default_database")


def record(name: str, size: int = 4, document: str | None = None) -> Record:
    vector = np.random.default_rng(len(name)).standard_normal(size).astype(np.float32)
    return Record(name, document, {}, None, vector.tobytes())


@dataclass
class Place:
    """A running server and its folder."""

    folder: Path
    here: WritableServer

    @property
    def config(self) -> ChromaConfig:
        return ChromaConfig(type="chroma", path=self.folder, server=self.here.where)

    def make(self, name: str, some: list[Record], **hnsw: Any) -> dict[str, Any]:
        made = self.here.create(
            *PLACE, name, {"metadata": None, "configuration": {"hnsw": hnsw or {"space": "l2"}}}
        )
        for one in range(0, len(some), 10):
            self.here.add(made, some[one : one + 10])
        return made

    def restore(self, taken: Taken, path: Path, name: str, **choices: Any) -> RecordsReport:
        node, repository = taken.captured.node, taken.repository
        entry = entry_of(taken.captured)
        plan = records.plan("v", self.config, entry, repository, node, [name], [], **choices)
        try:
            return records.apply(plan, path)
        finally:
            plan.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("odd") / "db"
    with server(folder) as address:
        yield Place(folder, WritableServer(ChromaConfig(type="chroma", url=f"http://{address}")))


def test_more_than_a_server_takes_at_once_comes_back(place: Place, tmp_path: Path) -> None:
    """Chroma's limit of a request is 40 MiB, whatever the number of records."""
    long = [record(f"d{n}", document="x" * 1_000_000 + str(n)) for n in range(45)]
    made = place.make("long", long)
    taken = take(place.folder, tmp_path / "scratch")
    place.here.drop(made)
    report = place.restore(taken, tmp_path / "1.jsonl", "long")
    assert (report.added, report.different) == (len(long), [])
    known = {one.id: (one.document, one.vector) for one in long}
    found = place.here.find(*PLACE, "long")
    assert found is not None
    for one, now in place.here.read(found, list(known)).items():
        assert (now.document, now.vector) == known.pop(one)
    assert not known
    place.here.drop(found)


def test_an_export_goes_on_when_every_record_of_a_batch_is_deleted_meanwhile(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = place.make("short-lived", [record(f"s{n}") for n in range(9)])
    asked = Server.ids

    def ids(self: Server, collection: dict[str, Any]) -> list[str]:
        found = asked(self, collection)
        place.here.delete(made, found)
        return found

    monkeypatch.setattr(Server, "ids", ids)
    config = ChromaConfig(type="chroma", url=place.here.where)
    with MemoryRepository() as repository:
        session = RestSession("v", config, CaptureContext(repository, None, tmp_path))
        session.prepare()
        session.hold(1.0)
        captured = session.capture()
        session.close()
    facts = next(iter(captured.facts["collections"].values()))
    assert (facts["name"], facts["records"]) == ("short-lived", 0)
    assert captured.notes == ["collection short-lived: 9 records were deleted during the export"]
    place.here.drop(made)


@pytest.mark.parametrize(
    ("other", "said"), [({"size": 7}, "numbers"), ({"space": "ip"}, "distance")]
)
def test_a_collection_of_another_shape_is_refused_before_anything(
    place: Place, tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    made = place.make("shape", [record("one")])
    taken = take(place.folder, tmp_path / "scratch")
    place.here.drop(made)
    size = other.pop("size", 4)
    again = place.make("shape", [record("other", size)], **other)
    path = tmp_path / "1.jsonl"
    with pytest.raises(RefusedError, match=said) as error:
        place.restore(taken, path, "shape")
    assert "modify" in error.value.hint
    assert not path.exists()
    place.here.drop(again)


def test_an_undo_leaves_a_collection_that_was_made_anew_since(place: Place, tmp_path: Path) -> None:
    made = place.make("anew", [record("one"), record("two")])
    taken = take(place.folder, tmp_path / "scratch")
    place.here.delete(made, ["one"])
    place.here.add(made, [record("newer")])
    path = tmp_path / "1.jsonl"
    report = place.restore(taken, path, "anew", exact=True)
    assert (report.added, report.deleted) == (1, 1)
    place.here.drop(made)
    again = place.make("anew", [record("one"), record("of the application", 4)])
    back = takeback.undo("v", place.config, path)
    assert (back.removed, back.put_back) == (0, 0)
    assert back.kept == ["anew: newer, the collection is gone, or was made anew since"]
    assert sorted(place.here.ids(again)) == ["of the application", "one"]

    place.here.drop(again)
    path = tmp_path / "2.jsonl"
    assert place.restore(taken, path, "anew").created == ["anew"]
    found = place.here.find(*PLACE, "anew")
    assert found is not None
    place.here.drop(found)
    again = place.make("anew", [])
    back = takeback.undo("v", place.config, path)
    assert (back.dropped, back.kept) == ([], ["the collection anew: it was made anew since"])
    place.here.drop(again)


@pytest.mark.parametrize("value", ["Bearer geheim\x07", "Bearer geheim\nX: y", "Bearer gehéim"])
def test_a_header_that_cannot_be_sent_is_named_and_its_value_is_not(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROMA_TOKEN", value)
    config = ChromaConfig(
        type="chroma", url="http://127.0.0.1:1", headers_env={"Authorization": "CHROMA_TOKEN"}
    )
    with pytest.raises(ConfigError, match="Authorization") as error:
        Server(config)
    assert "geh" not in str(error.value) + error.value.hint


def test_the_line_end_of_a_mounted_secret_is_no_part_of_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHROMA_TOKEN", "Bearer geheim\n")
    config = ChromaConfig(
        type="chroma", url=place.here.where, headers_env={"Authorization": "CHROMA_TOKEN"}
    )
    with Server(config) as one:
        assert one.version()


def test_an_undo_file_of_any_size_is_looked_through_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "1.jsonl"
    file = undo.UndoFile(path)
    file.write_begin({"source": "vectors"})
    place = {"tenant": "t", "database": "d", "name": "n", "space": "l2", "id": "i"}
    for number in range(40):
        some = {f"{number}-{n}": record(f"{number}-{n}", 1536) for n in range(50)}
        file.write_batch(place, undo.UPDATE, some, some, some, [])
    assert path.stat().st_size > 30 << 20
    tracemalloc.start()
    try:
        assert undo.unfinished(tmp_path) == [path]
        found = undo.read(path)
        assert [batch.ids[0] for batch in found.batches_back()] == [
            f"{number}-0" for number in reversed(range(40))
        ]
        found.write_done({})
        assert undo.unfinished(tmp_path) == []
        assert undo.latest_done(tmp_path) == path
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    found.write_undone({})
    assert undo.is_undone(path)
    assert undo.latest_done(tmp_path) is None


def test_what_makes_the_embeddings_comes_back_with_the_collection(
    place: Place, tmp_path: Path
) -> None:
    """`metadata={"hnsw:space": …}` is how most applications make theirs."""
    function = {"type": "known", "name": "openai", "config": {"model_name": "large"}}
    made = place.here.create(
        *PLACE,
        "functional",
        {
            "metadata": {"hnsw:space": "cosine", "hnsw:M": 11, "flag": True},
            "configuration": {"embedding_function": function},
        },
    )
    place.here.add(made, [record("one")])
    before = place.here.find(*PLACE, "functional")
    taken = take(place.folder, tmp_path / "scratch")
    place.here.drop(made)
    place.restore(taken, tmp_path / "1.jsonl", "functional")
    again = place.here.find(*PLACE, "functional")
    assert before is not None
    assert again is not None
    assert before["configuration_json"]["embedding_function"] == function
    for key in ("metadata", "configuration_json", "schema", "dimension"):
        assert again[key] == before[key]
    place.here.drop(again)


def test_one_name_in_several_tenants(place: Place, tmp_path: Path) -> None:
    places = [("tenant-a", "base"), ("tenant-b", "base"), PLACE]
    made = [place.here.create(*one, "many", {"metadata": {"of": one[0]}}) for one in places]
    for one in made:
        place.here.add(one, [record("one")])
    taken = take(place.folder, tmp_path / "scratch")
    place.here.add(made[0], [record("newer of a")])
    place.here.add(made[1], [record("newer of b")])
    node, facts = taken.captured.node, taken.captured.facts
    lost = losses(place.folder, facts, taken.repository, node)
    assert {loss.what: loss.examples for loss in lost} == {
        "vectors of tenant-a/base/many": ["newer of a"],
        "vectors of tenant-b/base/many": ["newer of b"],
    }
    for one in made:
        place.here.drop(one)
    for name in ("many", "base/many"):
        with pytest.raises(UsageError) as error:
            place.restore(taken, tmp_path / "1.jsonl", name)
        assert "tenant-a/base/many, tenant-b/base/many" in error.value.hint
    assert place.restore(taken, tmp_path / "1.jsonl", "tenant-b/base/many").added == 1
    assert place.here.find("tenant-a", "base", "many") is None
    found = place.here.find("tenant-b", "base", "many")
    assert found is not None
    assert found["metadata"] == {"of": "tenant-b"}
    place.here.drop(found)
