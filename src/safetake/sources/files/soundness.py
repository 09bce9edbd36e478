"""Is a live folder sound? Every file opens, links lead somewhere, unwritten bytes are as they were.

The first walk looks at every entry and reads the two ends of every file, so that what the disk or
the permissions keep back is named. The second reads a part of the files as a whole, another part in
each run until all had their turn, and compares those whose inode, size and time are the snapshot's
with its content: a difference there is bit rot, or a program that puts times back. What vanishes
while it is looked at was deleted by its owner, and is no damage.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safetake.errors import DamagedError
from safetake.findings import KEPT_IDS, Asked, Asking, Finding, not_asked
from safetake.model import Node
from safetake.sources.files import walk
from safetake.sources.files.content import CHUNKER, blob_ids
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.known import ParentTree
from safetake.sources.files.metadata import kind_of
from safetake.wording import size as sized

if TYPE_CHECKING:
    from safetake.config import FilesConfig

SAME = "same bytes as in the snapshot"
_END = 4096
_GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
_HINT = "check the disk and its kernel log, and that this user may read everything"
_ROT_HINT = "restore the file from the snapshot, which has the good bytes, and check the disk"


@dataclass(slots=True)
class _Offenders:
    """Paths, counted, and the first of them kept."""

    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, path: str, why: str = "") -> None:
        self.count += 1
        if len(self.ids) < KEPT_IDS:
            shown = path if path.isprintable() else ascii(path)
            self.ids.append(f"{shown}: {why}" if why else shown)


@dataclass(slots=True)
class _Seen:
    """What both walks found."""

    files: int = 0
    bytes: int = 0
    folders: int = 0
    vanished: int = 0
    unreadable: _Offenders = field(default_factory=_Offenders)
    dangling: _Offenders = field(default_factory=_Offenders)
    deep: _Offenders = field(default_factory=_Offenders)
    rotten: _Offenders = field(default_factory=_Offenders)
    read_files: int = 0
    read_bytes: int = 0
    compared_files: int = 0
    compared_bytes: int = 0


def ask(config: FilesConfig, asking: Asking) -> Asked:
    """Every question to the live folder. Never raises for what it finds in it."""
    found = Asked()
    seen = _Seen()
    try:
        exclusions = Exclusions(config.exclude)
        _Ends(config, exclusions, seen).run()
        content = _Contents(config, exclusions, seen, asking)
        content.run()
    except OSError as error:
        detail = f"the folder {config.path} cannot be opened: {error.strerror}"
        hint = "correct its path in the configuration, or mount the volume"
        found.findings.append(Finding(asking.name, "opens", False, "error", detail, [], hint))
        return found
    found.facts |= {
        "files": seen.files,
        "folders": seen.folders,
        "bytes": seen.bytes,
        "vanished_meanwhile": seen.vanished,
        "read_files": seen.read_files,
        "read_bytes": seen.read_bytes,
        "compared_files": seen.compared_files,
        "compared_bytes": seen.compared_bytes,
        "runs_until_all_are_read": content.period,
    }
    found.findings += _findings(config, asking, seen, content)
    return found


def _findings(
    config: FilesConfig, asking: Asking, seen: _Seen, content: _Contents
) -> Iterator[Finding]:
    name = asking.name
    yield Finding(name, "opens", True)
    empty = not seen.files and not config.may_be_empty
    detail = f"there is no file in {config.path}" if empty else f"{seen.files} files"
    hint = "mount the volume, or set may_be_empty = true"
    yield Finding(name, "has files", not empty, "error", detail, [], hint)
    bad = seen.unreadable
    detail = f"{bad.count} cannot be read" if bad.count else ""
    yield Finding(name, "every file can be read", not bad.count, "error", detail, bad.ids, _HINT)
    if seen.deep.count:
        why = f"{seen.deep.count} folders are deeper than {walk.MAX_DEPTH}, as backups leave them"
        yield not_asked(name, "deep folders", why)
    bad = seen.dangling
    detail = f"{bad.count} lead nowhere" if bad.count else ""
    hint = "bring the targets back, or remove the links"
    yield Finding(name, "links lead somewhere", not bad.count, "warning", detail, bad.ids, hint)
    if content.why_not:
        yield not_asked(name, SAME, content.why_not)
        return
    bad = seen.rotten
    said = (
        f"{seen.compared_files} of {seen.files} files ({sized(seen.compared_bytes)} of"
        f" {sized(seen.bytes)}) compared"
    )
    if content.period > 1:
        said += f"; all are in {content.period} runs"
    if bad.count:
        said = f"{bad.count} changed although neither size nor time did; {said}"
    yield Finding(name, SAME, not bad.count, "error", said, bad.ids, _ROT_HINT)


class _Walk:
    """Visits every entry that a backup would take. `file` is for those who inherit."""

    def __init__(self, config: FilesConfig, exclusions: Exclusions, seen: _Seen) -> None:
        self._config = config
        self._exclusions = exclusions
        self._device = 0
        self.seen = seen

    def run(self) -> None:
        """All of it. Raises OSError when the folder itself cannot be opened."""
        root = walk.open_root(os.fspath(self._config.path))
        try:
            self._device = os.fstat(root).st_dev
            self._folder(root, "", 0)
        finally:
            os.close(root)

    def _folder(self, folder: int, path: str, depth: int) -> None:
        try:
            listing = walk.look(folder, path, self._exclusions)
        except OSError as error:
            self.failed(path or ".", error)
            return
        self.listed(listing)
        for name, status in listing.entries:
            where = walk.join(path, name)
            if kind_of(status.st_mode) != "dir":
                self.entry(folder, path, name, status)
            elif not self._config.one_file_system or status.st_dev == self._device:
                self._inside(folder, where, name, depth)

    def _inside(self, folder: int, where: str, name: str, depth: int) -> None:
        if depth >= walk.MAX_DEPTH:
            self.too_deep(where)
            return
        try:
            with walk.opened_folder(folder, name) as inner:
                self._folder(inner, where, depth + 1)
        except OSError as error:
            self.failed(where, error)

    def listed(self, listing: walk.Listing) -> None:
        """A folder's listing."""

    def too_deep(self, where: str) -> None:
        """A folder that is not walked into."""

    def entry(self, folder: int, path: str, name: str, status: os.stat_result) -> None:
        """Anything but a folder."""

    def failed(self, where: str, error: OSError) -> None:
        """What could not be looked at."""
        if error.errno in _GONE:
            self.seen.vanished += 1
        else:
            self.seen.unreadable.add(where, error.strerror or str(error))

    @contextmanager
    def opened(self, folder: int, where: str, name: str) -> Iterator[int | None]:
        """A descriptor, or None when it does not open or read, which is then told."""
        descriptor = None
        try:
            descriptor = walk.open_file(folder, name)
            yield descriptor
        except OSError as error:
            self.failed(where, error)
            if descriptor is None:
                yield None
        finally:
            if descriptor is not None:
                os.close(descriptor)


class _Ends(_Walk):
    """The first walk: sizes, links, and both ends of every file."""

    def listed(self, listing: walk.Listing) -> None:
        self.seen.folders += 1
        for where, why in listing.problems:
            self.seen.unreadable.add(where, why)

    def too_deep(self, where: str) -> None:
        self.seen.deep.add(where)

    def entry(self, folder: int, path: str, name: str, status: os.stat_result) -> None:
        where, kind = walk.join(path, name), kind_of(status.st_mode)
        if kind == "symlink":
            self._link(folder, where, name)
        if kind != "file":
            return
        self.seen.files += 1
        self.seen.bytes += status.st_size
        with self.opened(folder, where, name) as descriptor:
            if descriptor is not None and status.st_size:
                os.pread(descriptor, _END, 0)
                if status.st_size > _END:
                    os.pread(descriptor, _END, status.st_size - _END)

    def _link(self, folder: int, where: str, name: str) -> None:
        try:
            os.stat(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                self.seen.unreadable.add(where, error.strerror or str(error))
                return
            try:
                target = os.readlink(name, dir_fd=folder)
            except OSError:
                self.seen.vanished += 1  # the link itself
                return
            self.seen.dangling.add(where, f"→ {target}")


class _Contents(_Walk):
    """The second walk: whole files, those whose turn it is, against the snapshot."""

    def __init__(
        self, config: FilesConfig, exclusions: Exclusions, seen: _Seen, asking: Asking
    ) -> None:
        super().__init__(config, exclusions, seen)
        self._tree: ParentTree | None = None
        self.why_not = ""
        """Why nothing is compared."""
        self._budget = asking.read_bytes
        self.period = 1
        """In how many runs every file has its turn."""
        if self._budget is not None and seen.bytes:
            self.period = max(1, -(-seen.bytes // max(1, self._budget)))
        self._turn = asking.turn % self.period
        self._passed = 0
        parent = asking.parent
        if parent is None or parent.node.subtree is None:
            self.why_not = asking.no_entry
        elif (parent.entry.get("facts") or {}).get("chunker") != CHUNKER:
            self.why_not = "the newest snapshot cut files otherwise: from the next one on"
        else:
            self._tree = ParentTree(parent.reader, parent.node.subtree)

    def failed(self, where: str, error: OSError) -> None:
        # what both walks met is told once
        why = error.strerror or str(error)
        if error.errno == errno.EIO and f"{where}: {why}" not in self.seen.unreadable.ids:
            super().failed(where, error)

    def entry(self, folder: int, path: str, name: str, status: os.stat_result) -> None:
        if kind_of(status.st_mode) != "file" or not status.st_size:
            return
        if not self._has_turn(status.st_size):
            return
        where = walk.join(path, name)
        stored = self._stored(path, name)
        with self.opened(folder, where, name) as descriptor:
            if descriptor is None:
                return
            content = list(blob_ids(descriptor, status.st_size))
            self.seen.read_files += 1
            self.seen.read_bytes += status.st_size
            if stored is None or not _nobody_wrote(status, stored):
                return
            after = os.fstat(descriptor)
            if _times(after) != _times(status):
                return  # written to meanwhile
            self.seen.compared_files += 1
            self.seen.compared_bytes += status.st_size
            if content != stored.content:
                put_back = status.st_ctime_ns != stored.ctime_ns
                why = "its time was put back" if put_back else "no time of it moved"
                self.seen.rotten.add(where, why)

    def _has_turn(self, size: int) -> bool:
        """The files lie one after the other; each run reads the next `budget` bytes of them, and
        the file that they end in."""
        at = self._passed
        self._passed += size
        return self._budget is None or at // max(1, self._budget) % self.period == self._turn

    def _stored(self, path: str, name: str) -> Node | None:
        if self._tree is None:
            return None
        try:
            found: Mapping[str, Node] = self._tree.folder(path)
        except DamagedError as error:
            self.why_not = f"the newest snapshot is damaged: {error}"
            self._tree = None
            return None
        node = found.get(name)
        return node if node is not None and node.type == "file" else None


def _nobody_wrote(status: os.stat_result, stored: Node) -> bool:
    if not stored.ctime_ns:
        return False  # read in the tick of its last change: a further write may not show
    return (status.st_ino, status.st_size, status.st_mtime_ns) == (
        stored.inode,
        stored.size,
        stored.mtime_ns,
    )


def _times(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
