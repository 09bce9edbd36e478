"""A Chroma folder restored in place: exchanged, proven, put back; refused where it would harm."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetake.config import ChromaConfig
from safetake.errors import RefusedError
from safetake.model import RestoreOutline, RestoreWork
from safetake.sources.chroma.restore import ChromaRestorer, restorer
from safetake.swap import Swap
from tests.support.chroma_live import Load, Taken, bring_back, questioned, server, take, writers
from tests.support.memory_writer import MemoryRepository, entry_of
from tests.support.repositories import picture

LOADS = (Load("one"), Load("two", threshold=1000, space="cosine"))


@dataclass
class Restore:
    """The steps of the engine over one snapshot."""

    folder: Path
    taken: Taken
    options: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    place: Path | None = None

    @property
    def restorer(self) -> ChromaRestorer:
        return restorer("vectors", ChromaConfig(type="chroma", path=self.folder))

    @property
    def entry(self) -> dict[str, Any]:
        return {"type": "chroma", **entry_of(self.taken.captured)}

    def outline(self, mode: str = "") -> RestoreOutline:
        return self.restorer.outline(
            self.entry, mode, self.options, self.taken.repository, self.taken.captured.node
        )

    def work(self) -> RestoreWork:
        self.place = self.place or self.restorer.place()
        work = self.place / ".safetake-restore-v"
        return RestoreWork(
            "0" * 16,
            self.entry,
            "offline",
            work,
            work / "new" / "vectors",
            self.options,
            self.notes,
            self.notes.__setitem__,
        )

    def stage(self) -> RestoreWork:
        work = self.work()
        work.work.mkdir(mode=0o700)
        work.staged.parent.mkdir()
        bring_back(self.taken, work.staged)
        return work

    def run(self) -> RestoreWork:
        work = self.stage()
        before = picture(work.staged)
        good(self.restorer.check_staged(work))
        assert picture(work.staged) == before, "the questions changed the staged folder"
        self.restorer.quiet(work)
        self.restorer.switch(work)
        good(self.restorer.confirm(work))
        return work


def good(checks: list[Any]) -> None:
    assert checks
    assert [check for check in checks if not check.ok] == []


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two collections at operation 60 or so, and nobody at it."""
    place = tmp_path_factory.mktemp("original")
    folder = place / "db"
    for load in LOADS:
        fill(folder, load, 1.0, place)
    return folder


def fill(folder: Path, load: Load, seconds: float, place: Path) -> None:
    """Write for a while with an embedded client that then ends."""
    with writers(str(folder), [load], seconds, place):
        time.sleep(seconds)
        deadline = time.monotonic() + 20
        while processes_in(folder) and time.monotonic() < deadline:
            time.sleep(0.05)


def processes_in(folder: Path) -> int:
    from safetake.openers import openers
    from safetake.sources.chroma.inuse import live_files

    return len(openers(live_files(folder)).found)


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "chroma"
    shutil.copytree(original, folder)
    return folder


@pytest.fixture(scope="module")
def taken(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return take(original, tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def later(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store after `change`."""
    folder = tmp_path_factory.mktemp("later") / "db"
    shutil.copytree(original, folder)
    change(folder, folder.parent)
    return folder


@pytest.fixture
def changed(later: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "chroma"
    shutil.copytree(later, folder)
    return folder


@pytest.fixture(scope="module")
def contents(taken: Taken, tmp_path_factory: pytest.TempPathFactory) -> dict[bytes, Any]:
    """What is in the files of the snapshot."""
    return files(bring_back(taken, tmp_path_factory.mktemp("contents") / "db"))


def files(folder: Path) -> dict[bytes, Any]:
    found = picture(folder, times=False)
    return {
        name: what["sha256"]
        for name, what in found.items()
        if "sha256" in what and b".safetake-restore" not in name
    }


def connect(address: str) -> Any:
    import chromadb

    host, port = address.split(":")
    return chromadb.HttpClient(host=host, port=int(port))


def change(folder: Path, place: Path) -> None:
    """What an application does after the snapshot: records, a new collection, one less."""
    code = (
        "import sys, chromadb\n"
        "c = chromadb.PersistentClient(sys.argv[1])\n"
        "one = c.get_collection('one', embedding_function=None)\n"
        "ids = one.get(limit=7)['ids']\n"
        "one.delete(ids=ids[:3])\n"
        "one.update(ids=ids[3:5], embeddings=[[2.0] * 16] * 2)\n"
        "one.add(ids=['later-1', 'later-2'], embeddings=[[1.0] * 16] * 2)\n"
        "new = c.create_collection('three', embedding_function=None)\n"
        "new.add(ids=['a'], embeddings=[[1.0, 2.0]])\n"
        "c.delete_collection('two')\n"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=True, cwd=place)


def answers(folder: Path, place: Path) -> dict[str, Any]:
    """What Chroma sees, asked of a copy, since opening changes it."""
    copy = place / f"copy-{time.monotonic_ns()}"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".safetake-restore-*"))
    return questioned(copy)


def test_the_whole_folder_comes_back_and_goes_back(
    changed: Path, original: Path, taken: Taken, contents: dict[bytes, Any], tmp_path: Path
) -> None:
    store = changed
    expected = answers(original, tmp_path)
    assert all(isinstance(expected[load.name], int) for load in LOADS)
    (store / "notes.txt").write_text("mine")
    before = picture(store)
    restore = Restore(store, taken)

    outline = restore.outline()
    assert outline.mode == "offline"
    assert not outline.absent
    assert not outline.damaged
    by_name = {loss.what: loss for loss in outline.losses}
    one = by_name["vectors of one"]
    assert (one.newer, one.changed, one.missing, one.unknown) == (2, 2, 3, "")
    assert sorted(one.examples) == ["later-1", "later-2"]
    assert by_name["vectors of three"].newer == 1
    assert by_name["vectors of two"].missing > 0
    assert any("notes.txt" in text for text in outline.warnings)
    assert picture(store) == before

    work = restore.run()
    assert answers(store, tmp_path) == expected
    assert (store / "notes.txt").read_text() == "mine"
    restore.restorer.switch(work)  # again, after a crash: nothing happens
    good(restore.restorer.confirm(work))

    restore.restorer.switch_back(work)
    restore.restorer.switch_back(work)
    assert picture(store) == before
    restore.restorer.switch(work)
    good(restore.restorer.confirm(work))
    restore.restorer.finish(work, committed=True)
    assert files(store) == contents | {b"notes.txt": files(store)[b"notes.txt"]}


def test_an_unchanged_store_loses_nothing(store: Path, taken: Taken) -> None:
    assert Restore(store, taken).outline().losses == []


def test_extra_entries_go_when_asked(store: Path, taken: Taken) -> None:
    (store / "notes.txt").write_text("mine")
    (store / "mine").mkdir()
    restore = Restore(store, taken, {"delete_extra": True})
    warnings = restore.outline().warnings
    assert any(text.endswith("are deleted: notes.txt") for text in warnings)
    assert any(text.endswith("are kept: mine") for text in warnings)
    before = picture(store)
    work = restore.run()
    assert not (store / "notes.txt").exists()
    assert (store / "mine").exists(), "no snapshot has folders that are not Chroma's"
    restore.restorer.switch_back(work)
    assert picture(store) == before


def test_refused_while_a_server_has_it_open_and_the_naive_ways_fail(
    store: Path, later: Path, taken: Taken, tmp_path: Path
) -> None:
    """A server goes on serving the old data when the folder is exchanged under it (control)."""
    copy = tmp_path / "naive"
    shutil.copytree(later, copy)
    fresh = bring_back(taken, tmp_path / "fresh")
    with server(store) as address, server(copy) as naive:
        with pytest.raises(RefusedError, match=r"is in use: process \d+") as error:
            Restore(store, taken).outline()
        assert "--collection" in error.value.hint
        restore = Restore(store, taken, {"can_stop": True})
        restore.outline()
        work = restore.stage()
        with pytest.raises(RefusedError, match="is in use"):
            restore.restorer.quiet(work)
        with pytest.raises(RefusedError, match="is in use"):
            restore.restorer.switch(work)
        assert not Swap(work.work).planned
        assert connect(address).heartbeat()

        client = connect(naive)
        copy.rename(tmp_path / "aside")
        fresh.rename(copy)
        # the server still has what was removed open: it answers from the old files …
        names = {collection.name for collection in client.list_collections()}
        assert "three" in names
        # … and what it is told now is lost or refused
        with pytest.raises(Exception, match=r"readonly|read-only|rror"):
            client.get_collection("three", embedding_function=None).add(
                ids=["b"], embeddings=np.ones((1, 2), np.float32)
            )
        # a folder that was removed under a server is still in use
        shutil.rmtree(store)
        with pytest.raises(RefusedError, match="is in use"):
            Restore(store, taken).outline()


def test_mv_nests_where_an_old_copy_exists(store: Path, taken: Taken, tmp_path: Path) -> None:
    """The user's script rolls back with `mv chroma.old chroma` (control)."""
    old = store.with_name("chroma.old")
    shutil.copytree(store, old)
    subprocess.run(["mv", old, store], check=True)
    assert (store / "chroma.old").is_dir()
    assert not old.exists()
    shutil.rmtree(store / "chroma.old")

    (store.with_name("chroma.old")).mkdir()  # a left-over of another day changes nothing here
    before = picture(store)
    restore = Restore(store, taken)
    work = restore.run()
    restore.restorer.switch_back(work)
    assert picture(store) == before


def test_nothing_there_any_more(store: Path, taken: Taken, contents: dict[bytes, Any]) -> None:
    shutil.rmtree(store)
    restore = Restore(store, taken)
    outline = restore.outline()
    assert outline.absent
    assert outline.losses == []
    work = restore.run()
    assert files(store) == contents
    restore.restorer.switch_back(work)
    assert not store.exists()
    restore.restorer.switch(work)
    assert files(store) == contents


def test_an_empty_folder_is_filled(store: Path, taken: Taken, contents: dict[bytes, Any]) -> None:
    shutil.rmtree(store)
    store.mkdir()
    restore = Restore(store, taken)
    assert restore.outline().absent
    restore.run()
    assert files(store) == contents


def test_what_services_wrote_before_a_rollback_does_not_reach_the_old_data(
    changed: Path, taken: Taken, contents: dict[bytes, Any]
) -> None:
    store = changed
    before = picture(store)
    restore = Restore(store, taken)
    work = restore.run()
    # a service began a transaction, made a collection, and was killed
    (store / "chroma.sqlite3-journal").write_bytes(b"a hot journal of the restored database")
    segment = store / "11111111-2222-4333-8444-555555555555"
    segment.mkdir()
    restore.restorer.switch_back(work)
    assert picture(store) == before
    restore.restorer.switch(work)
    assert (store / "chroma.sqlite3-journal").exists(), "it belongs to the restored database"
    assert segment.exists()
    restore.restorer.switch_back(work)
    assert picture(store) == before
    (work.work / "late" / "chroma.sqlite3-journal").unlink()
    restore.restorer.switch(work)
    assert files(store) == contents


@pytest.mark.parametrize("direction", ["resume", "rollback"])
def test_cut_off_after_any_move(
    changed: Path,
    taken: Taken,
    contents: dict[bytes, Any],
    direction: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = changed
    (store / "chroma.sqlite3-wal").touch()
    before = picture(store)
    real_rename = os.rename
    moved = 0
    for number in range(100):
        restore = Restore(store, taken)
        work = restore.stage()
        left = number

        def rename(*names: Any) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            real_rename(*names)

        monkeypatch.setattr(os, "rename", rename)
        try:
            restore.restorer.switch(work)
            cut = False
        except KeyboardInterrupt:
            cut = True
        finally:
            monkeypatch.setattr(os, "rename", real_rename)
        moved += cut
        if direction == "resume":
            restore.restorer.switch(work)
            good(restore.restorer.confirm(work))
            assert files(store) == contents
        restore.restorer.switch_back(work)
        assert picture(store) == before
        shutil.rmtree(work.work)
        if not cut:
            break
    assert moved >= 4


def test_raw_files_of_a_damaged_store_come_back(store: Path, taken: Taken, tmp_path: Path) -> None:
    with (store / "chroma.sqlite3").open("r+b") as file:
        file.write(b"no database at all")
    before = picture(store, times=False)
    restore = Restore(store, taken)
    outline = restore.outline()
    assert outline.damaged
    assert restore.restorer.raw_files() == [store]
    raw = tmp_path / "raw"
    shutil.copytree(store, raw)
    restore.run()
    again = Restore(store, taken)
    again.notes["raw"] = True
    work = RestoreWork(
        "1" * 16,
        {"type": "raw", "facts": {"raw": True}, "bytes": 1},
        "offline",
        store.parent / ".safetake-restore-w",
        store.parent / ".safetake-restore-w" / "new" / "vectors",
        {},
        again.notes,
        again.notes.__setitem__,
    )
    work.staged.parent.mkdir(parents=True)
    raw.rename(work.staged)
    good(again.restorer.check_staged(work))
    again.restorer.quiet(work)
    again.restorer.switch(work)
    good(again.restorer.confirm(work))
    assert picture(store, times=False) == before


def test_damage_in_the_staged_folder_is_found(store: Path, taken: Taken) -> None:
    restore = Restore(store, taken)
    work = restore.stage()
    path = next(work.staged.rglob("data_level0.bin"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    # the user's script (control): it is there, and not empty
    asked = f'[ -d {work.staged} ] && [ -n "$(ls -A {work.staged})" ]'
    assert subprocess.run(["sh", "-c", asked], check=False).returncode == 0
    wrong = [check for check in restore.restorer.check_staged(work) if not check.ok]
    assert any("data_level0.bin" in check.name for check in wrong)


def refused(spoil: Callable[[Path], None], store: Path, taken: Taken) -> str:
    spoil(store)
    with pytest.raises(RefusedError) as error:
        Restore(store, taken).outline()
    assert error.value.hint
    return str(error.value)


def test_traps(store: Path, taken: Taken, tmp_path: Path) -> None:
    def link(folder: Path) -> None:
        database = folder / "chroma.sqlite3"
        database.rename(tmp_path / "elsewhere.sqlite3")
        database.symlink_to(tmp_path / "elsewhere.sqlite3")

    assert "symbolic link" in refused(link, store, taken)
    (store / "chroma.sqlite3").unlink()
    (tmp_path / "elsewhere.sqlite3").rename(store / "chroma.sqlite3")

    def older(folder: Path) -> None:
        with sqlite3.connect(folder / "chroma.sqlite3") as connection:
            connection.execute(
                "DELETE FROM migrations WHERE dir = 'metadb' AND version ="
                " (SELECT max(version) FROM migrations WHERE dir = 'metadb')"
            )

    assert "newer Chroma" in refused(older, store, taken)
    assert "does not exist" in refused(lambda folder: shutil.rmtree(folder.parent), store, taken)


def test_modes_and_servers_are_refused_with_the_way_out(store: Path, taken: Taken) -> None:
    for mode in ("online", "beside"):
        with pytest.raises(RefusedError) as error:
            Restore(store, taken).outline(mode)
        assert "--collection" in error.value.hint
    server_only = restorer("v", ChromaConfig(type="chroma", url="http://127.0.0.1:1"))
    with pytest.raises(RefusedError, match="no folder") as error:
        server_only.outline({"facts": {}}, "", {}, MemoryRepository(), taken.captured.node)
    assert "--collection" in error.value.hint


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "mounted"
    point.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "none", point], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", point], check=True)


def test_a_mount_point_is_restored_from_inside(
    mounted: Path, later: Path, taken: Taken, contents: dict[bytes, Any]
) -> None:
    shutil.copytree(later, mounted, dirs_exist_ok=True)
    restore = Restore(mounted, taken)
    outline = restore.outline()
    assert restore.restorer.place() == mounted
    assert any("mount point" in text for text in outline.warnings)
    work = restore.run()
    assert work.work.parent == mounted
    assert files(mounted) == contents
    assert os.path.ismount(mounted)


def test_a_read_only_file_system_is_refused(mounted: Path, original: Path, taken: Taken) -> None:
    shutil.copytree(original, mounted, dirs_exist_ok=True)
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    with pytest.raises(RefusedError, match="read-only"):
        Restore(mounted, taken).outline()


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_the_owner_of_the_live_store_wins(store: Path, taken: Taken) -> None:
    for path in (store, *store.rglob("*")):
        os.chown(path, 4321, 8765)
    restore = Restore(store, taken)
    restore.outline()
    restore.run()
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (store, *store.rglob("*"))}
    assert owners == {(4321, 8765)}
