"""Watch a process and all that it starts, and kill the whole of it at its n-th call that changes
something: `kill -9`, generated instead of hand-picked, and observed to have happened.

The kernel stops the traced processes at the calls of `syscalls` only (seccomp), before the call is
carried out. A call counts when it reaches a file, a folder, a socket or another process; writing to
a pipe or to the standard streams does not. Killed at the entry of call n+1 is killed right after
call n. What a process does between two calls (memory that is mapped from a file) is not cut.

`trace` waits for any child: it belongs in a process of one thread that has no other children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from tests.support.syscalls import CALLS, numbers, program

_CONT, _SET_OPTIONS, _SEIZE, _SYSCALL_INFO = 7, 0x4200, 0x4206, 0x420E
_EVENT_SECCOMP = 7
_OPTIONS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 7 | 1 << 20
"""Follow fork, vfork, clone and exec; tell of seccomp stops; kill all when the tracer dies."""
_WALL = 0x40000000
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER, _ADOPT = 38, 22, 2, 36
_PATH_BYTES = 4096
_SETTLE_S = 2.0
"""So long may helpers outlive the first process before they count as left behind."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class Call:
    """One system call at its entry."""

    number: int
    """From 1, over all threads and processes in the order in which they were stopped."""
    name: str
    place: str
    """Paths, the file behind a descriptor, or `socket:[…]`."""
    first: bool
    """By the first process, not by one that it started."""


@dataclass(slots=True)
class Observed:
    """What happened."""

    calls: list[Call] = field(default_factory=list)
    """All, or the one at which it was killed."""
    killed: bool = False
    """By us, at that call, which was not carried out."""
    code: int | None = None
    """Exit code of the first process, negative for a signal."""
    left: int = 0
    """Processes that outlived the first one; they were killed."""


class StuckError(Exception):
    """The traced processes did not end in time; they were killed."""


def trace(
    body: Callable[[], int],
    *,
    kill_at: int | None = None,
    alone: bool = False,
    ignore: str = "",
    seconds: float = 60,
) -> Observed:
    """Fork, run `body` in the child, and watch it to its end, or kill it at call `kill_at`.

    With `alone` what it started is not killed with it, and may end by itself. The child exits with
    what `body` returns. Calls on places in which the pattern `ignore` is found do not count. Raises
    StuckError, OSError.
    """
    _prctl(_ADOPT, 1)  # what outlives its parent is ours to wait for
    gate, open_gate = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(open_gate)
        _child(gate, body)
    os.close(gate)
    tracer = _Tracer(pid, kill_at, ignore, alone=alone)
    with _deadline(seconds):
        try:
            _ptrace(_SEIZE, pid, 0, _OPTIONS)
            os.write(open_gate, b"!")
            tracer.run()
        except StuckError as error:
            raise StuckError(f"{error}; {tracer.pictures()}") from None
        finally:
            os.close(open_gate)
            tracer.end()
    return tracer.observed


def _child(gate: int, body: Callable[[], int]) -> NoReturn:
    code = 120
    try:
        if os.read(gate, 1) != b"!":
            os._exit(121)
        os.close(gate)
        _install(program())
        code = body()
    except BaseException:  # noqa: BLE001 - nothing may come back into the forked tracer
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _install(code: bytes) -> None:
    buffer = ctypes.create_string_buffer(code, len(code))
    what = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    header = ctypes.create_string_buffer(what, len(what))
    _prctl(_NO_NEW_PRIVILEGES, 1)
    _prctl(_SET_SECCOMP, _FILTER, ctypes.addressof(header))


def _prctl(*arguments: int) -> None:
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:5]]
    if _libc.prctl(*words) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _ptrace(request: int, pid: int, address: int, data: int) -> int:
    ctypes.set_errno(0)
    got: int = _libc.ptrace(request, pid, address, data)
    if got == -1 and ctypes.get_errno() != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
    return got


class _Tracer:
    def __init__(self, pid: int, kill_at: int | None, ignore: str, *, alone: bool) -> None:
        self.observed = Observed()
        self._first = pid
        self._kill_at = kill_at
        self._alone = alone
        self._ignored = re.compile(ignore) if ignore else None
        self._names = numbers()
        self._count = 0
        self._known = {pid}
        self._ended = False
        self._settled = 0.0
        """When what the first process left behind has to be over; 0 while that runs."""
        self._info = ctypes.create_string_buffer(96)

    def run(self) -> None:
        """Until every process ended."""
        while True:
            if self._ended:
                tid, status = self._settle()
            else:
                tid, status = os.waitpid(-1, _WALL)
            if tid == 0 or not self._seen(tid, status):
                return

    def pictures(self) -> str:
        """What each thread that still runs is waiting for, for whoever has to find out."""
        return "; ".join(_picture(tid) for tid in sorted(self._known))

    def end(self) -> None:
        """Kill what still runs, and wait for it."""
        for tid in list(self._known):
            with contextlib.suppress(ProcessLookupError):
                os.kill(tid, signal.SIGKILL)
        while True:
            try:
                tid, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return
            self._over(tid, status)
            if os.WIFSTOPPED(status):  # appeared a moment ago
                with contextlib.suppress(ProcessLookupError):
                    os.kill(tid, signal.SIGKILL)

    def _settle(self) -> tuple[int, int]:
        self._settled = self._settled or time.monotonic() + _SETTLE_S
        while time.monotonic() < self._settled:
            try:
                tid, status = os.waitpid(-1, _WALL | os.WNOHANG)
            except ChildProcessError:
                return 0, 0
            if tid:
                return tid, status
            time.sleep(0.001)
        self.observed.left = len(self._known)
        return 0, 0

    def _over(self, tid: int, status: int) -> None:
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self._known.discard(tid)
            if tid == self._first:
                self.observed.code = os.waitstatus_to_exitcode(status)
                self._ended = True

    def _seen(self, tid: int, status: int) -> bool:
        """Handle one report; False when it is time to kill."""
        self._over(tid, status)
        if not os.WIFSTOPPED(status):
            return True
        self._known.add(tid)
        event, deliver = status >> 16, 0
        if event == _EVENT_SECCOMP and not self.observed.killed:
            if not self._call(tid):
                if not self._alone:
                    return False
                os.kill(self._first, signal.SIGKILL)
        elif event == 0:
            deliver = os.WSTOPSIG(status)
        with contextlib.suppress(ProcessLookupError):
            _ptrace(_CONT, tid, 0, deliver)
        return True

    def _call(self, tid: int) -> bool:
        try:
            _ptrace(_SYSCALL_INFO, tid, len(self._info), ctypes.addressof(self._info))
            number, *arguments = struct.unpack_from("=7Q", self._info, 24)
            name = self._names[number]
            what = CALLS[name]
            place = ""
            if what.lstrip(".")[:1] == "f":
                place = _behind(tid, arguments[what.index("f")])
                if not _lasting(place):
                    return True
            if self._ignored is not None:
                place = place or _paths(tid, what, arguments)
                if self._ignored.search(place):
                    return True
            self._count += 1
            if self._kill_at is not None and self._count != self._kill_at:
                return True
            place = place or _paths(tid, what, arguments)
        except ProcessLookupError:  # killed by somebody meanwhile
            return True
        call = Call(self._count, name, place, self._in_first(tid))
        self.observed.calls.append(call)
        self.observed.killed = self._kill_at is not None
        return not self.observed.killed

    def _in_first(self, tid: int) -> bool:
        return os.path.exists(f"/proc/{self._first}/task/{tid}")  # noqa: PTH110


def _lasting(place: str) -> bool:
    """A file or a socket; no terminal, and nothing that is gone with the process."""
    if place.startswith("/dev/"):
        return place.startswith("/dev/shm/")
    return place.startswith(("/", "socket:"))


def _behind(tid: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{tid}/fd/{descriptor & 0xFFFFFFFF}")  # noqa: PTH115
    except OSError:
        return "closed"


def _paths(tid: int, what: str, arguments: list[int]) -> str:
    found: list[str] = []
    folder = ""
    for letter, value in zip(what, arguments, strict=False):
        if letter == "d":
            here = ctypes.c_int(value & 0xFFFFFFFF).value
            folder = "" if here < 0 else _behind(tid, here)
        elif letter == "p":
            inner = _text(tid, value)
            found.append(os.path.join(folder, inner) if inner else folder)  # noqa: PTH118
            folder = ""
    return " -> ".join(found)


def _text(tid: int, address: int) -> str:
    if address == 0:
        return ""
    with open(f"/proc/{tid}/mem", "rb", 0) as memory:  # noqa: PTH123
        parts = []
        left = _PATH_BYTES
        while left > 0:  # never across a page that may not be there
            step = min(left, 4096 - address % 4096)
            try:
                memory.seek(address)
                part = memory.read(step)
            except OSError:
                break
            parts.append(part)
            if b"\0" in part:
                break
            address, left = address + step, left - step
    return os.fsdecode(b"".join(parts).split(b"\0")[0])


def _picture(tid: int) -> str:
    told = [str(tid)]
    for name in ("comm", "stat", "wchan", "syscall"):
        with contextlib.suppress(OSError):
            with open(f"/proc/{tid}/{name}", errors="replace") as file:  # noqa: PTH123
                text = file.read().strip()
            told.append(text.rpartition(")")[2].split()[0] if name == "stat" else text)
    with contextlib.suppress(OSError):
        with open(f"/proc/{tid}/cmdline", "rb") as file:  # noqa: PTH123
            words = file.read()
        told.append(words.replace(b"\0", b" ").decode(errors="replace")[:200])
    return " ".join(told)


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    def late(_signal: int, _frame: FrameType | None) -> None:
        raise StuckError(f"not over after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
