"""One leader among the daemons of a repository: small sealed documents in its folder `leader/`.

Each daemon keeps one document there and renews it; a renewal is a new file, then the old one is
removed. Who lives is told by watching, never by comparing clocks: a document that has not been
renewed for its lease, by the watcher's own steady clock, is of a daemon that is gone (at once, when
its process on this machine is gone). So clocks may differ by any amount.

A daemon leads when no living one does and it is first in the order of names; it writes that, and
looks once more, as the locks of the format do. Two that lead after all (a storage that shows files
late) see each other at the next renewal, and the later in the order gives way.

A leader that could not ask for three quarters of its lease leads no more, which is before anybody
may take its place. One whose storage *refuses* (full, read-only, gone) goes on leading while it
sees nobody else: somebody has to prune a full repository, and failing jobs have to be told.

Times for a lease L (60 s): a leader that stops gives way at once and is followed within L/4; one
that dies is followed within 1.5·L, on the same machine within L/4.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from safetake.clock import go_time, now_ns
from safetake.errors import DamagedError, SafetakeError, StorageError

if TYPE_CHECKING:
    from safetake.repository import Repository

Role = Literal["starting", "leader", "follower"]
FORGOTTEN = 20
"""A document that was not renewed for so many leases is removed by the leader."""


def steady() -> float:
    """Seconds of a clock that nobody sets and that goes on while the machine sleeps."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


@dataclass(slots=True)
class _Other:
    """A document of another daemon, and since when it has looked as it does."""

    file: str
    seen: float
    document: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def leads(self) -> bool:
        return bool(self.document["leads"])

    def lives(self, now: float, lease: float) -> bool:
        if _process_gone(self.document):
            return False
        return now - self.seen < max(lease, float(self.document["lease"]))

    def __str__(self) -> str:
        return f"process {self.document['pid']} on {self.document['host']}"


@dataclass
class Candidate:
    """This daemon's part. `renew` is called every `lease / 4` seconds, by one thread."""

    lease: float
    clock: Callable[[], float] = steady
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    wanted: bool = False
    """What the last renewal found; `role` also knows how long ago that was."""
    leader: str = ""
    """Who leads, in words; empty when nobody does, or this daemon."""
    trouble: str = ""
    """Why the storage could not be asked; empty when it could."""
    reached: float | None = None
    """When the storage answered for the last time."""

    def __post_init__(self) -> None:
        self._file = ""
        self._old = ""
        self._asked: float | None = None
        self._others: dict[str, _Other] = {}
        self._count = 0

    @property
    def role(self) -> Role:
        """Whether it leads now; safe to ask from any thread."""
        asked = self._asked
        if asked is None:
            return "starting"
        return "leader" if self.wanted and self.clock() - asked < self.lease * 0.75 else "follower"

    def renew(self, repository: Repository) -> None:
        """Show that this daemon lives, and find out who leads. Never raises SafetakeError."""
        began = self.clock()
        held = self.role == "leader"
        try:
            others = self._living(repository, began)
        except SafetakeError as error:
            # whoever leads goes on and says what fails; nobody begins to lead blindly
            self.trouble, self._asked = str(error), began
            return
        self.trouble = ""
        self.reached = began
        leads = self._may_begin(others) if not held else self._may_go_on(others)
        try:
            self._write(repository, leads)
            if leads and not held:
                others = self._living(repository, self.clock())
                leads = self._may_go_on(others)
        except SafetakeError as error:
            self.trouble = str(error)
            leads = not others  # a full repository has to be pruned by somebody
        self.wanted, self._asked = leads, began
        self.leader = "" if leads else next((str(each) for each in others if each.leads), "")
        if leads:
            self._tidy(repository, began)

    def _may_go_on(self, others: list[_Other]) -> bool:
        return all(self.name < other.name for other in others if other.leads)

    def _may_begin(self, others: list[_Other]) -> bool:
        if not self._file or any(other.leads for other in others):
            return False  # without a document of its own the others do not know of it
        return all(self.name < other.name for other in others)

    def _living(self, repository: Repository, now: float) -> list[_Other]:
        """The other daemons that live. Raises SafetakeError."""
        present: dict[str, _Other] = {}
        known = {other.file: other for other in self._others.values()}
        for file, _ in repository.storage.list("leader"):
            if file in (self._file, self._old):
                continue
            other = known.get(file)
            if other is None:
                document = _read(repository, file)
                if document is None or document["name"] == self.name:
                    continue
                other = _Other(file, now, document)
            rival = present.get(other.name)
            if rival is None or rival.document["count"] < other.document["count"]:
                present[other.name] = other
        self._others = present
        return [other for other in present.values() if other.lives(now, self.lease)]

    def _write(self, repository: Repository, leads: bool) -> None:
        self._count += 1
        document = {
            "name": self.name,
            "count": self._count,
            "leads": leads,
            "lease": self.lease,
            "time": go_time(now_ns()),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": machine(),
            "began": process_began(os.getpid()),
        }
        self._remove_old(repository)  # where nothing can be removed, documents must not pile up
        fresh = repository.save_document("leader", document)
        self._old, self._file = self._file, fresh
        self._remove_old(repository)

    def _remove_old(self, repository: Repository) -> None:
        if self._old:
            repository.storage.remove("leader", self._old)
            self._old = ""

    def _tidy(self, repository: Repository, now: float) -> None:
        """Remove what daemons that died long ago left."""
        for other in list(self._others.values()):
            if now - other.seen > self.lease * FORGOTTEN or _process_gone(other.document):
                with contextlib.suppress(StorageError):  # the next renewal tries again
                    repository.storage.remove("leader", other.file)
                    del self._others[other.name]

    def resign(self, repository: Repository | None) -> None:
        """Lead no more, and say so, so that another can at once. Never raises SafetakeError."""
        self.wanted = False
        if repository is not None and self._file:
            with contextlib.suppress(SafetakeError):
                repository.storage.remove("leader", self._file)
            self._file = ""


def _read(repository: Repository, file: str) -> dict[str, Any] | None:
    """A document that can be believed, or None: one that is gone, damaged or none of ours."""
    try:
        document = repository.load_document("leader", file)
    except (FileNotFoundError, DamagedError):
        return None
    kinds: dict[str, type | tuple[type, ...]] = {
        "name": str,
        "count": int,
        "leads": bool,
        "lease": (int, float),
        "host": str,
        "pid": int,
        "machine": str,
        "began": str,
    }
    if not all(isinstance(document.get(key), kind) for key, kind in kinds.items()):
        return None
    return document if 0 < document["lease"] <= 86400 else None


def machine() -> str:
    """Names this start of this kernel and this view of its processes; empty where nobody can say.

    A host's name is not enough: containers share it with their node, and restart with it.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return ""


def process_began(pid: int) -> str:
    """When a process began, in the kernel's words; empty when there is none or nobody says."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[19].decode("ascii")
    except (OSError, IndexError):
        return ""


def _process_gone(document: dict[str, Any]) -> bool:
    """Whether it is known that the process is gone: only on the machine where it ran."""
    where = machine()
    if not where or document["machine"] != where:
        return False
    return process_began(int(document["pid"])) != str(document["began"])
