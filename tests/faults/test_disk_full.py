"""A disk that fills up: an error with a next step, nothing half visible, and recovery."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from pathlib import Path

from tests.faults.support import make_world, safetake, small_disk
from tests.support.repositories import picture, restic


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_full_repository_fails_cleanly_and_recovers(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 12) as disk:
        repository = disk / "repository"
        make_world(tmp_path, repository)
        assert safetake(tmp_path, "backup").returncode == 0
        big = tmp_path / "scripts" / "big.bin"
        big.write_bytes(random.Random(1).randbytes(30 << 20))
        for _ in range(3):
            failed = safetake(tmp_path, "backup")
            assert failed.returncode == 1
            assert "No space left on device" in failed.stderr
            assert "hint: free space" in failed.stderr
            assert not files_in(repository / "tmp")
            assert not files_in(repository / "locks")
            assert len(files_in(repository / "snapshots")) == 1
            restic(repository, "check", "--read-data")  # its own lock fits: 12 MB are not in packs
        listed = json.loads(safetake(tmp_path, "snapshots", "--json").stdout)
        restored = safetake(tmp_path, "restore", listed[0]["id"], "--to", "out")
        assert restored.returncode == 0
        assert (tmp_path / "out" / "scripts" / "one.md").read_text() == "one\n"
        big.unlink()
        assert safetake(tmp_path, "backup").returncode == 0
        assert safetake(tmp_path, "check", "--read-data").returncode == 0


def test_a_disk_without_a_byte_left_still_restores(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        repository = disk / "repository"
        make_world(tmp_path, repository)
        assert safetake(tmp_path, "backup").returncode == 0
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
        for command in (["backup"], ["verify"], ["check"]):
            failed = safetake(tmp_path, *command)
            assert failed.returncode == 1
            assert "hint:" in failed.stderr
        assert safetake(tmp_path, "snapshots").returncode == 0
        assert safetake(tmp_path, "restore", "latest", "--to", "out").returncode == 0
        filler.unlink()
        assert safetake(tmp_path, "backup").returncode == 0
        assert not files_in(repository / "tmp")


def test_a_target_that_is_too_small_is_not_filled(tmp_path: Path) -> None:
    """The disk may be that of the application."""
    make_world(tmp_path, tmp_path / "repository")
    (tmp_path / "scripts" / "big.bin").write_bytes(random.Random(1).randbytes(6 << 20))
    os.link(tmp_path / "scripts" / "big.bin", tmp_path / "scripts" / "again.bin")
    assert safetake(tmp_path, "backup").returncode == 0
    with small_disk(tmp_path / "disk", 3) as disk:
        refused = safetake(tmp_path, "restore", "latest", "--to", str(disk / "out"))
        assert refused.returncode == 1
        assert "MiB free, and the restore needs 6." in refused.stderr
        assert "hint: nothing was written" in refused.stderr
        assert list((disk / "out").iterdir()) == []
    with small_disk(tmp_path / "larger", 8) as disk:  # two names of one file need its room once
        words = ("restore", "latest", "--to", str(disk / "out"))
        assert safetake(tmp_path, *words).returncode == 0
        again = safetake(tmp_path, *words, "--overwrite")  # each name holds the old one
        assert "free, and the restore needs 6." in again.stderr
    (tmp_path / "scripts" / "again.bin").unlink()
    assert safetake(tmp_path, "backup").returncode == 0
    with small_disk(tmp_path / "third", 8) as disk:
        for more in ((), ("--overwrite",)):  # what is there makes room
            done = safetake(tmp_path, "restore", "latest", "--to", str(disk / "out"), *more)
            assert done.returncode == 0, done.stderr


def test_a_sparse_file_comes_back_sparse_where_that_is_asked_for(tmp_path: Path) -> None:
    make_world(tmp_path, tmp_path / "repository")
    image, link = tmp_path / "scripts" / "image.raw", tmp_path / "scripts" / "again.raw"
    data = random.Random(1).randbytes(300_000)
    with image.open("wb") as file:  # 64 MiB, of which 600 kB are written
        file.seek(20 << 20)
        file.write(data)
        file.seek(5 << 20, os.SEEK_CUR)
        file.write(data)
        file.truncate((64 << 20) + 100)
    os.link(image, link)
    with sqlite3.connect(tmp_path / "p.db") as database:
        database.execute("CREATE TABLE z AS SELECT zeroblob(1000000)")
    database.close()
    assert safetake(tmp_path, "backup").returncode == 0
    with small_disk(tmp_path / "disk", 12) as disk:
        refused = safetake(tmp_path, "restore", "latest", "--to", str(disk / "out"))
        assert "MiB free, and the restore needs 6" in refused.stderr
        for more in ((), ("--overwrite",)):
            words = ("restore", "latest", "--to", str(disk / "out"), "--sparse", *more)
            done = safetake(tmp_path, *words)
            assert done.returncode == 0, done.stderr
            scripts = disk / "out" / "scripts"
            assert picture(scripts) == picture(tmp_path / "scripts")
            assert (scripts / "again.raw").samefile(scripts / "image.raw")
            assert (scripts / "image.raw").stat().st_blocks * 512 < 3 << 20
            projects = next((disk / "out").glob("projects/*.db")).stat()
            assert projects.st_blocks * 512 >= projects.st_size > 1_000_000
    dense = safetake(tmp_path, "restore", "latest", "--to", "out")
    assert dense.returncode == 0
    assert (tmp_path / "out/scripts/image.raw").stat().st_blocks * 512 >= 64 << 20
    assert picture(tmp_path / "out" / "scripts") == picture(tmp_path / "scripts")


def test_a_target_that_gets_full_fails_cleanly(tmp_path: Path) -> None:
    make_world(tmp_path, tmp_path / "repository")
    for number in range(2000):  # a page each, and a byte for whoever asks for their sizes
        (tmp_path / "scripts" / f"{number}.txt").write_text("x")
    assert safetake(tmp_path, "backup").returncode == 0
    with small_disk(tmp_path / "disk", 3) as disk:
        failed = safetake(tmp_path, "restore", "latest", "--to", str(disk / "out"))
        assert failed.returncode == 1
        assert "No space left on device" in failed.stderr
        assert "hint: free space there" in failed.stderr
    restored = safetake(tmp_path, "restore", "latest", "--to", "out")
    assert restored.returncode == 0, restored.stderr
    assert picture(tmp_path / "out" / "scripts") == picture(tmp_path / "scripts")


def test_an_init_that_failed_can_be_repeated(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        (disk / "filler").write_bytes(bytes((1 << 20) - 4096))  # room for the key alone
        failed = safetake(tmp_path, "init", "--repository", str(disk / "repository"))
        assert failed.returncode == 1
        assert "hint: free space" in failed.stderr
        assert safetake(tmp_path, "snapshots").returncode == 10
        (disk / "filler").unlink()
        again = safetake(tmp_path, "init")
        assert again.returncode == 0, again.stderr
        assert len(files_in(disk / "repository" / "keys")) == 1
        assert safetake(tmp_path, "check").returncode == 0
