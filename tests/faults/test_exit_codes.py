"""Repositories that are missing, locked, read-only or gone: exit codes, words, a next step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.support import make_world, safetake, set_password
from tests.support.repositories import PASSWORD, open_repository


@pytest.fixture
def world(tmp_path: Path) -> Path:
    make_world(tmp_path, tmp_path / "repository")
    return tmp_path


COMMANDS = [
    ["backup"],
    ["snapshots"],
    ["check"],
    ["verify", "latest"],
    ["restore", "latest", "--to", "out"],
    ["key", "list"],
    ["unlock"],
]


def test_without_a_repository_every_command_exits_10(world: Path) -> None:
    shutil.rmtree(world / "repository")
    for command in COMMANDS:
        failed = safetake(world, *command)
        assert failed.returncode == 10, command
        assert "there is no repository at" in failed.stderr
        assert "hint: make one with" in failed.stderr


def test_a_wrong_password_exits_12(world: Path) -> None:
    set_password(world, "wrong")
    for command in COMMANDS:
        failed = safetake(world, *command)
        assert failed.returncode == 12, command
        assert "wrong password" in failed.stderr
        assert "hint: check password_file" in failed.stderr


def test_a_live_exclusive_lock_exits_11(world: Path) -> None:
    repository = open_repository(world / "repository")
    with repository.lock(exclusive=True):
        for command in (["backup"], ["check"]):
            failed = safetake(world, *command)
            assert failed.returncode == 11, command
            assert f"process {os.getpid()}" in failed.stderr
            assert "safetake unlock --all" in failed.stderr
        assert safetake(world, "snapshots").returncode == 0
    assert safetake(world, "backup").returncode == 0


def test_no_snapshot_and_a_missing_id_are_said(world: Path) -> None:
    for wanted in ("latest", "abcdef"):
        failed = safetake(world, "restore", wanted, "--to", "out")
        assert failed.returncode == 1
        assert "hint:" in failed.stderr
        assert not (world / "out").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only mount needs root")
def test_a_read_only_repository_restores_and_refuses_writes(world: Path) -> None:
    assert safetake(world, "backup").returncode == 0
    at = str(world / "repository")
    for step in (["mount", "--bind", at, at], ["mount", "-o", "remount,ro,bind", at]):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"this container may not mount: {done.stderr.strip()}")
    try:
        failed = safetake(world, "backup")
        assert failed.returncode == 1
        assert "Read-only file system" in failed.stderr
        assert "hint: remount" in failed.stderr
        assert safetake(world, "snapshots").returncode == 0
        assert safetake(world, "restore", "latest", "--to", "out").returncode == 0
    finally:
        subprocess.run(["umount", at], check=True)


def test_a_repository_that_is_removed_meanwhile_is_an_error(world: Path) -> None:
    (world / "scripts" / "big.bin").write_bytes(os.urandom(60 << 20))
    process = subprocess.Popen(
        [sys.executable, "-m", "safetake", "backup"],
        cwd=world,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while process.poll() is None and not any((world / "repository" / "locks").iterdir()):
        time.sleep(0.001)
    (world / "repository").rename(world / "gone")
    said, _ = process.communicate()
    assert process.returncode == 1, said
    assert "error: cannot" in said
    assert "hint:" in said
    assert "Traceback" not in said
    assert PASSWORD not in said
    (world / "gone").rename(world / "repository")
    assert safetake(world, "backup").returncode == 0
    assert safetake(world, "check", "--read-data").returncode == 0
