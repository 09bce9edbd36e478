"""A repository in a folder, in restic's default layout.

The order of every write: a temporary file in `tmp/`, fsync, rename, fsync of the folder. The order
of a removal: unlink, fsync of the folder. Files are 0600 and folders 0700. Extra folders (`tmp`,
`proofs`, `digests`) are invisible to stock restic, which lists only the kinds that it knows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from safetake.errors import DamagedError, SafetakeError, StorageError
from safetake.storage.base import KINDS, Kind

_NAME = re.compile(r"[0-9a-f]{64}")
_TEMP = re.compile(r"(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<process>[0-9a-f]{8})?[0-9a-f]+")
PROCESS = secrets.token_hex(4)
"""Tells this process from one before it: a restarted container has its host name and pid again."""
_ABANDONED_S = 24 * 3600.0


def _failure(what: str, path: Path, error: OSError) -> StorageError:
    hints = {
        errno.ENOSPC: "free space on that file system; nothing that was stored before is lost",
        errno.EDQUOT: "raise the quota; nothing that was stored before is lost",
        errno.EROFS: "remount the file system read-write",
        errno.EACCES: "run as the owner of the repository",
        errno.EPERM: "run as the owner of the repository",
    }
    hint = hints.get(error.errno or 0, "check the disk and the mount, then run the command again")
    return StorageError(f"cannot {what} {path}: {error.strerror or error}", hint=hint)


def _unreadable(path: Path, error: OSError) -> SafetakeError:
    """A sector that the disk does not give back is damage like any other, not a passing failure."""
    if error.errno in (errno.EIO, errno.EBADMSG, errno.EUCLEAN):
        return DamagedError(
            f"{path} is damaged: the disk does not give it back ({error.strerror})",
            hint="copy the repository to another disk, then run `safetake check --read-data` there",
        )
    return _failure("read", path, error)


def fsync_folder(path: Path) -> None:
    """Make renames and unlinks in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class LocalUpload:
    """A temporary file that becomes a repository file, or nothing."""

    def __init__(self, storage: LocalStorage) -> None:
        self._storage = storage
        self._path = storage.temporary()
        try:
            self._fd: int | None = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise _failure("create", self._path, error) from error

    def write(self, parts: list[bytes | bytearray | memoryview]) -> None:
        """Append all parts."""
        if self._fd is None:
            raise StorageError(f"{self._path} is closed already")
        try:
            for start in range(0, len(parts), 512):
                group = parts[start : start + 512]
                left = sum(len(part) for part in group)
                written = os.writev(self._fd, group)
                while written < left:  # a full disk or a signal: the rest, piece by piece
                    rest = memoryview(b"".join(group))[written:]
                    count = os.write(self._fd, rest)
                    written += count
        except OSError as error:
            raise _failure("write", self._path, error) from error

    def commit(self, kind: Kind, name: str) -> None:
        """Make it durable under its name."""
        if self._fd is None:
            raise StorageError(f"{self._path} is closed already")
        target = self._storage.path(kind, name)
        try:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = None
            try:
                self._path.rename(target)
            except FileNotFoundError:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fsync_folder(target.parent.parent)
                self._path.rename(target)
            fsync_folder(target.parent)
        except OSError as error:
            raise _failure("store", target, error) from error

    def abort(self) -> None:
        """Forget it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        with contextlib.suppress(OSError):  # gone already, or a dead disk: the next run sweeps it
            self._path.unlink()


class LocalStorage:
    """A repository in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = str(root)
        self._host = f"{abs(hash_text(socket.gethostname())):08x}"[:8]

    def path(self, kind: Kind, name: str) -> Path:
        """Where a file is."""
        if kind == "config":
            return self.root / "config"
        if kind == "data":
            return self.root / "data" / name[:2] / name
        return self.root / kind / name

    def temporary(self) -> Path:
        """A fresh name in `tmp/`, which says who made it, so that a sweep can tell the dead."""
        folder = self.root / "tmp"
        if not folder.is_dir():
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise _failure("create", folder, error) from error
        return folder / f"{self._host}-{os.getpid()}-{PROCESS}{secrets.token_hex(8)}"

    def create(self) -> None:
        """Make the empty layout; refuse a folder that holds more than an interrupted `create`."""
        try:
            if self.root.exists() and any(self.root.iterdir()):
                if not self._interrupted():
                    raise StorageError(
                        f"{self.root} is not empty",
                        hint="name an empty or a new folder for the repository",
                    )
                for name, _ in self.list("keys"):  # of a master key that nothing was sealed with
                    self.remove("keys", name)
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for kind in KINDS:
                (self.root / kind).mkdir(mode=0o700, exist_ok=True)
            (self.root / "tmp").mkdir(mode=0o700, exist_ok=True)
            for number in range(256):
                (self.root / "data" / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
            fsync_folder(self.root / "data")
            fsync_folder(self.root)
        except OSError as error:
            raise _failure("create a repository in", self.root, error) from error

    def _interrupted(self) -> bool:
        """Whether the folder holds our layout and no file but keys: a crash before the config."""
        if any(path.name not in (*KINDS, "tmp") for path in self.root.iterdir()):
            return False
        return not any(
            path.is_file() and path.parent.name not in ("keys", "tmp")
            for path in self.root.rglob("*")
        )

    def exists(self) -> bool:
        """Whether there is a config."""
        try:
            return (self.root / "config").is_file()
        except OSError as error:
            raise _failure("look into", self.root, error) from error

    def list(self, kind: Kind) -> Iterator[tuple[str, int]]:
        """Names and sizes; what is not named like a repository file is left out."""
        folder = self.root / kind
        folders = [folder]
        try:
            if kind == "data":
                folders = [
                    Path(entry.path)
                    for entry in os.scandir(folder)
                    if len(entry.name) == 2 and entry.is_dir(follow_symlinks=False)
                ]
            for place in folders:
                with os.scandir(place) as entries:
                    for entry in entries:
                        if kind == "data" and entry.name[:2] != place.name:
                            continue  # nobody looks for it there
                        if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                            try:
                                yield entry.name, entry.stat(follow_symlinks=False).st_size
                            except FileNotFoundError:
                                continue  # removed meanwhile, e.g. a lock
        except FileNotFoundError as error:
            if kind in ("keys", "data", "index", "snapshots"):
                raise _failure("list", folder, error) from error
            return
        except OSError as error:
            raise _failure("list", folder, error) from error

    def get(self, kind: Kind, name: str) -> bytes:
        """A whole file."""
        path = self.path(kind, name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unreadable(path, error) from error

    def get_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        """A part of a file."""
        path = self.path(kind, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            data = os.pread(fd, length, offset)
            if len(data) == length or not data:
                return data
            parts = [data]  # a short read: go on until the end of the file
            got = len(data)
            while got < length and (more := os.pread(fd, length - got, offset + got)):
                parts.append(more)
                got += len(more)
            return b"".join(parts)
        except OSError as error:
            raise _unreadable(path, error) from error
        finally:
            os.close(fd)

    def size(self, kind: Kind, name: str) -> int:
        """Bytes of a file."""
        path = self.path(kind, name)
        try:
            return path.stat().st_size
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unreadable(path, error) from error

    def put(self, kind: Kind, name: str, data: bytes) -> None:
        """A small file, durably."""
        upload = LocalUpload(self)
        try:
            upload.write([data])
            upload.commit(kind, name)
        except StorageError:
            upload.abort()
            raise

    def upload(self) -> LocalUpload:
        """Begin a large file."""
        return LocalUpload(self)

    def remove(self, kind: Kind, name: str) -> None:
        """Remove durably."""
        path = self.path(kind, name)
        try:
            path.unlink(missing_ok=True)
            fsync_folder(path.parent)
        except OSError as error:
            raise _failure("remove", path, error) from error

    def remove_all(self, kind: Kind, names: Iterable[str]) -> None:
        """Remove many: one fsync for each folder, after its last unlink."""
        folders: dict[Path, None] = {}
        path = self.root
        try:
            for name in names:
                path = self.path(kind, name)
                path.unlink(missing_ok=True)
                folders[path.parent] = None
            for path in folders:
                fsync_folder(path)
        except OSError as error:
            raise _failure("remove", path, error) from error

    def assure_removal(self, kind: Kind, names: Iterable[str]) -> None:
        """Ask the kernel, with a removal that it must refuse in the end.

        rmdir of a file goes through every check of an unlink (owner, sticky and append-only
        folders, immutable files, read-only file systems) and then fails because it is no folder.
        """
        for name in names:
            path = self.path(kind, name)
            try:
                os.rmdir(path)  # noqa: PTH106 - never a folder
            except (NotADirectoryError, FileNotFoundError):
                continue
            except OSError as error:
                raise StorageError(
                    f"the repository at {self.root} refuses to remove {kind}/{name}: "
                    f"{error.strerror or error}",
                    hint="an append-only or read-only repository is pruned where files may be "
                    "removed; nothing was changed",
                ) from error

    def sweep(self) -> int:
        """Remove temporary files of processes that are gone; returns how many.

        A file of this host goes when its process does not exist; one of another host after a day.
        """
        removed = 0
        try:
            entries = list(os.scandir(self.root / "tmp"))
        except OSError:
            return 0  # nothing to sweep, or not ours to sweep: never a reason to fail
        for entry in entries:
            match = _TEMP.fullmatch(entry.name)
            if match is None:
                continue
            with contextlib.suppress(OSError):
                if match["host"] == self._host:
                    dead = left_behind(int(match["pid"]), match["process"])
                else:
                    dead = time.time() - entry.stat().st_mtime > _ABANDONED_S
                if dead:
                    os.unlink(entry.path)  # noqa: PTH108 - a scandir entry, not worth a Path
                    removed += 1
        return removed


def hash_text(text: str) -> int:
    """A stable 32-bit number of a text (not for security)."""
    import zlib

    return zlib.crc32(text.encode())


def left_behind(pid: int, process: str) -> bool:
    """Whether the process of this host that used the two in a name is gone."""
    return not process_exists(pid) or (pid == os.getpid() and process != PROCESS)


def process_exists(pid: int) -> bool:
    """Whether a process of this host has the number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
