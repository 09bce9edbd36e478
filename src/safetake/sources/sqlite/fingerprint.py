"""Has a database changed since its parent snapshot? A hint taken under the hold, never a guess.

A fingerprint names the committed state of a file at one instant: the main file's identity and
times, its change counter, and in WAL mode the log's salts and last frame. Two equal fingerprints
mean equal content only when the older one is `settled`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from safetake.sources.sqlite.header import Header

VERSION = 1

# A write in the same clock tick as the recorded mtime leaves no trace in it (git's "racy" rule).
# Linux ticks every 1 to 10 ms, but FAT and some network file systems keep times to 2 s.
RACY_NS = 2_000_000_000


def fingerprint(
    state: os.stat_result, header: Header, wal: tuple[str, int] | None
) -> dict[str, Any]:
    """State of the main file, plus (salts, mxFrame) of the log, None without one.

    The caller holds the writers, except where it only wants to compare twice.
    """
    return {
        "version": VERSION,
        "device": state.st_dev,
        "inode": state.st_ino,
        "size": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "ctime_ns": state.st_ctime_ns,
        "page_size": header.page_size,
        "change_counter": header.change_counter,
        "page_count": header.page_count,
        "mode": "wal" if header.wal else "rollback",
        "wal": None if wal is None else list(wal),
        "taken_ns": time.time_ns(),
    }


def settled(older: Mapping[str, Any]) -> bool:
    """Whether every write after `older` was taken must show in the file's times.

    In WAL mode a commit moves the log's salts or frame as well; the main file's times still matter,
    for a log can be folded in and removed between two backups.
    """
    newest = max(older.get("mtime_ns", 0), older.get("ctime_ns", 0))
    return bool(older.get("taken_ns", 0) - newest >= RACY_NS)


def unchanged(older: Mapping[str, Any], newer: Mapping[str, Any]) -> bool:
    """Whether the database of `newer` is certainly the one of `older`."""
    same = all(older.get(key) == newer[key] for key in newer if key != "taken_ns")
    return same and settled(older)
