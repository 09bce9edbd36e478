"""Scratch folders that do not outlive their process for long, even after `kill -9`.

Copies of the user's data lie in them: they are private, removed at the end, and swept by the next
run when their process is gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.errors import SafetakeError
from safetake.storage.local import PROCESS, left_behind

if TYPE_CHECKING:
    import apsw

_NAME = re.compile(r"safetake-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<process>[0-9a-f]{8})-.*")


@contextlib.contextmanager
def scratch_folder(inside: Path | None = None) -> Iterator[Path]:
    """A fresh folder (0700) in `inside`, or where the system keeps temporary files.

    Raises SafetakeError when there is no place for it.
    """
    host = f"{zlib.crc32(socket.gethostname().encode()):08x}"
    place = Path(tempfile.gettempdir()) if inside is None else inside
    try:
        _sweep(place, host)
        made = tempfile.mkdtemp(prefix=f"safetake-{host}-{os.getpid()}-{PROCESS}-", dir=place)
    except OSError as error:
        raise SafetakeError(
            f"cannot make a scratch folder in {place}: {error.strerror}",
            hint="free space there, or name another place in the environment variable TMPDIR",
        ) from error
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def scratch_database(inside: Path | None = None) -> Iterator[apsw.Connection]:
    """An empty SQLite database for what would take memory otherwise: 4 MB of it are in memory.

    Its file is in `inside` without a name, or where SQLite keeps temporary files. Raises
    SafetakeError for whatever fails in it.
    """
    import apsw

    name = "" if inside is None else str(inside / f".safetake-{secrets.token_hex(8)}.db")
    try:
        # not every file system that takes a restore has locks, and nobody else opens it
        database = apsw.Connection(name, vfs="unix-none") if name else apsw.Connection(name)
        try:
            for setting in (
                "journal_mode = off",
                "synchronous = off",
                "locking_mode = exclusive",
                "cache_size = -4096",
                "temp_store = file",
            ):
                database.execute(f"PRAGMA {setting}")
            database.execute("BEGIN")
            _without_name(name)  # goes with its process
            yield database
        finally:
            database.close(force=True)
            _without_name(name)
    except apsw.Error as error:
        raise SafetakeError(
            f"cannot keep a list in {inside or tempfile.gettempdir()}: {error}",
            hint="free space there",
        ) from error


def _without_name(name: str) -> None:
    """Where an open file must keep its name (some network file systems), it loses it later."""
    if name:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108 - a string for SQLite


def of_others(place: Path) -> Iterator[Path]:
    """Folders in `place` that processes of other hosts made as this user: whether those still live
    is for the caller to know. Raises OSError."""
    host = f"{zlib.crc32(socket.gethostname().encode()):08x}"
    for entry in os.scandir(place):
        match = _NAME.fullmatch(entry.name)
        if match is None or match["host"] == host:
            continue
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False) and entry.stat().st_uid == os.geteuid():
                yield Path(entry.path)


def _sweep(place: Path, host: str) -> None:
    """Remove what dead processes of this user on this host left."""
    for entry in os.scandir(place):
        match = _NAME.fullmatch(entry.name)
        if match is None or match["host"] != host:
            continue
        if not left_behind(int(match["pid"]), match["process"]):
            continue
        with contextlib.suppress(OSError):  # removed by another run meanwhile
            if entry.is_dir(follow_symlinks=False) and entry.stat().st_uid == os.geteuid():
                shutil.rmtree(entry.path, ignore_errors=True)
