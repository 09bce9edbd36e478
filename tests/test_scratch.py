"""Scratch folders: private, removed at the end, swept after `kill -9`."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safetake.errors import SafetakeError
from safetake.scratch import scratch_database, scratch_folder


def test_it_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "copy").write_text("data")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_and_all_else_stays(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from safetake.scratch import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'deep').mkdir(); (folder / 'deep' / 'copy').write_text('x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=False)
    (left,) = tmp_path.iterdir()
    kept = [
        tmp_path / name
        for name in (
            "safetake-00000000-1-00000000-x",  # of another host
            "safetake-notes",
            left.name.replace("safetake", "other"),
        )
    ]
    for path in kept:
        path.mkdir()
    host = left.name.split("-")[1]
    before = tmp_path / f"safetake-{host}-{os.getpid()}-00000000-x"  # of this pid before a restart
    before.mkdir()
    (tmp_path / f"{left.name}-link").symlink_to(kept[1])
    with scratch_folder(tmp_path) as one, scratch_folder(tmp_path) as two:
        assert one.is_dir()
        assert two.is_dir()
        assert not left.exists()
        assert not before.exists()
    assert {path for path in tmp_path.iterdir() if not path.is_symlink()} == set(kept)
    assert f"-{os.getpid()}-" in one.name


def test_no_place_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(SafetakeError, match="cannot make a scratch folder") as caught:
        with scratch_folder(tmp_path / "missing"):
            pass
    assert "TMPDIR" in caught.value.hint


def test_a_database_has_no_name_and_is_gone_at_the_end(tmp_path: Path) -> None:
    with scratch_database(tmp_path) as one, scratch_database(tmp_path) as two:
        for database in (one, two):
            database.execute("CREATE TABLE things (what BLOB)")
            database.execute("INSERT INTO things VALUES (zeroblob(9000000))")
        assert list(tmp_path.iterdir()) == []
        assert two.execute("SELECT count(*) FROM things").fetchall() == [(1,)]


def test_where_an_open_file_keeps_its_name_it_loses_it_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def refuse(path: str) -> None:
            raise OSError(errno.EBUSY, "as on some network file systems", path)

        patch.setattr(os, "unlink", refuse)
        first, second = scratch_database(tmp_path), scratch_database(tmp_path)
        one, two = first.__enter__(), second.__enter__()
        one.execute("CREATE TABLE things (what)")
        two.execute("CREATE TABLE things (what)")
        assert len(list(tmp_path.iterdir())) == 2
    second.__exit__(None, None, None)
    first.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def fill(folder: Path) -> None:
    with scratch_database(folder) as database:
        database.execute("PRAGMA max_page_count = 8")
        database.execute("CREATE TABLE things AS SELECT zeroblob(99999)")


@pytest.mark.parametrize("name", [".", "missing"])
def test_a_database_that_finds_no_room_is_an_error_with_a_hint(tmp_path: Path, name: str) -> None:
    with pytest.raises(SafetakeError, match=f"cannot keep a list in {tmp_path}") as caught:
        fill(tmp_path / name)
    assert "free space" in caught.value.hint
