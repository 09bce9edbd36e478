"""Two folders on disk compared: which entries of the live one have to change to be the staged one.

Nothing is changed here. A folder that is missing, or gives way to a file, is one change; inside of
folders that are in both, each entry that differs in anything (type, bytes, owner, mode, time,
attributes, which names are one file) is one. Equal files are left alone. What is excluded, and what
a selection does not name, is not looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from safetake.errors import RefusedError
from safetake.sources.files import walk
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.folders import Look, look_at
from safetake.sources.files.metadata import xattrs_of

_BUFFER = 1 << 20
Entries = dict[str, os.stat_result]


@dataclass(slots=True)
class Change:
    """One entry of the live folder that is replaced, made, or put away."""

    path: str
    """Relative to both folders."""
    staged: os.stat_result | None
    """What it will be; None: nothing."""
    live: os.stat_result | None
    """What it is; None: nothing."""


@dataclass(slots=True)
class Changes:
    """What has to be done."""

    entries: list[Change] = field(default_factory=list)
    folders: dict[str, tuple[Look, Look | None]] = field(default_factory=dict)
    """Folders that are in both, and change or are changed in: how they look now, and how they are
    to look, None for whatever comes of it. Paths are relative."""
    kept: list[str] = field(default_factory=list)
    """Entries that the snapshot does not have and that stay: the topmost of each."""
    equal: int = 0
    """Files that are right already."""


class Selection:
    """Which paths are wanted: all of them, or those that patterns name, with all below them."""

    def __init__(self, patterns: list[str]) -> None:
        self._patterns = Exclusions(patterns)
        self.everything = not patterns

    def names(self, path: str, *, folder: bool) -> bool:
        """Whether a pattern names the entry, or everything is wanted."""
        return self.everything or self._patterns.match(path, folder=folder)


class Comparison:
    """Compares `staged` with `live`, both folders that exist. Raises OSError, RefusedError."""

    def __init__(
        self,
        live: str,
        staged: str,
        exclusions: Exclusions,
        selection: Selection,
        *,
        delete_extra: bool = False,
        one_file_system: bool = False,
    ) -> None:
        self._live = live
        self._staged = staged
        self._exclusions = exclusions
        self._selection = selection
        self._delete_extra = delete_extra
        self._one_file_system = one_file_system
        self._device = os.lstat(live).st_dev
        self._changes = Changes()
        self._linked: list[tuple[str, os.stat_result, os.stat_result]] = []
        self._looks: dict[str, tuple[Look, Look | None]] = {}

    def run(self) -> Changes:
        """All of it."""
        self._folder("", self._selection.names("", folder=True))
        self._links()
        parents = {change.path.rpartition("/")[0] for change in self._changes.entries}
        for path, (now, then) in self._looks.items():
            if path in parents or (then is not None and then != now):
                self._changes.folders[path] = (now, then)
        return self._changes

    def _at(self, root: str, path: str) -> str:
        return f"{root}/{path}" if path else root

    def _list(self, root: str, path: str) -> Entries:
        found: Entries = {}
        with os.scandir(self._at(root, path)) as scan:
            for entry in scan:
                if entry.name.startswith(walk.WORK_PREFIX):
                    continue
                state = entry.stat(follow_symlinks=False)
                place = walk.join(path, entry.name)
                if not self._exclusions.match(place, folder=stat.S_ISDIR(state.st_mode)):
                    found[entry.name] = state
        return found

    def _folder(self, path: str, selected: bool) -> None:
        """A folder that is in both."""
        live, staged = self._list(self._live, path), self._list(self._staged, path)
        for name in sorted({*live, *staged}):
            place = walk.join(path, name)
            old, new = live.get(name), staged.get(name)
            either = new if new is not None else old
            assert either is not None
            folder = stat.S_ISDIR(either.st_mode)
            wanted = selected or self._selection.names(place, folder=folder)
            if new is None:
                assert old is not None
                self._extra(place, old, wanted)
            elif old is None:
                self._changes.entries.append(Change(place, new, None))
            elif folder and stat.S_ISDIR(old.st_mode):
                if old.st_dev == self._device:
                    self._folder(place, wanted)
                elif not self._one_file_system:
                    raise other_file_system(self._at(self._live, place))
            elif wanted or folder:
                self._both(place, old, new)
        now = look_at(self._at(self._live, path))
        then = look_at(self._at(self._staged, path)) if selected else None
        self._looks[path] = (now, then)

    def _both(self, path: str, old: os.stat_result, new: os.stat_result) -> None:
        if stat.S_ISDIR(old.st_mode):
            may_give_way(self._at(self._live, path), path, self._exclusions, self._device)
            self._changes.entries.append(Change(path, new, old))
        elif self._equal(path, old, new):
            self._changes.equal += 1
            if max(old.st_nlink, new.st_nlink) > 1:
                self._linked.append((path, old, new))
        else:
            self._changes.entries.append(Change(path, new, old))

    def _extra(self, path: str, old: os.stat_result, wanted: bool) -> None:
        """An entry that the snapshot does not have."""
        if stat.S_ISSOCK(old.st_mode):
            return  # never restored, so never missing
        if wanted and self._delete_extra and not too_deep(path):
            if not stat.S_ISDIR(old.st_mode):
                self._changes.entries.append(Change(path, None, old))
            elif old.st_dev == self._device:
                self._extra_folder(path, old)
        elif wanted:
            self._changes.kept.append(path)
        elif self._delete_extra and stat.S_ISDIR(old.st_mode) and old.st_dev == self._device:
            for name, state in sorted(self._list(self._live, path).items()):
                inner = walk.join(path, name)
                named = self._selection.names(inner, folder=stat.S_ISDIR(state.st_mode))
                self._extra(inner, state, named)
            self._looks[path] = (look_at(self._at(self._live, path)), None)

    def _extra_folder(self, path: str, old: os.stat_result) -> None:
        """Put away as a whole, unless something in it is not ours to touch."""
        if all_ours(self._at(self._live, path), path, self._exclusions, self._device):
            self._changes.entries.append(Change(path, None, old))
            return
        for name, state in sorted(self._list(self._live, path).items()):
            self._extra(walk.join(path, name), state, True)
        self._looks[path] = (look_at(self._at(self._live, path)), None)

    def _equal(self, path: str, old: os.stat_result, new: os.stat_result) -> bool:
        if (
            old.st_mode != new.st_mode
            # only root can give what it restores to another owner
            or (os.geteuid() == 0 and (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid))
            or old.st_mtime_ns != new.st_mtime_ns
        ):
            return False
        here, there = self._at(self._live, path), self._at(self._staged, path)
        if stat.S_ISLNK(old.st_mode):
            same = os.readlink(here) == os.readlink(there)  # noqa: PTH115 - names, not paths
        elif stat.S_ISREG(old.st_mode):
            same = old.st_size == new.st_size and _same_bytes(here, there)
        else:
            same = old.st_rdev == new.st_rdev
        return same and xattrs_of(here) == xattrs_of(there)

    def _links(self) -> None:
        """Names that are one file in one folder and not in the other are changed, too."""
        changed = {
            (state.st_dev, state.st_ino)
            for change in self._changes.entries
            if change.staged is not None
            for _, state in everything_in(self._at(self._staged, change.path))
            if state.st_nlink > 1 and not stat.S_ISDIR(state.st_mode)
        }
        while True:
            old_names = _by_file((path, old) for path, old, _ in self._linked)
            new_names = _by_file((path, new) for path, _, new in self._linked)
            keep = []
            for path, old, new in self._linked:
                here = old_names[old.st_dev, old.st_ino]
                there = new_names[new.st_dev, new.st_ino]
                if here == there and (new.st_dev, new.st_ino) not in changed:
                    keep.append((path, old, new))
                    continue
                self._changes.equal -= 1
                self._changes.entries.append(Change(path, new, old))
                changed.add((new.st_dev, new.st_ino))
            if len(keep) == len(self._linked):
                return
            self._linked = keep


def _by_file(
    names: Iterator[tuple[str, os.stat_result]],
) -> Mapping[tuple[int, int], frozenset[str]]:
    found: dict[tuple[int, int], set[str]] = {}
    for path, state in names:
        found.setdefault((state.st_dev, state.st_ino), set()).add(path)
    return {key: frozenset(paths) for key, paths in found.items()}


def too_deep(path: str) -> bool:
    """Whether no capture looks there: what no safety copy holds is not put away."""
    return path.count("/") >= walk.MAX_DEPTH - 1


def other_file_system(place: str) -> RefusedError:
    """Why a folder on another file system is no part of a restore."""
    return RefusedError(
        f"{place} is another file system: nothing can be moved into it at once",
        hint="make it a source of its own, and exclude it here",
    )


def may_give_way(place: str, path: str, exclusions: Exclusions, device: int) -> None:
    """Raises RefusedError when a folder that is to become a file holds what is not ours."""
    if not all_ours(place, path, exclusions, device):
        raise RefusedError(
            f"{place} is a folder with excluded entries, and no folder in the snapshot",
            hint="move them away; a restore never touches what is excluded",
        )


def all_ours(place: str, path: str, exclusions: Exclusions, device: int) -> bool:
    """Whether a folder holds nothing that is excluded, on another file system, a restore's, or too
    deep to be captured."""
    waiting = [(place, path)]
    while waiting:
        here, inside = waiting.pop()
        for name, state in _scan(here):
            inner, folder = walk.join(inside, name), stat.S_ISDIR(state.st_mode)
            if name.startswith(walk.WORK_PREFIX) or state.st_dev != device:
                return False
            if too_deep(inner) or exclusions.match(inner, folder=folder):
                return False
            if folder:
                waiting.append((f"{here}/{name}", inner))
    return True


def everything_in(place: str) -> Iterator[tuple[str, os.stat_result]]:
    """The entry at `place` and all below it; links are not followed. Raises OSError."""
    waiting = [(place, os.lstat(place))]
    while waiting:
        here, state = waiting.pop()
        yield here, state
        if stat.S_ISDIR(state.st_mode):
            waiting += [(f"{here}/{name}", inner) for name, inner in _scan(here)]


def _scan(place: str) -> list[tuple[str, os.stat_result]]:
    with os.scandir(place) as scan:
        return [(entry.name, entry.stat(follow_symlinks=False)) for entry in scan]


def _same_bytes(first: str, second: str) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    one = os.open(first, flags)
    try:
        two = os.open(second, flags)
        try:
            while True:
                left, right = os.read(one, _BUFFER), os.read(two, _BUFFER)
                if left != right:
                    return False
                if not left:
                    return True
        finally:
            os.close(two)
    finally:
        os.close(one)
