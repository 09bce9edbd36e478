"""The clock, and what it decides."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from safetake.model import Node
from safetake.sources.files import cut as cuts
from safetake.sources.files.cut import FilesCut, Verdict, fix_cut, judge, judge_absent
from safetake.sources.files.metadata import birth_ns, node_of

FOLDERS = [path for path in ("/tmp", "/dev/shm") if Path(path).is_dir()]


@pytest.mark.parametrize("place", FOLDERS)
def test_given_writes_around_the_cut_then_their_stamps_tell_them_apart(place: str) -> None:
    folder = Path(place) / f"safetake-cut-{os.getpid()}"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for number in range(60):
            early, late = folder / f"early-{number}", folder / f"late-{number}"
            early.write_bytes(b"x")
            early.stat()  # a multigrain kernel gives finer stamps once somebody looked
            early.write_bytes(b"y")
            cut = fix_cut()
            late.write_bytes(b"z")
            assert early.stat().st_ctime_ns <= cut.wall_ns < late.stat().st_ctime_ns
            born = birth_ns(descriptor, late.name)
            assert born is None or born > cut.wall_ns
    finally:
        os.close(descriptor)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_given_a_cut_then_the_hold_is_a_few_milliseconds() -> None:
    started = time.monotonic_ns()
    for _ in range(10):
        fix_cut()
    # At most four ticks of 10 ms each by construction; the bound is the code's, not the machine's.
    assert time.monotonic_ns() - started < 10 * 4 * 10_000_000 + 2_000_000_000


def test_given_a_clock_that_was_set_back_then_it_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    since = FilesCut(time.time_ns(), time.monotonic_ns())
    assert cuts.clock_set_back_ns(since) == 0
    ahead = FilesCut(since.wall_ns + 5_000_000_000, since.monotonic_ns)
    assert cuts.clock_set_back_ns(ahead) >= 4_900_000_000


CUT = 1_000_000_000_500_000_000
BEFORE, AFTER = CUT - 7, CUT + 7


def status_of(path: Path, *, ctime: int, mtime: int) -> os.stat_result:
    """A stat result of our making: `judge` looks at the nanoseconds, type, size and inode only."""
    real = os.lstat(path)
    fields = list(real)
    extra = {
        "st_mtime_ns": mtime,
        "st_ctime_ns": ctime,
        "st_mtime": mtime / 1e9,
        "st_ctime": ctime / 1e9,
    }
    return os.stat_result(fields, extra)


@pytest.mark.parametrize(
    ("ctime", "mtime", "known", "settled", "folder", "born", "expected"),
    [
        # nothing happened
        (BEFORE, BEFORE, "same", True, BEFORE, None, Verdict.KEEP),
        (BEFORE, BEFORE, "same", False, BEFORE, None, Verdict.READ),
        (AFTER, AFTER, "same", True, BEFORE, None, Verdict.KEEP),  # a stamp from the future
        # changed before the cut
        (BEFORE, BEFORE, "other", True, BEFORE, None, Verdict.READ),
        (BEFORE, BEFORE, None, True, AFTER, None, Verdict.READ),
        # changed after it
        (AFTER, AFTER, "other", True, BEFORE, None, Verdict.OLDER),
        (AFTER, BEFORE, "other", True, AFTER, None, Verdict.OLDER),
        # not known: made after it, came into place around it, was there
        (AFTER, AFTER, None, True, AFTER, AFTER, Verdict.OMIT),
        (AFTER, AFTER, None, True, AFTER, BEFORE, Verdict.ACROSS),
        (AFTER + 1, AFTER, None, True, AFTER, BEFORE, Verdict.UNSURE),
        (AFTER, AFTER, None, True, AFTER, None, Verdict.UNSURE),
        (AFTER, BEFORE, None, True, BEFORE, BEFORE, Verdict.LATER),
        (AFTER + 1, AFTER, None, True, BEFORE, BEFORE, Verdict.ACROSS),
        # a stamp in whole seconds may be up to two seconds late
        (CUT - 500_000_000, BEFORE, None, True, AFTER, BEFORE, Verdict.UNSURE),
        (CUT - 2_500_000_000, BEFORE, None, True, AFTER, BEFORE, Verdict.READ),
    ],
)
def test_given_stamps_then_the_verdict_is(
    tmp_path: Path,
    ctime: int,
    mtime: int,
    known: str | None,
    settled: bool,
    folder: int,
    born: int | None,
    expected: Verdict,
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x")
    status = status_of(file, ctime=ctime, mtime=mtime)
    node: Node | None = None
    if known is not None:
        node = node_of("f", status)
        if known == "other":
            node.ctime_ns -= 3
    verdict = judge(status, node, settled=settled, cut_ns=CUT, folder_ns=folder, birth=lambda: born)
    assert verdict is expected


def test_given_a_name_that_is_gone_then_the_folder_says_since_when() -> None:
    assert judge_absent(cut_ns=CUT, folder_ns=BEFORE) is Verdict.OMIT
    assert judge_absent(cut_ns=CUT, folder_ns=AFTER) is Verdict.OLDER
