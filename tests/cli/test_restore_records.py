"""`safetake restore ID SOURCE --collection NAME --in-place`, against a real Chroma server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from safetake.cli.common import Settings
from safetake.cli.restore_records import records_folder, refuse_cut_off, take_back
from safetake.config import ChromaConfig
from safetake.errors import RefusedError
from safetake.sources.chroma.record import Record
from safetake.sources.chroma.rest_write import WritableServer
from tests.cli.conftest import Workplace
from tests.support.chroma_live import server

PLACE = ("default_tenant", "default_database")


@pytest.fixture
def chroma(workplace: Workplace) -> Iterator[WritableServer]:
    folder = workplace.folder / "chroma"
    folder.mkdir()
    with server(folder) as address:
        here = WritableServer(ChromaConfig(type="chroma", url=f"http://{address}"))
        made = here.create(*PLACE, "scripts", {"metadata": None})
        vectors = np.random.default_rng(1).random((20, 8), dtype=np.float32)
        here.add(made, [Record(f"s{n}", "장면", {}, None, vectors[n].tobytes()) for n in range(20)])
        with (workplace.folder / "safetake.toml").open("a") as file:
            file.write(
                f'[sources.vectors]\ntype = "chroma"\npath = "chroma"\nserver = "http://{address}"\n'
                '[restore]\nstate = "state"\n'
            )
        yield here


def test_records_and_collections(
    workplace: Workplace, chroma: WritableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.run("backup", "vectors")
    restore = ["restore", "latest", "vectors", "--collection", "scripts", "--in-place"]
    collection = chroma.find(*PLACE, "scripts")
    assert collection is not None
    original = chroma.read(collection, chroma.ids(collection))
    assert "nothing was changed" in workplace.run(*restore, "--yes").stdout

    chroma.delete(collection, ["s3", "s4"])
    changed = Record("s5", "other", {}, None, original["s5"].vector)
    chroma.update(collection, [(original["s5"], changed)])
    chroma.add(collection, [Record("new", None, {}, None, original["s1"].vector)])
    message, hint = workplace.error(*restore, code=2)
    assert "nobody to ask" in message
    assert "--yes" in hint
    planned = workplace.json(*restore, "--dry-run", "--exact")
    (one,) = planned["collections"]
    assert (one["missing"], one["changed"], one["newer"]) == (2, 1, 1)
    assert planned["report"] is None
    assert "s3" not in chroma.ids(collection)

    said = workplace.run(*restore, "--dry-run").stdout
    assert "1 of scripts were added since, and stay: --exact removes them" in said
    done = workplace.json(*restore, "--yes")
    assert done["report"]["added"] == 2
    said = workplace.run(*restore, "--exact", "--yes").stdout
    assert "removed from scripts: new" in said
    assert chroma.read(collection, chroma.ids(collection)) == original

    chroma.drop(collection)
    said = workplace.run(*restore, "--yes").stdout
    assert "another id" in said
    again = chroma.find(*PLACE, "scripts")
    assert again is not None
    assert chroma.read(again, chroma.ids(again)) == original

    # cut off before it was done: another one is refused, the same one goes on
    monkeypatch.chdir(workplace.folder)
    settings = Settings(Path("safetake.toml"))
    newest = max(records_folder(settings.load()).iterdir())
    lines = newest.read_bytes().splitlines(keepends=True)
    assert list(json.loads(lines[-1])) == ["done"]
    newest.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(RefusedError, match="cut off"):
        refuse_cut_off(settings.load())
    message, hint = workplace.error(*restore, "--exact", "--yes", code=1)
    assert "cut off" in message
    assert "--collection scripts" in hint
    workplace.run(*restore, "--yes")
    refuse_cut_off(settings.load())

    assert take_back(settings) == 0
    assert chroma.find(*PLACE, "scripts") is None


def test_a_second_undo_takes_back_the_restore_before(
    workplace: Workplace, chroma: WritableServer
) -> None:
    workplace.run("backup", "vectors")
    collection = chroma.find(*PLACE, "scripts")
    assert collection is not None
    for one in ("s1", "s2"):
        chroma.delete(collection, [one])
        restore = ["restore", "latest", "vectors", "--collection", "scripts", "--in-place"]
        workplace.run(*restore, "--id", one, "--yes")
    for left in ("s1", ""):
        assert len(workplace.json("restore", "--list")) == (2 if left else 1)
        workplace.run("restore", "--undo", "--yes")
        assert {"s1", "s2"} & set(chroma.ids(collection)) == ({left} if left else set())
    assert workplace.json("restore", "--list") == []
    message, _ = workplace.error("restore", "--undo", "--yes", code=2)
    assert "no restore to undo" in message
