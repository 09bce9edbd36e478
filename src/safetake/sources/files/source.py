"""A folder of files as a source.

Promises every file, link and special entry below the folder as it was at the moment of the cut,
with its metadata; what could not be had like that is named, never left out silently. Files know
no lock: what the promise rests on, and where it ends, is said in `cut`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from safetake.model import CaptureContext, SourceState
from safetake.sources.files import walk
from safetake.sources.files.cut import foreign_clock
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.metadata import kind_of
from safetake.sources.files.session import FilesSession

if TYPE_CHECKING:
    from safetake.config import FilesConfig

INSPECT_SECONDS = 2.0


class FilesSource:
    """One folder. Constructing it touches nothing; raises ConfigError for an impossible pattern."""

    type = "files"
    hold_rank = 50

    def __init__(self, name: str, config: FilesConfig) -> None:
        self.name = name
        self._config = config
        self._exclusions = Exclusions(config.exclude)

    def session(self, context: CaptureContext) -> FilesSession:
        """Start a capture."""
        return FilesSession(self.name, self._config, context)

    def inspect(self) -> SourceState:
        """Count what is there, for at most a few seconds."""
        path = self._config.path
        try:
            root = walk.open_root(os.fspath(path))
        except OSError as error:
            state = SourceState(False, f"{path}: {error.strerror}")
            state.problems.append(
                (f"the folder {path} cannot be opened: {error.strerror}", "correct its path")
            )
            return state
        count = _Count(time.monotonic() + INSPECT_SECONDS)
        try:
            self._count(root, "", 0, count)
            foreign = foreign_clock(os.fstat(root).st_dev)
        finally:
            os.close(root)
        more = "" if count.complete else "at least "
        state = SourceState(
            ok=not count.problems,
            summary=f"{more}{count.files} files, {more}{count.bytes} bytes",
            bytes=count.bytes,
            details={"files": count.files, "dirs": count.dirs, "complete": count.complete},
        )
        for where, why in count.problems[:20]:
            state.problems.append((f"{where}: {why}", "let the user that runs safetake read it"))
        if foreign:
            state.problems.append(
                (
                    f"{path} is on a {foreign} file system, which stamps files by another clock",
                    "run safetake where the files are, for a cut at one moment",
                )
            )
        if count.complete and not count.files and not self._config.may_be_empty:
            state.ok = False
            state.problems.append(
                (f"there is no file in {path}", "mount the volume, or set may_be_empty = true")
            )
        return state

    def _count(self, folder: int, path: str, depth: int, count: _Count) -> None:
        try:
            listing = walk.look(folder, path, self._exclusions)
        except OSError as error:
            count.problems.append((path or str(self._config.path), error.strerror or str(error)))
            return
        count.problems += listing.problems
        for name, status in listing.entries:
            if time.monotonic() > count.deadline:
                count.complete = False
                return
            if kind_of(status.st_mode) != "dir":
                count.files += 1
                count.bytes += status.st_size if kind_of(status.st_mode) == "file" else 0
                continue
            count.dirs += 1
            where = walk.join(path, name)
            if depth >= walk.MAX_DEPTH:
                count.problems.append((where, "too deep"))
                continue
            try:
                with walk.opened_folder(folder, name) as inner:
                    self._count(inner, where, depth + 1, count)
            except OSError as error:
                count.problems.append((where, error.strerror or str(error)))


class _Count:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.complete = True
        self.files = 0
        self.dirs = 0
        self.bytes = 0
        self.problems: list[tuple[str, str]] = []
