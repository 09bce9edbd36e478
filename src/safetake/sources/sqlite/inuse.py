"""Whether anybody has a database open: three witnesses, none of which writes a byte.

Who has a descriptor is told by /proc, with names; SQLite's own locks (and in WAL mode the one that
each connection keeps on the `-shm` file) by the kernel; and a file lease is granted only where
no other descriptor of the file exists on this kernel, so that an idle connection in a container
that we cannot see is still noticed. Another host on a network file system is not.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetake.errors import RefusedError
from safetake.openers import Openers, openers

_FLOCK = struct.Struct("@hhqqi4x")
_LOCK_BYTES = (0x40000000, 512)
"""PENDING, RESERVED and the SHARED range of SQLite's locking protocol (os.h)."""
_SHM_BYTES = (120, 9)
"""The locks of a log's index, and the one that every open connection keeps (wal.c, os_unix.c)."""
COMPANIONS = ("-wal", "-shm", "-journal")


def files_of(path: Path) -> list[Path]:
    """The database and the files that belong to it, whether they exist or not."""
    return [path, *(path.with_name(path.name + suffix) for suffix in COMPANIONS)]


def users_of(path: Path) -> Openers:
    """Other processes that have the database, or what belongs to it, open."""
    return openers(files_of(path))


def refuse_open(path: Path, files: Iterable[Path]) -> Openers:
    """Raise RefusedError when another process has any of `files`, those of `path`, open."""
    seen = openers(files)
    if seen.found:
        raise RefusedError(
            f"{path} is in use by {seen.sentence()}",
            hint="stop it, or name it as a service with `stop` and `start`; or restore with"
            " `--online`",
        )
    return seen


def refuse_locked(path: Path, file: Path, index: Path) -> None:
    """Raise RefusedError when another process holds a lock of SQLite's on `file`, or on the log's
    `index`: those of `path`, under these names now. Drops this process's own locks on them.
    """
    if _locked(file, *_LOCK_BYTES) or _locked(index, *_SHM_BYTES):
        raise _unseen(path, "is locked by a process that cannot be seen from here")


def refuse_users(path: Path) -> None:
    """Raise RefusedError when another process uses the database at `path`, or might.

    Not with a descriptor of the database open in this process: it would be taken for another's, and
    closing ours drops the locks of SQLite's.
    """
    seen = refuse_open(path, files_of(path))
    refuse_locked(path, path, path.with_name(path.name + "-shm"))
    leased = _lease(path)
    if leased is False:
        raise _unseen(path, "is open in a process that cannot be seen from here")
    if leased is None and seen.blind:
        raise RefusedError(
            f"{path} may be in use: {seen.blind} processes do not show which files they have open",
            hint="run the restore as the owner of the database, or as root",
        )


def _unseen(path: Path, what: str) -> RefusedError:
    return RefusedError(
        f"{path} {what}: another container, or another user's",
        hint="stop the application wherever it runs, or restore with `--online`",
    )


def _locked(path: Path, start: int, length: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False  # struct flock is laid out differently elsewhere
    with _descriptor(path) as fd:
        if fd is None:
            return False
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, question)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _lease(path: Path) -> bool | None:
    """True: no other descriptor anywhere on this kernel. None: it cannot be asked here."""
    with _descriptor(path) as fd:
        if fd is None:
            return True
        try:
            # Who opens the file while we have the lease has us told by SIGIO, which kills: have
            # another signal sent, which nobody minds. They wait until we let go, right below.
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except BlockingIOError:
            return False
        except (OSError, AttributeError):  # not the owner, or a system without leases
            return None
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True


@contextmanager
def _descriptor(path: Path) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
