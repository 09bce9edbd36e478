"""What every storage promises; each place where repositories may live runs all of it."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from safetake.errors import StorageError
from safetake.storage import KINDS, Kind, LocalStorage, OverlayStorage, Storage

MANY: list[Kind] = list(KINDS)


def name_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(params=["local", "overlay"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Storage]:
    """Gives another object over one and the same place, as another process would have it."""
    if request.param == "overlay":
        base = LocalStorage(tmp_path / "base")
        return lambda: OverlayStorage(base, tmp_path / "top")
    return lambda: LocalStorage(tmp_path / "repository")


@pytest.fixture
def storage(fresh: Callable[[], Storage]) -> Storage:
    made = fresh()
    made.create()
    return made


def test_the_kinds_are_all_but_the_config() -> None:
    assert {*KINDS, "config"} == set(get_args(Kind))


def test_an_empty_storage_has_no_repository_and_no_files(
    fresh: Callable[[], Storage], storage: Storage
) -> None:
    assert not storage.exists()
    assert all(list(storage.list(kind)) == [] for kind in KINDS)
    storage.put("config", "config", b"x")
    assert fresh().exists()


def test_creating_over_files_is_refused(fresh: Callable[[], Storage], storage: Storage) -> None:
    fresh().create()  # nothing is in it yet: an interrupted init may be repeated
    storage.put("data", name_of(b"x"), b"x")
    with pytest.raises(StorageError, match="not empty") as caught:
        fresh().create()
    assert caught.value.hint
    assert storage.get("data", name_of(b"x")) == b"x"


@pytest.mark.parametrize("kind", MANY)
def test_what_was_put_is_there_for_everybody(
    fresh: Callable[[], Storage], storage: Storage, kind: Kind
) -> None:
    content = os.urandom(1000)
    storage.put(kind, name_of(content), content)
    storage.put(kind, name_of(content), content)  # the same again is no error
    other = fresh()
    assert other.get(kind, name_of(content)) == content
    assert other.size(kind, name_of(content)) == 1000
    assert list(other.list(kind)) == [(name_of(content), 1000)]
    assert [found for k in KINDS if k != kind for found in other.list(k)] == []
    other.remove(kind, name_of(content))
    other.remove(kind, name_of(content))  # a missing file is no error
    assert list(storage.list(kind)) == []


def test_ranges_are_the_files_bytes(storage: Storage) -> None:
    content = random.Random(1).randbytes(100_000)
    storage.put("data", name_of(content), content)
    for offset, length in [(0, 1), (0, 100_000), (5, 0), (99_999, 1), (99_990, 50), (100_000, 9),
                           (200_000, 9), (17, 70_000)]:  # fmt: skip
        found = storage.get_range("data", name_of(content), offset, length)
        assert found == content[offset : offset + length]


@pytest.mark.parametrize("kind", [*MANY, "config"])
def test_a_missing_file_is_file_not_found(storage: Storage, kind: Kind) -> None:
    name = "config" if kind == "config" else name_of(b"missing")
    for action in (
        lambda: storage.get(kind, name),
        lambda: storage.get_range(kind, name, 0, 1),
        lambda: storage.size(kind, name),
    ):
        with pytest.raises(FileNotFoundError):
            action()


def test_an_upload_is_visible_only_when_it_is_committed(
    fresh: Callable[[], Storage], storage: Storage
) -> None:
    parts: list[bytes | bytearray | memoryview] = [
        b"", b"one", bytearray(b"two"), memoryview(b"three"), *[b"%d" % n for n in range(2000)]
    ]  # fmt: skip
    content = b"".join(parts)
    upload = storage.upload()
    upload.write(parts[:2])
    upload.write(parts[2:])
    upload.write([])
    assert all(list(fresh().list(kind)) == [] for kind in KINDS)
    upload.commit("data", name_of(content))
    assert fresh().get("data", name_of(content)) == content
    with pytest.raises(StorageError):
        upload.write([b"late"])
    upload.abort()
    assert fresh().get("data", name_of(content)) == content


def test_an_aborted_upload_leaves_nothing(fresh: Callable[[], Storage], storage: Storage) -> None:
    upload = storage.upload()
    upload.write([b"never"])
    upload.abort()
    upload.abort()
    assert all(list(fresh().list(kind)) == [] for kind in KINDS)
    assert storage.sweep() == 0


def test_uploads_of_several_threads_do_not_mix(storage: Storage) -> None:
    contents = [random.Random(n).randbytes(50_000) for n in range(24)]

    def work(content: bytes) -> None:
        upload = storage.upload()
        for at in range(0, len(content), 7000):
            upload.write([content[at : at + 7000]])
        upload.commit("data", name_of(content))

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(storage.list("data")) == {name_of(content): 50_000 for content in contents}
    assert all(storage.get("data", name_of(content)) == content for content in contents)


# what is true of folders only


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "repository")
    made.create()
    return made


def test_files_and_folders_are_private(local: LocalStorage) -> None:
    local.put("snapshots", name_of(b"x"), b"x")
    local.put("data", name_of(b"x"), b"x")
    for path in [local.root, *local.root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_foreign_names_are_left_out(local: LocalStorage) -> None:
    content = b"mine"
    local.put("index", name_of(content), content)
    folder = local.root / "index"
    upper = ("a" * 64).upper()
    for name in ("readme", "0" * 63, "0" * 65, "G" * 64, upper, name_of(b"y") + ".tmp"):
        (folder / name).write_bytes(b"foreign")
    (folder / name_of(b"folder")).mkdir()
    (folder / name_of(b"link")).symlink_to(name_of(content))
    (local.root / "data" / "zz-foreign").mkdir()
    (local.root / "data" / "file").write_bytes(b"")
    assert list(local.list("index")) == [(name_of(content), 4)]
    assert list(local.list("data")) == []


def test_a_folder_of_data_that_is_missing_is_made_again(local: LocalStorage) -> None:
    for path in (local.root / "data").iterdir():
        path.rmdir()
    shutil.rmtree(local.root / "tmp")
    shutil.rmtree(local.root / "proofs")
    local.put("data", name_of(b"x"), b"x")
    local.put("proofs", name_of(b"y"), b"y")
    assert local.get("data", name_of(b"x")) == b"x"
    assert local.get("proofs", name_of(b"y")) == b"y"


def test_a_lost_folder_of_the_format_is_an_error(local: LocalStorage) -> None:
    shutil.rmtree(local.root / "snapshots")
    with pytest.raises(StorageError, match="snapshots") as caught:
        list(local.list("snapshots"))
    assert caught.value.hint
    shutil.rmtree(local.root / "digests")  # only safetake knows this one
    assert list(local.list("digests")) == []


def test_a_sweep_takes_the_dead_and_leaves_the_living(local: LocalStorage) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, check=True, text=True)  # fmt: skip
    living = local.upload()
    living.write([b"living"])
    own = next(iter((local.root / "tmp").iterdir())).name
    host = own.split("-")[0]
    orphan = local.root / "tmp" / f"{host}-{dead.stdout.strip()}-00ff"
    orphan.write_bytes(b"orphan")
    before = local.root / "tmp" / f"{host}-{os.getpid()}-{'0' * 24}"  # before a restart
    before.write_bytes(b"of a container with the same pid")
    young = local.root / "tmp" / "00000000-1-00ff"  # of another host
    young.write_bytes(b"young")
    old = local.root / "tmp" / "00000000-2-00ff"
    old.write_bytes(b"old")
    os.utime(old, (0, 0))
    foreign = local.root / "tmp" / "notes.txt"
    foreign.write_bytes(b"foreign")
    assert local.sweep() == 3
    assert {path.name for path in (local.root / "tmp").iterdir()} == {
        own, young.name, foreign.name
    }  # fmt: skip
    living.commit("data", name_of(b"living"))


def test_a_file_size_limit_fails_without_a_trace(tmp_path: Path) -> None:
    """RLIMIT_FSIZE is a full disk that needs no root."""
    program = """
import resource, signal, sys
from pathlib import Path
from safetake.errors import StorageError
from safetake.storage import LocalStorage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
storage = LocalStorage(Path(sys.argv[1]))
storage.create()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    storage.put("data", "ab" * 32, bytes(200_000))
except StorageError as error:
    print(error, "/", error.hint)
upload = storage.upload()
try:
    upload.write([bytes(60_000), bytes(30_000), bytes(30_000)])
except StorageError as error:
    print(error, "/", error.hint)
    upload.abort()
print(list(storage.list("data")), [path.name for path in (storage.root / "tmp").iterdir()])
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "repository"],
                          capture_output=True, check=True, text=True)  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("cannot write" in line and "File too large" in line for line in lines[:2])
    assert lines[2] == "[] []"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become nobody")
def test_a_folder_that_is_not_ours_is_a_storage_error(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
os.umask(0)
from safetake.errors import StorageError
from safetake.storage import LocalStorage
storage = LocalStorage(Path(sys.argv[1]))
storage.create()
storage.put("data", "ab" * 32, b"x")
for path in [storage.root, *storage.root.rglob("*")]:
    path.chmod(0o555 if path.is_dir() else 0o444)
os.setgid(65534)
os.setuid(65534)
for action in (
    lambda: storage.put("data", "cd" * 32, b"x"),
    lambda: storage.upload(),
    lambda: storage.remove("data", "ab" * 32),
):
    try:
        action()
    except StorageError as error:
        print(error, "/", error.hint)
print(storage.sweep(), storage.get("data", "ab" * 32))
"""
    place = Path("/tmp") / f"safetake-{os.getpid()}"
    try:
        done = subprocess.run([sys.executable, "-c", program, place],
                              capture_output=True, check=True, text=True)  # fmt: skip
    finally:
        shutil.rmtree(place)
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all("Permission denied" in line and "/ run as the owner" in line for line in lines[:3])
    assert lines[3] == "0 b'x'"


# --------------------------------------------------------------------------- over another storage


def test_an_overlay_changes_nothing_below(tmp_path: Path) -> None:
    base = LocalStorage(tmp_path / "base")
    base.create()
    kept, gone = name_of(b"kept"), name_of(b"gone")
    base.put("config", "config", b"c")
    base.put("data", kept, b"kept")
    base.put("locks", gone, b"gone")
    before = {path: path.read_bytes() for path in base.root.rglob("*") if path.is_file()}
    (tmp_path / "top").mkdir()
    for over in (OverlayStorage(base, tmp_path / "top"), OverlayStorage(base, tmp_path / "top")):
        added = name_of(b"added")
        over.put("data", added, b"added")
        over.remove("locks", gone)
        assert over.exists()
        assert {name for name, _ in over.list("data")} == {kept, added}
        assert list(over.list("locks")) == []
        with pytest.raises(FileNotFoundError):
            over.get("locks", gone)
    assert over.get("data", kept) + over.get("data", added) == b"keptadded"
    assert {path: path.read_bytes() for path in base.root.rglob("*") if path.is_file()} == before


def test_many_are_removed_at_once_and_a_missing_one_is_no_error(
    fresh: Callable[[], Storage], storage: Storage
) -> None:
    contents = [os.urandom(8) for _ in range(20)]
    for kind in MANY:
        for content in contents:
            storage.put(kind, name_of(content), content)
        gone = [name_of(content) for content in contents[:15]]
        storage.assure_removal(kind, gone)  # changes nothing
        assert len(list(fresh().list(kind))) == 20
        storage.remove_all(kind, [*gone, name_of(b"never there")])
        assert {name for name, _ in fresh().list(kind)} == {name_of(c) for c in contents[15:]}


def test_whether_files_can_be_removed_is_known_without_removing_any(local: LocalStorage) -> None:
    name = name_of(b"x")
    local.put("snapshots", name, b"x")
    local.assure_removal("snapshots", [name, name_of(b"never there")])
    assert local.get("snapshots", name) == b"x"
    if subprocess.run(["chattr", "+i", local.path("snapshots", name)], check=False,
                      capture_output=True).returncode:  # fmt: skip
        pytest.skip("no attributes on this file system, or not root")
    try:
        with pytest.raises(StorageError, match=f"refuses to remove snapshots/{name}"):
            local.assure_removal("snapshots", [name])
    finally:
        subprocess.run(["chattr", "-i", local.path("snapshots", name)], check=True)
    local.assure_removal("snapshots", [name])
