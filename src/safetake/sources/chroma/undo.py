"""The record of a restore of single records: what was there before each change, durable before it.

A file of JSON lines (0600), each synced before what it announces is done:

    {"begin": …}     which snapshot, source, collections and choices
    {"create": …}    a collection that is about to be made
    {"batch": …}     the records that are about to change: as they were, and as they will be
    {"done": …}      nothing is left to do
    {"undone": …}    all of it was taken back

A last line that a power cut tore announced nothing. A file without `done` is a restore that was cut
off: it is begun again with the same choices and goes on with the same file, or is undone. Such a
file may be as large as the collections: one batch of it is in memory at a time.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetake.errors import RestoreError
from safetake.sources.chroma.record import Record, from_dict, same_vector, without_strays
from safetake.swap import sync_folder

SUFFIX = ".jsonl"
ADD, UPDATE, DELETE = "add", "update", "delete"
_BATCH, _DONE, _UNDONE = b'{"batch":', b'{"done":', b'{"undone":'
_TAIL = 1 << 20
"""Longer than any last line but a batch's."""


@dataclass(frozen=True, slots=True)
class Becoming:
    """What a record was about to become, as far as it is needed to know it again."""

    words: str
    keys: frozenset[str]
    vector: bytes

    def is_now(self, record: Record | None, space: str) -> bool:
        """Whether a live record is what was written."""
        return (
            record is not None
            and without_strays(record, self.keys).words_digest() == self.words
            and same_vector(record.vector, self.vector, space)
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one collection that were changed together."""

    collection: dict[str, Any]
    """tenant, database, name, space; id"""
    how: str
    ids: list[str]
    old: dict[str, Record]
    """Those that were there."""
    new: dict[str, Becoming]
    again: frozenset[str]
    """Those that are deleted on the way: not being there is no application's doing."""


@dataclass(slots=True)
class UndoFile:
    """What was read of a file."""

    path: Path
    begin: dict[str, Any] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Where the line of each batch begins."""
    done: bool = False
    undone: bool = False
    torn_at: int | None = None
    """Where a torn last line begins: it is cut off before something is added, never by a reader,
    since another process may be writing it."""

    @property
    def unfinished(self) -> bool:
        """Whether the restore was cut off."""
        return bool(self.begin) and not (self.done or self.undone)

    # reading

    def batches_back(self) -> Iterator[Batch]:
        """The batches from the last to the first. Raises RestoreError."""
        with _readable(self.path), self.path.open("rb") as file:
            for place in reversed(self.places):
                file.seek(place)
                yield _batch(json.loads(file.readline())["batch"])

    # writing; each raises RestoreError when the line is not durable

    def write_begin(self, facts: dict[str, Any]) -> None:
        """The first line of a new file."""
        self._append({"begin": facts}, new=True)
        self.begin = facts

    def write_create(self, collection: dict[str, Any]) -> None:
        """A collection that is about to be made."""
        self._append({"create": collection})
        self.created.append(collection)

    def write_batch(
        self,
        collection: dict[str, Any],
        how: str,
        ids: Iterable[str],
        old: dict[str, Record],
        new: dict[str, Record],
        again: Iterable[str],
    ) -> None:
        """Records that are about to change."""
        batch = {
            "collection": collection,
            "how": how,
            "ids": list(ids),
            "again": list(again),
            "old": [record.as_dict() for record in old.values()],
            "new": {
                one: [
                    record.words_digest(),
                    sorted(record.metadata),
                    base64.b64encode(record.vector).decode(),
                ]
                for one, record in new.items()
            },
        }
        self._append({"batch": batch})

    def write_done(self, facts: dict[str, Any]) -> None:
        """Nothing is left to do."""
        self._append({"done": facts})
        self.done = True

    def write_undone(self, facts: dict[str, Any]) -> None:
        """All of it was taken back."""
        self._append({"undone": facts})
        self.undone = True

    def _append(self, line: dict[str, Any], *, new: bool = False) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        flags |= os.O_CREAT | os.O_EXCL if new else 0
        data = json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        try:
            if self.torn_at is not None:
                os.truncate(self.path, self.torn_at)
                self.torn_at = None
            with open(os.open(self.path, flags, 0o600), "wb") as file:  # noqa: PTH123
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise RestoreError(
                f"{self.path} cannot be written: {error.strerror}; the records that come next are"
                " not touched",
                hint="free space there, then begin the restore again: it goes on where it was",
            ) from error


def read(path: Path) -> UndoFile:
    """Look through a file, without a torn last line. Raises RestoreError."""
    found = UndoFile(path)
    with _readable(path), path.open("rb") as file:
        at = 0
        for line in file:
            if not line.endswith(b"\n"):
                found.torn_at = at
                break
            if line.startswith(_BATCH):
                found.places.append(at)
            else:
                _take(found, json.loads(line))
            at += len(line)
    return found


def unfinished(folder: Path) -> list[Path]:
    """The files of restores that were cut off, oldest first. Raises RestoreError."""
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.glob("*" + SUFFIX))
        if not _last(path).startswith((_DONE, _UNDONE)) and read(path).unfinished
    ]


def is_undone(path: Path) -> bool:
    """Whether all of a restore was taken back. Raises RestoreError."""
    return _last(path).startswith(_UNDONE)


def latest_done(folder: Path) -> Path | None:
    """The newest restore that can be undone. Raises RestoreError."""
    for path in sorted(folder.glob("*" + SUFFIX), reverse=True) if folder.is_dir() else ():
        if not is_undone(path) and read(path).begin:
            return path
    return None


def _last(path: Path) -> bytes:
    """The last whole line; empty where it is so long that it is a batch's. Raises RestoreError."""
    with _readable(path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        whole = file.read().rpartition(b"\n")[0]
    _, newline, line = whole.rpartition(b"\n")
    return line if newline or size <= _TAIL else b""


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RestoreError(
            f"{path} cannot be read: {error}",
            hint="it says what was there before; the snapshot itself is untouched",
        ) from error


def _batch(known: dict[str, Any]) -> Batch:
    return Batch(
        known["collection"],
        known["how"],
        known["ids"],
        {each["id"]: from_dict(each) for each in known["old"]},
        {
            one: Becoming(words, frozenset(keys), base64.b64decode(vector, validate=True))
            for one, (words, keys, vector) in known["new"].items()
        },
        frozenset(known["again"]),
    )


def _take(found: UndoFile, line: dict[str, Any]) -> None:
    if "begin" in line:
        found.begin = line["begin"]
    elif "create" in line:
        found.created.append(line["create"])
    elif "done" in line:
        found.done, found.undone = True, False
    elif "undone" in line:
        found.undone = True
