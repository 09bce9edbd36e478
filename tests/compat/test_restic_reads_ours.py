"""What safetake writes, read by stock restic: checked, listed, dumped, restored, pruned."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.backup import BackupReport
from safetake.columns import JOIN_SCRIPT, LAYOUT_NAME, make_layout
from safetake.repository.check import check
from safetake.restore.beside import restore_to
from safetake.restore.plan import RestorePlan, plan_node
from safetake.restore.write import TreeWriter
from safetake.scratch import scratch_database
from safetake.snapshots import find_snapshot, list_snapshots
from tests.compat.folders import fill
from tests.support.repositories import (
    database,
    file_node,
    files_source,
    folder_node,
    new_repository,
    open_repository,
    picture,
    plain_snapshot,
    restic,
    snapshot,
    sqlite_source,
    store_all,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, BackupReport]]:
    base = tmp_path_factory.mktemp("ours")
    fill(base / "scripts")
    database(base / "p.db")
    repository = new_repository(base / "repository")
    report = snapshot(
        repository, files_source("scripts", base / "scripts"), sqlite_source("p", base / "p.db")
    )
    assert report.exit_code == 0
    yield base, report
    shutil.rmtree(base)


@pytest.fixture
def copy(world: tuple[Path, BackupReport], tmp_path: Path) -> Path:
    """A copy of the repository to change."""
    shutil.copytree(world[0] / "repository", tmp_path / "repository")
    return tmp_path / "repository"


def test_restic_checks_every_byte(world: tuple[Path, BackupReport]) -> None:
    base, report = world
    assert "no errors were found" in restic(base / "repository", "check", "--read-data")
    (listed,) = json.loads(restic(base / "repository", "snapshots", "--json", "--no-lock"))
    assert listed["id"] == report.id
    assert sorted(listed["paths"]) == ["/p", "/scripts"]
    assert listed["tags"][0] == "safetake"


def test_restic_restores_the_same_tree(world: tuple[Path, BackupReport], tmp_path: Path) -> None:
    base, _ = world
    restic(base / "repository", "restore", "latest", "--target", tmp_path)
    truth, found = picture(base / "scripts"), picture(tmp_path / "scripts")
    assert set(found) == set(truth)
    for name, wanted in truth.items():
        assert found[name] == wanted, name
    assert (tmp_path / "scripts").stat().st_mtime_ns == (base / "scripts").stat().st_mtime_ns
    assert (tmp_path / ".safetake" / "join.py").read_text() == JOIN_SCRIPT
    manifest = json.loads((tmp_path / ".safetake" / "manifest.json").read_text())
    assert set(manifest["sources"]) == {"scripts", "p"}


def test_our_restore_is_the_same_tree(world: tuple[Path, BackupReport], tmp_path: Path) -> None:
    base, report = world
    repository = open_repository(base / "repository")
    done = restore_to(repository, find_snapshot(repository, report.id), [], tmp_path / "out")
    assert done.problems == []
    assert picture(tmp_path / "out" / "scripts") == picture(base / "scripts")


def test_restic_lists_and_dumps_odd_names(world: tuple[Path, BackupReport]) -> None:
    base, _ = world
    said = restic(base / "repository", "ls", "latest", "--json", "--no-lock").splitlines()
    listed = {json.loads(line).get("path") for line in said}
    assert "/scripts/장면 é 😀" in listed
    assert '/scripts/quo"te' in listed
    assert "/scripts/new\nline" in listed
    dumped = restic(base / "repository", "dump", "latest", "/scripts/first link", "--no-lock")
    assert dumped == "linked"


def test_restic_restores_one_file_by_include(
    world: tuple[Path, BackupReport], tmp_path: Path
) -> None:
    base, _ = world
    restic(base / "repository", "restore", "latest", "--include", "/p/p.db", "--target", tmp_path)
    assert (tmp_path / "p" / "p.db").stat().st_size == (base / "p.db").stat().st_size


def test_trees_are_the_bytes_that_restic_writes(
    world: tuple[Path, BackupReport], copy: Path
) -> None:
    """Back up the same folder with restic: but for its chunks of the big files, it adds nothing."""
    base, _ = world
    repository = open_repository(copy)
    before = repository.reader()
    ours = _subtree(before, find_snapshot(repository, "latest").tree, ["scripts"])
    said = restic(copy, "backup", "--json", "scripts", cwd=base)
    summary = json.loads(said.splitlines()[-1])
    repository = open_repository(copy)
    theirs = _subtree(
        repository.reader(), find_snapshot(repository, summary["snapshot_id"]).tree, ["scripts"]
    )
    reader = repository.reader()
    a, b = _by_name(reader, ours), _by_name(reader, theirs)
    assert set(a) == set(b)
    for name, node in a.items():
        if name in ("big.bin", "sparse.bin"):  # cut elsewhere
            node.content = b[name].content
        assert node == b[name], name  # subtrees, too: bit by bit
    assert summary["data_added"] < 20 << 20


def _subtree(reader: Any, tree: bytes, names: list[str]) -> bytes:
    for name in names:
        (tree,) = [node.subtree for node in reader.tree(tree) if node.name == name]
    return tree


def _by_name(reader: Any, tree: bytes) -> dict[str, Any]:
    return {node.name: node for node in reader.tree(tree)}


def test_restics_own_work_on_our_repository_harms_nothing(
    world: tuple[Path, BackupReport], copy: Path, tmp_path: Path
) -> None:
    base, report = world
    repository = open_repository(copy)
    database(base / "p.db", 50)
    second = snapshot(
        repository, files_source("scripts", base / "scripts"), sqlite_source("p", base / "p.db")
    )
    restic(copy, "tag", "--add", "kept", second.id)
    restic(copy, "forget", report.id)
    restic(copy, "prune")
    restic(copy, "rebuild-index")
    restic(copy, "backup", base / "p.db")
    restic(copy, "prune", "--max-unused", "0")
    assert (copy / "digests").is_dir()
    repository = open_repository(copy)
    assert check(repository, read_data=True).errors == []
    tagged = [found for found in list_snapshots(repository) if found.ours]
    assert len(tagged) == 1
    assert "kept" in tagged[0].document["tags"]
    done = restore_to(repository, tagged[0], [], tmp_path / "out")
    assert done.problems == []
    assert picture(tmp_path / "out" / "scripts") == picture(base / "scripts")
    third = snapshot(
        open_repository(copy),
        files_source("scripts", base / "scripts"),
        sqlite_source("p", base / "p.db"),
    )
    assert third.added_bytes < 1 << 20
    assert "no errors were found" in restic(copy, "check", "--read-data")


def test_what_is_stored_in_columns_is_joined_after_a_plain_restore(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    records, record = 5000, 100
    data = random.Random(4).randbytes(records * record + 33)
    layout = make_layout(len(data), record, [("links", 36), ("vectors", 64)])
    assert layout is not None
    columns = [
        b"".join(data[r * record + c.offset :][: c.width] for r in range(records))
        for c in layout.columns
    ]
    parts = [*columns, data[records * record :]]
    with repository.lock(exclusive=False), repository.writer() as writer:
        nodes = []
        for name, part in zip(layout.part_sizes(), parts, strict=True):
            ids = store_all(writer, [part[at : at + 65536] for at in range(0, len(part), 65536)])
            nodes.append(file_node(name, ids, len(part)))
        text = layout.dump()
        nodes.append(file_node(LAYOUT_NAME, store_all(writer, [text]), len(text)))
        inner = writer.save_tree([folder_node("data_level0.bin.parts", writer.save_tree(nodes))])
        script = JOIN_SCRIPT.encode()
        node = file_node("join.py", store_all(writer, [script]), len(script))
        root = writer.save_tree([folder_node("vectors", inner), node])
        writer.flush()
        plain_snapshot(repository, root)
    out = tmp_path / "out"
    restic(tmp_path / "repository", "restore", "latest", "--target", out)
    subprocess.run([sys.executable, "-I", "-S", out / "join.py", out], check=True, cwd="/")
    assert (out / "vectors" / "data_level0.bin").read_bytes() == data
    assert list((out / "vectors").iterdir()) == [out / "vectors" / "data_level0.bin"]
    ours = open_repository(tmp_path / "repository")
    (tmp_path / "ours").mkdir()
    with scratch_database() as database:
        plan = RestorePlan(database, split=True)
        plan_node(ours.reader(), folder_node("vectors", inner), "vectors", plan)
        target = TreeWriter(ours.reader(), tmp_path / "ours", lambda written: None)
        target.write(plan, overwrite=False)
    assert (tmp_path / "ours" / "vectors" / "data_level0.bin").read_bytes() == data


def test_a_link_target_that_is_no_utf8_is_exact_for_us(tmp_path: Path) -> None:
    """restic 0.14 knows no `linktarget_raw` (0.17 and later do) and gives U+FFFD for each byte."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "link").symlink_to(os.fsdecode(b"to \xff\xfe\xe2\x82"))
    repository = new_repository(tmp_path / "repository")
    snapshot(repository, files_source("scripts", folder))
    found = find_snapshot(repository, "latest")
    repository.reload()
    restore_to(repository, found, [], tmp_path / "ours")
    ours = (tmp_path / "ours" / "scripts" / "link").readlink()
    assert os.fsencode(ours) == b"to \xff\xfe\xe2\x82"
    restic(tmp_path / "repository", "restore", "latest", "--target", tmp_path / "theirs")
    theirs = (tmp_path / "theirs" / "scripts" / "link").readlink()
    assert str(theirs) == "to " + "\ufffd" * 4
    assert "no errors" in restic(tmp_path / "repository", "check", "--read-data")
