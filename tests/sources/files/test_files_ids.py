"""Ids in paths: real folders, and snapshots of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.config import FilesConfig
from safetake.errors import ConfigError, SourceError
from safetake.model import CaptureContext
from safetake.sources.files import FilesSource
from safetake.sources.files.ids import FolderPaths, PathPattern, StoredPaths
from tests.support.memory_writer import MemoryRepository


@pytest.mark.parametrize(
    ("pattern", "path", "one"),
    [
        ("{id}.txt", "e1.txt", "e1"),
        ("{id}.txt", "p/e1.txt", None),
        ("*/{id}.txt", "p/e1.txt", "e1"),
        ("*/{id}.txt", "p/.e1.txt", None),
        ("*/{id}.txt", ".p/e1.txt", None),
        ("*/.{id}.txt", "p/.e1.txt", "e1"),
        ("{id}/*.txt", "p1/e1.txt", "p1"),
        ("**/{id}.txt", "e1.txt", "e1"),
        ("**/{id}.txt", "a/b/e1.txt", "e1"),
        ("**/{id}.txt", "a/.b/e1.txt", None),
        ("a/**/{id}", "a/e1", "e1"),
        ("{id*}", "a/b.txt", "a/b.txt"),
        ("{id*}", "a/.b.txt", None),
        ("{id*}.txt", "a/b.txt", "a/b"),
        ("x/{id*}/y", "x/a/b/y", "a/b"),
        ("x/{id*}/y", "x/y", None),
        ("/s-{id}-[0-9].txt", "s-e1-4.txt", "e1"),
        ("s-{id}-[!0-9].txt", "s-e1-4.txt", None),
        ("a.b{id}", "axb1", None),
        ("말/{id}.txt", "말/하나\n.txt", "하나\n"),
    ],
)
def test_what_a_pattern_means(pattern: str, path: str, one: str | None) -> None:
    assert PathPattern(pattern).id_in(path) == one


@pytest.mark.parametrize("pattern", ["{id}/**", "[a{id}]", "{id}\\"])
def test_patterns_that_cannot_be_used(pattern: str) -> None:
    with pytest.raises(ConfigError):
        PathPattern(pattern)


PARTS = st.sampled_from(["*", "**", "a", "b*", "?", "{id}", "x{id}", "{id*}", "[ab]"])
NAMES = st.lists(st.sampled_from(["a", "b", "bb", "xa", ".a"]), min_size=1, max_size=4)


@given(
    st.lists(PARTS, min_size=1, max_size=4).filter(
        lambda parts: sum("{id" in part for part in parts) == 1 and parts[-1] != "**"
    ),
    NAMES,
)
def test_no_folder_is_skipped_that_holds_a_match(parts: list[str], names: list[str]) -> None:
    pattern = PathPattern("/".join(parts))
    if pattern.id_in("/".join(names)) is not None:
        for depth in range(1, len(names)):
            assert pattern.enters("/".join(names[:depth]), depth)


def world(folder: Path) -> None:
    for path in ("p1/e1.txt", "p1/e2.txt", "p2/e3.txt", "p2/.e4.txt", "p2/old/e5.txt", "note"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    (folder / "p2" / "e6.txt").symlink_to("nowhere")
    (folder / "p2" / "e7.txt").mkdir()
    (folder / b"p3".decode()).mkdir()
    (folder / "p3" / "\udcff.txt").write_text("x")


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("*/{id}.txt", {"e1", "e2", "e3", "e6", "\udcff"}),
        ("{id}/", {"p1", "p2", "p3"}),
        ("p2/{id*}.txt", {"e3", "old/e5", "e6"}),
        ("{id}", {"note"}),
    ],
)
def test_a_folder_and_its_snapshot_have_the_same(
    pattern: str, ids: set[str], tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    world(folder)
    config = FilesConfig(type="files", path=folder)
    live = FolderPaths(config, pattern)
    assert set(live.ids()) == ids
    assert live.among({"e1", "p1", "no", "../e1"}) == ids & {"e1", "p1"}
    (tmp_path / "scratch").mkdir()
    with MemoryRepository() as repository:
        context = CaptureContext(repository, None, tmp_path / "scratch", reader=repository)
        session = FilesSource("scripts", config).session(context)
        session.prepare()
        session.hold(1.0)
        node = session.capture().node
        session.close()
        stored = StoredPaths(repository, node, pattern)
        assert set(stored.ids()) == ids
        assert stored.among({"e1", "p1", "no"}) == ids & {"e1", "p1"}


def test_what_is_excluded_is_not_there(tmp_path: Path) -> None:
    world(tmp_path)
    config = FilesConfig(type="files", path=tmp_path, exclude=["p1/"])
    assert set(FolderPaths(config, "*/{id}.txt").ids()) == {"e3", "e6", "\udcff"}


def test_a_folder_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    config = FilesConfig(type="files", path=tmp_path / "gone")
    with pytest.raises(SourceError, match="No such file"):
        list(FolderPaths(config, "{id}").ids())
