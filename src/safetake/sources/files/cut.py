"""The cut of a store that has no locks: decided afterwards, by the clock that stamps the files.

While the barrier holds every other store, `fix_cut` reads the clock. What was written before has
a change time at or before the cut, what is written after the barrier has one behind it, so that a
later walk can tell the two apart. Since Linux 6.13 change times are "multigrain": between the
coarse clock and the fine one, and ahead of the coarse one in 19,983 of 20,000 writes measured on
6.18. So the cut is read from the fine clock, which no earlier stamp can exceed, and the barrier
then stays until the coarse clock, below which no later stamp can fall, has passed it: one tick, 4
ms at 250 Hz.

Not covered: bytes stored through a memory map that was dirty already carry no new stamp, and a
network file system stamps with its server's clock.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from safetake.model import Node
from safetake.sources.files.metadata import kind_of, same

_REALTIME_COARSE = 5
"""Linux's number; Python's `time` does not name it."""

_TICK_NS = 10_000_000
"""The longest tick of a supported kernel (100 Hz)."""

_WHOLE_SECONDS_NS = 2_000_000_000
"""How late a stamp without a fraction may be: old file systems cut it to one or two seconds."""


def coarse_ns() -> int:
    """A moment at or before every change time that the kernel will give from now on."""
    if sys.platform == "linux":
        return time.clock_gettime_ns(_REALTIME_COARSE)
    return time.time_ns() - _TICK_NS


def latest_ns(stamp: int) -> int:
    """The last moment at which something stamped with `stamp` can have happened."""
    return stamp if stamp % 1_000_000_000 else stamp + _WHOLE_SECONDS_NS


@dataclass(frozen=True, slots=True)
class FilesCut:
    """The moment, on the wall clock that stamps files and on the one that never jumps."""

    wall_ns: int
    monotonic_ns: int


def fix_cut() -> FilesCut:
    """Fix the cut and wait until the next change would be stamped behind it."""
    cut = FilesCut(time.time_ns(), time.monotonic_ns())
    deadline = cut.monotonic_ns + 4 * _TICK_NS
    while coarse_ns() <= cut.wall_ns and time.monotonic_ns() < deadline:
        time.sleep(0.0005)
    return cut


def clock_set_back_ns(since: FilesCut) -> int:
    """By how much the wall clock was set back since then; 0 when it was not.

    Slewing (at most 500 ppm) is no step, and a step forwards keeps the order of the stamps.
    """
    # In this order: a thread that loses the processor in between (29 ms were seen) must not look
    # like a step backwards.
    real = time.monotonic_ns() - since.monotonic_ns
    wall = time.time_ns() - since.wall_ns
    lost = real - wall
    return lost if lost > 20_000_000 + real // 1000 else 0


class Verdict(Enum):
    """What becomes of an entry in the snapshot."""

    KEEP = "as known: nothing was written to it since it was looked at"
    READ = "as it is now, which is as it was at the cut"
    LATER = "as it is now: in place and written before the cut, its metadata touched after it"
    OLDER = "as known from before the cut: it was changed after the cut"
    OMIT = "not there at the cut"
    ACROSS = "as it is now: made before the cut and written after it, never seen in between"
    UNSURE = "left out: came into place around the cut"


def judge(
    status: os.stat_result,
    known: Node | None,
    *,
    settled: bool,
    cut_ns: int,
    folder_ns: int,
    birth: Callable[[], int | None],
) -> Verdict:
    """Decide on an entry that is there now.

    `known` is its version from before the cut, `settled` whether that was read so late that a
    further write would have changed its stamp; `folder_ns` is the folder's modification time,
    which moves when a name comes or goes; `birth` is asked for only when it matters.
    """
    before_the_cut = latest_ns(status.st_ctime_ns) <= cut_ns
    if known is not None and same(status, known) and (settled or not before_the_cut):
        return Verdict.KEEP
    if before_the_cut:
        return Verdict.READ
    if known is not None:
        return Verdict.OLDER
    born = birth()
    if born is not None and born > cut_ns:
        return Verdict.OMIT
    rewritten = latest_ns(status.st_mtime_ns) > cut_ns
    if kind_of(status.st_mode) == "dir" and rewritten:
        return Verdict.LATER  # names came or went in it after the cut; each is judged by itself
    # A write sets both stamps, a rename only the change time: a file that is being written into its
    # place at the cut, or rewritten right after it, differs from one that is renamed into place.
    if rewritten and born is not None and status.st_mtime_ns == status.st_ctime_ns:
        return Verdict.ACROSS
    if latest_ns(folder_ns) > cut_ns:
        return Verdict.UNSURE
    return Verdict.ACROSS if rewritten else Verdict.LATER


_OTHER_CLOCKS = ("nfs", "cifs", "smb", "9p", "fuse", "virtiofs", "ceph", "lustre", "gfs", "afs")


def foreign_clock(device: int) -> str:
    """Type of the file system when its stamps come from another clock than ours; else empty."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts:
        head, _, tail = line.partition(" - ")
        kind = tail.split(" ", 1)[0]
        if head.split(" ")[2] == number:
            return kind if kind.startswith(_OTHER_CLOCKS) else ""
    return ""


def judge_absent(*, cut_ns: int, folder_ns: int) -> Verdict:
    """Decide on a known entry whose name is gone now."""
    return Verdict.OMIT if latest_ns(folder_ns) <= cut_ns else Verdict.OLDER
