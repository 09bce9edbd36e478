"""Every entry comes back as it was: names, modes, times, links, attributes, bytes."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetake.errors import SourceError
from safetake.sources.files import content
from tests.sources.files.support import describe, take
from tests.support.memory_writer import MemoryRepository, entry_of, materialise

ODD = [
    b'quote"s',
    b"new\nline",
    b"back\\slash",
    b"\xff\xfe",
    "각본.txt".encode(),
    b" ",
    b"-rf",
    b"a" * 255,
    "\u2028".encode(),
]


def test_given_every_kind_of_entry_then_all_come_back(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for number, name in enumerate(ODD):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"x" * number)
    (root / "empty").write_bytes(b"")
    (root / "big").write_bytes(os.urandom(3_000_000))
    with (root / "sparse").open("wb") as file:
        file.truncate(5_000_000)
        file.seek(3_000_000)
        file.write(b"island")
    (root / "folder" / "deeper").mkdir(parents=True)
    (root / "none").mkdir()
    (root / "folder" / "link").symlink_to("../empty")
    (root / "broken").symlink_to(os.fsdecode(b"/nowhere/\xff"))
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "fifo")
    (root / "setuid").write_bytes(b"#!")
    (root / "setuid").chmod(0o6751)
    (root / "none").chmod(0o1777)
    os.utime(root / "big", ns=(5, 1_234_567_890_123_456_789))
    with MemoryRepository() as repository:
        taken = take(root, repository)
        assert (taken.unread, taken.notes) == ([], [])
        copy = tmp_path / "copy"
        materialise(repository, taken.captured.node, copy)
        assert describe(copy) == describe(root)
        assert taken.facts["files"] == len(ODD) + 4
        assert (taken.facts["dirs"], taken.facts["symlinks"], taken.facts["others"]) == (3, 3, 1)
        assert taken.facts["largest"] == {"path": "sparse", "bytes": 5_000_000}
        assert taken.prove() == {}


def test_given_special_entries_then_they_are_nodes_without_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with MemoryRepository() as repository:
            taken = take(tmp_path, repository)
            assert taken.node("socket").type == "socket"
            # nobody's data: it is never restored, and no proof may miss it
            assert (taken.facts["others"], taken.facts["sockets"]) == (0, 1)
            assert taken.prove() == {}
            (tmp_path / "file").write_bytes(b"more")
            taken = take(tmp_path, repository, taken)
            assert taken.prove() == {}
            if os.geteuid() == 0:
                os.mknod(tmp_path / "null", 0o020666, os.makedev(1, 3))
                taken = take(tmp_path, repository, taken)
                node = taken.node("null")
                assert (node.type, node.device) == ("chardev", os.makedev(1, 3))


def test_given_more_links_and_small_files_than_are_remembered_then_all_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "KEPT_LINKS", 2)
    monkeypatch.setattr(content, "BATCH_FILES", 3)
    root = tmp_path / "root"
    root.mkdir()
    for number in range(10):
        (root / f"a{number}").write_text(f"{number}")
        (root / f"b{number}").hardlink_to(root / f"a{number}")
    time.sleep(0.05)
    with MemoryRepository() as repository:
        taken = take(root, repository)
        assert (taken.unread, taken.notes) == ([], [])
        assert taken.files_read == 20  # each name
        assert [taken.read(f"b{number}") for number in range(10)] == [
            f"{number}".encode() for number in range(10)
        ]
        assert taken.prove() == {}


def test_given_hard_links_then_content_is_read_once_and_nodes_say_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"shared" * 1000)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").hardlink_to(tmp_path / "a")
    time.sleep(0.05)  # what was written a tick before it is read would rightly be read again
    with MemoryRepository() as repository:
        taken = take(tmp_path, repository)
        a, b = taken.node("a"), taken.node("sub/b")
        assert taken.files_read == 1
        assert (a.inode, a.device_id, a.links) == (b.inode, b.device_id, 2)
        assert a.content == b.content
        copy = tmp_path.parent / "copy"
        materialise(repository, taken.captured.node, copy)
        assert (copy / "a").samefile(copy / "sub" / "b")


def test_given_attributes_then_they_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "d").mkdir()
    try:
        os.setxattr(tmp_path / "f", "user.note", b"\x00\xff")
        os.setxattr(tmp_path / "d", "user.kind", b"folder")
    except OSError:
        pytest.skip("no extended attributes here")
    with MemoryRepository() as repository:
        taken = take(tmp_path, repository)
        assert taken.node("f").xattrs == {"user.note": b"\x00\xff"}
        assert taken.node("d").xattrs == {"user.kind": b"folder"}


def test_given_exclusions_then_what_they_name_is_not_there(tmp_path: Path) -> None:
    for name in ("keep.txt", "x.tmp", "cache/inside", "sub/y.tmp", "sub/keep"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with MemoryRepository() as repository:
        everything = take(tmp_path, repository)
        assert everything.facts["files"] == 5
        taken = take(tmp_path, repository, everything, exclude=["*.tmp", "cache/"])
        assert sorted(taken.paths()) == ["keep.txt", "sub", "sub/keep"]
        assert taken.facts["files"] == 2
        assert taken.notes == taken.unread == []


def test_given_a_large_file_then_an_insertion_costs_its_surroundings(tmp_path: Path) -> None:
    data = os.urandom(8 << 20)
    (tmp_path / "f").write_bytes(data)
    with MemoryRepository() as repository:
        first = take(tmp_path, repository)
        stored = repository.stored_bytes
        (tmp_path / "f").write_bytes(data[:1_000_000] + b"inserted" + data[1_000_000:])
        second = take(tmp_path, repository, first)
        assert second.read("f") == (tmp_path / "f").read_bytes()
        assert repository.stored_bytes - stored <= 2 * content.CUT_LONGEST
        assert second.prove() == {}


def test_given_a_dump_of_redis_then_changes_all_over_it_cost_little(tmp_path: Path) -> None:
    data = bytearray(b"REDIS0011" + os.urandom(8 << 20))
    (tmp_path / "dump.rdb").write_bytes(data)
    with MemoryRepository() as repository:
        first = take(tmp_path, repository)
        stored = repository.stored_bytes
        places = range(100, len(data), 512 << 10)
        for place in places:
            data[place] ^= 1
        (tmp_path / "dump.rdb").write_bytes(data)
        second = take(tmp_path, repository, first)
        assert second.read("dump.rdb") == data
        assert repository.stored_bytes - stored <= 2 * content.DUMP_LONGEST * len(places)
        assert second.prove() == {}


@pytest.mark.parametrize(
    "size",
    [
        content.SMALL_BYTES - 1,
        content.SMALL_BYTES,
        content.SMALL_BYTES + 1,
        content.CUT_LONGEST,
        content.CUT_LONGEST + 1,
        2 * content.CUT_LONGEST + 12345,
    ],
)
def test_given_a_size_at_a_limit_then_the_bytes_and_the_digest_agree(
    tmp_path: Path, size: int
) -> None:
    (tmp_path / "zeros").write_bytes(bytes(size))
    (tmp_path / "noise").write_bytes(os.urandom(size))
    with MemoryRepository() as repository:
        taken = take(tmp_path, repository)
        assert taken.read("noise") == (tmp_path / "noise").read_bytes()
        assert taken.read("zeros") == bytes(size)
        assert taken.prove() == {}


def test_given_a_restored_copy_that_differs_then_the_questions_say_so(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "small").write_bytes(b"small")
    (root / "big").write_bytes(os.urandom(2_000_000))
    (root / "link").symlink_to("big")
    from safetake.sources.files import questions

    with MemoryRepository() as repository:
        taken = take(root, repository)
        entry = entry_of(taken.captured)
        assert all(check.ok for check in questions(root, entry))

        def failing() -> set[str]:
            return {check.name for check in questions(root, entry) if not check.ok}

        data = bytearray((root / "big").read_bytes())
        data[1_500_000] ^= 1
        (root / "big").write_bytes(data)
        assert failing() == {"contents"}
        data[1_500_000] ^= 1
        (root / "big").write_bytes(data)
        assert failing() == set()
        (root / "sub" / "small").rename(root / "sub" / "renamed")
        assert failing() == {"contents"}
        (root / "sub" / "renamed").unlink()
        assert failing() == {"contents", "files", "bytes"}
        (root / "link").unlink()
        assert "symlinks" in failing()
    missing = questions(tmp_path / "nowhere", entry)
    assert [check.ok for check in missing] == [False]


def test_given_a_missing_or_empty_folder_then_it_fails(tmp_path: Path) -> None:
    with MemoryRepository() as repository:
        with pytest.raises(SourceError, match="does not exist") as caught:
            take(tmp_path / "nowhere", repository)
        assert caught.value.hint
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SourceError, match="not a folder"):
            take(tmp_path / "file", repository)
        (tmp_path / "empty" / "lost+found").mkdir(parents=True)
        with pytest.raises(SourceError, match="no file"):
            take(tmp_path / "empty", repository)
        taken = take(tmp_path / "empty", repository, may_be_empty=True)
        assert taken.facts["files"] == 0
        with pytest.raises(SourceError, match="does not exist"):
            take(tmp_path / "nowhere", repository, may_be_empty=True)


def test_given_folders_too_deep_then_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(105):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    with MemoryRepository() as repository:
        taken = take(tmp_path, repository)
        assert len(taken.unread) == 1
        assert "deeper than 100 folders" in taken.unread[0]
        again = take(tmp_path, repository, taken)
        assert again.unread == taken.unread


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
leaves = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda seed, size: bytes([seed, 7]) * size, st.integers(0, 255), st.integers(0, 4000)
    ),
    st.builds(lambda target: ("link", target), names),
)
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=5),
    lambda inner: st.dictionaries(names, st.one_of(leaves, inner), max_size=5),
    max_leaves=12,
)
Tree = dict[bytes, object]


def plant(tree: Tree, folder: bytes) -> None:
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - bytes
    for name, what in tree.items():
        path = folder + b"/" + name
        if isinstance(what, dict):
            plant(what, path)
        elif isinstance(what, tuple):
            os.symlink(what[1], path)  # noqa: PTH211 - bytes
        else:
            assert isinstance(what, bytes)
            Path(os.fsdecode(path)).write_bytes(what)


def uproot(folder: bytes) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            uproot(entry.path)
            os.rmdir(entry.path)  # noqa: PTH106 - bytes
        else:
            os.unlink(entry.path)  # noqa: PTH108 - bytes


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(trees, min_size=1, max_size=4), st.data())
def test_given_any_trees_one_after_the_other_then_each_snapshot_is_the_tree_of_its_moment(
    tmp_path_factory: pytest.TempPathFactory, versions: list[Tree], data: st.DataObject
) -> None:
    """Increments included: facts built upon the parent equal those built from nothing."""
    root = tmp_path_factory.mktemp("any") / "root"
    raw = os.fsencode(root)
    with MemoryRepository() as repository:
        parent = None
        for version in versions:
            if data.draw(st.booleans()):
                root.mkdir(exist_ok=True)
                uproot(raw)
            plant_over(version, raw)
            taken = take(root, repository, parent, may_be_empty=True)
            assert (taken.unread, taken.notes) == ([], [])
            scratch = take(root, repository, may_be_empty=True)
            assert taken.facts["digest"] == scratch.facts["digest"]
            assert taken.facts == scratch.facts
            assert taken.captured.node.subtree == scratch.captured.node.subtree
            assert taken.prove() == {}
            copy = tmp_path_factory.mktemp("copy") / "copy"
            materialise(repository, taken.captured.node, copy)
            assert describe(copy) == describe(root)
            parent = taken


def plant_over(tree: Tree, folder: bytes) -> None:
    """`plant` into what is there; an entry of another type gives way."""
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - bytes
    for name, what in tree.items():
        path = folder + b"/" + name
        if os.path.lexists(path):
            is_folder = os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114
            if is_folder and not isinstance(what, dict):
                uproot(path)
                os.rmdir(path)  # noqa: PTH106 - bytes
            elif not is_folder and (isinstance(what, dict | tuple) or os.path.islink(path)):  # noqa: PTH114
                os.unlink(path)  # noqa: PTH108 - bytes
        if isinstance(what, dict):
            plant_over(what, path)
        else:
            plant({name: what}, folder)
