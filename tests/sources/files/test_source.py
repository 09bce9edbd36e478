"""Looking at a folder without taking it, and what a configuration may ask for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from safetake.config import FilesConfig
from safetake.errors import ConfigError
from safetake.sources.files import FilesSource
from safetake.sources.files.cut import foreign_clock
from tests.sources.files.support import take
from tests.support.memory_writer import MemoryRepository


def source(path: Path, *, exclude: list[str] | None = None, empty: bool = False) -> FilesSource:
    config = FilesConfig(type="files", path=path, exclude=exclude or [], may_be_empty=empty)
    return FilesSource("scripts", config)


def test_given_a_folder_then_inspect_counts_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"12345")
    (tmp_path / "b.tmp").write_bytes(b"123")
    state = source(tmp_path, exclude=["*.tmp"]).inspect()
    assert state.ok
    assert state.problems == []
    assert (state.bytes, state.details["files"], state.details["dirs"]) == (5, 1, 1)


@pytest.mark.parametrize("empty", [False, True])
def test_given_an_empty_or_missing_folder_then_inspect_says_so(tmp_path: Path, empty: bool) -> None:
    state = source(tmp_path, empty=empty).inspect()
    assert state.ok is empty
    missing = source(tmp_path / "nowhere", empty=empty).inspect()
    assert not missing.ok
    assert all(hint for _, hint in missing.problems)


def test_given_an_impossible_pattern_then_the_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        source(tmp_path, exclude=["!keep"])


def test_given_file_systems_then_those_with_another_clock_are_known(tmp_path: Path) -> None:
    assert foreign_clock(tmp_path.stat().st_dev) == ""
    assert foreign_clock(os.makedev(4095, 4095)) == ""


def test_given_another_file_system_then_it_is_entered_only_when_wanted(tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"x")
    mount = tmp_path / "mount"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount here")
    try:
        (mount / "other").write_bytes(b"y")
        with MemoryRepository() as repository:
            across = take(tmp_path, repository)
            assert sorted(across.paths()) == ["mount", "mount/other", "own"]
            within = take(tmp_path, repository, across, one_file_system=True)
            assert sorted(within.paths()) == ["mount", "own"]
            assert within.facts == take(tmp_path, repository, one_file_system=True).facts
            again = take(tmp_path, repository, within)
            assert again.facts == across.facts
    finally:
        subprocess.run(["umount", str(mount)], check=True)
