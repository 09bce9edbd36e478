"""Writing a plan below a folder: every blob proven before it is written, every byte accounted for.

Blobs are read once, close to the order of the files and within that in the order of their packs,
and written to all their places by several threads. A window of blobs is planned at a time, so
memory does not grow with the data, nor with the number of files. Owners are set when
the process may; modes, times and extended attributes always. Nothing follows a symbolic link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.columns import ColumnWriter
from safetake.errors import DamagedError, RestoreError
from safetake.restore.sparse import write_all, write_sparse

if TYPE_CHECKING:
    from safetake.model import BlobId, Node
    from safetake.repository.reader import RepositoryReader
    from safetake.restore.plan import PlannedFile, RestorePlan

_WINDOW_BLOBS = 100_000
_WINDOW_FILES = 10_000
_OPEN_FILES = 256
_PROBLEMS = 100
_STREAM_BYTES = 16 << 20
"""Blobs are read in the order of their packs within so many bytes of the files' own order: the
columns of a record come close to each other, whatever packs they are in."""


def failure(path: str, error: OSError) -> RestoreError:
    """What could not be written, why, and what to do about it."""
    hint = {
        errno.ENOSPC: "free space there, or restore to another folder with --to",
        errno.EDQUOT: "raise the quota, or restore to another folder with --to",
        errno.EACCES: "restore to a folder that you may write",
        errno.EROFS: "restore to a folder on a writable file system",
    }.get(error.errno or 0, "what was written so far can be removed")
    return RestoreError(f"cannot write {path}: {error.strerror or error}", hint=hint)


@dataclass(slots=True)
class _Target:
    """Where one file's bytes go."""

    file: PlannedFile
    path: str
    fd: int | None = None
    columns: ColumnWriter | None = None
    whole: bool = False
    """The one blob is the whole file: opened, written and finished at once."""


Progress = Callable[[int], None]


class TreeWriter:
    """Writes plans below `root`, which exists."""

    def __init__(self, reader: RepositoryReader, root: Path, progress: Progress) -> None:
        self._reader = reader
        self._root = os.fspath(root)
        self._progress = progress
        self._owner = os.geteuid() == 0
        self._inherits = bool(os.stat(root).st_mode & stat.S_ISGID)  # noqa: PTH116
        self.problems: list[str] = []
        """Metadata that could not be set; the bytes are right nevertheless."""
        self._lock = threading.Lock()
        self._sparse = False

    def write(self, plan: RestorePlan, *, overwrite: bool, sparse: bool = False) -> None:
        """Write everything, with `sparse` leaving out blocks of zeros. Raises RestoreError,
        DamagedError."""
        self._sparse = sparse
        for path, _ in plan.folders():
            self._folder(path, overwrite)
        for window in _windows(plan.files()):
            self._files(window, overwrite)
        for path, link in plan.links():
            self._make(link, overwrite, partial(_link, self._at(path)))
        for path, node in plan.others():
            self._other(path, node, overwrite)
        for path, node in plan.folders(backwards=True):
            self._metadata(self._at(path), node)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _folder(self, path: str, overwrite: bool) -> None:
        place = self._at(path)
        try:
            os.mkdir(place, 0o700)  # noqa: PTH102 - thousands of them
        except FileExistsError as error:
            # never through a link that somebody put there
            if not overwrite or not stat.S_ISDIR(os.lstat(place).st_mode):
                raise failure(place, error) from error
        except OSError as error:
            raise failure(place, error) from error

    def _make(self, path: str, overwrite: bool, make: Callable[[str], None]) -> None:
        place = self._at(path)
        try:
            if overwrite:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(place)  # noqa: PTH108
            make(place)
        except OSError as error:
            raise failure(place, error) from error

    def _open(self, path: str) -> int:
        return os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )

    def _files(self, files: list[PlannedFile], overwrite: bool) -> None:
        places: dict[BlobId, list[tuple[_Target, int, int]]] = {}
        opened: list[_Target] = []
        try:
            for file in files:
                target = _Target(file, self._at(file.path))
                if overwrite:
                    self._remove(target.path)
                self._plan_blobs(target, places)
                if not target.whole:
                    target.fd = self._create(target)
                    opened.append(target)
            self._reader.stream(
                places, lambda blob, plain: self._sink(places[blob], plain), window=_STREAM_BYTES
            )
            for target in opened:
                self._finish(target)
        finally:
            for target in opened:
                if target.fd is not None:
                    os.close(target.fd)
                    target.fd = None

    def _remove(self, path: str) -> None:
        try:
            os.unlink(path)  # noqa: PTH108
        except FileNotFoundError:
            pass
        except OSError as error:
            raise failure(path, error) from error

    def _create(self, target: _Target) -> int:
        try:
            fd = self._open(target.path)
            try:
                if target.file.layout is not None:
                    target.columns = ColumnWriter(fd, target.file.layout)
                else:
                    os.ftruncate(fd, target.file.node.size)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            raise failure(target.path, error) from error
        return fd

    def _plan_blobs(
        self, target: _Target, places: dict[BlobId, list[tuple[_Target, int, int]]]
    ) -> None:
        file = target.file
        contents = file.parts if file.layout is not None else [file.node.content or []]
        columns = file.layout.columns if file.layout is not None else ()
        target.whole = file.layout is None and len(contents[0]) == 1
        found: list[tuple[int, int, int, BlobId]] = []
        for column, content in enumerate(contents):
            at = 0
            width = columns[column].width if column < len(columns) else 1
            for blob_id, size in zip(content, self._reader.sizes(content), strict=True):
                found.append((at // width, column, at, blob_id))
                at += size
        if file.layout is not None:
            found.sort(key=itemgetter(0))  # by records: what makes up the same ones comes together
        for _, column, at, blob_id in found:
            places.setdefault(blob_id, []).append((target, column, at))

    def _sink(self, places: list[tuple[_Target, int, int]], plain: bytes | bytearray) -> None:
        for target, column, at in places:
            try:
                if target.columns is not None:
                    target.columns.write(column, at, memoryview(plain))
                elif target.whole:
                    fd = self._open(target.path)
                    try:
                        self._write(fd, plain, 0, whole=True)
                        self._metadata_fd(fd, target.path, target.file.node)
                    finally:
                        os.close(fd)
                elif target.fd is not None:
                    self._write(target.fd, plain, at, whole=False)
            except OSError as error:
                raise failure(target.path, error) from error
            self._progress(len(plain))

    def _write(self, fd: int, plain: bytes | bytearray, at: int, *, whole: bool) -> None:
        if not self._sparse:
            write_all(fd, plain, at)
            return
        if whole:
            os.ftruncate(fd, len(plain))
        write_sparse(fd, plain, at)

    def _finish(self, target: _Target) -> None:
        assert target.fd is not None
        try:
            if target.columns is not None:
                target.columns.finish()
            if os.fstat(target.fd).st_size != target.file.size:
                raise DamagedError(f"{target.path}: its length is not the snapshot's")
            self._metadata_fd(target.fd, target.path, target.file.node)
        except OSError as error:
            raise failure(target.path, error) from error

    def _metadata_fd(self, fd: int, path: str, node: Node) -> None:
        if self._owner and (node.uid or node.gid or self._inherits):
            self._try(path, "owner", lambda: os.fchown(fd, node.uid, node.gid))
        # attributes after the owner, which clears capabilities, and before a read-only mode
        for name, value in node.xattrs.items():
            self._try(path, name, partial(os.setxattr, fd, name, value))
        self._try(path, "mode", lambda: os.fchmod(fd, stat.S_IMODE(node.mode)))
        self._try(path, "times", lambda: os.utime(fd, ns=(node.atime_ns, node.mtime_ns)))

    def _metadata(self, path: str, node: Node) -> None:
        if self._owner:
            self._try(path, "owner", lambda: os.lchown(path, node.uid, node.gid))
        for name, value in node.xattrs.items():
            setting = partial(os.setxattr, path, name, value, follow_symlinks=False)
            self._try(path, name, setting)
        if not stat.S_ISLNK(os.lstat(path).st_mode):
            self._try(path, "mode", lambda: os.chmod(path, stat.S_IMODE(node.mode)))  # noqa: PTH101
        times = (node.atime_ns, node.mtime_ns)
        self._try(path, "times", lambda: os.utime(path, ns=times, follow_symlinks=False))

    def _try(self, path: str, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, OverflowError, ValueError) as error:
            self._problem(f"{path}: {what} not restored: {error}")

    def _problem(self, text: str) -> None:
        with self._lock:
            if len(self.problems) < _PROBLEMS:
                self.problems.append(text)

    def _other(self, path: str, node: Node, overwrite: bool) -> None:
        if node.type == "symlink":
            self._make(path, overwrite, lambda at: _symlink(node.linktarget, at))
        elif node.type == "fifo":
            self._make(path, overwrite, lambda at: os.mkfifo(at, 0o600))
        elif node.type in ("dev", "chardev"):
            kind = stat.S_IFBLK if node.type == "dev" else stat.S_IFCHR
            if not self._owner:
                self._problem(f"{self._at(path)}: device not restored: not root")
                return
            if node.device >= 1 << 63:
                self._problem(f"{self._at(path)}: impossible device number {node.device}")
                return
            self._make(path, overwrite, lambda at: os.mknod(at, kind | 0o600, node.device))
        elif node.type == "socket":
            return  # a socket is made by its server; restic leaves it out, too
        else:
            self._problem(f"{self._at(path)}: entry of the unknown type {node.type[:20]!r}")
            return
        self._metadata(self._at(path), node)


def _link(original: str, place: str) -> None:
    os.link(original, place, follow_symlinks=False)


def _symlink(target: str, place: str) -> None:
    os.symlink(target, place)  # noqa: PTH211


def _windows(files: Iterable[PlannedFile]) -> Iterator[list[PlannedFile]]:
    window: list[PlannedFile] = []
    blobs = opened = 0
    for file in files:
        count = sum(1 for _ in file.blobs())
        many = len(window) >= _WINDOW_FILES or opened >= _OPEN_FILES
        if window and (many or blobs + count > _WINDOW_BLOBS):
            yield window
            window, blobs, opened = [], 0, 0
        window.append(file)
        blobs += count
        opened += count != 1
    if window:
        yield window
