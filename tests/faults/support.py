"""The command line on a small world of its own, for faults that a user would meet."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repositories import PASSWORD, database, new_repository

CONFIG = """
[repository]
location = "{repository}"
password_file = "password"
lock_wait = 0
[sources.scripts]
type = "files"
path = "scripts"
[sources.projects]
type = "sqlite"
path = "p.db"
"""


def make_world(base: Path, repository: Path) -> None:
    """A configuration, a password, two sources and an empty repository."""
    (base / "safetake.toml").write_text(CONFIG.format(repository=repository))
    set_password(base, PASSWORD)
    (base / "scripts").mkdir()
    (base / "scripts" / "one.md").write_text("one\n")
    database(base / "p.db")
    new_repository(repository)


def set_password(base: Path, password: str) -> None:
    """What the configuration's password file says."""
    (base / "password").write_text(password, encoding="utf-8")
    (base / "password").chmod(0o600)


def safetake(base: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `base`; whatever happens, no traceback and no internal error."""
    done = subprocess.run(
        [sys.executable, "-m", "safetake", *arguments],
        cwd=base,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert "internal error" not in said, said
    assert PASSWORD not in said
    return done


@contextlib.contextmanager
def small_disk(at: Path, megabytes: int) -> Iterator[Path]:
    """A file system that is soon full."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    at.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(at)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"this container may not mount: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)
