"""Restoring beside: nothing leaves the folder, nothing is written unproven, metadata is exact."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.columns import LAYOUT_NAME
from safetake.errors import DamagedError, RestoreError, SafetakeError, UsageError
from safetake.model import Node
from safetake.repository import Repository
from safetake.repository import writer as module
from safetake.restore.beside import RestoreReport, restore_to
from safetake.restore.plan import MAX_DEPTH, RestorePlan, plan_node
from safetake.scratch import scratch_database
from safetake.snapshots import find_snapshot
from tests.support.repositories import (
    file_node,
    files_source,
    folder_node,
    memory_folder,
    new_repository,
    open_repository,
    picture,
    plain_snapshot,
    snapshot,
    store_all,
)


@pytest.fixture
def base() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def repository(base: Path) -> Repository:
    return new_repository(base / "repository")


def crafted(repository: Repository, *nodes: Node, raw: bytes | None = None) -> str:
    """A snapshot whose folder `d` holds the nodes, or is the tree `raw`, whatever that is."""
    with repository.lock(exclusive=False), repository.writer() as writer:
        store_all(writer, [b"content"])
        if raw is None:
            tree = writer.save_tree(nodes)
        else:
            with pytest.MonkeyPatch.context() as patch:  # an attacker has another encoder
                patch.setattr(module, "encode_tree", lambda nodes: raw)
                tree = writer.save_tree([])
            assert tree == hashlib.sha256(raw).digest()
        root = writer.save_tree([folder_node("d", tree)])
        writer.flush()
        return plain_snapshot(repository, root)


CONTENT = hashlib.sha256(b"content").digest()


def restore(repository: Repository, snapshot_id: str, target: Path, **more: Any) -> RestoreReport:
    return restore_to(repository, find_snapshot(repository, snapshot_id), [], target, **more)


# names and links that want out


@pytest.mark.parametrize(
    "name", ["../escaped", "..", ".", "", "/escaped", "a/../../escaped", "a\\x00b", "\\x2e\\x2e",
             "a\\x2f..\\x2fescaped", "\\u002e\\u002e"]
)  # fmt: skip
@pytest.mark.parametrize("kind", ["file", "dir", "symlink"])
def test_a_hostile_name_is_damage(base: Path, repository: Repository, name: str, kind: str) -> None:
    when = "2026-01-02T03:04:05Z"
    entry = {"name": name, "type": kind, "mode": 420, "mtime": when, "atime": when, "ctime": when,
             "uid": 0, "gid": 0, "size": 7, "linktarget": "x", "content": [CONTENT.hex()],
             "subtree": CONTENT.hex()}  # fmt: skip
    name_of = crafted(repository, raw=json.dumps({"nodes": [entry]}).encode())
    with pytest.raises(DamagedError, match="impossible file name"):
        restore(repository, name_of, base / "out")
    assert sorted(path.name for path in base.iterdir()) == ["out", "repository"]
    assert list((base / "out").rglob("*")) == []


def test_a_link_and_a_file_of_one_name_are_damage(base: Path, repository: Repository) -> None:
    """The classic: a link to a folder outside, then a file through it."""
    when = "2026-01-02T03:04:05Z"
    common = {"mode": 420, "mtime": when, "atime": when, "ctime": when, "uid": 0, "gid": 0}
    link = {"name": "a", "type": "symlink", "linktarget": str(base), **common}
    file = {"name": "a", "type": "file", "size": 7, "content": [CONTENT.hex()], **common}
    name = crafted(repository, raw=json.dumps({"nodes": [link, file]}).encode())
    with pytest.raises(DamagedError, match="one name"):
        restore(repository, name, base / "out")
    assert list((base / "out").rglob("*")) == []


def test_links_out_are_restored_and_never_followed(base: Path, repository: Repository) -> None:
    (base / "outside").mkdir(mode=0o751)
    (base / "outside" / "file").write_text("safe")
    name = crafted(
        repository,
        Node("folder", "symlink", mode=stat.S_IFLNK | 0o777, linktarget=str(base / "outside")),
        Node("loop", "symlink", mode=stat.S_IFLNK | 0o777, linktarget="loop"),
        Node("file", "symlink", mode=stat.S_IFLNK | 0o777, mtime_ns=5, uid=9, gid=9,
             linktarget=str(base / "outside" / "file")),
    )  # fmt: skip
    before = picture(base / "outside")
    done = restore(repository, name, base / "out")
    assert done.problems == []
    assert (base / "out" / "d" / "folder").readlink() == base / "outside"
    assert os.lstat(base / "out" / "d" / "file").st_mtime_ns == 5
    assert picture(base / "outside") == before


@pytest.mark.parametrize("place", ["d", "d/inner", "d/file", "d/inner/file"])
def test_a_link_that_waits_in_the_target_is_not_followed(
    base: Path, repository: Repository, place: str
) -> None:
    (base / "outside").mkdir()
    (base / "outside" / "file").write_text("safe")
    with repository.lock(exclusive=False), repository.writer() as writer:
        store_all(writer, [b"content"])
        inner = writer.save_tree([file_node("file", [CONTENT], 7)])
        tree = writer.save_tree([folder_node("inner", inner), file_node("file", [CONTENT], 7)])
        root = writer.save_tree([folder_node("d", tree)])
        writer.flush()
        name = plain_snapshot(repository, root)
    trap = base / "out" / place
    trap.parent.mkdir(parents=True)
    trap.symlink_to(base / "outside" / ("file" if place.endswith("file") else ""))
    if place.endswith("file"):  # replaced, not written through
        assert restore(repository, name, base / "out", overwrite=True).problems == []
        assert trap.read_bytes() == b"content"
        assert not trap.is_symlink()
    else:
        with pytest.raises(RestoreError, match="cannot write"):
            restore(repository, name, base / "out", overwrite=True)
    assert (base / "outside" / "file").read_text() == "safe"
    assert [path.name for path in (base / "outside").iterdir()] == ["file"]


LAYOUT = {"version": 1, "size": 7, "record": 7, "records": 1, "tail": None, "mode": 0o100600,
          "mtime_ns": 1, "uid": 0, "gid": 0,
          "columns": [{"file": "0-a", "offset": 0, "width": 7}]}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"columns": [{"file": "../../../escaped", "offset": 0, "width": 7}]},
        {"columns": [{"file": "/etc/passwd", "offset": 0, "width": 7}]},
        {"columns": [{"file": "..", "offset": 0, "width": 7}]},
        {"columns": [{"file": "missing", "offset": 0, "width": 7}]},
        {"columns": [{"file": "0-a", "offset": 1, "width": 7}]},
        {"columns": []},
        {"records": 1 << 62, "size": 7 << 62},
        {"size": 1 << 70},
        {"record": 1 << 40},
        {"records": 0},
        {"version": 2},
        {"tail": "tail"},
        {"uid": "root"},
    ],
    ids=str,
)
def test_a_hostile_layout_is_damage(
    base: Path, repository: Repository, change: dict[str, Any]
) -> None:
    text = json.dumps({**LAYOUT, **change}).encode()
    with repository.lock(exclusive=False), repository.writer() as writer:
        (content,) = store_all(writer, [text])
        store_all(writer, [b"content"])
        parts = writer.save_tree(
            [file_node(LAYOUT_NAME, [content], len(text)), file_node("0-a", [CONTENT], 7)]
        )
        tree = writer.save_tree([folder_node("file.parts", parts)])
        writer.flush()
    with scratch_database() as database:
        plan, reader = RestorePlan(database, split=True), repository.reader()
        with pytest.raises(DamagedError):
            plan_node(reader, folder_node("d", tree), "d", plan)


def test_folders_that_only_look_like_parts_stay_folders(base: Path, repository: Repository) -> None:
    (base / "scripts").mkdir()
    for name, files in {
        "x.parts": ["a"], ".parts": ["layout.json"], "..parts": ["layout.json"],
        "...parts": ["layout.json"], "taken.parts": ["layout.json"],
    }.items():  # fmt: skip
        (base / "scripts" / name).mkdir()
        for file in files:
            (base / "scripts" / name / file).write_text(json.dumps(LAYOUT))
    (base / "scripts" / "taken").write_text("a file of that name is there")
    (base / "scripts" / "a.parts" / "b.parts").mkdir(parents=True)
    snapshot(repository, files_source("scripts", base / "scripts"))
    repository.reload()
    restore(repository, "latest", base / "out")
    assert picture(base / "out" / "scripts") == picture(base / "scripts")


# what is refused, and what fails


def test_a_folder_that_holds_anything_is_refused(base: Path, repository: Repository) -> None:
    name = crafted(repository, file_node("file", [CONTENT], 7))
    (base / "out").mkdir()
    (base / "out" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="is not empty") as caught:
        restore(repository, name, base / "out")
    assert "--overwrite" in caught.value.hint
    assert [path.name for path in (base / "out").iterdir()] == ["mine"]
    restore(repository, name, base / "out", overwrite=True)
    assert (base / "out" / "mine").read_text() == "mine"
    assert (base / "out" / "d" / "file").read_bytes() == b"content"
    with pytest.raises(UsageError, match="is not a folder"):
        restore(repository, name, base / "out" / "mine")
    with pytest.raises(UsageError, match="is not a folder"):
        restore(repository, name, base / "out" / "mine" / "deeper")


def test_overwriting_replaces_files_and_never_folders(base: Path, repository: Repository) -> None:
    name = crafted(repository, file_node("file", [CONTENT], 7))
    (base / "out" / "d" / "file").mkdir(parents=True)
    with pytest.raises(RestoreError, match="cannot write"):
        restore(repository, name, base / "out", overwrite=True)
    (base / "out" / "d" / "file").rmdir()
    (base / "out" / "d" / "file").write_text("older and longer than the new content")
    (base / "out" / "d" / "file").chmod(0o400)
    restore(repository, name, base / "out", overwrite=True)
    assert (base / "out" / "d" / "file").read_bytes() == b"content"
    assert (base / "out" / "d" / "file").stat().st_mode == stat.S_IFREG | 0o644


def test_a_source_that_is_not_in_it_is_named(base: Path, repository: Repository) -> None:
    name = crafted(repository, file_node("file", [CONTENT], 7))
    with pytest.raises(UsageError, match="no source 'other'") as caught:
        restore_to(repository, find_snapshot(repository, name), ["other"], base / "out")
    assert caught.value.hint == "it has: d"
    assert not (base / "out").exists()


def test_a_size_that_the_blobs_do_not_have_is_damage(base: Path, repository: Repository) -> None:
    for size in (0, 6, 8, 1 << 40):
        name = crafted(repository, file_node("file", [CONTENT], size))
        repository.reload()
        with pytest.raises(DamagedError, match="do not make up"):
            restore(repository, name, base / f"out-{size}")


def test_a_bottomless_tree_is_damage(base: Path, repository: Repository) -> None:
    with repository.lock(exclusive=False), repository.writer() as writer:
        tree = writer.save_tree([])
        for _ in range(MAX_DEPTH + 5):
            tree = writer.save_tree([folder_node("d", tree)])
        writer.flush()
        name = plain_snapshot(repository, tree)
    with pytest.raises(DamagedError, match="folders deep"):
        restore(repository, name, base / "out")


def test_a_path_that_is_too_long_is_a_restore_error(base: Path, repository: Repository) -> None:
    with repository.lock(exclusive=False), repository.writer() as writer:
        tree = writer.save_tree([])
        for _ in range(20):
            tree = writer.save_tree([folder_node("d" * 255, tree)])
        writer.flush()
        name = plain_snapshot(repository, tree)
    with pytest.raises(RestoreError, match="File name too long"):
        restore(repository, name, base / "out")


def test_two_files_that_claim_one_inode_keep_their_own_bytes(
    base: Path, repository: Repository
) -> None:
    other = hashlib.sha256(b"another").digest()
    with repository.lock(exclusive=False), repository.writer() as writer:
        store_all(writer, [b"content", b"another"])
        claim: dict[str, Any] = {"inode": 5, "device_id": 1, "links": 3}
        tree = writer.save_tree([
            file_node("a", [CONTENT], 7, **claim), file_node("b", [other], 7, **claim),
            file_node("c", [CONTENT], 7, **claim),
        ])  # fmt: skip
        root = writer.save_tree([folder_node("d", tree)])
        writer.flush()
        name = plain_snapshot(repository, root)
    restore(repository, name, base / "out")
    found = base / "out" / "d"
    assert (found / "b").read_bytes() == b"another"
    assert (found / "a").stat().st_ino == (found / "c").stat().st_ino
    assert (found / "a").stat().st_ino != (found / "b").stat().st_ino


def test_what_the_system_cannot_set_is_a_problem_and_not_a_crash(
    base: Path, repository: Repository
) -> None:
    name = crafted(
        repository,
        file_node("file", [CONTENT], 7, uid=1 << 40, mtime_ns=253402300799 * 10**9,
                  xattrs={"user.a\0b": b"x", "nonsense": b"x", "user.\udcff": b"\0"}),
        Node("odd", "irregular"),
        Node("device", "chardev", mode=stat.S_IFCHR | 0o600, device=(1 << 64) - 1),
        Node("socket", "socket", mode=stat.S_IFSOCK | 0o600),
    )  # fmt: skip
    done = restore(repository, name, base / "out")
    assert done.exit_code == 3
    text = "\n".join(done.problems)
    assert "unknown type 'irregular'" in text
    assert "nonsense not restored" in text
    assert (base / "out" / "d" / "file").read_bytes() == b"content"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")
def test_somebody_else_than_root_restores_all_but_owners(tmp_path: Path) -> None:
    """As with restic, tar and cp: without root everything becomes the caller's, and is no error."""
    scripts = tmp_path / "scripts"
    (scripts / "closed").mkdir(parents=True)
    (scripts / "closed" / "file").write_text("x")
    (scripts / "closed" / "file").chmod(0o400)
    os.chown(scripts / "closed" / "file", 123, 456)
    try:
        os.setxattr(scripts / "closed" / "file", "user.comment", b"kept")
        os.setxattr(scripts / "closed", "user.comment", b"kept")
    except OSError:
        pytest.skip("no extended attributes here")
    (scripts / "closed").chmod(0o500)
    repository = new_repository(tmp_path / "repository")
    snapshot(repository, files_source("scripts", scripts))
    program = """
import os, sys
from pathlib import Path
from safetake.restore.beside import restore_to
from safetake.snapshots import find_snapshot
from tests.support.repositories import open_repository
repository = open_repository(Path(sys.argv[1]))
found = find_snapshot(repository, "latest")
repository.index, repository.digests
os.chdir("/")
os.setgid(65534), os.setuid(65534)
report = restore_to(repository, found, [], Path(sys.argv[2]))
print(report.exit_code, report.problems)
"""
    for path in [tmp_path, tmp_path / "repository", *(tmp_path / "repository").rglob("*")]:
        os.chown(path, 65534, 65534)
    out = tmp_path / "out"
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            out = Path("/tmp") / f"safetake-restore-{os.getpid()}"
            break
    if out.parent == Path("/tmp"):  # the repository is copied to where nobody may go
        place = Path("/tmp") / f"safetake-repository-{os.getpid()}"
        subprocess.run(["cp", "-a", tmp_path / "repository", place], check=True)
    else:
        place = tmp_path / "repository"
    try:
        done = subprocess.run([sys.executable, "-c", program, place, out],
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == "0 []\n"
        assert picture(out / "scripts", owners=False) == picture(scripts, owners=False)
        assert (out / "scripts" / "closed" / "file").stat().st_uid == 65534
    finally:
        if out.parent == Path("/tmp"):
            subprocess.run(["rm", "-rf", out, place], check=True)


def test_a_setgid_target_does_not_give_its_group_away(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "file").write_text("x")
    repository = new_repository(tmp_path / "repository")
    snapshot(repository, files_source("scripts", tmp_path / "scripts"))
    repository.reload()
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", 0, 777)
    (tmp_path / "out").chmod(0o2755)
    restore(repository, "latest", tmp_path / "out")
    assert picture(tmp_path / "out" / "scripts") == picture(tmp_path / "scripts")


def test_a_flipped_byte_never_reaches_a_file(base: Path) -> None:
    (base / "scripts").mkdir()
    for number in range(5):
        (base / "scripts" / str(number)).write_bytes(os.urandom(200_000))
    repository = new_repository(base / "repository")
    snapshot(repository, files_source("scripts", base / "scripts"))
    for pack in (base / "repository" / "data").rglob("*"):
        if pack.is_file() and pack.stat().st_size > 500_000:
            content = bytearray(pack.read_bytes())
            content[len(content) // 2] ^= 0x10
            pack.write_bytes(content)
            broken = pack.name
    with pytest.raises(DamagedError, match=broken):
        restore(open_repository(base / "repository"), "latest", base / "out")
    for path in (base / "out").rglob("*"):
        if path.is_file() and path.read_bytes():
            assert path.read_bytes() == (base / "scripts" / path.name).read_bytes()


def test_a_manifest_that_names_another_tree_is_damage(base: Path, repository: Repository) -> None:
    (base / "scripts").mkdir()
    (base / "scripts" / "file").write_text("x")
    snapshot(repository, files_source("scripts", base / "scripts"))
    repository.reload()
    found = find_snapshot(repository, "latest")
    reader = repository.reader()
    nodes = {node.name: node for node in reader.tree(found.tree)}
    with repository.lock(exclusive=False), repository.writer() as writer:
        nodes["scripts"].subtree = writer.save_tree([])
        root = writer.save_tree(nodes.values())
        writer.flush()
        name = repository.save_snapshot({**found.document, "tree": root.hex()})
    repository.reload()
    with pytest.raises(DamagedError, match="not the one in its manifest"):
        restore(repository, name, base / "out")


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"5", b"[]", b"{}", b'{"sources":5}', b'{"sources":{"d":5}}',
             b'{"sources":{"..":{}}}', b"[" * 100_000]
)  # fmt: skip
def test_a_hostile_manifest_is_an_error(base: Path, repository: Repository, text: bytes) -> None:
    with repository.lock(exclusive=False), repository.writer() as writer:
        content = store_all(writer, [text]) if text else []
        meta = writer.save_tree([file_node("manifest.json", content, len(text))])
        root = writer.save_tree(
            [folder_node(".safetake", meta), folder_node("d", writer.save_tree([]))]
        )
        writer.flush()
        name = plain_snapshot(repository, root)
    with pytest.raises(SafetakeError, match=r"manifest|no folder"):
        restore(repository, name, base / "out")
    assert not (base / "out").exists()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_given_a_folder_of_files_that_looks_like_parts_restores_it_as_it_is(
    tmp_path: Path,
) -> None:
    """Only a Chroma source stores files in parts; a user's own names are left alone."""
    from safetake.backup import take_snapshot
    from safetake.columns import JOIN_SCRIPT, make_layout
    from safetake.config import BarrierConfig, FilesConfig
    from safetake.sources import build

    parts = tmp_path / "live" / "x.parts"
    parts.mkdir(parents=True)
    layout = make_layout(8, 4, [("a", 2), ("b", 2)])
    assert layout is not None
    (parts / "layout.json").write_bytes(layout.dump())
    for name, size in layout.part_sizes().items():
        (parts / name).write_bytes(b"z" * size)
    with new_repository(tmp_path / "repository") as repository:
        source = build("scripts", FilesConfig(type="files", path=tmp_path / "live"))
        taken = take_snapshot(repository, [source], barrier=BarrierConfig())
        restore_to(repository, find_snapshot(repository, taken.id), [], tmp_path / "out")
    back = tmp_path / "out" / "scripts" / "x.parts"
    assert names(back) == names(parts)
    # and the script that is carried reads the manifest beside it
    carried = tmp_path / "out" / ".safetake"
    carried.mkdir()
    (carried / "join.py").write_text(JOIN_SCRIPT)
    (carried / "manifest.json").write_text('{"sources": {"scripts": {"type": "files"}}}')
    subprocess.run([sys.executable, carried / "join.py", tmp_path / "out"], check=True)
    assert names(back) == names(parts)
