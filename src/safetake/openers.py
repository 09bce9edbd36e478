"""Who has a file open: every process of this machine that Linux lets us look at.

Descriptors and mapped files are compared by device and inode, so a process in another mount
namespace (a container with the same volume) is found too; by name, within our own, for files that
were removed or replaced since they were opened. Processes of another PID namespace do not exist
for us, and those of other users show their descriptors only to root: `blind` counts the latter,
and a caller who must be sure asks the store's own lock as well.
"""

# thousands of plain strings from /proc
# ruff: noqa: PTH115, PTH116, PTH119, PTH123, PTH208

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD of linux/sched.h: such a process has no descriptors."""
_GONE = " (deleted)"
_INTERPRETERS = ("python", "node", "ruby", "perl", "java", "sh", "bash", "deno", "bun")


@dataclass(frozen=True, slots=True)
class Opener:
    """A process that has a file open, or mapped."""

    pid: int
    command: str
    """The program, with its script or module; no other arguments, which may hold secrets."""
    path: str
    """The path that was asked for."""

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


@dataclass(slots=True)
class Openers:
    """What `openers` saw."""

    found: list[Opener] = field(default_factory=list)
    """Each process and path once, by process id."""
    blind: int = 0
    """Processes whose descriptors may not be read."""

    def sentence(self) -> str:
        """`process 12 (chroma run) and process 14 (python app.py)`; at most three by name."""
        names = list(dict.fromkeys(str(opener) for opener in self.found))
        if len(names) > 3:
            return ", ".join(names[:3]) + f" and {len(names) - 3} more"
        return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def openers(paths: Iterable[Path], *, own: bool = False) -> Openers:
    """The processes that have any of `paths` open now; this process too with `own`.

    A path that does not exist is found by its name only. Without /proc everything is unknown:
    `blind` is then 1. Raises nothing.
    """
    result = Openers()
    try:
        wanted = _Wanted(paths)
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        return Openers(blind=1)
    if not pids or pids[0] != 1:  # mounted with hidepid: others are not even listed
        result.blind += 1
    for pid in pids:
        if pid == os.getpid() and not own:
            continue
        try:
            hits = sorted({*_descriptors(pid, wanted), *_maps(pid, wanted)})
        except PermissionError:
            result.blind += not _without_files(pid)
            continue
        except OSError:  # ended meanwhile
            continue
        if hits:
            command = _command(pid)
            result.found += [Opener(pid, command, path) for path in hits]
    return result


class _Wanted:
    """The files that are looked for, by identity and by name."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.identities: dict[tuple[int, int], str] = {}
        self.names: dict[str, str] = {}
        for path in paths:
            text = os.fspath(path)
            self.names[os.path.realpath(text)] = text
            try:
                state = os.stat(text)
            except OSError:
                continue
            self.identities[state.st_dev, state.st_ino] = text
        self.inodes = {inode for _, inode in self.identities}
        self._mounts = os.readlink("/proc/self/ns/mnt")

    def named(self, pid: int, name: str) -> str | None:
        """The path that a name of a process stands for; the same name may be another file's in
        another mount namespace."""
        path = self.names.get(name.removesuffix(_GONE))
        if path is None or os.readlink(f"/proc/{pid}/ns/mnt") != self._mounts:
            return None
        return path


def _descriptors(pid: int, wanted: _Wanted) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    for number in os.listdir(folder):
        link = f"{folder}/{number}"
        try:
            name = os.readlink(link)
            if not name.startswith("/"):  # a socket, a pipe
                continue
            state = os.stat(link)
        except OSError:  # closed meanwhile
            continue
        hit = wanted.identities.get((state.st_dev, state.st_ino)) or (
            wanted.named(pid, name) if stat.S_ISREG(state.st_mode) else None
        )
        if hit is not None:
            yield hit


def _maps(pid: int, wanted: _Wanted) -> Iterator[str]:
    """Mapped files: a mapping outlives its descriptor. `start-end perms offset dev inode name`."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except PermissionError:  # guarded more than its descriptors, which were read
        return
    for line in lines:
        part = line.rstrip("\n").split(None, 5)
        if len(part) < 6 or not part[5].startswith("/"):
            continue
        name = part[5].replace("\\012", "\n")
        if (hit := wanted.named(pid, name)) is not None:
            yield hit
        elif int(part[4]) in wanted.inodes:
            major, _, minor = part[3].partition(":")
            device = os.makedev(int(major, 16), int(minor, 16))
            if (hit := wanted.identities.get((device, int(part[4])))) is not None:
                yield hit


def _without_files(pid: int) -> bool:
    """Whether a process that we may not look into is a kernel thread, a zombie, or gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # the name before the last parenthesis may hold anything
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & _KERNEL_THREAD)


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = os.fsdecode(file.read(4096)).split("\0")
    except OSError:
        return "ended meanwhile"
    program = os.path.basename(words[0]) or "unknown"
    if program.startswith(_INTERPRETERS):
        rest = words[1:]
        if rest[:1] == ["-m"] and len(rest) > 1:
            return f"{program} -m {rest[1]}"
        if rest and rest[0] and not rest[0].startswith("-"):
            return f"{program} {os.path.basename(rest[0])}"
    return program
