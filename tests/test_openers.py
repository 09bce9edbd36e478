"""Who has a file open: real processes, descriptors, maps, removed files, those we cannot see."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from safetake.openers import Opener, Openers, openers

HOLD = """
import mmap, os, sys
if sys.argv[2] == "map":
    fd = os.open(sys.argv[1], os.O_RDONLY)
    held = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    os.close(fd)
else:
    held = open(sys.argv[1], "rb")
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path, how: str = "open") -> Iterator[int]:
    """A process that has `path` open."""
    script = path.parent / "holder.py"
    script.write_text(HOLD)
    process = subprocess.Popen(
        [sys.executable, script, path, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.communicate()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "파일 with (space)"
    path.write_bytes(b"x" * 5000)
    return path


@pytest.mark.parametrize("how", ["open", "map"])
def test_a_process_is_named(file: Path, how: str) -> None:
    assert openers([file]).found == []
    with holder(file, how) as pid:
        (found,) = openers([file, file.parent / "other"]).found
        assert (found.pid, found.path) == (pid, os.fspath(file))
        assert found.command.endswith("holder.py")
        assert "with (space)" not in found.command
    assert openers([file]).found == []


@pytest.mark.parametrize("how", ["open", "map"])
def test_a_removed_file_and_another_name_are_found(file: Path, how: str) -> None:
    other = file.parent / "link"
    other.hardlink_to(file)
    with holder(file, how) as pid:
        assert [found.pid for found in openers([other]).found] == [pid]
        file.unlink()
        other.unlink()
        assert [found.pid for found in openers([file]).found] == [pid]
        file.write_bytes(b"a new one")
        assert [found.pid for found in openers([file]).found] == [pid]


def test_a_symbolic_link_is_followed(file: Path) -> None:
    link = file.parent / "link"
    link.symlink_to(file)
    with holder(file) as pid:
        assert [found.pid for found in openers([link]).found] == [pid]


def test_our_own_process_only_when_asked(file: Path) -> None:
    with file.open("rb") as opened:
        assert openers([file]).found == []
        assert [found.pid for found in openers([file], own=True).found] == [os.getpid()]
        held = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
    assert [found.pid for found in openers([file], own=True).found] == [os.getpid()]
    held.close()


def test_processes_of_others_are_counted_as_not_seen(file: Path) -> None:
    if os.geteuid():
        assert openers([file]).blind > 0
        return
    assert openers([file]).blind == 0
    with holder(file):
        code = (
            "import os, pathlib, sys\n"
            "from safetake.openers import openers\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "seen = openers([pathlib.Path(sys.argv[1])])\n"
            "print(len(seen.found), seen.blind > 0)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, file], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["0", "True"]


def test_sentence() -> None:
    some = [Opener(n, "chroma", path) for n in range(1, 6) for path in ("a", "b")]
    assert Openers(some[:2]).sentence() == "process 1 (chroma)"
    assert Openers(some[:4]).sentence() == "process 1 (chroma) and process 2 (chroma)"
    assert Openers(some).sentence().endswith("process 3 (chroma) and 2 more")
