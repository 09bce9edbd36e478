"""Looking into folders without ever leaving them.

Every step is relative to an open folder and follows no symlink, so a folder that is swapped for a
link in the middle of a walk cannot lead outside. Reading leaves no trace: access times stay where
the system allows it.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from safetake.sources.files.exclude import Exclusions

MAX_DEPTH = 100
"""Folders deeper than this are told and left out: each level holds a descriptor."""

FLAT_BYTES = 12
"""Length of a listing's hash; 2^96 leaves no chance for two listings of one folder to collide."""

WORK_PREFIX = ".safetake-restore-"
"""Of folders in which a restore in place works: they are no part of anybody's data."""

_NO_TRACE = getattr(os, "O_NOATIME", 0)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without blocking, so that a FIFO which took a file's place cannot stop us.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(slots=True)
class Listing:
    """One look at one folder."""

    status: os.stat_result
    """Of the folder itself, taken before its entries were read."""
    entries: list[tuple[str, os.stat_result]]
    """Sorted by name, without what is excluded and without folders that a restore works in."""
    flat: bytes
    """Hash of everything above that changes when an entry does. Equal hashes: nothing changed."""
    problems: list[tuple[str, str]]
    """(path, why) of entries that could not be looked at."""


def _open(name: str, flags: int, folder: int | None) -> int:
    if _NO_TRACE:
        try:
            return os.open(name, flags | _NO_TRACE, dir_fd=folder)
        except PermissionError:
            pass  # only the owner may ask for that; without it is good enough
    return os.open(name, flags, dir_fd=folder)


def open_root(path: str) -> int:
    """The folder that the configuration names; here, and only here, a symlink is followed."""
    return _open(path, _FOLDER, None)


@contextmanager
def opened_folder(folder: int, name: str) -> Iterator[int]:
    """A folder inside `folder`. Raises OSError, also when `name` is a symlink by now."""
    descriptor = _open(name, _FOLDER | os.O_NOFOLLOW, folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(folder: int, name: str) -> int:
    """A file inside `folder`, for reading. Raises OSError."""
    return _open(name, _FILE, folder)


def join(path: str, name: str) -> str:
    """The path of `name` in the folder at `path`; the root's is empty."""
    return f"{path}/{name}" if path else name


def look(folder: int, path: str, exclusions: Exclusions) -> Listing:
    """List an open folder. Raises OSError when it cannot be listed."""
    status = os.fstat(folder)
    entries: list[tuple[str, os.stat_result]] = []
    problems: list[tuple[str, str]] = []
    with os.scandir(folder) as scan:
        for entry in scan:
            name = entry.name
            if name.startswith(WORK_PREFIX):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # deleted since: as if the listing had come a moment later
            except OSError as error:
                problems.append((join(path, name), error.strerror or str(error)))
                continue
            if not exclusions.empty and exclusions.match(
                join(path, name), folder=stat.S_ISDIR(found.st_mode)
            ):
                continue
            entries.append((name, found))
    entries.sort()
    rows = [
        (name, s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in entries
    ]
    # Version 2 of marshal has no back references: equal rows give equal bytes.
    text = marshal.dumps((path, status.st_dev, rows), 2)
    flat = hashlib.blake2b(text, digest_size=FLAT_BYTES).digest()
    return Listing(status, entries, flat, problems)
