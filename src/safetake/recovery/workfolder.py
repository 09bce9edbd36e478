"""The private folder beside a live store in which a restore stages and keeps aside.

Its name says whose store it is about, so that a second restore, also one of another state folder,
runs into it. A mark in it says whose restore it is; the mark comes first and goes last.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.errors import RefusedError, RestoreError
from safetake.state import write_json

if TYPE_CHECKING:
    from safetake.recovery.journal import Journal

_MARK = "restore.json"
_LISTINGS = 10
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def name_for(source: str) -> str:
    """What the folder of a source is called."""
    return f".safetake-restore-{source}"


def make(work: Path, journal: Journal) -> None:
    """Make and mark it, unless that was done before. Raises RestoreError, RefusedError."""
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        if mine(work, journal):
            return
        free(work)
        work.mkdir(mode=0o700)
        write_json(work / _MARK, {"restore": journal.id, "journal": str(journal.folder)})
    except OSError as error:
        raise RestoreError(
            f"cannot write {work}: {error.strerror}",
            hint="safetake needs to write on the file system of the live store",
        ) from error


def mine(work: Path, journal: Journal) -> bool:
    """Whether the folder is this restore's. One that it made and had no time to mark is removed."""
    try:
        names = os.listdir(work)  # noqa: PTH208
    except FileNotFoundError:
        return False
    if _MARK not in names:
        begun = any(step.startswith("stage:") for step in journal.begun)
        if begun and all(name.startswith(f".{_MARK}.") for name in names):
            remove(work)
        return False
    text = (work / _MARK).read_text(encoding="utf-8")
    return bool(json.loads(text)["restore"] == journal.id)


def free(work: Path) -> None:
    """Refuse when another restore, perhaps of another state folder, is open on the same store."""
    if not os.path.lexists(work):
        return
    said = ""
    with contextlib.suppress(OSError, ValueError):
        said = str(json.loads((work / _MARK).read_text(encoding="utf-8"))["journal"])
    if said and not Path(said).exists():
        raise RefusedError(
            f"{work} is left of a restore that was begun and not ended, and its journal {said} is "
            "gone",
            hint="bring the journal back; or look whether the live store is whole (what was "
            f"replaced lies in {work.name}/old, and the newest safety snapshot that is not tagged "
            "`written-since` holds what was there before), move that folder away, and restore "
            "again",
        )
    raise RefusedError(
        f"{work} is there: a restore of this store was begun and not ended",
        hint=f"its journal is {said}: `safetake restore --resume` or `--rollback` there"
        if said
        else "end it with `safetake restore --resume` or `--rollback`",
    )


def clear(work: Path) -> None:
    """Remove a work folder, the mark that says whose it is after everything else."""
    for name in sorted(os.listdir(work), key=_MARK.__eq__):  # noqa: PTH208
        remove(work / name)
    remove(work)


def remove(folder: Path) -> None:
    """Remove a folder or file, whatever is in it. Raises RestoreError."""
    try:
        if not folder.is_dir() or folder.is_symlink():
            folder.unlink()
            return
        opened = os.open(folder, _FOLDER)
        try:
            _empty(opened)
        finally:
            os.close(opened)
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise RestoreError(
            f"cannot remove {error.filename or folder}: {error.strerror}",
            hint="remove it, then `safetake restore --resume` or `--rollback`",
        ) from error


def _empty(folder: int) -> None:
    """Remove what is in an open folder, as it is listed: `shutil.rmtree` holds the whole listing,
    and of a million entries that were replaced in `old` that is 200 MB.

    No system promises that a listing shows all of what changes meanwhile: it is listed again.
    """
    for _ in range(_LISTINGS):
        left = False
        with os.scandir(folder) as scan:
            for entry in scan:
                left = True
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                    continue
                inner = os.open(entry.name, _FOLDER, dir_fd=folder)
                try:
                    _empty(inner)
                finally:
                    os.close(inner)
                os.rmdir(entry.name, dir_fd=folder)
        if not left:
            return
