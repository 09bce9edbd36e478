"""What goes wrong with a folder of files: named; and what nobody wrote is compared by content."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from safetake.config import FilesConfig
from safetake.findings import Asked
from safetake.sources.files import content
from safetake.sources.files.soundness import SAME
from tests.integrity.support import ask, by_check, picture, wrong
from tests.sources.files.support import Taken, take
from tests.support.memory_writer import MemoryRepository


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "scripts"
    (root / "seasons").mkdir(parents=True)
    for number in range(20):
        (root / "seasons" / f"{number}.md").write_bytes(bytes([number]) * 10_000)
    (root / "large.bin").write_bytes(os.urandom(700_000))
    (root / "empty").touch()
    (root / "latest").symlink_to("seasons/3.md")
    for path in root.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return root


def asked(root: Path, tmp_path: Path, taken: Taken | None = None, **more: Any) -> Asked:
    config = {key: more.pop(key) for key in ("exclude", "may_be_empty") if key in more}
    if taken is not None:
        more["parent"] = taken.parent
    return ask(FilesConfig(type="files", path=root, **config), tmp_path / "scratch", **more)


def keep_time(path: Path, data: bytes) -> None:
    state = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_sound_folder_answers_well_and_stays_as_it_is(root: Path, tmp_path: Path) -> None:
    before = picture(root)
    found = asked(root, tmp_path)
    assert wrong(found) == {}
    assert picture(root) == before
    assert not by_check(found)[SAME].asked
    assert found.facts["files"] == 22
    assert found.facts["read_bytes"] == found.facts["bytes"] == 900_000


def test_rot_is_named_and_a_write_is_not(root: Path, tmp_path: Path) -> None:
    with MemoryRepository() as repository:
        taken = take(root, repository)
        found = asked(root, tmp_path, taken)
        assert wrong(found) == {}
        assert found.facts["compared_bytes"] == 900_000
        keep_time(root / "seasons" / "7.md", b"\xff")
        keep_time(root / "large.bin", b"encrypted")
        (root / "seasons" / "9.md").write_bytes(b"written")
        os.utime(root / "seasons" / "4.md")  # touched: nobody knows
        with (root / "seasons" / "4.md").open("r+b") as file:
            file.write(b"?")
        found = asked(root, tmp_path, taken)
        assert list(wrong(found)) == [SAME]
        assert [one.split(":")[0] for one in wrong(found)[SAME].ids] == [
            "large.bin",
            "seasons/7.md",
        ]
        assert found.facts["compared_files"] == 19


def test_a_write_in_the_tick_in_which_the_snapshot_read_is_no_rot(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(name: str, data: bytes) -> None:
        (root / name).write_bytes(data)

    def after() -> None:
        write("made", b"then")
        (root / "old").chmod(0o600)
        (root / "gone").rename(root / "seasons" / "gone")

    write("old", b"then")
    write("gone", b"then")
    with MemoryRepository() as repository, monkeypatch.context() as patch:
        patch.setattr(content, "coarse_ns", lambda: 0)  # every reading is in the tick of a write
        taken = take(root, repository, before=lambda: write("made", b"zero"), after=after)
        (root / "seasons" / "gone").rename(root / "gone")
        # as if each had been read before the last write, which has the stamps of the one before
        earlier = taken.with_content({"made": b"once", "old": b"once", "gone": b"once"})
        found = asked(root, tmp_path, earlier)
    assert wrong(found) == {}


def test_a_bound_is_kept_and_every_file_has_its_turn(root: Path, tmp_path: Path) -> None:
    with MemoryRepository() as repository:
        taken = take(root, repository)
        for number in range(20):
            keep_time(root / "seasons" / f"{number}.md", b"\xff")
        rotten: set[str] = set()
        period = asked(root, tmp_path, taken, read_bytes=60_000).facts["runs_until_all_are_read"]
        assert period == 15
        for turn in range(100, 100 + period):
            found = asked(root, tmp_path, taken, read_bytes=60_000, turn=turn)
            read = found.facts["read_bytes"]
            assert read < 60_000 + 10_000 or 700_000 <= read < 700_000 + 60_000
            rotten |= set(wrong(found)[SAME].ids if SAME in wrong(found) else [])
            assert "compared" in by_check(found)[SAME].detail
        assert len(rotten) == 20
        all_of_it = asked(root, tmp_path, taken, read_bytes=None)
        assert len(wrong(all_of_it)[SAME].ids) == 20


def test_links_that_lead_nowhere_are_a_warning(root: Path, tmp_path: Path) -> None:
    (root / "seasons" / "3.md").unlink()
    (root / "loop").symlink_to("loop")
    (root / "outside").symlink_to("/etc/hostname-that-is-not-there")
    found = wrong(asked(root, tmp_path))
    assert list(found) == ["links lead somewhere"]
    assert found["links lead somewhere"].level == "warning"
    assert len(found["links lead somewhere"].ids) == 3
    assert wrong(asked(root, tmp_path, exclude=["latest", "loop", "outside"])) == {}


@pytest.mark.parametrize("middle", [False, True], ids=["at the start", "in the middle"])
def test_a_disk_that_does_not_read_is_an_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, middle: bool
) -> None:
    wrong_one, real, real_v = (root / "large.bin").stat().st_ino, os.pread, os.preadv
    at = 350_000 if middle else 10

    def broken(fd: int, offset: int, length: int) -> None:
        if os.fstat(fd).st_ino == wrong_one and offset <= at < offset + length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def pread(fd: int, length: int, offset: int) -> bytes:
        broken(fd, offset, length)
        return real(fd, length, offset)

    def preadv(fd: int, buffers: Any, offset: int) -> int:
        broken(fd, offset, sum(map(len, buffers)))
        return real_v(fd, buffers, offset)

    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(os, "preadv", preadv)
    found = wrong(asked(root, tmp_path))
    assert found["every file can be read"].ids == ["large.bin: Input/output error"]


def test_what_we_may_not_read_is_an_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refused(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if path == "5.md":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refused)
    found = wrong(asked(root, tmp_path))
    assert found["every file can be read"].ids == ["seasons/5.md: Permission denied"]
    assert found["every file can be read"].level == "error"


def test_what_vanishes_meanwhile_is_no_damage(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def vanishing(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if path == "5.md":
            (root / "seasons" / "5.md").unlink(missing_ok=True)
        if path == "6.md":
            (root / "seasons" / "8.md").unlink(missing_ok=True)
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", vanishing)
    found = asked(root, tmp_path)
    assert wrong(found) == {}
    assert found.facts["vanished_meanwhile"] == 2


def test_a_folder_that_is_gone_or_empty_is_an_error(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root)
    assert list(wrong(asked(root, tmp_path))) == ["opens"]
    root.mkdir()
    assert list(wrong(asked(root, tmp_path))) == ["has files"]
    assert wrong(asked(root, tmp_path, may_be_empty=True)) == {}
    root.rmdir()
    root.touch()
    assert list(wrong(asked(root, tmp_path))) == ["opens"]


def test_names_that_are_no_text_are_told_as_they_are(root: Path, tmp_path: Path) -> None:
    (root / "bad\udcff\n").symlink_to("nowhere")
    found = wrong(asked(root, tmp_path))["links lead somewhere"].ids
    assert found == ["'bad\\udcff\\n': → nowhere"]
