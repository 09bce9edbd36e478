"""Plain read descriptors of live database files, shared by the whole process and closed last.

POSIX drops *all* locks that a process holds on a file when it closes *any* descriptor of it
(https://sqlite.org/howtocorrupt.html, 2.2), so a session that opened and closed a database beside
another's connection would end the other's hold. Every descriptor here is therefore kept, one per
file, until its last user leaves, and users leave after their connections are closed. What other
code of the same process opens by itself is out of reach.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetake.errors import SourceError


@dataclass(slots=True, eq=False)
class RawFile:
    """One open descriptor and how many use it."""

    path: Path
    fd: int
    users: int
    writers_held: bool = False
    """A restore of this process keeps the database's writers out; nobody need lock them out."""


_lock = threading.Lock()
_open: dict[tuple[int, int], RawFile] = {}


def acquire(path: Path) -> RawFile:
    """The process's read descriptor of the file at `path`; give it back with `release`.

    Raises SourceError when the file cannot be opened.
    """
    with _lock:
        try:
            state = path.stat()
            found = _open.get((state.st_dev, state.st_ino))
            if found is None:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                state = os.fstat(fd)
                found = _open.setdefault((state.st_dev, state.st_ino), RawFile(path, fd, 0))
                if found.fd != fd:  # renamed between stat and open to a file that is open already
                    os.close(fd)
        except OSError as error:
            raise SourceError(
                f"{path} cannot be read: {error.strerror}",
                hint="give this user read and write access to the database and its folder",
            ) from error
        found.users += 1
        return found


def release(raw: RawFile) -> None:
    """Leave; the descriptor is closed when nobody of this process uses the file any more."""
    with _lock:
        raw.users -= 1
        if raw.users == 0:
            state = os.fstat(raw.fd)
            del _open[(state.st_dev, state.st_ino)]
            os.close(raw.fd)


@contextmanager
def opened(path: Path) -> Iterator[RawFile]:
    """`acquire` and `release` around a block."""
    raw = acquire(path)
    try:
        yield raw
    finally:
        release(raw)


def read(raw: RawFile, amount: int, offset: int) -> bytes:
    """Up to `amount` bytes from `offset`; fewer only at the end of the file."""
    buffer = bytearray(amount)
    with memoryview(buffer) as view:
        count = read_into(raw, view, offset)
    return bytes(buffer[:count])


def read_into(raw: RawFile, view: memoryview, offset: int) -> int:
    """Fill `view` from `offset`; the count is smaller only at the end of the file.

    Raises SourceError when the disk cannot be read.
    """
    done = 0
    while done < len(view):
        try:
            count = os.preadv(raw.fd, [view[done:] if done else view], offset + done)
        except OSError as error:
            raise _unreadable(raw, offset + done, error) from error
        if count == 0:
            break
        done += count
    return done


def scatter(raw: RawFile, views: Sequence[memoryview], offset: int) -> bool:
    """Fill the views one after the other from `offset`; False when the file ends before.

    At most 1024 views. Raises SourceError when the disk cannot be read.
    """
    total = sum(map(len, views))
    try:
        if os.preadv(raw.fd, views, offset) == total:
            return True
    except OSError as error:
        raise _unreadable(raw, offset, error) from error
    for view in views:  # a read may be shorter than asked without being at the end
        if read_into(raw, view, offset) < len(view):
            return False
        offset += len(view)
    return True


def _unreadable(raw: RawFile, offset: int, error: OSError) -> SourceError:
    return SourceError(
        f"{raw.path} cannot be read at byte {offset}: {error.strerror}",
        hint="check the disk and its kernel log; the last snapshot is still good",
    )
