"""Two folders on disk compared: which entries of the live one have to change to be the staged one.

Nothing is changed here. A folder that is missing, or gives way to a file, is one change; inside of
folders that are in both, each entry that differs in anything (type, bytes, owner, mode, time,
attributes, which names are one file) is one. Equal files are left alone. What is excluded, and what
a selection does not name, is not looked at.
"""

from __future__ import annotations

import json
import marshal
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from safetake.errors import RefusedError
from safetake.sources.files import walk
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.folders import Look, look_at
from safetake.sources.files.metadata import xattrs_of

if TYPE_CHECKING:
    import apsw

_BUFFER = 1 << 20


class State(NamedTuple):
    """What is compared of an entry: a quarter of an `os.stat_result`."""

    st_mode: int
    st_dev: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_rdev: int

    @classmethod
    def of(cls, status: os.stat_result) -> State:
        """Of a look at it."""
        return cls(
            status.st_mode,
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_nlink,
            status.st_uid,
            status.st_gid,
            status.st_rdev,
        )

    @property
    def is_folder(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.st_mode)


class Change(NamedTuple):
    """One entry of the live folder that is replaced, made, or put away."""

    path: str
    """Relative to both folders."""
    staged: State | None
    """What it will be; None: nothing."""
    live: State | None
    """What it is; None: nothing."""


_TABLES = (
    "CREATE TABLE changes (n INTEGER PRIMARY KEY, row BLOB)",
    "CREATE TABLE folders (n INTEGER PRIMARY KEY, path BLOB UNIQUE, looks TEXT, changes INTEGER)",
    "CREATE TABLE linked (n INTEGER PRIMARY KEY, parent BLOB, old TEXT, new TEXT, row BLOB)",
    "CREATE INDEX linked_old ON linked (old, new)",
    "CREATE INDEX linked_new ON linked (new, old)",
    "CREATE TABLE renewed (new TEXT PRIMARY KEY) WITHOUT ROWID",
)
_OTHER_LINKS = """
    SELECT parent, row FROM linked AS l
    WHERE EXISTS (SELECT 1 FROM renewed AS r WHERE r.new = l.new)
    OR (SELECT min(new) FROM linked AS o WHERE o.old = l.old) <> new
    OR (SELECT max(new) FROM linked AS o WHERE o.old = l.old) <> new
    OR (SELECT min(old) FROM linked AS o WHERE o.new = l.new) <> old
    OR (SELECT max(old) FROM linked AS o WHERE o.new = l.new) <> old
    ORDER BY n"""


class Changes:
    """What has to be done; on disk, in a database that is its owner's to open and close."""

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database
        for table in _TABLES:
            database.execute(table)

    def __iter__(self) -> Iterator[Change]:
        """Entries, in the order in which they were found."""
        for (row,) in self._database.execute("SELECT row FROM changes ORDER BY n"):
            yield _change(row)

    def folders(self) -> Iterator[tuple[str, Look, Look | None]]:
        """Folders that are in both, and change or are changed in, the innermost first: how they
        look now, and how they are to look, None for whatever comes of it. Paths are relative."""
        rows = self._database.execute("SELECT path, looks FROM folders WHERE changes ORDER BY n")
        for path, looks in rows:
            now, then = json.loads(looks)
            yield os.fsdecode(path), Look.of(now), None if then is None else Look.of(then)

    def add(self, change: Change) -> None:
        """One more entry."""
        self._database.execute("INSERT INTO changes (row) VALUES (?)", (_row(change),))

    def add_folder(self, path: str, now: Look, then: Look | None, *, changes: bool) -> None:
        """A folder that is in both, after those in it."""
        looks = json.dumps([now.as_list(), None if then is None else then.as_list()])
        self._database.execute(
            "INSERT INTO folders (path, looks, changes) VALUES (?, ?, ?)",
            (os.fsencode(path), looks, changes),
        )

    def add_linked(self, change: Change) -> None:
        """An entry that is equal, and one of several names of its file here or there."""
        assert change.live is not None
        assert change.staged is not None
        self._database.execute(
            "INSERT INTO linked (parent, old, new, row) VALUES (?, ?, ?, ?)",
            (
                os.fsencode(change.path.rpartition("/")[0]),
                _file(change.live),
                _file(change.staged),
                _row(change),
            ),
        )

    def settle_links(self, staged: str) -> None:
        """Names that are one file in one folder and not in the other are changed, too: where the
        names of a file differ, or any of them is exchanged, all are."""
        if not self._database.execute("SELECT count(*) FROM linked").fetchall()[0][0]:
            return
        for change in self:
            if change.staged is None:
                continue
            if not change.staged.is_folder:
                self._renewed(change.staged)
                continue
            for _, state in everything_in(f"{staged}/{change.path}"):
                if not stat.S_ISDIR(state.st_mode):
                    self._renewed(State.of(state))
        for parent, row in self._database.execute(_OTHER_LINKS):
            self._database.execute("INSERT INTO changes (row) VALUES (?)", (row,))
            self._database.execute("UPDATE folders SET changes = 1 WHERE path = ?", (parent,))

    def _renewed(self, state: State) -> None:
        if state.st_nlink > 1:
            self._database.execute("INSERT OR IGNORE INTO renewed VALUES (?)", (_file(state),))


def _file(state: State) -> str:
    return f"{state.st_dev}:{state.st_ino}"


def _row(change: Change) -> bytes:
    path, *states = change
    return marshal.dumps((path, *(None if state is None else tuple(state) for state in states)))


def _change(row: Any) -> Change:
    path, *states = marshal.loads(row)
    staged, live = (None if state is None else State(*state) for state in states)
    return Change(path, staged, live)


class Selection:
    """Which paths are wanted: all of them, or those that patterns name, with all below them."""

    def __init__(self, patterns: list[str]) -> None:
        self._patterns = Exclusions(patterns)
        self.everything = not patterns

    def names(self, path: str, *, folder: bool) -> bool:
        """Whether a pattern names the entry, or everything is wanted."""
        return self.everything or self._patterns.match(path, folder=folder)


class Comparison:
    """Compares `staged` with `live`, both folders that exist: memory for one folder with those
    above it. Raises OSError, RefusedError."""

    def __init__(
        self,
        live: str,
        staged: str,
        changes: Changes,
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
        self._changes = changes
        self._changed: set[str] = set()
        """Folders that are looked at just now in which something was found to change."""

    def run(self) -> None:
        """All of it."""
        self._folder("", self._selection.names("", folder=True))
        self._changes.settle_links(self._staged)

    def _change(self, path: str, staged: State | None, live: State | None) -> None:
        self._changed.add(path.rpartition("/")[0])
        self._changes.add(Change(path, staged, live))

    def _look(self, path: str, now: Look, then: Look | None) -> None:
        """A folder, when everything in it was compared."""
        changes = path in self._changed or (then is not None and then != now)
        self._changed.discard(path)
        self._changes.add_folder(path, now, then, changes=changes)

    def _at(self, root: str, path: str) -> str:
        return f"{root}/{path}" if path else root

    def _list(self, root: str, path: str) -> dict[str, State]:
        found: dict[str, State] = {}
        with os.scandir(self._at(root, path)) as scan:
            for entry in scan:
                if entry.name.startswith(walk.WORK_PREFIX):
                    continue
                state = State.of(entry.stat(follow_symlinks=False))
                place = walk.join(path, entry.name)
                if not self._exclusions.match(place, folder=state.is_folder):
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
            folder = either.is_folder
            wanted = selected or self._selection.names(place, folder=folder)
            if new is None:
                assert old is not None
                self._extra(place, old, wanted)
            elif old is None:
                self._change(place, new, None)
            elif folder and old.is_folder:
                if old.st_dev == self._device:
                    self._folder(place, wanted)
                elif not self._one_file_system:
                    raise other_file_system(self._at(self._live, place))
            elif wanted or folder:
                self._both(place, old, new)
        now = look_at(self._at(self._live, path))
        then = look_at(self._at(self._staged, path)) if selected else None
        self._look(path, now, then)

    def _both(self, path: str, old: State, new: State) -> None:
        if old.is_folder:
            may_give_way(self._at(self._live, path), path, self._exclusions, self._device)
            self._change(path, new, old)
        elif self._equal(path, old, new):
            if max(old.st_nlink, new.st_nlink) > 1:
                self._changes.add_linked(Change(path, new, old))
        else:
            self._change(path, new, old)

    def _extra(self, path: str, old: State, wanted: bool) -> None:
        """An entry that the snapshot does not have."""
        if stat.S_ISSOCK(old.st_mode):
            return  # never restored, so never missing
        if wanted and self._delete_extra and not too_deep(path):
            if not old.is_folder:
                self._change(path, None, old)
            elif old.st_dev == self._device:
                self._extra_folder(path, old)
        elif not wanted and self._delete_extra and old.is_folder and old.st_dev == self._device:
            for name, state in sorted(self._list(self._live, path).items()):
                inner = walk.join(path, name)
                named = self._selection.names(inner, folder=state.is_folder)
                self._extra(inner, state, named)
            self._look(path, look_at(self._at(self._live, path)), None)

    def _extra_folder(self, path: str, old: State) -> None:
        """Put away as a whole, unless something in it is not ours to touch."""
        if all_ours(self._at(self._live, path), path, self._exclusions, self._device):
            self._change(path, None, old)
            return
        for name, state in sorted(self._list(self._live, path).items()):
            self._extra(walk.join(path, name), state, True)
        self._look(path, look_at(self._at(self._live, path)), None)

    def _equal(self, path: str, old: State, new: State) -> bool:
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
        with os.scandir(here) as scan:
            for entry in scan:
                name, state = entry.name, entry.stat(follow_symlinks=False)
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
    state = os.lstat(place)
    yield place, state
    waiting = [place] if stat.S_ISDIR(state.st_mode) else []
    while waiting:
        here = waiting.pop()
        with os.scandir(here) as scan:
            for entry in scan:
                state = entry.stat(follow_symlinks=False)
                yield f"{here}/{entry.name}", state
                if stat.S_ISDIR(state.st_mode):
                    waiting.append(f"{here}/{entry.name}")


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
