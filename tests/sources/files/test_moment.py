"""What is in a snapshot is what was there at the cut, whatever happens around it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from safetake.sources.files import content
from tests.sources.files.support import take
from tests.support.memory_writer import MemoryRepository


@pytest.fixture
def repository() -> Iterator[MemoryRepository]:
    with MemoryRepository() as made:
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "old").write_bytes(b"old")
    (folder / "sub" / "old").write_bytes(b"old")
    return folder


def test_given_changes_before_the_cut_then_they_are_in(
    root: Path, repository: MemoryRepository
) -> None:
    def before() -> None:
        (root / "new").write_bytes(b"new")
        (root / "old").write_bytes(b"changed")
        (root / "sub" / "old").unlink()
        (root / "made").mkdir()
        (root / "made" / "inside").write_bytes(b"x")
        (root / "temporary").write_bytes(b"published")
        (root / "temporary").rename(root / "published")

    taken = take(root, repository, before=before)
    assert sorted(taken.paths()) == ["made", "made/inside", "new", "old", "published", "sub"]
    assert taken.read("old") == b"changed"
    assert taken.read("published") == b"published"
    assert (taken.unread, taken.notes) == ([], [])
    assert taken.prove() == {}


def test_given_changes_after_the_cut_then_none_is_in(
    root: Path, repository: MemoryRepository
) -> None:
    def after() -> None:
        (root / "new").write_bytes(b"new")
        (root / "old").write_bytes(b"changed")
        (root / "sub" / "old").unlink()
        (root / "made").mkdir()
        (root / "made" / "inside").write_bytes(b"x")
        (root / "temporary").write_bytes(b"published")
        (root / "temporary").rename(root / "published")

    taken = take(root, repository, after=after)
    assert sorted(taken.paths()) == ["old", "sub", "sub/old"]
    assert taken.read("old") == taken.read("sub/old") == b"old"
    assert taken.unread == []
    assert len(taken.notes) == 2  # changed; deleted
    assert taken.prove() == {}
    following = take(root, repository, taken)
    assert sorted(following.paths()) == ["made", "made/inside", "new", "old", "published", "sub"]
    assert following.facts == take(root, repository).facts
    assert (following.unread, following.notes) == ([], [])


def test_given_renames_after_the_cut_then_the_old_names_are_in(
    root: Path, repository: MemoryRepository
) -> None:
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "f").write_bytes(b"deep")
    first = take(root, repository)

    def after() -> None:
        (root / "deep").rename(root / "moved")
        (root / "old").rename(root / "sub" / "new name")

    for parent in (None, first):
        taken = take(root, repository, parent, after=after)
        assert taken.read("deep/er/f") == b"deep"
        assert "moved" not in taken.names()
        assert taken.read("old") == b"old"
        assert taken.names("sub") == ["old"]
        assert taken.unread == []
        assert taken.prove() == {}
        (root / "moved").rename(root / "deep")
        (root / "sub" / "new name").rename(root / "old")
    following = take(root, repository, taken)
    assert following.facts == take(root, repository).facts


def test_given_a_folder_made_before_and_filled_after_the_cut_then_it_holds_what_was_before(
    root: Path, repository: MemoryRepository
) -> None:
    def before() -> None:
        (root / "project").mkdir()
        (root / "project" / "early").write_bytes(b"early")

    def after() -> None:
        (root / "project" / "late").write_bytes(b"late")
        (root / "another").mkdir()

    taken = take(root, repository, before=before, after=after)
    assert taken.names("project") == ["early"]
    assert "another" not in taken.names()
    assert taken.unread == []
    assert taken.prove() == {}


def test_given_a_name_changed_on_both_sides_of_the_cut_then_the_earlier_state_is_told_as_such(
    root: Path, repository: MemoryRepository
) -> None:
    taken = take(
        root,
        repository,
        before=lambda: write(root / "old", b"at the cut"),
        after=lambda: write(root / "old", b"later"),
    )
    assert taken.read("old") == b"old"
    assert taken.unread == []
    assert "old: changed after the cut: kept as seen" in taken.notes[0]


def test_given_a_file_made_before_and_changed_after_the_cut_then_it_is_never_dropped_silently(
    root: Path, repository: MemoryRepository
) -> None:
    file = root / "sub" / "made"
    taken = take(
        root,
        repository,
        before=lambda: write(file, b"at the cut"),
        after=lambda: write(file, b"later"),
    )
    assert taken.read("sub/made") == b"later"
    assert taken.unread == []
    assert "sub/made: written just before the cut and after it" in taken.notes[0]
    other = root / "sub" / "other"
    taken = take(
        root,
        repository,
        before=lambda: write(other, b"at the cut"),
        after=lambda: other.chmod(0o600),
    )
    assert taken.read("sub/other") == b"at the cut"
    assert taken.unread == []
    assert "metadata" in taken.notes[0]


def write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def test_given_the_type_of_a_name_changes_then_the_cut_has_the_one_of_its_moment(
    root: Path, repository: MemoryRepository
) -> None:
    def swap() -> None:
        (root / "old").unlink()
        (root / "old").mkdir()
        (root / "old" / "x").write_bytes(b"x")
        (root / "sub" / "old").unlink()
        (root / "sub").rmdir()
        (root / "sub").write_bytes(b"a file now")

    first = take(root, repository, after=swap)
    assert sorted(first.paths()) == ["old", "sub", "sub/old"]
    assert first.read("old") == b"old"
    second = take(root, repository, first)
    assert sorted(second.paths()) == ["old", "old/x", "sub"]
    assert second.facts == take(root, repository).facts
    third = take(root, repository, second, before=lambda: back(root))
    assert sorted(third.paths()) == ["old", "sub", "sub/old"]
    assert third.facts == take(root, repository).facts


def back(root: Path) -> None:
    (root / "old" / "x").unlink()
    (root / "old").rmdir()
    (root / "old").write_bytes(b"old")
    (root / "sub").unlink()
    (root / "sub").mkdir()
    (root / "sub" / "old").write_bytes(b"old")


def test_given_a_second_hold_then_the_cut_is_the_newer_one(
    root: Path, repository: MemoryRepository
) -> None:
    from safetake.config import FilesConfig
    from safetake.model import CaptureContext
    from safetake.sources.files import FilesSource

    source = FilesSource("scripts", FilesConfig(type="files", path=root))
    scratch = root.parent / "scratch"
    scratch.mkdir()
    session = source.session(CaptureContext(repository, None, scratch, reader=repository))
    session.prepare()
    session.hold(1.0)
    session.release()
    (root / "between").write_bytes(b"x")
    session.hold(1.0)
    session.release()
    session.release()
    captured = session.capture()
    session.close()
    session.close()
    assert captured.facts["files"] == 3


def test_given_a_folder_becomes_a_link_then_nothing_outside_is_read(
    root: Path, repository: MemoryRepository, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")

    def swap() -> None:
        (root / "sub").rename(tmp_path / "away")
        (root / "sub").symlink_to(tmp_path / "outside")

    for when in ("before", "after"):
        taken = take(root, repository, **{when: swap})  # type: ignore[arg-type]  # by name
        assert all("secret" not in path for path in taken.paths())
        (root / "sub").unlink()
        (tmp_path / "away").rename(root / "sub")


@contextmanager
def running(code: str, *arguments: str) -> Iterator[None]:
    """A writer in its own process, which has begun when the body runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


APPENDS = """
import sys, os
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
number = 0
while True:
    os.write(file, b"line %08d\\n" % number)
    number += 1
    if number == 50000:
        print("begun", flush=True)
"""


def test_given_a_log_that_grows_in_another_process_then_the_snapshot_has_a_beginning_of_it(
    root: Path, repository: MemoryRepository
) -> None:
    with running(APPENDS, str(root / "log")):
        taken = None
        for _ in range(3):
            taken = take(root, repository, taken)
            data = taken.read("log")
            assert len(data) == taken.node("log").size
            whole = data[: len(data) // 14 * 14]
            assert whole == b"".join(b"line %08d\n" % n for n in range(len(whole) // 14))
            assert taken.unread == []
            time.sleep(0.02)


@pytest.mark.parametrize("size", [1000, 3 * content.CUT_LONGEST])
def test_given_a_file_that_grows_while_it_is_read_then_it_is_no_failure(
    root: Path, repository: MemoryRepository, size: int
) -> None:
    log = root / "log"
    log.write_bytes(os.urandom(size))

    def append() -> None:
        with log.open("ab") as file:
            file.write(b"more")

    taken = take(root, repository, reading=append, after=append)
    data = taken.read("log")
    assert log.read_bytes().startswith(data)
    assert len(data) >= size
    assert taken.unread == []
    assert "log: changed after the cut" in taken.notes[0]


@pytest.mark.parametrize("size", [1000, 3 * content.CUT_LONGEST])
def test_given_a_file_that_never_stands_still_then_it_is_told(
    root: Path, repository: MemoryRepository, size: int
) -> None:
    busy = root / "busy"
    busy.write_bytes(os.urandom(size))

    def rewrite() -> None:
        with busy.open("r+b") as file:
            file.write(os.urandom(size))

    taken = take(root, repository, reading=rewrite)
    assert len(taken.unread) == 1
    assert taken.unread[0].startswith("busy: changed")
    node = taken.node("busy")
    assert node.size == sum(repository.sizes(node.content or []))
    assert take(root, repository, taken).unread == []


def test_given_a_file_that_shrinks_while_it_is_read_then_its_size_is_its_contents(
    root: Path, repository: MemoryRepository
) -> None:
    shrinking = root / "shrinking"
    shrinking.write_bytes(os.urandom(6 * content.CUT_LONGEST))

    def shrink() -> None:
        os.truncate(shrinking, shrinking.stat().st_size * 3 // 4)

    taken = take(root, repository, reading=shrink)
    node = taken.node("shrinking")
    assert node.size == sum(repository.sizes(node.content or []))
    assert len(taken.unread) == 1
