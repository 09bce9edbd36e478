"""A restored database under a new name next to the live one, which stays as it is.

The service's setting is switched by the engine. The name holds the restore's id, so that nothing
that was there before can be met.
"""

from __future__ import annotations

from pathlib import Path

from safetake.errors import RefusedError, RestoreError
from safetake.model import RestoreWork
from safetake.sources.sqlite.inuse import files_of
from safetake.sources.sqlite.offline import adopt
from safetake.sources.sqlite.online import staged_file
from safetake.swap import Move, Swap

_ID_DIGITS = 8


class Beside:
    """`model.Restorer` in mode `beside`. `notes["new_path"]` is the new database."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def new_path(self, work: RestoreWork) -> Path:
        """`projects.db` → `projects.0123abcd.db`."""
        return self._path.with_name(f"{self._path.stem}.{work.id[:_ID_DIGITS]}{self._path.suffix}")

    def switch(self, work: RestoreWork) -> None:
        """The staged file under its new name."""
        new = self.new_path(work)
        swap = Swap(work.work)
        if not swap.planned:
            if new.exists() or new.is_symlink():
                raise RefusedError(f"{new} is there already", hint="move it away, and try again")
            try:
                adopt(staged_file(work), self._path)
            except OSError as error:
                raise RestoreError(f"{error.filename or new}: {error.strerror}") from error
            swap.plan([Move(str(new), str(staged_file(work)))])
        if work.notes.get("new_path") != str(new):
            work.note("new_path", str(new))
        swap.forward()

    def switch_back(self, work: RestoreWork) -> None:
        """No new name any more, nor what an application made beside it."""
        swap = Swap(work.work)
        if not swap.planned:
            return
        swap.backward()
        for file in files_of(self.new_path(work))[1:]:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise RestoreError(f"cannot remove {file}: {error.strerror}") from error

    def touched(self, work: RestoreWork) -> bool:
        """Whether the new name is there, or may be."""
        return Swap(work.work).planned
