"""How a folder itself looks (owner, mode, time, attributes), recorded and put back.

A folder whose entries are exchanged gets a new time of its own; a read-only one has to be opened
for that. Both are ended by setting what was recorded: absolute values, which may be set twice.
"""

from __future__ import annotations

import base64
import errno
import os
import stat
from dataclasses import dataclass
from typing import Any

from safetake.sources.files.metadata import xattrs_of

_MAY_FAIL = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENODATA}


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that is a folder's own."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[str, bytes]

    def as_list(self) -> list[Any]:
        """JSON-able."""
        attributes = {k: base64.b64encode(v).decode() for k, v in self.xattrs.items()}
        return [self.mode, self.uid, self.gid, self.mtime_ns, attributes]

    @classmethod
    def of(cls, told: list[Any]) -> Look:
        """What `as_list` gave."""
        mode, uid, gid, mtime_ns, attributes = told
        xattrs = {k: base64.b64decode(v) for k, v in attributes.items()}
        return cls(int(mode), int(uid), int(gid), int(mtime_ns), xattrs)


def look_at(folder: str) -> Look:
    """How it looks now. Raises OSError."""
    found = os.lstat(folder)
    mode = stat.S_IMODE(found.st_mode)
    return Look(mode, found.st_uid, found.st_gid, found.st_mtime_ns, xattrs_of(folder))


def loosen(folder: str) -> None:
    """Let its owner exchange entries in it. Root may anyway. Raises OSError."""
    if os.geteuid() == 0:
        return
    found = os.lstat(folder)
    if found.st_mode & stat.S_IRWXU != stat.S_IRWXU and found.st_uid == os.geteuid():
        os.chmod(folder, stat.S_IMODE(found.st_mode) | stat.S_IRWXU)  # noqa: PTH101


def dress(folder: str, look: Look | None) -> None:
    """Make it look like that (None: as it does), durably. Raises OSError.

    Owner and attributes are set as far as the process may, like those of restored files.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if look is not None:
            now = os.fstat(fd)
            if os.geteuid() == 0 and (now.st_uid, now.st_gid) != (look.uid, look.gid):
                os.fchown(fd, look.uid, look.gid)
            _set_attributes(fd, look.xattrs)
            os.fchmod(fd, look.mode)
            os.utime(fd, ns=(now.st_atime_ns, look.mtime_ns))
        os.fsync(fd)
    finally:
        os.close(fd)


def _set_attributes(fd: int, wanted: dict[str, bytes]) -> None:
    there = xattrs_of(fd)
    for name in {*wanted, *there}:
        value = wanted.get(name)
        if value == there.get(name):
            continue
        try:
            if value is None:
                os.removexattr(fd, name)
            else:
                os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in _MAY_FAIL:
                raise
