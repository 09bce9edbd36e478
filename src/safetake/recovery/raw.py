"""A safety copy of a store that can not be captured as what it is: its own files, as they lie.

A database that is corrupt is no source any more, and still it is all that there is: before it is
replaced its files go into the safety snapshot byte for byte, as an entry of the type `raw`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from safetake.model import CaptureContext, Captured, Cut, Session, Source, SourceState


class RawSource:
    """The files (or the one folder) of a store, taken as a `files` source takes them."""

    type = "raw"

    def __init__(self, name: str, files: list[Path], work: Path) -> None:
        self.name = name
        self._files = files
        self._work = work

    @property
    def hold_rank(self) -> int:
        """After all others."""
        return 60

    def inspect(self) -> SourceState:
        """What is there."""
        return SourceState(ok=True, summary=f"{len(self._files)} raw files")

    def session(self, context: CaptureContext) -> Session:
        """Start a capture."""
        return _RawSession(self._inner().session(context))

    def _inner(self) -> Source:
        from safetake.config import FilesConfig
        from safetake.sources.files import FilesSource

        folder = self._files[0] if len(self._files) == 1 and self._files[0].is_dir() else None
        if folder is None:
            folder = self._work / "raw"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
            for file in self._files:
                try:
                    os.link(file, folder / file.name)
                except OSError:  # no hard links here
                    shutil.copy2(file, folder / file.name)
        config = FilesConfig(type="files", path=folder, may_be_empty=True)
        return FilesSource(self.name, config)


class _RawSession:
    """A session of the files, whose facts say that they are raw."""

    def __init__(self, inner: Session) -> None:
        self._inner = inner

    def prepare(self) -> None:
        """As the files source."""
        self._inner.prepare()

    def hold(self, timeout: float) -> Cut:
        """As the files source."""
        return self._inner.hold(timeout)

    def release(self) -> None:
        """As the files source."""
        self._inner.release()

    def capture(self) -> Captured:
        """As the files source, and marked."""
        captured = self._inner.capture()
        captured.facts["raw"] = True
        captured.method = "raw files"
        captured.notes.append("a safety copy of what could not be captured: no store, only files")
        return captured

    def close(self) -> None:
        """As the files source."""
        self._inner.close()
