"""A disk that does not give bytes back: damage like any other, named and never called good."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.errors import DamagedError
from safetake.proof.verify import verify
from safetake.repository import Repository
from safetake.repository.check import check
from safetake.restore.beside import restore_to
from safetake.snapshots import FAILED, find_snapshot
from tests.support.repositories import (
    files_source,
    memory_folder,
    new_repository,
    open_repository,
    snapshot,
)


@pytest.fixture
def base() -> Iterator[Path]:
    with memory_folder() as folder:
        (folder / "scripts").mkdir()
        for number in range(6):
            content = random.Random(number).randbytes(300_000)
            (folder / "scripts" / str(number)).write_bytes(content)
        snapshot(new_repository(folder / "repository"), files_source("scripts", folder / "scripts"))
        yield folder


def largest_pack(base: Path) -> Path:
    packs = [path for path in (base / "repository" / "data").rglob("*") if path.is_file()]
    return max(packs, key=lambda path: path.stat().st_size)


@pytest.fixture
def bad(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pack's middle does not read (what no test machine can do for real)."""
    pack, real = largest_pack(base), os.pread
    wrong, middle = pack.stat().st_ino, pack.stat().st_size // 2

    def pread(fd: int, length: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == wrong and offset <= middle < offset + length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    return pack


def test_it_is_reported_proven_bad_and_not_restored(base: Path, bad: Path) -> None:
    repository: Repository = open_repository(base / "repository")
    report = check(repository, read_data=True)
    assert any(bad.name in error and "Input/output" in error for error in report.errors)
    found = find_snapshot(repository, "latest")
    proven = verify(repository, None, found, "read")
    assert not proven.ok
    assert any(bad.name in problem for problem in proven.problems)
    assert find_snapshot(repository, "latest").rung.name == FAILED
    lost: list[bytes] = []
    wanted = [entry.id for entry in repository.index.packs()[bad.name]]
    repository.reader().stream(
        wanted, lambda blob, plain: None, failed=lambda blob, error: lost.append(blob)
    )
    assert len(lost) == 1  # its neighbours are read one by one
    with pytest.raises(DamagedError, match=bad.name):
        restore_to(repository, found, [], base / "out")


def test_a_pack_in_a_wrong_folder_is_missing(base: Path) -> None:
    pack = largest_pack(base)
    other = pack.parent.with_name("ff" if pack.parent.name != "ff" else "00")
    pack.rename(other / pack.name)
    report = check(open_repository(base / "repository"), read_data=True)
    assert any(pack.name in error and "missing" in error for error in report.errors)
