"""Repositories that stock restic made: listed, checked, proven, restored and written to by us."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.errors import (
    RepositoryLockedError,
    SafetakeError,
    UsageError,
    WrongPasswordError,
)
from safetake.proof.verify import verify
from safetake.repository import Repository
from safetake.repository.check import check
from safetake.repository.tree import encode_tree, quote
from safetake.restore.beside import restore_to
from safetake.snapshots import find_snapshot, list_snapshots
from tests.compat.folders import fill
from tests.support.repositories import (
    PASSWORD,
    files_source,
    new_repository,
    open_repository,
    picture,
    restic,
    run_restic,
    snapshot,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`repository`, made by restic, with two snapshots of `scripts`."""
    base = tmp_path_factory.mktemp("theirs")
    fill(base / "scripts")
    restic(base / "repository", "init", "--repository-version", "2")
    restic(base / "repository", "backup", "--tag", "one", "scripts", cwd=base)
    (base / "scripts" / "new").write_text("new")
    restic(base / "repository", "backup", "--tag", "two", "scripts", cwd=base)
    yield base
    shutil.rmtree(base)


def all_trees(repository: Repository) -> set[bytes]:
    """Every tree of every snapshot."""
    reader = repository.reader()
    waiting = [found.tree for found in list_snapshots(repository)]
    seen: set[bytes] = set()
    while waiting:
        tree = waiting.pop()
        if tree not in seen:
            seen.add(tree)
            waiting += [node.subtree for node in reader.tree(tree) if node.subtree is not None]
    return seen


def test_it_is_listed_and_whole(world: Path) -> None:
    repository = open_repository(world / "repository")
    listed = list_snapshots(repository)
    assert [found.document["tags"] for found in listed] == [["one"], ["two"]]
    assert not any(found.ours or found.sources for found in listed)
    for trust in (True, False):
        report = check(repository, read_data=True, trust_digests=trust)
        assert report.errors == []
        assert report.snapshots == 2
        assert report.bytes_read > 18 << 20


def test_it_restores_the_same_tree(world: Path, tmp_path: Path) -> None:
    repository = open_repository(world / "repository")
    done = restore_to(repository, find_snapshot(repository, "latest"), [], tmp_path / "out")
    assert done.problems == []
    assert done.exit_code == 0
    truth, found = picture(world / "scripts"), picture(tmp_path / "out" / "scripts")
    assert set(truth) == set(found)
    for name, wanted in truth.items():
        assert found[name] == wanted, name


def test_it_is_read_back_but_cannot_be_opened(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "repository", tmp_path / "repository")
    repository = open_repository(tmp_path / "repository")
    found = find_snapshot(repository, "latest")
    assert verify(repository, None, found, "read").ok
    assert find_snapshot(repository, "latest").rung.name == "read back"
    with pytest.raises(UsageError, match="was not made by safetake"):
        verify(repository, None, found, "open")
    assert find_snapshot(repository, "latest").rung.name == "read back", "it is not damaged"


def test_its_trees_are_encoded_bit_by_bit_alike(world: Path) -> None:
    repository = open_repository(world / "repository")
    reader = repository.reader()
    trees = all_trees(repository)
    assert len(trees) >= 6
    for tree in trees:
        blob = bytes(reader._load(tree, tree=True))
        assert encode_tree(reader.tree(tree)) == blob


def test_any_letter_in_a_name_is_quoted_as_go_does(tmp_path: Path) -> None:
    """Go 1.19 has Unicode 13: letters that were assigned since are printable for Python only."""
    chance = random.Random(20)
    codes = [*range(1, 0x180), *(chance.randrange(0x180, 0x110000) for _ in range(2000))]
    names = []
    for code in codes:
        if chr(code) in "/\x00" or 0xD800 <= code < 0xE000:
            continue
        names.append(f"{code:06x} {chr(code)}")
    folder = tmp_path / "names"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    restic(tmp_path / "repository", "init")
    restic(tmp_path / "repository", "backup", "names", cwd=tmp_path)
    repository = open_repository(tmp_path / "repository")
    reader = repository.reader()
    (node,) = reader.tree(find_snapshot(repository, "latest").tree)
    assert node.subtree is not None
    entries = json.loads(bytes(reader._load(node.subtree, tree=True)))["nodes"]
    written = [entry["name"] for entry in entries]
    assert [found.name for found in reader.tree(node.subtree)] == sorted(names)
    differ = [name for name, go in zip(sorted(names), written, strict=True) if quote(name) != go]
    newer = [name for name in differ if unicodedata.ucd_3_2_0.category(name[-1]) == "Cn"]
    assert differ == newer  # such a name costs one tree stored twice, and is read by both
    assert len(differ) < 20


def test_we_back_up_into_it_and_both_go_on(world: Path, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    shutil.copytree(world / "repository", place)
    repository = open_repository(place)
    report = snapshot(repository, files_source("scripts", world / "scripts"))
    # all but the big files are single blobs that restic stored already
    assert report.added_bytes < 30 << 20
    assert "no errors were found" in restic(place, "check", "--read-data")
    restic(place, "restore", report.id, "--target", tmp_path / "out")
    assert picture(tmp_path / "out" / "scripts") == picture(world / "scripts")
    restic(place, "backup", "scripts", cwd=world)
    again = open_repository(place)
    assert len(list_snapshots(again)) == 4
    assert check(again, read_data=True).errors == []


def test_a_repository_of_format_1_is_read_and_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "a").write_bytes(random.Random(1).randbytes(3 << 20))
    place = tmp_path / "repository"
    restic(place, "init", "--repository-version", "1")
    restic(place, "backup", "scripts", cwd=tmp_path)
    repository = open_repository(place)
    assert repository.version == 1
    assert check(repository, read_data=True).errors == []
    found = find_snapshot(repository, "latest")
    restore_to(repository, found, [], tmp_path / "out")
    assert picture(tmp_path / "out" / "scripts") == picture(folder)
    assert verify(repository, None, found, "read").ok
    with pytest.raises(SafetakeError, match="version 1") as caught:
        snapshot(repository, files_source("scripts", folder))
    assert "restic migrate upgrade_repo_v2" in caught.value.hint
    restic(place, "migrate", "upgrade_repo_v2")
    assert snapshot(open_repository(place), files_source("scripts", folder)).exit_code == 0
    assert "no errors were found" in restic(place, "check", "--read-data")


# keys and locks, by either tool


def test_keys_of_either_tool_open_for_both(tmp_path: Path) -> None:
    place = tmp_path / "repository"
    repository = new_repository(place, "first")
    added = repository.keys.add("second 말")
    new_file = tmp_path / "third"
    new_file.write_text("third")
    restic(place, "key", "add", "--new-password-file", new_file, password="second 말")
    listed = json.loads(restic(place, "key", "list", "--json", password="third"))
    ours = open_repository(place, "third").keys.list()
    assert len(listed) == len(ours) == 3
    assert {key["id"] for key in listed} == {key.id[:8] for key in ours}
    assert {key["userName"] for key in listed} == {key.username for key in ours}
    (current,) = [key.id for key in ours if key.current]
    third = open_repository(place, "third")
    with pytest.raises(SafetakeError, match="is the one in use"):
        third.keys.remove(current)
    with pytest.raises(SafetakeError, match="no key starts with"):
        third.keys.remove("zz")
    with pytest.raises(SafetakeError, match="no key starts with"):
        third.keys.remove("")
    assert third.keys.remove(added[:10]) == added
    assert not list(third.storage.list("locks"))
    with pytest.raises(WrongPasswordError) as caught:
        open_repository(place, "second 말")
    assert caught.value.exit_code == 12
    restic(place, "key", "remove", current, password="first")
    with pytest.raises(WrongPasswordError):
        open_repository(place, "third")
    assert open_repository(place, "first").id == repository.id
    assert run_restic(place, "snapshots", password="second 말").returncode == 1


def test_restic_keeps_out_of_our_locks(tmp_path: Path) -> None:
    place = tmp_path / "repository"
    repository = new_repository(place)
    with repository.lock(exclusive=True):
        for command in (["check"], ["backup", "/etc/hostname"], ["prune"]):
            refused = run_restic(place, *command)
            assert refused.returncode == 1
            assert b"already locked" in refused.stderr
        assert "successfully removed" in restic(place, "unlock")  # ours is alive: it stays
        assert len(list(repository.storage.list("locks"))) == 1
    with repository.lock(exclusive=False):
        restic(place, "snapshots")
        assert run_restic(place, "prune").returncode == 1
    restic(place, "prune")


def test_we_keep_out_of_restics_locks(tmp_path: Path) -> None:
    """restic reads its backup from a pipe that we hold open: its lock is there for as long."""
    place = tmp_path / "repository"
    repository = new_repository(place)
    process = subprocess.Popen(
        ["restic", "--no-cache", "-r", place, "backup", "--stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "RESTIC_PASSWORD": PASSWORD},
    )
    try:
        while not list(repository.storage.list("locks")):
            assert process.poll() is None
        with pytest.raises(RepositoryLockedError, match=f"process {process.pid}") as caught:
            with repository.lock(exclusive=True):
                pass
        assert caught.value.exit_code == 11
        assert "unlock" in caught.value.hint
        with repository.lock(exclusive=False):  # two backups at once are fine
            assert len(list(repository.storage.list("locks"))) == 2
        process.kill()
        process.wait()
        assert len(repository.locks.list()) == 1
        with repository.lock(exclusive=True):  # its process is gone
            assert len(list(repository.storage.list("locks"))) == 1
        assert not list(repository.storage.list("locks"))
    finally:
        process.kill()
        process.communicate()
