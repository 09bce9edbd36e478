"""A folder that safetake took, brought back by stock restic: the same in everything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from safetake.backup import take_snapshot
from safetake.config import BarrierConfig, FilesConfig
from safetake.repository import Repository
from safetake.sources.files import FilesSource
from safetake.storage import LocalStorage
from tests.sources.files.support import describe

ODD = [b'quote"s', b"new\nline", b"back\\slash", b"\xff\xfe", "각본.txt".encode(), b" ", b"<&>"]


@pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not installed")
def test_given_an_odd_folder_then_stock_restic_restores_it(tmp_path: Path) -> None:
    root = tmp_path / "scripts"
    (root / "sub" / "deep").mkdir(parents=True)
    for number, name in enumerate(ODD):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"x" * number)
    (root / "big").write_bytes(os.urandom(3_000_000))
    (root / "sub" / "linked").hardlink_to(root / "big")
    (root / "sub" / "link").symlink_to("../big")
    (root / "sub" / "setuid").write_bytes(b"#!")
    (root / "sub" / "setuid").chmod(0o4755)
    os.mkfifo(root / "fifo")
    location = tmp_path / "repository"
    source = FilesSource("scripts", FilesConfig(type="files", path=root))
    env = {**os.environ, "RESTIC_PASSWORD": "secret", "RESTIC_REPOSITORY": str(location)}
    with Repository.init(LocalStorage(location), "secret") as repository:
        for number in range(3):
            (root / "sub" / "changing").write_bytes(b"version %d" % number)
            report = take_snapshot(repository, [source], barrier=BarrierConfig())
            assert report.exit_code == 0
    for command in (["check", "--read-data"], ["restore", report.id, "--target", tmp_path / "out"]):
        subprocess.run(["restic", "--no-cache", *command], env=env, check=True, capture_output=True)
    back = next(path for path in (tmp_path / "out").rglob("scripts") if path.is_dir())
    assert describe(back) == describe(root)
    assert (back / "sub" / "linked").samefile(back / "big")
