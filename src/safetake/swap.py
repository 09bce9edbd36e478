"""Entries of a live folder changed for staged ones, and back, whatever interrupts it.

A `Swap` is a list of moves in a file that is durable before the first of them, and is read line by
line: memory does not grow with it. What was done is read from the folders themselves, never from
memory: for each move `new/…` is still there or it is not, `old/N` is there or it is not. So
`forward` and `backward` can be called after a crash at any system call, in any order and any number
of times, and end with every move done, or none.

An old file is hard-linked aside and the new one renamed over it: the name is never missing. A
folder needs two renames. All is on one file system; both sides of every rename are synced.
"""

# thousands of entries, and their names are plain strings in the record
# ruff: noqa: PTH104, PTH108, PTH120, PTH123

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetake import lines
from safetake.errors import RefusedError, RestoreError

MOVES = "moves.json"
OLD = "old"
_KIND = "moves"
_SYNCED = 1024
"""Folders that are remembered as synced; one that comes again after as many others is synced again,
which changes nothing."""


@dataclass(frozen=True, slots=True)
class Move:
    """One entry. `new` is None for an entry that goes away."""

    live: str
    """Absolute path."""
    new: str | None
    """Absolute path of the staged entry, on the same file system."""
    seen: tuple[int, int] | None = None
    """(device, inode) of the live entry when the move was planned; None: there was none."""
    told: Any = None
    """What its planner wants to know of it later; JSON."""


def plan_move(live: Path | str, new: Path | str | None) -> Move:
    """A move that knows what is there now."""
    found = _identity(os.fspath(live))
    return Move(os.fspath(live), None if new is None else os.fspath(new), found)


class Swap:
    """The moves of one restore of one source, in its `work` folder."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._old = work / OLD

    @property
    def planned(self) -> bool:
        """Whether the moves are recorded: from then on `forward` and `backward` mean something."""
        return (self._work / MOVES).exists()

    def plan(self, moves: Iterable[Move]) -> None:
        """Record the moves durably; nothing is moved yet. Raises RestoreError."""
        try:
            self._old.mkdir(mode=0o700, exist_ok=True)
            rows = ([move.live, move.new, move.seen, move.told] for move in moves)
            lines.write(self._work / MOVES, _KIND, rows)
            sync_folder(self._work)
        except OSError as error:
            raise _failed(str(self._work / MOVES), error) from error

    def moves(self) -> Iterator[Move]:
        """What was planned, in its order; nothing when nothing was. Raises RestoreError for a list
        that is not this version's."""
        if self.planned:
            for row in lines.read(self._work / MOVES, _KIND):
                yield _move(row)

    def forward(self) -> None:
        """Do every move that is not done. Raises RestoreError, RefusedError for a moved target."""
        try:
            for number, move in enumerate(self.moves()):
                self._keep(number, move)
            sync_folder(self._old)
            for number, move in enumerate(self.moves()):
                self._do(number, move)
            self._sync()
        except OSError as error:
            raise _failed(error.filename or str(self._work), error) from error

    def backward(self) -> None:
        """Undo every move that was done, or begun. Raises RestoreError."""
        try:
            if self.planned:
                for number, row in lines.read_backwards(self._work / MOVES, _KIND):
                    self._undo(number, _move(row))
            self._sync()
        except OSError as error:
            raise _failed(error.filename or str(self._work), error) from error

    def old(self, number: int) -> Path:
        """Where the entry that move `number` replaced is kept."""
        return Path(self._aside(number))

    def _aside(self, number: int) -> str:
        return f"{self._old}/{number}"

    def _sync(self) -> None:
        """Both sides of every move; those of one folder mostly come together."""
        synced: OrderedDict[str, None] = OrderedDict()
        for move in self.moves():
            for place in (move.live, move.new):
                folder = None if place is None else os.path.dirname(place)
                if folder is None:
                    continue
                if folder not in synced:
                    with contextlib.suppress(FileNotFoundError):  # with a folder that was moved
                        sync_folder(folder)
                synced[folder] = None
                synced.move_to_end(folder)
                if len(synced) > _SYNCED:
                    synced.popitem(last=False)
        if self._old.exists():
            sync_folder(self._old)

    def _keep(self, number: int, move: Move) -> None:
        """A second name for the old file, before anything replaces it."""
        aside = self._aside(number)
        now = _identity(move.live)
        if _identity(aside) is not None or self._done(number, move):
            return
        if now != move.seen:
            raise RefusedError(
                f"{move.live} is not what it was when the restore was planned",
                hint="somebody moved or replaced it; `safetake restore --rollback`, then again",
            )
        if now is None or _is_folder(move.live):
            return
        _second_name(move.live, aside)

    def _done(self, number: int, move: Move) -> bool:
        if move.new is not None:
            return _identity(move.new) is None
        return _identity(move.live) is None and (
            move.seen is None or _identity(self._aside(number)) is not None
        )

    def _do(self, number: int, move: Move) -> None:
        if self._done(number, move):
            return
        aside = self._aside(number)
        now, kept = _identity(move.live), _identity(aside)
        if now is not None and kept is None:
            os.rename(move.live, aside)
        elif now is not None and (move.new is None or _is_folder(move.new)):
            os.unlink(move.live)  # its other name is `aside`; no folder is renamed over a file
        if move.new is None:
            return
        if _identity(move.new) == _identity(move.live):  # an undo was cut off
            os.unlink(move.new)
        else:
            os.rename(move.new, move.live)

    def _undo(self, number: int, move: Move) -> None:
        aside = self._aside(number)
        now, kept = _identity(move.live), _identity(aside)
        if kept is not None and kept == now:  # two names of one file: not replaced yet
            os.unlink(aside)
            return
        replaced = move.new is not None and _identity(move.new) is None
        if replaced and now is not None and move.new is not None:
            folder = _is_folder(move.live) or (kept is not None and _is_folder(aside))
            if folder or kept is None or not _second_name(move.live, move.new):
                os.rename(move.live, move.new)
        elif None not in (now, kept) and (_is_folder(move.live) or _is_folder(aside)):
            os.rename(move.live, f"{aside}.late")  # made since; a rename would not replace it
        if kept is not None:
            os.rename(aside, move.live)


def _move(row: list[Any]) -> Move:
    live, new, seen, told = row
    return Move(live, new, None if seen is None else (seen[0], seen[1]), told)


def is_mount_point(folder: Path) -> bool:
    """Whether another mount begins there: nothing can be renamed across it.

    A bind mount of the same file system has its parent's device number; only the system's list of
    mounts tells.
    """
    if os.path.ismount(folder):
        return True
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    escaped = os.fsencode(os.path.realpath(folder))
    for code in (b"\\", b" ", b"\t", b"\n"):
        escaped = escaped.replace(code, b"\\%03o" % code[0])
    return any(line.split(b" ")[4] == escaped for line in lines)


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _second_name(path: str, name: str) -> bool:
    """A hard link; False on a file system without them (a name is then missing for an instant)."""
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOTSUP):
            return False
        raise
    return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def sync_folder(folder: Path | str) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _failed(path: str, error: OSError) -> RestoreError:
    return RestoreError(
        f"cannot change {path}: {error.strerror or error}",
        hint="mend that, then `safetake restore --resume` or `--rollback`",
    )
