"""What a file system says about an entry, as a `Node`: modes, times, owners, links, attributes.

As restic does by default, the access time is recorded as the modification time: reading a file is
no change, and a folder that nobody changed stays one and the same blob. Contents are not read
here.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import stat
from functools import cache

from safetake.model import Node

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "dev",
    stat.S_IFCHR: "chardev",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_NO_XATTRS = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA, errno.ENOENT, errno.EINVAL}


def kind_of(mode: int) -> str:
    """restic's word for the type in `st_mode`; empty for one that it does not have."""
    return _TYPES.get(stat.S_IFMT(mode), "")


def same(status: os.stat_result, node: Node) -> bool:
    """Whether `status` is the one that `node` was made of: nothing was written in between.

    The change time covers contents, owners, modes, links and attributes; the device number is not
    compared, because it may change when a volume is mounted again.
    """
    return (
        status.st_ctime_ns == node.ctime_ns
        and status.st_mtime_ns == node.mtime_ns
        and status.st_ino == node.inode
        and (node.type != "file" or status.st_size == node.size)
        and kind_of(status.st_mode) == node.type
    )


def equal(first: os.stat_result, second: os.stat_result) -> bool:
    """Whether two looks at a file saw the same state of it."""
    return (
        first.st_ctime_ns == second.st_ctime_ns
        and first.st_mtime_ns == second.st_mtime_ns
        and first.st_size == second.st_size
        and first.st_ino == second.st_ino
        and first.st_dev == second.st_dev
    )


def node_of(name: str, status: os.stat_result) -> Node:
    """A node of `status`, without link target, attributes, content or subtree."""
    kind = kind_of(status.st_mode)
    return Node(
        name=name,
        type=kind,
        mode=status.st_mode,
        mtime_ns=status.st_mtime_ns,
        atime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        uid=status.st_uid,
        gid=status.st_gid,
        user=_user(status.st_uid),
        group=_group(status.st_gid),
        inode=status.st_ino,
        device_id=status.st_dev,
        size=status.st_size if kind == "file" else 0,
        links=0 if kind in ("dir", "fifo", "socket") else status.st_nlink,  # as restic
        device=status.st_rdev if kind in ("dev", "chardev") else 0,
    )


@cache
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@cache
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def xattrs_of(target: int | str) -> dict[str, bytes]:
    """Extended attributes, ACLs among them, of a descriptor or of a path that is not followed.

    Attributes that may not be read, or a file system without any, give none. Raises OSError for
    anything else.
    """
    follow = isinstance(target, int)
    found: dict[str, bytes] = {}
    try:
        for name in os.listxattr(target, follow_symlinks=follow):
            try:
                found[name] = os.getxattr(target, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in _NO_XATTRS:
                    raise
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise
    return found


def beside(folder: int, name: str) -> str:
    """A path to `name` inside the open folder, for calls that take no descriptor of a folder."""
    return f"/proc/self/fd/{folder}/{name}"


class _Statx(ctypes.Structure):
    """The head of the kernel's `struct statx`, up to the birth time (statx(2))."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("before", ctypes.c_uint8 * 76),
        ("birth_seconds", ctypes.c_int64),
        ("birth_nanoseconds", ctypes.c_uint32),
        ("after", ctypes.c_uint8 * 164),
    )


_BIRTH = 0x800
_NOT_FOLLOWED = 0x100


def birth_ns(folder: int, name: str) -> int | None:
    """When the inode of `name` was made; None when system or file system do not say.

    Unlike every other stamp, no program can set it.
    """
    call = getattr(ctypes.CDLL(None), "statx", None)
    if call is None:
        return None
    answer = _Statx()
    failed = call(
        ctypes.c_int(folder),
        ctypes.c_char_p(os.fsencode(name)),
        ctypes.c_int(_NOT_FOLLOWED),
        ctypes.c_uint(_BIRTH),
        ctypes.byref(answer),
    )
    if failed or not answer.mask & _BIRTH:
        return None
    return int(answer.birth_seconds) * 10**9 + int(answer.birth_nanoseconds)
