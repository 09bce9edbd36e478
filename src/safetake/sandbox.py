"""Keeping a process to its own folders and ports, by the kernel: Landlock.

`python -m safetake.sandbox --write DIR --ports N -- COMMAND…` confines itself and becomes COMMAND;
whatever it starts is confined as well, and nothing gives the rights back. Reading stays free: a
drill reads the repository and what is installed; but what is hidden (`--hide PATH`) can not be read
either. What the kernel of this machine can not enforce is said, never assumed. Source:
Documentation/userspace-api/landlock.rst of Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetake.errors import SafetakeError, UsageError

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_NO_NEW_PRIVILEGES = 38

_WRITE_FILE, _READ_FILE, _TRUNCATE = 1 << 1, 1 << 2, 1 << 14
_REFER = 1 << 13
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
"""Writing, removing and making entries of every type (ABI 1)."""
_BIND, _CONNECT = 1 << 0, 1 << 1
_SCOPE_ABSTRACT, _SCOPE_SIGNAL = 1 << 0, 1 << 1

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/random", "/dev/urandom")
"""Written by programs of every kind, and harmless."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What the kernel enforces from now on."""

    folders: bool = False
    """Nothing outside of the writable folders can be written, made, renamed, removed or cut."""
    ports: bool = False
    """TCP is connected to, and bound at, the given ports only."""
    signals: bool = False
    """No process outside can be signalled."""

    def missing(self) -> list[str]:
        """What this kernel does not enforce, in words."""
        words = {
            "folders": "writes outside of the drill's folders",
            "ports": "TCP connections to other ports",
            "signals": "signals to other processes",
        }
        return [text for name, text in words.items() if not getattr(self, name)]


def abi() -> int:
    """The version of Landlock here; 0 when there is none."""
    version: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    return max(version, 0)


def confine(writable: Iterable[Path], ports: Iterable[int] | None) -> Confinement:
    """Confine this thread and whatever it starts, for ever; call it before there are threads.

    `ports` None leaves the network free. Returns what is enforced. Raises SafetakeError when a
    folder can not be opened, or the kernel refuses what it says it can do.
    """
    version = abi()
    if version == 0:
        return Confinement()
    changes = _CHANGES | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    nets = (_BIND | _CONNECT) if version >= 4 and ports is not None else 0
    scopes = (_SCOPE_ABSTRACT | _SCOPE_SIGNAL) if version >= 6 else 0
    attribute = struct.pack("=QQQ", changes, nets, scopes)
    # older kernels know a shorter structure; the part that is cut off is 0 there
    length = 24 if version >= 6 else 16 if version >= 4 else 8
    buffer = ctypes.create_string_buffer(attribute[:length], length)
    ruleset = _call("confinement", _CREATE_RULESET, buffer, ctypes.c_size_t(length), 0)
    try:
        for path in (*writable, *(Path(device) for device in DEVICES)):
            _allow_path(ruleset, path, changes)
        for port in ports if nets and ports is not None else ():
            rule = ctypes.create_string_buffer(struct.pack("=QQ", nets, port), 16)
            _call(f"port {port}", _ADD_RULE, ruleset, _NET_PORT, rule, 0)
        if _libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
            raise _failure("no new privileges")
        _call("confinement", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return Confinement(folders=version >= 3, ports=bool(nets), signals=bool(scopes))


def hide(paths: Iterable[Path], readable: Iterable[Path] = ()) -> None:
    """Let no file at or below `paths` be read by this thread and whatever it starts, for ever.

    Landlock knows no "all but": everything beside the way to each path is allowed, as it is now.
    What comes to be later in a folder on that way can not be read, unless it is below `readable`.
    Raises SafetakeError where the kernel can not do it.
    """
    version = abi()
    if version == 0:
        raise SafetakeError("this kernel hides nothing: it has no Landlock")
    refer = _REFER if version >= 2 else 0  # moves are refused where they are not spoken of
    attribute = struct.pack("=Q", _READ_FILE | refer)
    buffer = ctypes.create_string_buffer(attribute, 8)
    ruleset = _call("hiding", _CREATE_RULESET, buffer, ctypes.c_size_t(8), 0)
    try:
        if refer:
            _allow_path(ruleset, Path("/"), refer)
        for path in _beside({path.resolve() for path in paths}):
            with contextlib.suppress(SafetakeError):  # gone by now, or a mount that is: not read
                _allow_path(ruleset, path, _READ_FILE)
        for path in readable:
            _allow_path(ruleset, path, _READ_FILE)
        if _libc().prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
            raise _failure("no new privileges")
        _call("hiding", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _beside(hidden: set[Path]) -> Iterable[Path]:
    """What is neither hidden nor on the way to it; a link is judged by where it leads."""
    way = {parent for path in hidden for parent in path.parents}
    for folder in sorted(way):
        if folder in hidden or hidden & set(folder.parents):
            continue  # below something that is hidden
        try:
            entries = [Path(entry.path) for entry in os.scandir(folder) if not entry.is_symlink()]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SafetakeError(
                f"{folder}: {error.strerror}: what is beside something hidden must be listed"
            ) from error
        yield from (entry for entry in entries if entry not in way and entry not in hidden)


def command(
    words: Sequence[str], writable: Iterable[Path], ports: Iterable[int] | None
) -> list[str]:
    """The command line that runs `words` confined."""
    line = [sys.executable, "-m", "safetake.sandbox"]
    for path in writable:
        line += ["--write", str(path)]
    if ports is not None:
        line += ["--ports", _ranges(ports)]
    return [*line, "--", *words]


def hiding(words: Sequence[str], paths: Iterable[Path]) -> list[str]:
    """The command line that runs `words` with `paths` hidden and nothing else refused."""
    hidden = [word for path in paths for word in ("--hide", str(path))]
    return [sys.executable, "-m", "safetake.sandbox", *hidden, "--", *words]


def _ranges(ports: Iterable[int]) -> str:
    """`7,9-11` for 7, 9, 10 and 11."""
    found: list[list[int]] = []
    for port in sorted(set(ports)):
        if found and found[-1][1] == port - 1:
            found[-1][1] = port
        else:
            found.append([port, port])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def _numbers(ranges: str) -> list[int]:
    found: list[int] = []
    for word in filter(None, ranges.split(",")):
        first, _, last = word.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _allow_path(ruleset: int, path: Path, changes: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        if str(path) in DEVICES:
            return
        raise SafetakeError(f"{path} is not there to be written") from None
    except OSError as error:
        raise SafetakeError(f"{path}: {error.strerror}") from error
    try:
        rights = changes
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _WRITE_FILE | _READ_FILE | _TRUNCATE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, fd), 12)
        _call(str(path), _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(fd)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(what: str, *arguments: object) -> int:
    result: int = _libc().syscall(*arguments)
    if result < 0:
        raise _failure(what)
    return result


def _failure(what: str) -> SafetakeError:
    return SafetakeError(
        f"the kernel does not confine the process ({what}): {os.strerror(ctypes.get_errno())}",
        hint="Landlock is there but refuses; look at the kernel's log",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Confine this process and become the command after `--`; `--hide` alone only hides."""
    parser = argparse.ArgumentParser(prog="python -m safetake.sandbox")
    parser.add_argument("--write", action="append", type=Path, default=[])
    parser.add_argument("--ports", default=None)
    parser.add_argument("--hide", action="append", type=Path, default=[])
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    if given.hide and (given.write or given.ports is not None):
        parser.error("--hide goes with nothing else")
    ports = None if given.ports is None else _numbers(given.ports)
    try:
        if given.hide:
            hide(given.hide)
        else:
            confine(given.write, ports)
        os.execvp(given.command[0], given.command)
    except SafetakeError as error:
        print(f"safetake: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        problem = UsageError(f"{given.command[0]}: {error.strerror}")
        print(f"safetake: {problem}", file=sys.stderr)
        return problem.exit_code


if __name__ == "__main__":
    sys.exit(main())
