"""What would make a restore of a Chroma folder fail half way, or succeed and not work.

Everything here is looked at before anything is changed. What cannot be undone or would not work is
a RefusedError with what to do; what the user should know is a warning.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from safetake.errors import RefusedError
from safetake.sources.chroma import catalogue, residents
from safetake.sources.chroma.database import NAME


@dataclass(slots=True)
class Found:
    """What was found and is no reason to refuse."""

    absent: bool = False
    damaged: str = ""
    warnings: list[str] = field(default_factory=list)


def place(folder: Path) -> Path:
    """Where the private folder of a restore goes: beside `folder`, or inside of a mount point."""
    parent = folder.parent
    if not folder.is_dir():
        return parent
    try:
        same = folder.stat().st_dev == parent.stat().st_dev and not os.path.ismount(folder)
    except OSError:
        same = False
    return parent if same and _writable(parent) else folder


def look_for_traps(folder: Path, work_in: Path, facts: Mapping[str, Any] | None) -> Found:
    """Look at the live folder. `facts` are those of the snapshot, None for raw files.

    Raises RefusedError.
    """
    found = Found()
    if not folder.exists():
        if not folder.parent.is_dir():
            raise RefusedError(
                f"{folder.parent} does not exist: the store was moved, or its volume is not there",
                hint="mount the volume, or correct `path` of the source",
            )
        _require_writable(folder.parent)
        found.absent = True
        return found
    if not folder.is_dir():
        raise RefusedError(
            f"{folder} is a file, not a Chroma folder", hint="correct `path` of the source"
        )
    _require_writable(folder)
    _require_writable(work_in)
    try:
        there = residents.look(folder)
    except OSError as error:
        raise RefusedError(
            f"{folder} cannot be read: {error.strerror}",
            hint="run the restore as the owner of the folder, or as root",
        ) from error
    _refuse_odd_entries(folder, there)
    _refuse_foreign_owner(folder)
    found.absent = not there.chromas
    found.damaged = there.damaged
    if work_in == folder:
        found.warnings.append(
            f"{folder} is a mount point, or its parent may not be written: the copies lie in it"
            " until the restore ends"
        )
    if facts is not None and not there.damaged and not found.absent:
        _compare_versions(folder, facts, found)
    return found


def own_like(folder: Path, staged: Path) -> None:
    """Give every staged entry the owner of the live store, durably. Raises OSError."""
    uid, gid = _owner(folder)
    for base, folders, files in os.walk(staged):
        for path in [Path(base, name) for name in (*folders, *files)]:
            state = path.lstat()
            if (state.st_uid, state.st_gid) == (uid, gid):
                continue
            os.chown(path, uid, gid, follow_symlinks=False)
            if stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)


def _owner(folder: Path) -> tuple[int, int]:
    """Whom Chroma runs as: the owner of its database, or of the folder where there is none."""
    database = folder / NAME
    state = database.stat() if database.exists() else folder.stat()
    return state.st_uid, state.st_gid


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY


def _require_writable(folder: Path) -> None:
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise RefusedError(
            f"{folder} is on a file system that is mounted read-only",
            hint="mount it read-write, or restore beside it with `--to DIR`",
        )
    if not _writable(folder):
        raise RefusedError(
            f"{folder} may not be written by this user",
            hint="run the restore as the owner of the folder, or as root",
        )


def _refuse_odd_entries(folder: Path, there: residents.Residents) -> None:
    device = folder.stat().st_dev
    for name, state in there.states.items():
        if name not in there.chromas:
            continue
        if stat.S_ISLNK(state.st_mode):
            raise RefusedError(
                f"{folder / name} is a symbolic link: exchanging it would leave the data behind it",
                hint="put the data itself in the folder, or restore with `--to DIR`",
            )
        if state.st_dev != device or os.path.ismount(folder / name):
            raise RefusedError(
                f"{folder / name} is a mount point: it cannot be exchanged",
                hint="unmount it, or restore with `--to DIR`",
            )


def _refuse_foreign_owner(folder: Path) -> None:
    if os.geteuid() == 0:
        return
    uid, gid = _owner(folder)
    if uid != os.geteuid() or gid not in (os.getegid(), *os.getgroups()):
        raise RefusedError(
            f"{folder / NAME} belongs to user {uid}, group {gid}: what this user restores would"
            " belong to another, and Chroma could not write it",
            hint="run the restore as root, or as that user",
        )


def _compare_versions(folder: Path, facts: Mapping[str, Any], found: Found) -> None:
    """The live store's migrations are those of the Chroma that wrote to it last."""
    try:
        connection = residents.connect(folder / NAME)
        try:
            live = catalogue.describe(connection)["migrations"]
        finally:
            connection.close()
    except (apsw.Error, OSError, UnicodeDecodeError):
        return  # told as damaged, or as unknown
    snapshot = facts["migrations"]
    newer = sorted(name for name, version in snapshot.items() if version > live.get(name, -1))
    if newer:
        raise RefusedError(
            f"the snapshot was made by a newer Chroma than the one that uses {folder}:"
            f" its migrations of {', '.join(newer)} are ahead, and the older one cannot open it",
            hint="upgrade Chroma and start it once on the folder, then restore; or use `--to DIR`",
        )
    if any(version > snapshot.get(name, -1) for name, version in live.items()):
        found.warnings.append(
            "the snapshot was made by an older Chroma: the newer one migrates it when it starts"
        )
