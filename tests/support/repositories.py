"""Real repositories in folders, stock restic beside them, and pictures of folders to compare."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.backup import BackupReport, take_snapshot
from safetake.config import BarrierConfig, FilesConfig, SqliteConfig
from safetake.model import BATCH_BYTES, BlobId, Node, Source
from safetake.repository import Repository, keys
from safetake.repository.writer import RepositoryWriter
from safetake.sources.files import FilesSource
from safetake.sources.sqlite import SqliteSource
from safetake.storage import LocalStorage

PASSWORD = "correct horse 말"


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory where there is one: for campaigns that would wait for fsync only."""
    memory = Path("/dev/shm")
    inside = (
        memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30 else None
    )
    with tempfile.TemporaryDirectory(prefix="safetake-test-", dir=inside) as folder:
        yield Path(folder)


def new_repository(folder: Path, password: str = PASSWORD) -> Repository:
    """A repository whose keys cost a millisecond to open, for us and for restic."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "SCRYPT_N", 1 << 10)
        patch.setattr(keys, "SCRYPT_P", 1)
        return Repository.init(LocalStorage(folder), password)


def open_repository(folder: Path, password: str = PASSWORD) -> Repository:
    """Open it afresh, as the next process does."""
    return Repository.open(LocalStorage(folder), password)


def restic(
    repository: Path,
    *arguments: str | os.PathLike[str],
    password: str = PASSWORD,
    code: int = 0,
    cwd: Path | None = None,
) -> str:
    """What stock restic answers; fails when it is missing, or exits with another code."""
    done = run_restic(repository, *arguments, password=password, cwd=cwd)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == code, f"{said}\n{done.stderr.decode(errors='replace')}"
    return said


def run_restic(
    repository: Path,
    *arguments: str | os.PathLike[str],
    password: str = PASSWORD,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run stock restic without a cache, in UTC."""
    program = shutil.which("restic")
    if program is None:
        pytest.fail("stock restic is missing: apt-get install restic, or run `./dev test`")
    return subprocess.run(
        [program, "--no-cache", "-r", repository, *arguments],
        env={**os.environ, "RESTIC_PASSWORD": password, "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=cwd,
        check=False,
    )


def picture(root: Path, *, times: bool = True, owners: bool = True) -> dict[bytes, Any]:
    """What a restore owes, by path: kind, mode, time, owner, links, bytes, attributes."""
    found: dict[bytes, Any] = {}
    inodes: dict[tuple[int, int], bytes] = {}
    for base, folders, files in os.walk(os.fsencode(root)):
        for name in sorted(folders + files):
            path = os.path.join(base, name)  # noqa: PTH118 - bytes
            info = os.lstat(path)
            place = os.path.relpath(path, os.fsencode(root))
            what: dict[str, Any] = {"mode": info.st_mode}
            if times:
                what["mtime"] = info.st_mtime_ns
            if owners:
                what["owner"] = (info.st_uid, info.st_gid)
            what["xattrs"] = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            }
            if stat.S_ISLNK(info.st_mode):
                what["target"] = os.readlink(path)  # noqa: PTH115 - bytes
            elif stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:  # noqa: PTH123 - bytes
                    what["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
                what["size"] = info.st_size
                if info.st_nlink > 1:
                    what["same"] = inodes.setdefault((info.st_dev, info.st_ino), place)
            found[place] = what
        folders.sort()
    return found


def files_source(name: str, folder: Path) -> Source:
    """A source of type files."""
    return FilesSource(name, FilesConfig(type="files", path=folder))


def sqlite_source(name: str, path: Path) -> Source:
    """A source of type sqlite."""
    return SqliteSource(name, SqliteConfig(type="sqlite", path=path))


def snapshot(repository: Repository, *sources: Source) -> BackupReport:
    """One snapshot."""
    return take_snapshot(repository, list(sources), barrier=BarrierConfig())


def database(path: Path, rows: int = 200) -> None:
    """A small WAL database with some text."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE IF NOT EXISTS episodes (id INTEGER PRIMARY KEY, script TEXT)")
    connection.executemany(
        "INSERT INTO episodes (script) VALUES (?)", [(f"장면 {n} " * 40,) for n in range(rows)]
    )
    connection.commit()
    connection.close()


def store_all(writer: RepositoryWriter, chunks: Iterable[bytes]) -> list[BlobId]:
    """Store chunks one by one; their ids in order."""
    pending = [writer.store(chunk) for chunk in chunks]
    return [blob_id for each in pending for blob_id in each.result()]


def batches(data: bytes, size: int) -> Iterator[tuple[bytes, list[int]]]:
    """Cut into batches of the writer's buffer, and each into chunks of `size`."""
    for at in range(0, len(data), BATCH_BYTES):
        batch = data[at : at + BATCH_BYTES]
        yield batch, [min(size, len(batch) - start) for start in range(0, len(batch), size)]


def file_node(name: str, content: list[BlobId], size: int, **more: Any) -> Node:
    """An ordinary file."""
    values: dict[str, Any] = {"mode": stat.S_IFREG | 0o644, "links": 1, **more}
    return Node(name, "file", size=size, content=content, **values)


def folder_node(name: str, subtree: BlobId, **more: Any) -> Node:
    """An ordinary folder."""
    values: dict[str, Any] = {"mode": stat.S_IFDIR | 0o755, **more}
    return Node(name, "dir", subtree=subtree, **values)


def plain_snapshot(repository: Repository, root: BlobId, time: str = "2026-01-02T03:04:05Z") -> str:
    """A snapshot as stock restic would describe it, over a tree made by hand."""
    return repository.save_snapshot(
        {"time": time, "tree": root.hex(), "paths": ["/x"], "hostname": "h", "username": "u"}
    )
