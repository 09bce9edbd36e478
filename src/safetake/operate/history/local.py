"""The history on this machine: a file of lines that is only ever appended to, in the state folder.

`log` holds every record that this machine wrote or has seen in the repository, and which document
of the repository holds which records. A line that was cut off (`kill -9`, a full disk) is known by
its missing end, and is dropped by the next append; the lines before it are never touched. Several
processes append one after the other (flock). `state` remembers how far the log was read and the
newest heads: where it is right an append reads no old record, where it is not the log is read
again. Heads that are remembered and not in the log any more stay heads: the next record names them,
so that cutting the end off leaves a hole that everybody sees.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetake.errors import DamagedError, StorageError
from safetake.operate.history.log import Log, failure, tail_of
from safetake.operate.history.record import Record, parse

_WAIT_S = 20.0
_STATE_BYTES = 1 << 24


@dataclass(slots=True)
class State:
    """What is known without reading old records."""

    size: int = 0
    """Bytes of the log that it is about."""
    tail: str = ""
    """Digest of the end of those bytes."""
    heads: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Named by a record, and never seen."""
    repository: str = ""
    """Id of the repository that the next two are about."""
    unpushed: list[str] = field(default_factory=list)
    """Not known to be in the repository, oldest first."""
    documents: dict[str, int] = field(default_factory=dict)
    """What was read of the repository: names of documents, and how many records they hold."""

    def admit(self, record: Record, unknown: Collection[str] = ()) -> None:
        """Take a record into the chain; `unknown` is what it follows and nobody has seen."""
        previous = set(record.previous)
        if unknown:
            self.missing = sorted({*self.missing, *unknown})
        kept = [head for head in self.heads if head not in previous and head != record.id]
        if record.id in self.missing:
            self.missing = [one for one in self.missing if one != record.id]
            self.heads = kept
        else:
            self.heads = sorted([*kept, record.id])


class LocalHistory(Log):
    """The folder of one repository's history on this machine."""

    def remembered(self) -> State | None:
        """What the state file says, whether it fits the log or not; None when there is none."""
        try:
            with open(self.open("state", os.O_RDONLY), "rb") as file:  # noqa: PTH123
                document = json.loads(file.read(_STATE_BYTES))
            return _state(document)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None  # made again from the log

    def fits(self, state: State) -> bool:
        """Whether the log still begins with what the state is about."""
        return self.begins(state.size, state.tail)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Opened]:
        """The log, open for this process alone. Raises StorageError."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = self.open("lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise failure("open", self.folder, error) from error
        try:
            _flock(lock, self.folder)
            try:
                new = not self.log.exists()
                log = self.open("log", os.O_RDWR | os.O_APPEND | os.O_CREAT)
                if new:
                    _sync_folder(self.folder)
            except OSError as error:
                raise failure("open", self.log, error) from error
            try:
                yield Opened(self, log)
            finally:
                os.close(log)
        finally:
            os.close(lock)


class Opened:
    """The log while it is locked. Raises StorageError from each of its methods."""

    def __init__(self, local: LocalHistory, log: int) -> None:
        self._local = local
        self._log = log
        try:
            self._mend()
            self.state = self._current()
        except OSError as error:
            raise failure("read", local.log, error) from error

    def _mend(self) -> None:
        """Drop a last line that was cut off; one that is only without its end gets it."""
        size = os.fstat(self._log).st_size
        at = size
        tail = b""
        while at and b"\n" not in tail:
            at = max(0, at - (1 << 16))
            tail = os.pread(self._log, size - at, at)
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn:
            return
        with contextlib.suppress(DamagedError, UnicodeDecodeError):
            if torn[:2] in (b"r ", b"l ") and parse(torn[67:], torn[2:66].decode("ascii")):
                os.write(self._log, b"\n")
                return
        os.ftruncate(self._log, size - len(torn))

    def _current(self) -> State:
        """What is remembered, if it is about the log as it is; else made from the log."""
        size = os.fstat(self._log).st_size
        state = self._local.remembered()
        if state is not None and state.size <= size and self._tail(state.size) == state.tail:
            if state.size == size:
                return state
            if self._go_on(state, size):
                return state
        return self.remade(state)

    def _go_on(self, state: State, size: int) -> bool:
        """Take in what was appended since by a process that died; False when that is unclear."""
        data = os.pread(self._log, size - state.size, state.size)
        for line in data.splitlines():
            if line[:2] != b"r ":
                return False
            try:
                record = parse(line[67:], line[2:66].decode("ascii"))
            except (DamagedError, UnicodeDecodeError):
                return False
            state.admit(record)
            state.unpushed.append(record.id)
        state.size, state.tail = size, self._tail(size)
        return True

    def remade(self, old: State | None = None, repository: str | None = None) -> State:
        """The state from the whole log, with the heads that `old` remembers."""
        scan = self._local.scan()
        state = State(repository=repository or (old.repository if old is not None else ""))
        seen: set[str] = set()
        for record in scan.records.values():
            state.admit(record, [one for one in record.previous if one not in seen])
            seen.add(record.id)
        if old is not None:
            gone = [head for head in old.heads if head not in seen]
            state.heads = sorted({*state.heads, *gone})
        held: set[str] = set()
        for name, ids in scan.documents.get(state.repository, {}).items():
            if seen.issuperset(ids):  # else it is read again, which brings back what is gone here
                state.documents[name] = len(ids)
                held.update(ids)
        state.unpushed = [record_id for record_id in scan.records if record_id not in held]
        state.size = os.fstat(self._log).st_size
        state.tail = self._tail(state.size)
        self.state = state
        return state

    def _ids(self) -> set[str]:
        return {
            line[2:66].decode("ascii", "replace")
            for line in self._local.lines()
            if line[:2] in (b"r ", b"l ")
        }

    def add(self, record: Record) -> None:
        """Append a record that follows the heads; `sync` makes it durable."""
        self._write(_line(record, b"r "))
        self.state.admit(record)
        self.state.unpushed.append(record.id)

    def take_in(self, documents: dict[str, list[Record]]) -> None:
        """Append what documents of the repository hold, without what is there already."""
        known = self._ids()
        lines = []
        for record in _parents_first(one for group in documents.values() for one in group):
            if record.id in known:
                continue
            unknown = [one for one in record.previous if one not in known]
            lines.append(_line(record, b"l " if unknown else b"r "))
            known.add(record.id)
            self.state.admit(record, unknown)
        self._write(b"".join(lines))
        self.pushed({name: [one.id for one in group] for name, group in documents.items()})

    def pushed(self, documents: dict[str, list[str]]) -> None:
        """Remember which documents of the repository hold which records."""
        lines = []
        for name, ids in documents.items():
            text = f"{self.state.repository} {name} {','.join(ids)}".encode()
            lines.append(b"d " + text + b" %08x\n" % zlib.crc32(text))
            self.state.documents[name] = len(ids)
        self._write(b"".join(lines))
        there = {one for ids in documents.values() for one in ids}
        self.state.unpushed = [one for one in self.state.unpushed if one not in there]

    def sync(self) -> None:
        """Make all that was appended durable."""
        try:
            os.fdatasync(self._log)
        except OSError as error:
            raise failure("write", self._local.log, error) from error

    def save(self) -> None:
        """Remember the state. It may be older than the log after a power cut, and never newer."""
        state = self.state
        document = {name: getattr(state, name) for name in State.__dataclass_fields__}
        data = json.dumps(document).encode()
        document = {"state": data.decode(), "crc": zlib.crc32(data)}
        fresh = self._local.folder / "state.new"
        try:
            fresh.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(fresh, flags, 0o600), "wb") as file:  # noqa: PTH123
                file.write(json.dumps(document).encode())
            fresh.rename(self._local.folder / "state")
        except OSError as error:
            raise failure("write", fresh, error) from error

    def _write(self, line: bytes) -> None:
        if not line:
            return
        size = os.fstat(self._log).st_size
        try:
            written = os.write(self._log, line)
            while written < len(line):  # a full disk says so at the second try
                written += os.write(self._log, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._log, size)
            raise failure("write", self._local.log, error) from error
        self.state.size = size + len(line)
        self.state.tail = self._tail(self.state.size)

    def _tail(self, size: int) -> str:
        return tail_of(self._log, size)


def _line(record: Record, kind: bytes) -> bytes:
    return kind + record.id.encode() + b" " + record.canonical() + b"\n"


def _state(outer: dict[str, Any]) -> State:
    """Raises ValueError, TypeError, KeyError for what is none."""
    if zlib.crc32(outer["state"].encode()) != outer["crc"]:
        raise ValueError("changed")
    document = json.loads(outer["state"])
    state = State(**document)
    lists = (state.heads, state.missing, state.unpushed)
    if (
        type(state.size) is not int
        or not all(isinstance(each, list) for each in lists)
        or not all(isinstance(one, str) and len(one) == 64 for each in lists for one in each)
        or not isinstance(state.documents, dict)
        or not isinstance(state.repository, str)
    ):
        raise ValueError("no state")
    return state


def _parents_first(records: Iterable[Record]) -> list[Record]:
    """The records, each after those of them that it follows."""
    waiting = {record.id: record for record in records}
    ordered: list[Record] = []
    for start in sorted(waiting.values(), key=lambda one: (one.ended_ns, one.id)):
        stack = [start.id]
        while stack:
            record = waiting.get(stack[-1])
            if record is None:
                stack.pop()
                continue
            before = [one for one in record.previous if one in waiting]
            if before:
                stack.extend(before)
            else:
                ordered.append(waiting.pop(stack.pop()))
    return ordered


def _flock(fd: int, folder: Path) -> None:
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise StorageError(
                    f"another process has held the history in {folder} for {_WAIT_S:.0f} s",
                    hint="look for a run of safetake that hangs",
                ) from None
            time.sleep(0.005)
        except OSError as error:
            raise failure("lock", folder, error) from error


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
