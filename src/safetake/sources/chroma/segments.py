"""A copy of one segment folder that Chroma could start on, and the rules that make it one.

Chroma persists a segment in place, without a lock, header first and pickle last, and only then
records in `max_seq_id` how far the files reach (m). Two facts follow, and everything rests on them:

1. A set of files that held still while it was copied, whose pickle is its newest and whole, is the
   state after some persist. It reaches at least as far as the m that was read before the copy.
2. The queue keeps what is above m. So the copy is consistent with any later SQLite state in which
   m is the same, even when the next persist is rewriting the files meanwhile: what the copy lacks
   is in the queue, and Chroma replays it at the next start as after a crash.

A segment without a pickle was never persisted: all of it is in the queue.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from safetake.sources.chroma import hnsw
from safetake.sources.chroma.pieces import (
    FileCopy,
    ShortRead,
    Sink,
    StatKey,
    Tick,
    copy_file,
    stat_key,
)

QUIET_NS = 20_000_000
"""Files modified later than this ago may be in the middle of a persist (and a file system's clock
ticks every 1 to 10 ms, so that an equal stat proves nothing before)."""
SETTLED_NS = 30_000_000_000
"""Files left alone for so long are not being persisted, whatever the order of their times: folders
that were copied or unpacked have times in any order. A persist writes all the while."""

Stats = dict[str, os.stat_result]


@dataclass(slots=True)
class SegmentCopy:
    """The files of one segment at one state, and what was recorded about them before."""

    segment: str
    max_seq_id: int | None
    """the vector segment's `max_seq_id` before the copy was begun"""
    files: dict[str, FileCopy] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    """names in the folder that are no regular files"""
    complete: bool = False
    wait_ns: int = 0
    """for a copy that is not complete: how long a persist may still take, at the least"""
    doubt: str = ""
    """why a copy of a folder that nobody writes is not one that Chroma left complete"""

    def keys(self) -> dict[str, StatKey]:
        """The stat of every file, to compare with the folder."""
        return {name: copy.key for name, copy in self.files.items()}

    @property
    def persisted(self) -> bool:
        """Whether there is a pickle, without which Chroma does not look at the other files."""
        return hnsw.PICKLE in self.files

    def serves(self, max_seq_id: int | None, stats: Stats | None) -> bool:
        """Whether this copy goes with a SQLite state that records `max_seq_id`.

        `stats` is the folder now, under the lock: decides where nothing is recorded (a pickle of
        Chroma 0.4 holds its own position). None when the folder need not be looked at.
        """
        if not self.complete:
            return False
        if max_seq_id == self.max_seq_id and (max_seq_id is not None or not self.persisted):
            return True
        return stats is not None and self.keys() == keys(stats)


def scan(folder: Path) -> tuple[Stats, list[str]]:
    """Stat of every regular file of a segment's folder, and the names of everything else there.

    A missing folder is an empty one: Chroma makes it with the first write.
    """
    found: Stats = {}
    others = []
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return {}, []
    for name in names:
        try:
            state = (folder / name).stat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(state.st_mode):
            found[name] = state
        else:
            others.append(name)
    return found, others


def keys(stats: Stats) -> dict[str, StatKey]:
    """The comparable part of a scan."""
    return {name: stat_key(state) for name, state in stats.items()}


def at_rest(stats: Stats, now_ns: int) -> int:
    """0 when no persist can be half way through these files, else the nanoseconds to wait.

    `now_ns` is `time.time_ns()` from before the scan.
    """
    times = {name: state.st_mtime_ns for name, state in stats.items() if name in hnsw.FILES}
    if not times:
        return 0
    age = now_ns - max(times.values())
    if age >= SETTLED_NS:
        return 0
    if 0 <= age < QUIET_NS:
        return QUIET_NS - age
    if hnsw.PICKLE in times and times[hnsw.PICKLE] < max(times.values()):
        return QUIET_NS
    if hnsw.PICKLE not in times and hnsw.LINKS in times and stats[hnsw.LINKS].st_size:
        return QUIET_NS  # links without a pickle: the first persist is on its way
    return 0


def copy_segment(
    folder: Path,
    max_seq_id: int | None,
    sink: Callable[[], Sink],
    *,
    before: SegmentCopy | None = None,
    threads: int = 1,
    tick: Tick = lambda count: None,
) -> SegmentCopy:
    """Copy what changed since `before`, if the files are at rest and stay so.

    `max_seq_id` was read before. A result that is not `complete` says in `wait_ns` when to try
    again; give it as `before` then, so that nothing is stored twice. Raises OSError when a file
    does not read.
    """
    old = before.files if before else {}
    result = SegmentCopy(folder.name, max_seq_id)
    now = time.time_ns()
    stats, result.others = scan(folder)
    result.wait_ns = at_rest(stats, now)
    if result.wait_ns:
        result.files = dict(old)
        return result
    result.wait_ns = QUIET_NS
    header = None
    try:
        for name in sorted(stats, key=lambda name: (name != hnsw.HEADER, name)):
            known = old.get(name)
            if name == hnsw.HEADER:
                header = hnsw.parse_header((folder / name).read_bytes()[: hnsw.HEADER_BYTES + 1])
            if known is None or known.key != stat_key(stats[name]):
                known = copy_file(
                    folder / name, sink(), before=known, header=header, threads=threads, tick=tick
                )
            result.files[name] = known
    except (FileNotFoundError, ShortRead):
        result.files = dict(old) | result.files
        return result
    after, _ = scan(folder)
    if keys(after) != result.keys() or keys(after) != keys(stats):
        return result
    doubt = disagreement(result, header)
    settled = all(now - state.st_mtime_ns >= SETTLED_NS for state in stats.values())
    if settled or not doubt:
        result.complete, result.doubt, result.wait_ns = True, doubt, 0
    return result


def disagreement(copy: SegmentCopy, header: hnsw.Header | None) -> str:
    """What in a set of files contradicts the rest; '' for a complete set or an unknown version."""
    if not copy.persisted:
        return ""
    for name in hnsw.FILES:
        if name not in copy.files:
            return f"{name} is missing"
    if any(copy.files[name].reused is not None for name in (hnsw.PICKLE, hnsw.HEADER)):
        return ""  # found good when it was stored, and has not changed since
    pickle = copy.files[hnsw.PICKLE]
    if not hnsw.pickle_ends(pickle.head, pickle.tail):
        return f"{hnsw.PICKLE} has no end"
    if header is None or hnsw.pickle_empty(pickle.head):
        return ""
    total = hnsw.pickle_total(pickle.head)
    if total is not None and total != header.count:
        return f"{hnsw.HEADER} counts {header.count} records, {hnsw.PICKLE} {total}"
    sizes = {name: copy.files[name].key[1] for name in hnsw.FILES}
    if sizes[hnsw.DATA] < header.count * header.record:
        return f"{hnsw.DATA} is shorter than its {header.count} records"
    if sizes[hnsw.LENGTH] < 4 * header.count:
        return f"{hnsw.LENGTH} is shorter than its {header.count} records"
    links = sizes[hnsw.LINKS] - 4 * header.count
    if links < 0 or links % (4 + 4 * header.m):
        return f"{hnsw.LINKS} does not end with the links of a record"
    return ""
