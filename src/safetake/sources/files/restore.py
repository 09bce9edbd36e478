"""A folder of files replaced in place, entry by entry, and put back.

Every entry that differs is exchanged by a rename; what is equal is not touched, what the snapshot
does not have stays unless its removal was asked for, and what is excluded is never looked at. No
process has to stop: what was written after the safety copy makes the restore refuse before anything
is moved, and what is written while it moves is found afterwards and makes it go back. A process
that keeps a file open goes on with the file that it opened.

`files.json` in `work` holds what `Swap` does not know: how the folders looked before, and how they
are to look. By which stamps an exchanged entry is known again goes with its move. Both are lists on
disk, and so is what they are made of: memory does not grow with the files.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetake import lines
from safetake.config import FilesConfig
from safetake.errors import RefusedError, RestoreError
from safetake.model import Check, Node, Reader, RestoreOutline, RestoreWork, Session, Wanted
from safetake.scratch import scratch_database
from safetake.sources.files.compare import (
    Change,
    Changes,
    Comparison,
    Selection,
    State,
    everything_in,
)
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.folders import Look, dress, loosen
from safetake.sources.files.proof import questions
from safetake.swap import Move, Swap, is_mount_point, sync_folder

PLAN = "files.json"
_KIND = "folders"
MARGIN_NS = 40_000_000
"""How much earlier than the safety copy's recorded time its cut of the files may be: one barrier
waits at most so long for the clock that stamps files (`cut.fix_cut`)."""

HINT = "nothing was changed; run it again, with what writes there stopped"


class FilesRestorer:
    """One folder."""

    type = "files"

    def __init__(self, name: str, config: FilesConfig) -> None:
        self.name = name
        self._config = config
        self._exclusions = Exclusions(config.exclude)

    def outline(
        self,
        entry: Mapping[str, Any],
        mode: str,
        options: Mapping[str, Any],
        reader: Reader,
        node: Node,
    ) -> RestoreOutline:
        """Look, change nothing. Raises RefusedError."""
        from safetake.sources.files.losses import look_into, named_in, nothing_named

        if mode == "beside":
            raise RefusedError(
                f"source {self.name} is a folder of files: --beside is for databases",
                hint="restore it with --to DIR, or in place without --beside",
            )
        folder = self._folder()
        place = self._traps(folder)
        selection = self._selection(options)
        size = int(entry.get("bytes", 0))
        if not selection.everything:
            named, size = named_in(reader, node, selection)
            if not named and not folder.exists():
                raise nothing_named(folder, options)
        outline = RestoreOutline(
            mode="offline",
            target=str(folder),
            space={place: size},
            bytes=size,
            absent=not folder.exists(),
        )
        if place == folder:
            outline.warnings.append(
                f"{folder} is a mount point, or its parent may not be written: the copies lie in "
                "it until the restore ends"
            )
        if not outline.absent:
            outline.losses, warnings = look_into(
                folder,
                self._exclusions,
                selection,
                options,
                reader,
                node,
                one_file_system=self._config.one_file_system,
            )
            outline.warnings += warnings
        return outline

    def place(self) -> Path:
        """The parent, where it is on the same file system and may be written; else the folder."""
        folder = self._folder()
        parent = folder.parent
        if not folder.is_dir():
            return parent
        same = not is_mount_point(folder) and folder.stat().st_dev == parent.stat().st_dev
        return parent if same and os.access(parent, os.W_OK | os.X_OK) else folder

    def wanted(self, options: Mapping[str, Any]) -> Wanted | None:
        """What the paths name, and nothing that is excluded by now."""
        selection, exclusions = self._selection(options), self._exclusions
        if selection.everything and exclusions.empty:
            return None

        def wanted(path: str, folder: bool, above: bool) -> bool | None:
            if exclusions.match(path, folder=folder):
                return None
            return above or selection.names(path, folder=folder)

        return wanted

    def check_staged(self, work: RestoreWork) -> list[Check]:
        """Counted and hashed; raw files are only counted."""
        if (staged := work.notes.get("staged")) is not None:
            chunker = work.entry.get("facts", {}).get("chunker")
            return questions(work.staged, {"facts": {**staged, "chunker": chunker}})
        if work.entry.get("facts", {}).get("raw"):
            return [Check("raw files", any(work.staged.iterdir()), True, work.staged.exists())]
        return questions(work.staged, work.entry)

    def quiet(self, work: RestoreWork) -> None:
        """Nothing has to be: see `switch`. What was written until now is stamped before the safety
        copy, beyond all doubt, when this returns."""
        time.sleep(1.5 * MARGIN_NS / 1e9)

    def raw_files(self) -> list[Path]:
        """The folder."""
        return [self._folder()]

    def take_over(self, work: RestoreWork, session: Session) -> bool:
        """Nothing to lock."""
        return True

    def let_go(self, work: RestoreWork) -> None:
        """Nothing is locked."""

    # ------------------------------------------------------------------------ the exchange

    def switch(self, work: RestoreWork) -> None:
        """Exchange what differs. Raises RestoreError, RefusedError."""
        swap = Swap(work.work)
        try:
            if not swap.planned:
                self._prepare(work, swap)
            self._open(work, swap)
            swap.forward()
            self._as_planned(swap, work.safety_ns)
            self._dress(work, swap, back=False)
        except OSError as error:
            raise _failed(error, self._folder()) from error

    def touched(self, work: RestoreWork) -> bool:
        """Whether moves are recorded, and so perhaps done."""
        return Swap(work.work).planned

    def switch_back(self, work: RestoreWork) -> None:
        """Every entry and every folder as it was. Raises RestoreError."""
        swap = Swap(work.work)
        if not swap.planned:
            return
        try:
            self._open(work, swap)
            swap.backward()
            self._dress(work, swap, back=True)
        except OSError as error:
            raise _failed(error, self._folder()) from error

    def confirm(self, work: RestoreWork) -> list[Check]:
        """The entries that were staged, and checked there, are the live ones."""
        count = wrong = 0
        names: list[str] = []
        for move in Swap(work.work).moves():
            count += 1
            if _stamp(move.live) != _Known.of(move).new:
                wrong += 1
                names += [move.live] if wrong <= 3 else []
        return [
            Check("folder is there", self._folder().is_dir(), True, self._folder().is_dir()),
            Check("entries exchanged", not wrong, count, count - wrong, "; ".join(names)),
        ]

    def finish(self, work: RestoreWork, *, committed: bool) -> None:
        """Make `work` removable for its owner: it may hold folders that were read-only."""
        if os.geteuid() == 0 or not work.work.exists():
            return
        for base, folders, _ in os.walk(work.work):
            for name in folders:
                place = f"{base}/{name}"
                if not stat.S_ISLNK(os.lstat(place).st_mode):
                    os.chmod(place, 0o700)  # noqa: PTH101

    def _prepare(self, work: RestoreWork, swap: Swap) -> None:
        folder, staged = self._folder(), work.staged
        if not folder.exists():
            new = State.of(staged.lstat())
            lines.write(work.work / PLAN, _KIND, [])
            sync_folder(work.work)
            swap.plan([Move(str(folder), str(staged), None, _told(Change("", new, None)))])
            return
        with scratch_database(work.work) as database:
            changes = Changes(database)
            Comparison(
                str(folder),
                str(staged),
                changes,
                self._exclusions,
                self._selection(work.options),
                delete_extra=bool(work.options.get("delete_extra")),
                one_file_system=self._config.one_file_system,
            ).run()
            _refuse_newer(folder, changes, work.safety_ns)
            looks = (
                [
                    f"{folder}/{path}" if path else str(folder),
                    now.as_list(),
                    None if then is None else then.as_list(),
                ]
                for path, now, then in changes.folders()
            )
            lines.write(work.work / PLAN, _KIND, looks)
            sync_folder(work.work)
            swap.plan(_move(str(folder), str(staged), change) for change in changes)

    def _open(self, work: RestoreWork, swap: Swap) -> None:
        """Folders that are read-only for their owner, until `_dress`: the outermost first."""
        if os.geteuid() == 0:
            return
        for _, (place, *_looks) in lines.read_backwards(work.work / PLAN, _KIND):
            _loosen(place)
        last = None
        for number, move in enumerate(swap.moves()):
            if move.new is not None and (above := os.path.dirname(move.new)) != last:  # noqa: PTH120
                _loosen(above)
                last = above
            if _Known.of(move).folders:
                for place in (move.live, move.new or move.live, str(swap.old(number))):
                    _loosen(place)

    def _as_planned(self, swap: Swap, safety_ns: int) -> None:
        """What was put aside is what was compared: written in between, it would be lost."""
        for number, move in enumerate(swap.moves()):
            stamp, aside = _Known.of(move).old, str(swap.old(number))
            if stamp is None or not os.path.lexists(aside):
                continue
            late = _stamp(aside) != stamp
            if stamp[0] == stat.S_IFDIR and safety_ns:
                late = late or any(
                    state.st_ctime_ns > safety_ns - MARGIN_NS
                    for _, state in everything_in(aside)
                    if not stat.S_ISDIR(state.st_mode)
                )
            if late:
                raise RefusedError(f"{move.live} was written while it was replaced", hint=HINT)

    def _dress(self, work: RestoreWork, swap: Swap, *, back: bool) -> None:
        """Folders as they are to look, or as they looked; the innermost first."""
        if os.geteuid() != 0:
            for move in swap.moves():
                for mode, new in _Known.of(move).folders:
                    if new is not back:
                        os.chmod(move.live, mode)  # noqa: PTH101
        for place, before, after in lines.read(work.work / PLAN, _KIND):
            look = before if back else after
            dress(place, None if look is None else Look.of(look))

    # ------------------------------------------------------------------------ what is in the way

    def _traps(self, folder: Path) -> Path:
        parent = folder.parent
        if not folder.exists():
            if not parent.is_dir():
                raise RefusedError(
                    f"{parent} does not exist: the folder was moved, or its volume is not there",
                    hint="mount the volume, or correct `path` of the source",
                )
            _writable(parent)
            return parent
        if not folder.is_dir():
            raise RefusedError(
                f"{folder} is no folder", hint="correct `path` of the source, or move it away"
            )
        place = self.place()
        _writable(folder)
        _writable(place)
        owner = folder.stat().st_uid
        if os.geteuid() not in (0, owner):
            raise RefusedError(
                f"{folder} belongs to another user (uid {owner}): what is restored would be ours",
                hint="run the restore as that user, or as root",
            )
        return place

    def _selection(self, options: Mapping[str, Any]) -> Selection:
        """Patterns relative to the folder; a path that begins with it is one, too."""
        places = (str(self._folder()), str(self._config.path))
        patterns = []
        for pattern in map(str, options.get("paths") or []):
            if pattern.rstrip("/") in places:
                return Selection([])
            inside = next((p for p in places if pattern.startswith(p + "/")), "")
            patterns.append(pattern.removeprefix(inside))
        return Selection(patterns)

    def _folder(self) -> Path:
        return Path(os.path.realpath(self._config.path))


class _Known(NamedTuple):
    """What goes with a move in `Swap`: by what its two entries are known again."""

    new: list[int] | None
    """The stamp of what comes."""
    old: list[int] | None
    """The stamp of what goes."""
    folders: list[tuple[int, bool]]
    """(mode, whether it comes) of the folders that move: a read-only one can not be renamed by its
    owner."""

    @classmethod
    def of(cls, move: Move) -> _Known:
        """Of a move that `_move` made."""
        return cls(*move.told)


def _move(folder: str, staged: str, change: Change) -> Move:
    new, old = change.staged, change.live
    return Move(
        f"{folder}/{change.path}",
        None if new is None else f"{staged}/{change.path}",
        None if old is None else (old.st_dev, old.st_ino),
        _told(change),
    )


def _told(change: Change) -> _Known:
    new, old = change.staged, change.live
    return _Known(
        None if new is None else _of(new),
        None if old is None else _of(old),
        [
            (stat.S_IMODE(state.st_mode), state is new)
            for state in (new, old)
            if state is not None and state.is_folder
        ],
    )


def _refuse_newer(folder: Path, changes: Changes, safety_ns: int) -> None:
    for change in changes if safety_ns else ():
        if change.live is None:
            continue
        for place, state in everything_in(f"{folder}/{change.path}"):
            if state.st_ctime_ns > safety_ns - MARGIN_NS:
                raise RefusedError(f"{place} was written after the safety copy", hint=HINT)


def _loosen(place: str) -> None:
    if os.path.isdir(place) and not os.path.islink(place):  # noqa: PTH112, PTH114
        loosen(place)


def _of(state: os.stat_result | State) -> list[int]:
    """By what an entry is known again after a move; a folder's own stamps change with it."""
    if stat.S_ISDIR(state.st_mode):
        return [stat.S_IFDIR, state.st_ino]
    return [stat.S_IFMT(state.st_mode), state.st_ino, state.st_size, state.st_mtime_ns]


def _stamp(place: str) -> list[int] | None:
    try:
        return _of(os.lstat(place))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _writable(folder: Path) -> None:
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise RefusedError(
            f"{folder} is on a read-only file system",
            hint="mount it writable, or restore with --to",
        )
    if not os.access(folder, os.W_OK | os.X_OK) and folder.stat().st_uid != os.geteuid():
        raise RefusedError(
            f"{folder} may not be written by this user",
            hint="run the restore as the owner of the data, or as root",
        )


def _failed(error: OSError, folder: Path) -> RestoreError:
    return RestoreError(
        f"cannot exchange {error.filename or folder}: {error.strerror or error}",
        hint="mend that, then `safetake restore --resume` or `--rollback`",
    )
