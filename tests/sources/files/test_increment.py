"""Work follows change: what did not change costs a stat, and what is relied upon is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from safetake.model import Parent
from safetake.sources.files import content
from tests.sources.files.support import Taken, take
from tests.support.memory_writer import MemoryRepository, entry_of


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root reads everything; nobody does not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def plant(root: Path) -> None:
    for folder in ("a", "b/c"):
        (root / folder).mkdir(parents=True)
        for number in range(20):
            (root / folder / f"{number}.txt").write_bytes(f"{folder}{number}".encode() * 50)


def test_given_nothing_changed_then_nothing_is_read_and_the_tree_is_the_parents(
    tmp_path: Path,
) -> None:
    plant(tmp_path)
    with MemoryRepository() as repository:
        first = take(tmp_path, repository)
        trees, submitted = len(repository.trees), repository.submitted_bytes
        second = take(tmp_path, repository, first)
        assert second.files_read == 0
        assert (len(repository.trees), repository.submitted_bytes) == (trees, submitted)
        assert second.captured.node.subtree == first.captured.node.subtree
        assert second.facts == first.facts
        assert entry_of(second.captured)["fingerprint"] == entry_of(first.captured)["fingerprint"]


def test_given_one_change_then_one_file_is_read_and_only_its_folders_are_written(
    tmp_path: Path,
) -> None:
    plant(tmp_path)
    with MemoryRepository() as repository:
        first = take(tmp_path, repository)
        trees = len(repository.trees)
        (tmp_path / "b" / "c" / "3.txt").write_bytes(b"new")
        second = take(tmp_path, repository, first)
        # Once before the cut and, as it was written in the very tick, once after it.
        assert 1 <= second.files_read <= 2
        assert len(repository.trees) - trees == 3  # b/c, b and the root
        assert second.node("a").subtree == first.node("a").subtree
        assert second.read("b/c/3.txt") == b"new"
        third = take(tmp_path, repository, second)
        assert third.files_read == 0


def test_given_a_file_was_only_read_or_touched_then_content_is_not_read_twice(
    tmp_path: Path,
) -> None:
    plant(tmp_path)
    with MemoryRepository() as repository:
        first = take(tmp_path, repository)
        os.utime(tmp_path / "a" / "1.txt", ns=(1, (tmp_path / "a" / "1.txt").stat().st_mtime_ns))
        (tmp_path / "a" / "2.txt").read_bytes()
        second = take(tmp_path, repository, first)
        assert second.files_read <= 2  # the change time moved for 1.txt, and for nothing else
        (tmp_path / "b").chmod(0o700)
        third = take(tmp_path, repository, second)
        assert third.files_read == 0
        assert third.node("b").mode & 0o777 == 0o700
        assert third.node("b").subtree == second.node("b").subtree


def test_given_a_rewrite_of_equal_size_and_restored_mtime_then_it_is_noticed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"one")
    with MemoryRepository() as repository:
        first = take(tmp_path, repository)
        stamp = file.stat().st_mtime_ns
        file.write_bytes(b"two")
        os.utime(file, ns=(stamp, stamp))
        assert take(tmp_path, repository, first).read("f") == b"two"


def test_given_rewrites_in_the_same_tick_then_the_last_one_is_in_the_snapshot(
    tmp_path: Path,
) -> None:
    file = tmp_path / "f"
    taken: Taken | None = None
    with MemoryRepository() as repository:
        for number in range(40):
            first, second = f"{number:04}a".encode(), f"{number:04}b".encode()
            file.write_bytes(first)
            taken = take(tmp_path, repository, taken, before=lambda: write(file, second))  # noqa: B023
            assert taken.read("f") == second
            assert taken.unread == []


def write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def test_given_a_write_in_the_tick_in_which_a_snapshot_read_the_file_then_the_next_one_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    with MemoryRepository() as repository, monkeypatch.context() as patch:
        patch.setattr(content, "coarse_ns", lambda: 0)  # every reading is in the tick of a write
        first = take(
            tmp_path,
            repository,
            before=lambda: write(file, b"zero"),
            after=lambda: write(file, b"then"),
        )
        # as if it had read before the last write, which has the stamps of the one before
        first = first.with_content({"f": b"once"})
        assert first.read("f") == b"once"
        assert take(tmp_path, repository, first).read("f") == b"then"


def test_given_blobs_of_the_parent_are_gone_then_files_are_read_again(tmp_path: Path) -> None:
    plant(tmp_path)
    with MemoryRepository() as repository:
        first = take(tmp_path, repository)
        (lost,) = first.node("a/7.txt").content or []
        del repository.lengths[lost], repository.blobs[lost]
        second = take(tmp_path, repository, first)
        assert second.files_read == 1
        assert second.read("a/7.txt") == (tmp_path / "a" / "7.txt").read_bytes()
        assert second.facts == first.facts
        assert "missing" in second.notes[0]


def test_given_the_parents_tree_is_damaged_then_everything_is_read_again(tmp_path: Path) -> None:
    plant(tmp_path)
    with MemoryRepository() as repository:
        first = take(tmp_path, repository)
        tree = first.node("b/c").subtree
        assert tree is not None
        del repository.trees[tree]
        second = take(tmp_path, repository, first)
        assert second.files_read == 40
        assert second.facts == first.facts
        assert "damaged" in second.notes[0]


@pytest.mark.parametrize("what", ["fingerprint", "facts"])
def test_given_a_parent_of_another_version_then_it_is_not_built_upon_blindly(
    tmp_path: Path, what: str
) -> None:
    plant(tmp_path)
    with MemoryRepository() as repository:
        first = take(tmp_path, repository)
        target = getattr(first.captured, what)
        target["chunker"] = "something else"
        second = take(tmp_path, repository, first)
        assert second.files_read == (40 if what == "fingerprint" else 0)
        assert second.facts == take(tmp_path, repository).facts


def test_given_an_unreadable_file_then_every_run_tells_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    (root / "good").write_bytes(b"x")
    (root / "secret").write_bytes(b"x")
    (root / "secret").chmod(0)
    (root / "closed").mkdir()
    (root / "closed" / "inside").write_bytes(b"x")
    (root / "closed").chmod(0)
    taken = None
    with MemoryRepository() as repository, as_nobody():
        for _ in range(3):
            taken = take(root, repository, taken)
            assert sorted(taken.paths()) == ["good"]
            assert len(taken.unread) == 1
            assert "closed, secret: could not be read: Permission denied" in taken.unread[0]
    (root / "closed").chmod(0o755)
    (root / "secret").chmod(0o644)
    with MemoryRepository() as repository:
        assert take(root, repository).unread == []


def test_given_many_small_files_then_they_share_buffers(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number}").write_bytes(b"%d" % number * 20)
    with MemoryRepository() as repository:
        calls = []
        submit = repository.submit

        def counted(buffer: bytearray, sizes: list[int]) -> object:
            calls.append(len(sizes))
            return submit(buffer, sizes)

        repository.submit = counted  # type: ignore[method-assign,assignment]  # counting calls
        taken = take(tmp_path, repository)
        assert taken.facts["files"] == 1000
        assert len(calls) <= 4
        assert taken.prove() == {}


def test_given_the_parent_of_another_folder_then_facts_are_of_this_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / name).write_bytes(name.encode())
    with MemoryRepository() as repository:
        first = take(tmp_path / "one", repository)
        parent = Parent(entry_of(first.captured), first.captured.node, repository)
        assert parent.node.subtree is not None
        second = take(tmp_path / "two", repository, first)
        assert sorted(second.paths()) == ["sub", "sub/two"]
        assert second.facts == take(tmp_path / "two", repository).facts
