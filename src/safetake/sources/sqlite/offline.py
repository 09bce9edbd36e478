"""A database file replaced by another while nobody uses it.

The database and what belongs to it (`-wal`, `-shm`, `-journal`) are one set: an old log beside a
new file is replayed over it. So that no half of a set can be opened, whatever interrupts, the name
is a dangling link into nowhere while the set changes:

    name → nowhere (the old file is kept) → -wal, -shm, -journal aside → new file over the name

and back in the reverse order. An application that starts in between gets "unable to open database
file" and nothing else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from safetake.clock import now_ns
from safetake.errors import RefusedError, RestoreError
from safetake.model import RestoreWork
from safetake.sources.sqlite.inuse import (
    COMPANIONS,
    files_of,
    refuse_locked,
    refuse_open,
    refuse_users,
)
from safetake.sources.sqlite.online import staged_file
from safetake.swap import Move, Swap, plan_move, sync_folder

_NOWHERE = "nowhere"
_AWAY, _IN = "away", "in"


class Offline:
    """`model.Restorer` in mode `offline`, for one database at its real path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def quiet(self, work: RestoreWork) -> None:
        """Raises RefusedError when anybody has the database open; once the new file is in, anybody
        who can be seen: nobody else could open it while it changed."""
        if not self._planned(work):
            refuse_users(self._path)
        elif self._is_in(work):
            refuse_open(self._path, files_of(self._path))

    def switch(self, work: RestoreWork) -> None:
        """The old set aside, the new file in."""
        away, into = self._swaps(work)
        if not self._planned(work):
            self._refuse_written(work, files_of(self._path))
            self._plan(work, away, into)
        if all(_identity(move.new or "") is not None for move in into.moves()):
            # once one is in, what lies beside the name belongs to the new set
            away.forward()
            self._refuse_late(work, away)
        into.forward()

    def switch_back(self, work: RestoreWork) -> None:
        """The new file out, the old set back, the name last."""
        if self._planned(work):
            away, into = self._swaps(work)
            if self._is_in(work):
                self._drop_companions()
            into.backward()
            away.backward()

    def touched(self, work: RestoreWork) -> bool:
        """Whether anything was moved, or may have been."""
        return self._planned(work)

    def _swaps(self, work: RestoreWork) -> tuple[Swap, Swap]:
        return Swap(work.work / _AWAY), Swap(work.work / _IN)

    def _is_in(self, work: RestoreWork) -> bool:
        moves = list(self._swaps(work)[1].moves())
        return bool(moves) and _identity(moves[-1].new or "") is None

    def _planned(self, work: RestoreWork) -> bool:
        return all(swap.planned for swap in self._swaps(work))

    def _plan(self, work: RestoreWork, away: Swap, into: Swap) -> None:
        nowhere = work.work / _AWAY / _NOWHERE
        try:
            for folder in (_AWAY, _IN):
                (work.work / folder).mkdir(mode=0o700, exist_ok=True)
            nowhere.unlink(missing_ok=True)
            nowhere.symlink_to(f"{work.work.name}/a-restore-is-under-way/{self._path.name}")
            new = self._new_files(work)
            for file in new.values():
                adopt(file, self._path)
            sync_folder(work.work / _AWAY)
            sync_folder(work.work)
        except OSError as error:
            raise RestoreError(
                f"{error.filename or work.work}: {error.strerror}",
                hint="nothing was changed",
            ) from error
        into.plan(
            Move(str(live), str(file), _identity(nowhere) if live == self._path else None)
            for live, file in new.items()
        )
        away.plan(
            [
                plan_move(self._path, nowhere),
                *(plan_move(file, None) for file in files_of(self._path)[1:]),
            ]
        )

    def _new_files(self, work: RestoreWork) -> dict[Path, Path]:
        """Live path to staged file; the database itself last."""
        if not work.entry["facts"].get("raw"):
            return {self._path: staged_file(work)}
        found = {}
        for suffix in (*COMPANIONS, ""):
            name = self._path.name + suffix
            if suffix != "-shm" and (work.staged / name).is_file():
                found[self._path.with_name(name)] = work.staged / name
        if self._path not in found:
            raise RefusedError(
                f"the safety copy has no {self._path.name}",
                hint="restore it with `--to` and look at what is there",
            )
        return found

    def _refuse_late(self, work: RestoreWork, away: Swap) -> None:
        """Nobody can open the old set any more: whoever came in before that is seen now."""
        aside = {
            move.live: away.old(number)
            for number, move in enumerate(away.moves())
            if away.old(number).exists()
        }
        try:
            refuse_open(self._path, aside.values())
            if (old := aside.get(str(self._path))) is not None:
                index = aside.get(f"{self._path}-shm", old.with_name("none"))
                refuse_locked(self._path, old, index)
            self._refuse_written(work, [aside[live] for live in aside if not live.endswith("-shm")])
        except RefusedError:
            away.backward()
            raise

    def _refuse_written(self, work: RestoreWork, files: Iterable[Path]) -> None:
        """What was written after the safety snapshot is not in it. A time that is still to come is
        of a clock that was set back since."""
        for file in files:
            with suppress(FileNotFoundError):
                written = file.stat().st_mtime_ns
                late = 0 < work.safety_ns < written <= now_ns()
                if late and not file.name.endswith("-shm"):
                    raise RefusedError(
                        f"{self._path} was written after the safety snapshot was taken",
                        hint="an application that uses it was started again: stop it, then restore"
                        " anew",
                    )

    def _drop_companions(self) -> None:
        """What applications made beside the new file goes before the old set comes back."""
        for file in files_of(self._path)[1:]:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise RestoreError(f"cannot remove {file}: {error.strerror}") from error


def adopt(new: Path, live: Path) -> None:
    """Give a staged file the owner, mode and attributes of the live one: its application must be
    able to open it. Raises OSError, RefusedError. Does nothing where there is no live file.
    """
    try:
        now = live.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(now.st_mode):
        return
    mine = new.stat()
    if (mine.st_uid, mine.st_gid) != (now.st_uid, now.st_gid):
        try:
            os.chown(new, now.st_uid, now.st_gid)
        except PermissionError as error:
            raise RefusedError(
                f"{live} belongs to user {now.st_uid}, group {now.st_gid}, and the restored file"
                " cannot be given to them",
                hint="run the restore as root, or as the owner of the database",
            ) from error
    new.chmod(stat.S_IMODE(now.st_mode))
    for name in os.listxattr(live):  # access lists, a security label
        with suppress(OSError):
            os.setxattr(new, name, os.getxattr(live, name))
    fd = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _identity(path: Path | str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
