"""Whether anybody uses a Chroma folder: open files first, then the database's own locks.

A server keeps chroma.sqlite3 and the segments' files open while it is idle, so that /proc names
it. Where we may not look into every process (not root, or one in another PID namespace), the
kernel is asked who holds SQLite's locks: that takes no lock, opens no connection and leaves
no trace, but sees a database in rollback-journal mode only while it is read or written.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from safetake.errors import RefusedError, SourceError
from safetake.openers import openers
from safetake.sources.chroma.database import NAME
from safetake.sources.sqlite import rawfile

_FLOCK = struct.Struct("@hhqqi4x")
_LOCK_BYTES = (0x40000000, 512)
"""Pending, reserved and shared bytes (os.h of SQLite): whoever reads or writes holds one of them,
and in WAL mode whoever is connected."""


def live_files(folder: Path) -> list[Path]:
    """What an application has open in a Chroma folder; missing ones are told by their name."""
    found = [folder / (NAME + end) for end in ("", "-journal", "-wal", "-shm")]
    try:
        for inner in sorted(folder.iterdir()):
            if inner.is_dir():
                found += sorted(inner.iterdir())
    except OSError:
        pass  # gone, or not ours to read: what is known is asked for
    return found


def refuse_open(folder: Path, more: Iterable[Path] = (), *, hint: str = "") -> int:
    """Raise RefusedError, naming who, when the folder or a file of `more` is in use.

    Returns how many processes could not be looked into.
    """
    seen = openers([*live_files(folder), *more])
    if seen.found:
        raise RefusedError(
            f"{folder} is in use: {seen.sentence()} has {Path(seen.found[0].path).name} open",
            hint=hint
            or "stop it, or configure it under [services] so that the restore stops and starts it;"
            " a single collection comes back while it runs with `--collection`",
        )
    try:
        holder = lock_holder(folder / NAME)
    except SourceError as error:
        raise RefusedError(str(error), hint=error.hint) from error
    if holder is not None:
        who = f"process {holder}" if holder > 0 else "a process that we cannot see"
        raise RefusedError(
            f"{folder} is in use: {who} holds a lock on {NAME}",
            hint=hint or "stop it; it may run in a container or on another machine",
        )
    return seen.blind


def lock_holder(database: Path) -> int | None:
    """The process that holds any of SQLite's locks; 0 or less when the kernel does not say who.

    Raises SourceError when the file cannot be read.
    """
    if not database.is_file() or not sys.platform.startswith("linux"):
        return None
    with rawfile.opened(database) as raw:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *_LOCK_BYTES, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(raw.fd, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else int(pid)
