"""The system calls that change something outside of a process, by number, and what they change.

Letters say what an argument is: `f` a descriptor, `d` a folder's descriptor that goes with the path
behind it, `p` a path, `.` neither. The kernel is asked to stop at these calls and at no other.
"""

from __future__ import annotations

import os
import platform
import struct

CALLS = {
    "write": "f",
    "pwrite64": "f",
    "writev": "f",
    "pwritev": "f",
    "pwritev2": "f",
    "sendfile": "f",
    "splice": "..f",
    "copy_file_range": "..f",
    "sendto": "f",
    "sendmsg": "f",
    "sendmmsg": "f",
    "connect": "f",
    "shutdown": "f",
    "ioctl": "f",
    "msync": ".",
    "fsync": "f",
    "fdatasync": "f",
    "syncfs": "f",
    "sync": ".",
    "sync_file_range": "f",
    "truncate": "p",
    "ftruncate": "f",
    "fallocate": "f",
    "open": "p",
    "openat": "dp",
    "openat2": "dp",
    "creat": "p",
    "rename": "pp",
    "renameat": "dpdp",
    "renameat2": "dpdp",
    "link": "pp",
    "linkat": "dpdp",
    "symlink": "pp",
    "symlinkat": "pdp",
    "unlink": "p",
    "unlinkat": "dp",
    "mkdir": "p",
    "mkdirat": "dp",
    "rmdir": "p",
    "mknod": "p",
    "mknodat": "dp",
    "chmod": "p",
    "fchmod": "f",
    "fchmodat": "dp",
    "fchmodat2": "dp",
    "chown": "p",
    "lchown": "p",
    "fchown": "f",
    "fchownat": "dp",
    "utime": "p",
    "utimes": "p",
    "futimesat": "dp",
    "utimensat": "dp",
    "setxattr": "p",
    "lsetxattr": "p",
    "fsetxattr": "f",
    "removexattr": "p",
    "lremovexattr": "p",
    "fremovexattr": "f",
    "kill": ".",
    "pidfd_send_signal": ".",
    "execve": "p",
    "execveat": "dp",
}

_X86_64 = """
write 1  open 2  ioctl 16  pwrite64 18  writev 20  msync 26  sendfile 40  connect 42  sendto 44
sendmsg 46  shutdown 48  execve 59  kill 62  fsync 74  fdatasync 75  truncate 76  ftruncate 77
rename 82  mkdir 83  rmdir 84  creat 85  link 86  unlink 87  symlink 88  chmod 90  fchmod 91
chown 92  fchown 93  lchown 94  utime 132  mknod 133  sync 162  setxattr 188  lsetxattr 189
fsetxattr 190  removexattr 197  lremovexattr 198  fremovexattr 199  utimes 235  openat 257
mkdirat 258  mknodat 259  fchownat 260  futimesat 261  unlinkat 263  renameat 264  linkat 265
symlinkat 266  fchmodat 268  splice 275  sync_file_range 277  utimensat 280  fallocate 285
pwritev 296  syncfs 306  sendmmsg 307  renameat2 316  execveat 322  copy_file_range 326
pwritev2 328  pidfd_send_signal 424  openat2 437  fchmodat2 452
"""
_AARCH64 = """
setxattr 5  lsetxattr 6  fsetxattr 7  removexattr 14  lremovexattr 15  fremovexattr 16  ioctl 29
mknodat 33  mkdirat 34  unlinkat 35  symlinkat 36  linkat 37  renameat 38  truncate 45
ftruncate 46  fallocate 47  fchmod 52  fchmodat 53  fchownat 54  fchown 55  openat 56  write 64
writev 66  pwrite64 68  pwritev 70  sendfile 71  splice 76  sync 81  fsync 82  fdatasync 83
sync_file_range 84  utimensat 88  kill 129  connect 203  sendto 206  shutdown 210  sendmsg 211
execve 221  msync 227  syncfs 267  sendmmsg 269  renameat2 276  execveat 281  copy_file_range 285
pwritev2 287  pidfd_send_signal 424  openat2 437  fchmodat2 452
"""
_MACHINES = {"x86_64": (_X86_64, 0xC000003E), "aarch64": (_AARCH64, 0xC00000B7)}

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16
"""Offsets in the kernel's `struct seccomp_data`."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONES = (0x40049409, 0x4020940D)
"""FICLONE, FICLONERANGE."""


def numbers() -> dict[int, str]:
    """Number to name on this machine. Raises KeyError on a machine that is not known."""
    words = _MACHINES[platform.machine()][0].split()
    return {int(n): name for name, n in zip(words[::2], words[1::2], strict=True)}


def program() -> bytes:
    """A seccomp filter that tells the tracer of those calls, and lets all others run.

    Opening to read, writing to the standard streams, and an ioctl that clones nothing run, too.
    """
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _MACHINES[platform.machine()][1]),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for number, name in numbers().items():
        body = _conditions(name)
        code += [(_EQUAL, 0, len(body), number), *body]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def _conditions(name: str) -> list[tuple[int, int, int, int]]:
    allow, trace = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _TRACE)
    if name in ("open", "openat"):
        flags = _ARGUMENT + 8 * CALLS[name].rindex("p") + 8
        return [(_LOAD, 0, 0, flags), (_ANY_BIT, 1, 0, _WRITES), allow, trace]
    if name == "ioctl":
        first, second = _CLONES
        request = _ARGUMENT + 8
        return [
            (_LOAD, 0, 0, request),
            (_EQUAL, 2, 0, first),
            (_EQUAL, 1, 0, second),
            allow,
            trace,
        ]
    if name in ("write", "writev"):
        return [(_LOAD, 0, 0, _ARGUMENT), (_GREATER, 1, 0, 2), allow, trace]
    return [trace]
