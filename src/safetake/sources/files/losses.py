"""What a restore in place will change in a folder, for its plan: counted, nothing touched.

Told by stamps and, where those differ and the length does not, by content: a file with another time
and the same bytes is no loss. Bounded in time; what was not compared any more counts as changed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetake.errors import DamagedError, RefusedError
from safetake.model import Loss, Node, Reader
from safetake.sources.files import walk
from safetake.sources.files.compare import Selection, may_give_way, other_file_system
from safetake.sources.files.content import blob_ids
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.metadata import kind_of, node_of
from safetake.wording import printable

SECONDS = 20.0
EXAMPLES = 10


def look_into(
    folder: Path,
    exclusions: Exclusions,
    selection: Selection,
    options: Mapping[str, Any],
    reader: Reader,
    node: Node,
    *,
    one_file_system: bool = False,
) -> tuple[list[Loss], list[str]]:
    """The losses, and warnings. Raises RefusedError, DamagedError."""
    root = _opened(folder)
    look = _Look(folder, os.fstat(root).st_dev, exclusions, selection, reader)
    look.one_file_system = one_file_system
    look.delete_extra = bool(options.get("delete_extra"))
    try:
        look.folder(root, "", node, selection.names("", folder=True))
    except OSError as error:
        raise RefusedError(
            f"{folder} can not be read: {error.strerror or error}",
            hint="run the restore as a user who may read everything that it replaces",
        ) from error
    finally:
        os.close(root)
    if not selection.everything and not look.named:
        raise nothing_named(folder, options)
    loss, warnings = look.loss, []
    extra = look.extra
    names = ", ".join(look.examples[:5])
    if options.get("delete_extra"):
        loss.newer, loss.examples = extra, look.examples
    elif extra:
        warnings.append(
            ("1 file is" if extra == 1 else f"{extra} files are")
            + f" not in the snapshot and kept: {names}"
            + (" …" if extra > 5 else "")
        )
    if look.guessed:
        warnings.append(f"{look.guessed} of the changed files were not compared byte by byte")
    if look.foreign:
        warnings.append(
            f"{look.foreign} of the files belong to other users in the snapshot, and will belong "
            "to this one: run the restore as root to keep their owners"
        )
    if look.unreadable:
        raise RefusedError(
            f"{look.unreadable} can not be read, so it can not be saved before it is replaced",
            hint="run the restore as a user who may read it, or leave it out",
        )
    return [loss], warnings


def named_in(reader: Reader, node: Node, selection: Selection) -> tuple[bool, int]:
    """Whether anything is named, and the bytes of the files that are. Raises DamagedError."""
    named, size = False, 0
    waiting = [("", node, selection.names("", folder=True))]
    while waiting:
        path, folder, whole = waiting.pop()
        _not_too_deep(path)
        for each in reader.tree(folder.subtree) if folder.subtree is not None else []:
            place = walk.join(path, each.name)
            wanted = whole or selection.names(place, folder=each.type == "dir")
            named = named or wanted
            if each.type == "dir":
                waiting.append((place, each, wanted))
            elif wanted:
                size += each.size
    return named, size


def nothing_named(folder: Path, options: Mapping[str, Any]) -> RefusedError:
    """Whoever mistypes a path must not read that nothing had to be done."""
    names = ", ".join(map(str, options.get("paths") or []))
    return RefusedError(
        f"nothing in the snapshot of {folder} is named by {printable(names)}",
        hint="patterns are as in .gitignore: `*.txt` anywhere, `/a/b.txt` from the top",
    )


def _opened(folder: Path) -> int:
    try:
        return walk.open_root(os.fspath(folder))
    except OSError as error:
        raise RefusedError(
            f"{folder} can not be opened: {error.strerror}",
            hint="run the restore as the owner of the folder, or as root",
        ) from error


class _Look:
    def __init__(
        self,
        root: Path,
        device: int,
        exclusions: Exclusions,
        selection: Selection,
        reader: Reader,
    ) -> None:
        self._root = root
        self._device = device
        self._exclusions = exclusions
        self._selection = selection
        self._reader = reader
        self._deadline = time.monotonic() + SECONDS
        self.one_file_system = False
        self.delete_extra = False
        self.loss = Loss("files")
        self.extra = 0
        self.examples: list[str] = []
        self.guessed = 0
        self.foreign = 0
        self.unreadable = ""
        """The first that is."""
        self.named = False

    def folder(self, live: int, path: str, node: Node, selected: bool) -> None:
        """A folder that is in both."""
        _not_too_deep(path)
        listing = walk.look(live, path, self._exclusions)
        there = dict(listing.entries)
        stored = {}
        for each in self._reader.tree(node.subtree) if node.subtree is not None else []:
            place = walk.join(path, each.name)
            if not self._exclusions.match(place, folder=each.type == "dir"):
                stored[each.name] = each
        for name in sorted({*there, *stored}):
            place = walk.join(path, name)
            old, new = there.get(name), stored.get(name)
            folder = new.type == "dir" if new is not None else _is_folder(old)
            wanted = selected or self._selection.names(place, folder=folder)
            self.named = self.named or (wanted and new is not None)
            if new is None:
                if wanted or (self.delete_extra and _is_folder(old)):
                    self._extra(place, old, wanted)
            elif old is None:
                self._missing(place, new, wanted)
            elif folder and _is_folder(old):
                if old.st_dev != self._device:
                    if self.one_file_system:
                        continue
                    raise other_file_system(f"{self._root}/{place}")
                with walk.opened_folder(live, name) as inner:
                    self.folder(inner, place, new, wanted)
            elif wanted or folder:
                self._both(live, place, name, old, new)

    def _extra(self, place: str, old: os.stat_result | None, wanted: bool = True) -> None:
        """Count an entry that the snapshot does not have, or all files in it that are wanted."""
        if not _is_folder(old):
            self._extra_file(place, old)
            return
        waiting = [(place, wanted)]
        while waiting:
            folder, wanted = waiting.pop()
            with os.scandir(self._root / folder) as scan:
                for entry in scan:
                    inner, state = f"{folder}/{entry.name}", entry.stat(follow_symlinks=False)
                    if self._exclusions.match(inner, folder=_is_folder(state)):
                        continue
                    named = wanted or self._selection.names(inner, folder=_is_folder(state))
                    if _is_folder(state):
                        waiting.append((inner, named))
                    elif named:
                        self._extra_file(inner, state)

    def _extra_file(self, place: str, state: os.stat_result | None) -> None:
        if state is None or stat.S_ISSOCK(state.st_mode):
            return
        if self.delete_extra and not os.access(self._root / place, os.R_OK, follow_symlinks=False):
            self.unreadable = self.unreadable or printable(place)
        self.extra += 1
        self.named = self.named or self.delete_extra
        if len(self.examples) < EXAMPLES:
            self.examples.append(printable(place))

    def _missing(self, place: str, new: Node, wanted: bool) -> None:
        if new.type != "dir":
            if wanted and new.type != "socket":
                self.loss.missing += 1
                self._owned(new)
            return
        _not_too_deep(place)
        for each in self._reader.tree(new.subtree) if new.subtree is not None else []:
            inner = walk.join(place, each.name)
            named = wanted or self._selection.names(inner, folder=each.type == "dir")
            self.named = self.named or named
            self._missing(inner, each, named)

    def _both(self, live: int, place: str, name: str, old: os.stat_result, new: Node) -> None:
        if kind_of(old.st_mode) != new.type:
            self.loss.changed += 1
            if _is_folder(old):
                may_give_way(f"{self._root}/{place}", place, self._exclusions, self._device)
                self._extra(place, old)
            return
        now = node_of(name, old)
        if new.type == "symlink":
            now.linktarget = os.readlink(name, dir_fd=live)
            self.loss.changed += now.linktarget != new.linktarget
        elif new.type == "file":
            self.loss.changed += self._differs(live, place, name, now, new)
        else:
            self.loss.changed += now.device != new.device

    def _differs(self, live: int, place: str, name: str, now: Node, new: Node) -> bool:
        same = now.size == new.size
        if same and now.mtime_ns == new.mtime_ns and now.inode == new.inode:
            return False
        self._owned(new)
        try:
            descriptor = walk.open_file(live, name)
        except PermissionError:
            self.unreadable = self.unreadable or printable(place)
            return True
        try:
            if same and time.monotonic() > self._deadline:
                self.guessed += 1
                return True
            return not same or list(blob_ids(descriptor, now.size)) != new.content
        finally:
            os.close(descriptor)

    def _owned(self, new: Node) -> None:
        self.foreign += os.geteuid() not in (0, new.uid)


def _not_too_deep(path: str) -> None:
    if path.count("/") > 2 * walk.MAX_DEPTH:
        raise DamagedError(f"{printable(path[:80])}…: deeper than any snapshot of ours")


def _is_folder(state: os.stat_result | None) -> bool:
    return state is not None and stat.S_ISDIR(state.st_mode)
