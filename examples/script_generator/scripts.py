"""Generated scripts as files: `FOLDER/PROJECT/EPISODE.txt`.

A file is complete or not there: temporary file, fsync, rename, fsync of the folder. Names beginning
with a dot are not scripts: the marker, and temporary files that a crash may leave.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import BadRequestError, NotFoundError, StoreError

MARKER = ".script-generator"
MARKER_TEXT = "scripts of the AI Script Generator, layout 1\n"


def create(folder: Path) -> None:
    """Make the folder and its marker. Raises StoreError when it holds something else."""
    if (folder / MARKER).exists():
        raise StoreError(f"{folder} holds scripts already")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StoreError(f"{folder} holds something else")
        _write(folder / MARKER, MARKER_TEXT.encode())
    except OSError as error:
        raise StoreError(f"{folder}: {error}") from error


class ScriptStore:
    """The folder of scripts. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, project_id: str, episode_id: str, text: str) -> str:
        """Write a script durably; its path relative to the folder."""
        self._marked()
        name = _name(project_id, episode_id)
        path = self.folder / name
        try:
            if not path.parent.exists():
                path.parent.mkdir(exist_ok=True)
                _sync_folder(self.folder)
            _write(path, text.encode())
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        return name

    def text(self, project_id: str, episode_id: str) -> str:
        """A script. Raises NotFoundError."""
        name = _name(project_id, episode_id)
        try:
            return (self.folder / name).read_bytes().decode()
        except FileNotFoundError:
            raise NotFoundError(f"no script {name}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.folder / name}: {error}") from error

    def check(self) -> dict[str, Any]:
        """Prove that the folder is there, ours and writable. Raises StoreError."""
        self._marked()
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise StoreError(f"{self.folder} cannot be written")
        return {"files": sum(1 for _ in self.folder.glob("*/[!.]*.txt"))}

    def _marked(self) -> None:
        marker = self.folder / MARKER
        try:
            found = marker.read_bytes()
        except OSError as error:
            raise StoreError(f"{marker}: {error.strerror}") from error
        if found != MARKER_TEXT.encode():
            raise StoreError(f"{marker} is not what this application wrote")


def _name(project_id: str, episode_id: str) -> str:
    for part in (project_id, episode_id):
        if not part or part.startswith(".") or "/" in part or "\0" in part:
            raise BadRequestError(f"not usable as a file name: {part!r}")
    return f"{project_id}/{episode_id}.txt"


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
