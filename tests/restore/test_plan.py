"""The plan of a restore: on disk; names of one file found; no folders that lead to nothing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetake.model import BlobId, Node, Wanted
from safetake.restore.plan import RestorePlan, plan_node
from safetake.scratch import scratch_database


class Trees:
    """A reader of trees that are made up when they are asked for."""

    def __init__(self, trees: dict[BlobId, list[Node]]) -> None:
        self._trees = trees

    def tree(self, tree_id: BlobId) -> list[Node]:
        if tree_id in self._trees:
            return self._trees[tree_id]
        return [file(f"{tree_id.hex()}-{n}") for n in range(100)]

    def sizes(self, ids: list[BlobId]) -> list[int]:
        return [5] * len(ids)

    def blob(self, blob_id: BlobId) -> bytes:
        raise NotImplementedError


def file(name: str, *, inode: int = 0, content: bytes = b"a") -> Node:
    return Node(name, "file", size=5, content=[content * 32], inode=inode, links=1 + bool(inode))


def folder(name: str, tree: bytes) -> Node:
    return Node(name, "dir", subtree=tree)


@contextmanager
def planned(trees: dict[BlobId, list[Node]], wanted: Wanted | None = None) -> Iterator[RestorePlan]:
    with scratch_database() as database:
        plan = RestorePlan(database)
        reader: Any = Trees(trees)
        plan_node(reader, folder("top", b"top"), "top", plan, wanted=wanted)
        yield plan


def test_names_of_one_file_are_planned_once_and_need_its_room_once() -> None:
    trees = {
        b"top": [file("a", inode=7), folder("d", b"d"), file("z", inode=7, content=b"z")],
        b"d": [file("b", inode=7), file("c", inode=8), file("e", inode=7, content=b"z")],
    }
    with planned(trees) as plan:
        assert [one.path for one in plan.files()] == ["top/a", "top/z", "top/d/c", "top/d/e"]
        assert list(plan.links()) == [("top/a", "top/d/b")]
        assert (plan.count, plan.bytes, plan.room) == (5, 25, 20)
        assert plan.facts()["files"] == 5


def test_only_folders_that_are_wanted_or_lead_to_something_are_planned() -> None:
    trees = {
        b"top": [folder("a", b"a"), folder("b", b"b"), file("x"), folder("whole", b"empty")],
        b"a": [folder("in", b"in"), folder("out", b"out"), folder("last", b"in")],
        b"in": [file("wanted"), file("x")],
        b"out": [file("x"), folder("deep", b"empty")],
        b"b": [file("x")],
        b"empty": [],
    }

    def wanted(path: str, is_folder: bool, above: bool) -> bool:
        return above or path.endswith(("wanted", "whole"))

    with planned(trees, wanted) as plan:
        folders = [path for path, _ in plan.folders()]
        assert folders == ["top", "top/a", "top/a/in", "top/a/last", "top/whole"]
        assert [path for path, _ in plan.folders(backwards=True)] == folders[::-1]
        assert [f.path for f in plan.files()] == ["top/a/in/wanted", "top/a/last/wanted"]
    with planned(trees, lambda path, is_folder, above: False) as plan:
        assert [path for path, _ in plan.folders()] == ["top"]
        assert plan.count == 0


def test_memory_is_for_one_folder_not_for_all() -> None:
    top = [folder(str(n), b"%03d" % n) for n in range(100)]
    tracemalloc.start()
    try:
        with planned({b"top": top}) as plan:
            assert sum(1 for _ in plan.files()) == 10_000
            assert plan.count == 10_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000  # 10,000 nodes take 8 MB
