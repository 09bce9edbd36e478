"""`model.Restorer` for a Chroma folder: its entries exchanged for the staged ones, and back.

Always offline: Chroma rewrites its index files in place through descriptors that it keeps, and a
server under which the folder is exchanged goes on serving the old data. Every top-level entry of
the store changes place with `swap.Swap`; the folder itself stays, so that a mount point can be
restored as well. What is not Chroma's stays, unless the user has such files deleted.

Notes: `state` is where the exchange is (`forward`, `new`, `back`, `old`), `kept` what was left
alone. What applications wrote beside the restored database before a rollback (its journal) waits
in `work/late`: it belongs to that database, and would corrupt the old one.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apsw

from safetake.config import ChromaConfig
from safetake.errors import ConfigError, RefusedError, RestoreError
from safetake.model import (
    Check,
    Loss,
    Node,
    Reader,
    RestoreOutline,
    RestoreWork,
    Session,
    Wanted,
)
from safetake.sources.chroma import catalogue, residents, traps
from safetake.sources.chroma.database import NAME
from safetake.sources.chroma.inuse import live_files, refuse_open
from safetake.sources.chroma.proof import immutable
from safetake.sources.chroma.residents import SIDE_FILES
from safetake.sources.chroma.unchanged import check_unchanged
from safetake.swap import Move, Swap, plan_move, sync_folder

_IDENTITIES = "identities.json"
_LATE = "late"


def restorer(name: str, config: ChromaConfig) -> ChromaRestorer:
    """The restorer of a source; touches nothing."""
    return ChromaRestorer(name, config)


class ChromaRestorer:
    """Replaces a folder while nobody uses it. A server by URL is restored by collection only."""

    type = "chroma"

    def __init__(self, name: str, config: ChromaConfig) -> None:
        self.name = name
        self._config = config

    # before anything is changed

    def outline(
        self,
        entry: Mapping[str, Any],
        mode: str,
        options: Mapping[str, Any],
        reader: Reader,
        node: Node,
    ) -> RestoreOutline:
        folder = self._folder()
        if mode not in ("", "offline"):
            raise RefusedError(
                f"source {self.name}: a Chroma folder cannot be replaced {mode}: a server goes on"
                " serving the old files",
                hint="bring single collections back with `--collection NAME`, or configure a"
                " service under [services] that the restore can stop and start",
            )
        raw = bool(entry.get("facts", {}).get("raw"))
        if entry.get("method") == "rest":
            raise RefusedError(
                f"source {self.name}: the snapshot holds an export of a server, no folder",
                hint="bring its collections back with `--collection NAME`",
            )
        found = traps.look_for_traps(folder, self.place(), None if raw else entry["facts"])
        outline = RestoreOutline(
            mode="offline",
            target=str(folder),
            space={self.place(): int(entry.get("bytes") or 0)},
            warnings=found.warnings,
            absent=found.absent,
            damaged=found.damaged,
        )
        if options.get("can_stop"):
            blind = 0
        else:
            blind = refuse_open(folder)
        if blind:
            outline.warnings.append(
                f"{blind} processes of other users cannot be looked into: run this as root to be"
                " sure that none of them has the folder open"
            )
        outline.warnings += self._extra_warnings(folder, options, reader, node)
        if raw:
            outline.losses = [Loss("everything", unknown="these are raw files, not looked into")]
        elif not found.absent:
            if found.damaged:
                outline.losses = [Loss("vectors", unknown=found.damaged)]
            else:
                from safetake.sources.chroma.losses import losses

                outline.losses = losses(folder, entry["facts"], reader, node)
        return outline

    def _extra_warnings(
        self, folder: Path, options: Mapping[str, Any], reader: Reader, node: Node
    ) -> Iterator[str]:
        if not folder.is_dir():
            return
        there = residents.look(folder)
        inside = reader.tree(node.subtree) if node.subtree is not None else []
        rest = {*there.orphans, *there.foreign} - {entry.name for entry in inside}
        gone = _deletable(there, rest) if options.get("delete_extra") else set()
        for names, what in (
            (rest - gone, "entries that are in no collection are kept"),
            (gone, "files that are not Chroma's are deleted"),
        ):
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                yield f"{len(names)} {what}: {', '.join(sorted(names)[:5])}{more}"

    def place(self) -> Path:
        """The parent, where it is on the same file system and may be written; else the folder."""
        return traps.place(self._folder())

    def wanted(self, options: Mapping[str, Any]) -> Wanted | None:
        """Everything: a part of it is no store."""
        return None

    def check_staged(self, work: RestoreWork) -> list[Check]:
        if _raw(work.entry):
            found = _bytes(work.staged)
            return [Check("raw files", found > 0, "some bytes", found)]
        return check_unchanged(work.staged, work.entry)

    def quiet(self, work: RestoreWork) -> None:
        self._refuse_open(work, "")

    def raw_files(self) -> list[Path]:
        return [self._folder()]

    def take_over(self, work: RestoreWork, session: Session) -> bool:
        return True

    def let_go(self, work: RestoreWork) -> None:
        """Nothing is locked."""

    # the exchange

    def switch(self, work: RestoreWork) -> None:
        state = work.notes.get("state")
        if state == "new":
            return
        swap = Swap(work.work)
        self._refuse_open(work, "stop it, then `safetake restore --resume` or `--rollback`")
        if not swap.planned:
            self._prepare(work, swap)
        if state != "forward":
            work.note("state", "forward")
        swap.forward()
        if state in ("back", "old"):
            self._late_ones_return(work)
        work.note("state", "new")

    def touched(self, work: RestoreWork) -> bool:
        return Swap(work.work).planned and work.notes.get("state") != "old"

    def switch_back(self, work: RestoreWork) -> None:
        swap = Swap(work.work)
        if not swap.planned or work.notes.get("state") == "old":
            return
        self._refuse_open(work, "stop it, then `safetake restore --rollback`")
        work.note("state", "back")
        self._late_ones_aside(work, swap)
        swap.backward()
        work.note("state", "old")

    def _prepare(self, work: RestoreWork, swap: Swap) -> None:
        folder = self._folder()
        try:
            if folder.is_dir():
                traps.own_like(folder, work.staged)
                moves, kept = _moves(folder, work.staged, bool(work.options.get("delete_extra")))
            else:
                moves, kept = [plan_move(folder, work.staged)], []
            identities = _identities(work.staged)
            path = work.work / _IDENTITIES
            with path.open("w", encoding="utf-8") as file:
                json.dump(identities, file)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(work.work)
        except OSError as error:
            raise RestoreError(
                f"cannot prepare {error.filename or folder}: {error.strerror}",
                hint="nothing was exchanged; run the restore as a user who may write there",
            ) from error
        work.note("kept", kept)
        swap.plan(moves)

    def _refuse_open(self, work: RestoreWork, hint: str) -> None:
        swap = Swap(work.work)
        aside = [swap.old(number) for number, _ in enumerate(swap.moves())]
        files = [file for path in aside for file in (path.iterdir() if path.is_dir() else [path])]
        refuse_open(self._folder(), [*files, *live_files(work.staged)], hint=hint)

    def _late_ones_aside(self, work: RestoreWork, swap: Swap) -> None:
        """What belongs to the restored database and is no move: its journal, new segments."""
        folder, late = self._folder(), work.work / _LATE
        moves = {Path(move.live).name: move for move in swap.moves()}
        if not folder.is_dir() or any(move.live == str(folder) for move in swap.moves()):
            return  # the folder itself moves, with all that is in it
        kept = set(work.notes.get("kept", []))
        try:
            there = residents.look(folder)
            for name in sorted({*there.chromas, *there.orphans} - kept):
                move = moves.get(name)
                state = there.states[name]
                if move is not None and (
                    move.new is not None or move.seen == (state.st_dev, state.st_ino)
                ):
                    continue
                late.mkdir(mode=0o700, exist_ok=True)
                (folder / name).rename(late / name)
            if late.exists():
                sync_folder(late)
                sync_folder(folder)
        except OSError as error:
            raise RestoreError(
                f"cannot put {error.filename or folder} aside: {error.strerror}",
                hint="mend that, then `safetake restore --rollback`",
            ) from error

    def _late_ones_return(self, work: RestoreWork) -> None:
        folder, late = self._folder(), work.work / _LATE
        if not late.exists():
            return
        try:
            for path in sorted(late.iterdir()):
                if not os.path.lexists(folder / path.name):
                    path.rename(folder / path.name)
            sync_folder(folder)
            sync_folder(late)
        except OSError as error:
            raise RestoreError(
                f"cannot put {error.filename or folder} back: {error.strerror}",
                hint="mend that, then `safetake restore --resume`",
            ) from error

    # after it

    def confirm(self, work: RestoreWork) -> list[Check]:
        folder = self._folder()
        checks: list[Check] = []
        text = (work.work / _IDENTITIES).read_text(encoding="utf-8")
        expected: dict[str, list[int]] = json.loads(text)
        found = _identities(folder)
        wrong = [path for path, identity in expected.items() if found.get(path) != identity]
        checks.append(
            Check(
                "the staged entries are live",
                not wrong,
                len(expected),
                len(expected) - len(wrong),
                ", ".join(wrong[:5]),
            )
        )
        moved = {path.split("/")[0] for path in expected}
        stale = [name for name in SIDE_FILES if name not in moved and (folder / name).exists()]
        checks.append(Check("no journal of another database", not stale, [], stale))
        if not _raw(work.entry) and not wrong:
            checks += _opens(folder, work.entry["facts"])
        return checks

    def finish(self, work: RestoreWork, *, committed: bool) -> None:
        """Everything lies in `work`."""

    def _folder(self) -> Path:
        if self._config.path is None:
            raise RefusedError(
                f"source {self.name} is a server by `url`: there is no folder to replace",
                hint="bring its collections back with `--collection NAME`",
            )
        try:
            return Path(os.path.realpath(self._config.path, strict=False))
        except OSError as error:
            raise ConfigError(f"{self._config.path}: {error.strerror}") from error


def _raw(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("facts", {}).get("raw"))


def _moves(folder: Path, staged: Path, delete_extra: bool) -> tuple[list[Move], list[str]]:
    """The moves, and the names that stay. Raises OSError."""
    there = residents.look(folder)
    new = {path.name for path in staged.iterdir()}
    moves = [plan_move(folder / name, staged / name) for name in sorted(new)]
    leave = there.chromas
    if delete_extra:
        leave |= _deletable(there, {*there.orphans, *there.foreign})
    moves += [plan_move(folder / name, None) for name in sorted(leave - new)]
    return moves, sorted(set(there.states) - new - leave)


def _deletable(there: residents.Residents, names: set[str]) -> set[str]:
    """Files only: a folder that belongs to no collection is in no snapshot, so that deleting it
    could not be undone."""
    return {name for name in names if stat.S_ISREG(there.states[name].st_mode)}


def _identities(folder: Path) -> dict[str, list[int]]:
    """Device, inode, size and time of every regular file, by path. Raises OSError."""
    found = {}
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(residents.WORK_PREFIX)]
        for name in files:
            path = Path(base, name)
            state = path.lstat()
            if stat.S_ISREG(state.st_mode):
                identity = [state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns]
                found[str(path.relative_to(folder))] = identity
    return found


def _bytes(folder: Path) -> int:
    return sum(identity[2] for identity in _identities(folder).values())


def _opens(folder: Path, facts: Mapping[str, Any]) -> Iterator[Check]:
    """Chroma's database opens and says what the snapshot says; each segment's files are there."""
    try:
        connection = immutable(folder / NAME)
        try:
            found = catalogue.describe(connection)
        finally:
            connection.close(force=True)
    except apsw.Error as error:
        yield Check(f"{NAME} opens", False, "a database", None, str(error))
        return
    different = sorted(key for key, value in found.items() if value != facts[key])
    yield Check(f"{NAME} opens", not different, [], different)
    for segment, known in facts["segments"].items():
        sizes = {name: each["size"] for name, each in known["files"].items()}
        there = {
            path.name: path.stat().st_size
            for path in (folder / segment).iterdir()
            if path.name in sizes
        }
        yield Check(f"{segment}: files", there == sizes, sizes, there)
