"""The lines of a history on this machine, read: whole, or only what is new.

Three kinds of lines: `r` a record whose predecessors stand before it, `l` one that came from the
repository before them, `d` which records a document of the repository holds. The last line may be
cut off, and is no line then.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from safetake.errors import DamagedError, StorageError
from safetake.operate.history.record import Record, parse

_TAIL = 4096
_ENDED = b'{"ended_ns":'
"""How every canonical record begins: old ones are left out without being parsed."""


@dataclass(slots=True)
class Scan:
    """The whole log."""

    size: int = 0
    records: dict[str, Record] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    """Came from the repository before what they follow."""
    documents: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By repository, then by name: which records a document holds."""
    broken: list[str] = field(default_factory=list)
    """Lines that are not what was written."""
    misplaced: list[str] = field(default_factory=list)
    """Records that stand before what they follow."""


@dataclass(slots=True)
class _Kept:
    """What this process has read of a log: a daemon asks for it every few seconds."""

    size: int = 0
    tail: str = ""
    records: list[Record] = field(default_factory=list)


_KEPT: dict[Path, _Kept] = {}
_READING = threading.Lock()
_LOGS_KEPT = 2
_MOST_KEPT = 5_000


def _parsed(line: bytes) -> Record | None:
    if line[:2] in (b"r ", b"l "):
        with contextlib.suppress(DamagedError, UnicodeDecodeError):
            return parse(line[67:], line[2:66].decode("ascii"), any_form=True)
    return None


class Log:
    """The log of one repository's history, for reading."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"

    def read(self, since_ns: int = 0) -> list[Record]:
        """Whole records that ended at `since_ns` or later, in the log's order.

        What is broken is left out: `scan` names it. Raises StorageError.
        """
        with _READING:
            kept = _KEPT.get(self.log)
            if kept is not None and not self.begins(kept.size, kept.tail):
                kept = None
            if kept is None and since_ns:
                return [record for record in map(_parsed, self._since(since_ns)) if record]
            kept = kept or _Kept()
            lines = list(self.lines(kept.size))
            if lines:
                kept.size += sum(map(len, lines)) + len(lines)
                kept.tail = self._tail(kept.size)
                kept.records += filter(None, map(_parsed, lines))
            if len(kept.records) <= _MOST_KEPT:
                _KEPT[self.log] = kept
                while len(_KEPT) > _LOGS_KEPT:
                    del _KEPT[next(iter(_KEPT))]
            return [record for record in kept.records if record.ended_ns >= since_ns]

    def _since(self, since_ns: int) -> Iterator[bytes]:
        for line in self.lines():
            ended = line[67 + len(_ENDED) : line.find(b",", 67)]
            old = line[67 : 67 + len(_ENDED)] == _ENDED and ended.isdigit()
            if not old or int(ended) >= since_ns:
                yield line

    def scan(self) -> Scan:
        """Read and check every line. Raises StorageError."""
        scan = Scan()
        order: dict[str, int] = {}
        for number, line in enumerate(self.lines(), 1):
            scan.size += len(line) + 1
            try:
                kind, rest = line[:2], line[2:]
                if kind in (b"r ", b"l "):
                    record = parse(rest[65:], rest[:64].decode("ascii"))
                    order.setdefault(record.id, number)
                    scan.records[record.id] = record
                    if kind == b"l ":
                        scan.late.add(record.id)
                elif kind == b"d ":
                    repository, name, ids = _document(rest)
                    scan.documents.setdefault(repository, {})[name] = ids
                else:
                    raise DamagedError("it is of no known kind")
            except (DamagedError, UnicodeDecodeError) as error:
                scan.broken.append(f"{self.log}, line {number}: {error}")
        scan.misplaced = [
            record.id
            for record in scan.records.values()
            if record.id not in scan.late
            and any(order.get(one, 0) > order[record.id] for one in record.previous)
        ]
        return scan

    def begins(self, size: int, tail: str) -> bool:
        """Whether the log still begins with the bytes that `tail_of` said this of."""
        return self._tail(size) == tail

    def _tail(self, size: int) -> str:
        """Of the first `size` bytes of the log; empty when there are fewer."""
        try:
            log = self.open("log", os.O_RDONLY)
        except OSError:
            return ""
        try:
            return tail_of(log, size) if size <= os.fstat(log).st_size else ""
        finally:
            os.close(log)

    def lines(self, start: int = 0) -> Iterator[bytes]:
        """The whole lines from a byte on; one that was cut off is none. Raises StorageError."""
        try:
            with open(self.open("log", os.O_RDONLY), "rb") as file:  # noqa: PTH123
                file.seek(start)
                for line in file:
                    if line.endswith(b"\n"):
                        yield line[:-1]
        except FileNotFoundError:
            return
        except OSError as error:
            raise failure("read", self.log, error) from error

    def open(self, name: str, flags: int) -> int:
        """One of its files, private and no link. Raises OSError."""
        return os.open(self.folder / name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def tail_of(log: int, size: int) -> str:
    """Digest of the end of the first `size` bytes of an open log. Raises OSError."""
    start = max(0, size - _TAIL)
    return hashlib.sha256(os.pread(log, size - start, start)).hexdigest()


def _document(rest: bytes) -> tuple[str, str, list[str]]:
    text, _, crc = rest.rpartition(b" ")
    parts = text.decode("ascii").split(" ")
    if crc != b"%08x" % zlib.crc32(text) or len(parts) != 3:
        raise DamagedError("it was changed")
    return parts[0], parts[1], [one for one in parts[2].split(",") if one]


def failure(what: str, path: Path, error: OSError) -> StorageError:
    """What a history that cannot be read or written is called."""
    return StorageError(
        f"cannot {what} the history in {path}: {error.strerror or error}",
        hint="free space there, or set `state` in the [restore] section to a folder of this user",
    )
