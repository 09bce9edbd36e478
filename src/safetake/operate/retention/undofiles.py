"""What restores of rows, records and keys left in the state folder for an undo, and how long.

It holds what an application had replaced, as it was: as long as safety snapshots are kept
(`safety`), and no longer. The journals of whole restores hold no such data, and stay.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetake.errors import RestoreError
from safetake.state import state_folder
from safetake.swap import sync_folder

_FOLDERS = ("rows", "records", "keys")


def outdated(state: Path | None, before_ns: int) -> list[Path]:
    """The files and folders that were last written before `before_ns`, oldest names first.

    Never one of a restore that is open. Raises RestoreError when one cannot be read.
    """
    from safetake.sources.chroma.undo import unfinished

    found: list[Path] = []
    try:
        for name in _FOLDERS:
            folder = state_folder(state, name, create=False)
            opened = set(unfinished(folder)) if name == "records" else set()
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                inner = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
                written = max(one.lstat().st_mtime_ns for one in (path, *inner))
                if written < before_ns and path not in opened:
                    found.append(path)
    except OSError as error:
        raise _failed(error) from error
    return found


def remove(paths: list[Path]) -> None:
    """Remove them durably; one that is gone already is no matter. Raises RestoreError."""
    try:
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                (path / "record.json").unlink(missing_ok=True)  # by it an undo knows the folder
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for folder in {path.parent for path in paths}:
            sync_folder(folder)
    except OSError as error:
        raise _failed(error) from error


def _failed(error: OSError) -> RestoreError:
    return RestoreError(
        f"what an undo needed, and is too old by now, cannot be removed: {error}",
        hint="prune as the user who restores, or remove it by hand",
    )
