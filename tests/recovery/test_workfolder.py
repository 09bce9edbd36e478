"""The folder of a restore is removed whole, whatever is in it, without holding its listing."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

from safetake.recovery import workfolder


def test_everything_in_it_goes_and_nothing_else(tmp_path: Path) -> None:
    work, kept = tmp_path / "work", tmp_path / "kept"
    (work / "old" / "0" / "deep").mkdir(parents=True)
    kept.mkdir()
    (kept / "file").write_text("kept")
    (work / "old" / "0" / "deep" / "file").write_text("x")
    (work / "old" / "1").symlink_to(kept)
    (work / "old" / "2").symlink_to("nowhere")
    os.mkfifo(work / "old" / "3")
    os.link(kept / "file", work / "old" / "4")
    workfolder.remove(work / "old" / "1")
    assert (kept / "file").exists()
    (work / "old" / "1").symlink_to(kept)
    workfolder.remove(work)
    assert list(tmp_path.iterdir()) == [kept]
    assert (kept / "file").read_text() == "kept"
    workfolder.remove(work)


def test_many_entries_take_no_memory(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for number in range(5000):
        (old / str(number)).touch()
    tracemalloc.start()
    try:
        workfolder.remove(old)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not old.exists()
    assert peak < 100_000  # their listing takes 1 MB
