"""The kept index is only a faster way to the same answers: old, damaged or hostile, it is none."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from safetake.errors import DamagedError
from safetake.model import Node
from safetake.repository import Repository
from safetake.repository import cache as cache_module
from safetake.repository.cache import IndexCache, cache_folder
from safetake.repository.check import check
from safetake.repository.crypto import MasterKey, Sealer
from safetake.repository.index import Index
from tests.support.repositories import memory_folder, new_repository, open_repository


@pytest.fixture
def base() -> Iterator[Path]:
    with memory_folder() as folder:
        new_repository(folder / "repository")
        yield folder


def opened(base: Path) -> Repository:
    """As the command opens it: with a cache."""
    repository = open_repository(base / "repository")
    repository.cache = IndexCache(base / "caches", repository.id, repository.key)
    return repository


def write(repository: Repository, *words: str) -> bytes:
    """A folder with a file for each word, remembered; returns its tree."""
    with repository.lock(exclusive=False), repository.writer() as writer:
        nodes = []
        for word in words:
            data = word.encode() * 100
            content = writer.store(data).result()
            nodes.append(Node(word, "file", size=len(data), content=content))
        tree = writer.save_tree(nodes)
        writer.flush()
    repository.remember([tree])
    return tree


def kept(base: Path) -> Path:
    (found,) = (base / "caches").rglob(cache_module.NAME)
    return found


def everything(index: Index) -> dict[str, set[object]]:
    return {pack: set(entries) for pack, entries in index.packs().items()}


def no_json(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the index files whose JSON is read from here on."""
    read: list[str] = []
    load = Index.load

    def noted(self: Index, name: str, content: bytes) -> None:
        read.append(name)
        load(self, name, content)

    monkeypatch.setattr(Index, "load", noted)
    return read


def test_given_a_kept_index_then_it_answers_the_same_and_no_json_is_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write(opened(base), "one", "two")
    plain = open_repository(base / "repository").index
    read = no_json(monkeypatch)
    index = opened(base).index
    assert read == []
    assert everything(index) == everything(plain)
    assert index.files == plain.files
    assert tree in index.whole
    assert tree not in plain.whole
    assert stat.S_IMODE(kept(base).stat().st_mode) == 0o600
    assert stat.S_IMODE(kept(base).parent.stat().st_mode) == 0o700


def test_given_newer_index_files_then_only_those_are_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(opened(base), "one")
    write(open_repository(base / "repository"), "two")
    read = no_json(monkeypatch)
    index = opened(base).index
    assert len(read) == 1
    assert everything(index) == everything(open_repository(base / "repository").index)


def test_given_one_index_file_is_gone_then_nothing_kept_is_used(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prune replaces index files, and what they said of packs that it removed."""
    first = write(opened(base), "one")
    write(opened(base), "two")
    repository = opened(base)
    repository.storage.remove("index", min(repository.index.files))
    read = no_json(monkeypatch)
    after = opened(base).index
    assert len(read) == len(after.files) == 1
    assert not after.whole
    assert first  # its tree may be gone, and is not called whole


def test_given_a_damaged_index_file_then_the_cache_does_not_hide_it(base: Path) -> None:
    write(opened(base), "one")
    repository = opened(base)
    (name,) = repository.index.files
    path = base / "repository" / "index" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=f"index/{name} is damaged"):
        assert opened(base).index
    assert any(name in error for error in check(opened(base)).errors)


def test_check_reads_the_repository_and_not_the_cache(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(opened(base), "one")
    read = no_json(monkeypatch)
    assert check(opened(base)).errors == []
    assert len(read) == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def huge(path: Path) -> None:
    os.truncate(path, cache_module.MAX_BYTES + 1)


@pytest.mark.parametrize(
    "spoil", [cut, flip, pipe, link, folder, huge, Path.unlink, lambda path: path.write_bytes(b"")]
)
def test_given_a_spoiled_cache_then_it_is_as_if_there_was_none(
    base: Path, spoil: Callable[[Path], None]
) -> None:
    write(opened(base), "one")
    spoil(kept(base))
    repository = opened(base)
    assert everything(repository.index) == everything(open_repository(base / "repository").index)
    assert not repository.index.whole
    write(repository, "two")  # and the next run does not fail on it, either


def sealed_by(key: MasterKey, content: bytes) -> bytes:
    return bytes(Sealer(key).seal(content))


def content_of(repository: Repository) -> bytes:
    assert repository.cache is not None
    return repository.cache._encode(repository.index)


def test_given_a_forged_cache_then_it_is_not_believed(base: Path) -> None:
    """Whoever may write the cache, and has data backed up, has sealed bytes of their choice: those
    are sealed with the repository's key, not with the cache's."""
    write(opened(base), "one")
    repository = opened(base)
    content = content_of(repository)
    for key in (repository.key, MasterKey.generate()):
        kept(base).write_bytes(sealed_by(key, content))
        assert not opened(base).index.whole


def test_given_the_cache_of_another_repository_or_version_then_it_is_not_used(base: Path) -> None:
    write(opened(base), "one")
    repository = opened(base)
    assert repository.cache is not None
    content = content_of(repository)
    other = bytes(reversed(repository.id.encode()))
    wrong = [
        content.replace(repository.id.encode(), other),
        content.replace(b"cache 1", b"cache 2"),
        content[:-1],
        content + b"\0",
        b"",
    ]
    for changed in wrong:
        kept(base).write_bytes(sealed_by(repository.cache._file.key, changed))
        assert not opened(base).index.whole
    kept(base).write_bytes(sealed_by(repository.cache._file.key, content))
    assert opened(base).index.whole


def test_given_a_place_that_can_not_be_written_then_nothing_fails(base: Path) -> None:
    (base / "caches").write_text("a file where the folder should be")
    write(opened(base), "one")
    write(opened(base), "two")


def test_given_a_large_index_then_it_is_not_kept(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MAX_BYTES", 1000)
    write(opened(base), "one")
    assert not list((base / "caches").rglob("*"))


def test_given_nothing_new_then_nothing_is_written(base: Path) -> None:
    tree = write(opened(base), "one")
    before = kept(base).stat().st_mtime_ns
    repository = opened(base)
    assert repository.index.whole
    repository.remember([tree])
    assert kept(base).stat().st_mtime_ns == before


def test_what_a_killed_run_left_is_replaced(base: Path) -> None:
    write(opened(base), "one")
    left = kept(base).with_name("index.new")
    left.write_bytes(b"half")
    write(opened(base), "two")
    assert not left.exists()


@pytest.mark.parametrize(
    ("variable", "home", "wanted"),
    [
        ("/x/cache", "/home/me", "/x/cache/safetake"),
        ("", "/home/me", "/home/me/.cache/safetake"),
        ("relative", "/home/me", "/home/me/.cache/safetake"),
    ],
)
def test_where_it_is(
    monkeypatch: pytest.MonkeyPatch, variable: str, home: str, wanted: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    monkeypatch.setenv("HOME", home)
    assert cache_folder() == Path(wanted)


# which trees are whole


def test_a_tree_is_whole_only_with_everything_below_it(base: Path) -> None:
    repository = open_repository(base / "repository")
    nowhere = bytes(32)
    with repository.lock(exclusive=False), repository.writer() as writer:
        content = writer.store(b"content").result()
        inner = writer.save_tree([Node("f", "file", size=7, content=content)])
        good = writer.save_tree([Node("inner", "dir", subtree=inner)])
        lacks_a_blob = writer.save_tree([Node("f", "file", size=7, content=[*content, nowhere])])
        lacks_a_tree = writer.save_tree([Node("d", "dir", subtree=nowhere)])
        above = writer.save_tree([Node("d", "dir", subtree=lacks_a_blob)])
        writer.flush()
        known = set(repository.index.whole)
        assert known == {inner, good}
    again = open_repository(base / "repository")
    with again.writer() as writer:
        assert writer.whole(good)
        assert set(again.index.whole) == {inner, good}
        assert not writer.whole(lacks_a_blob)
        assert not writer.whole(above)
        for tree in (lacks_a_tree, nowhere):
            with pytest.raises(DamagedError):
                writer.whole(tree)
        assert set(again.index.whole) == {inner, good}
