"""What a load driver asked for and what was acknowledged: one JSON document a line, append-only.

Each request is in the file before it is sent, each acknowledgement after it was received, both
flushed, with gapless sequence numbers and times that never run backwards. So a crash of the driver
can lose the last acknowledgement (which weakens a comparison), never a request.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from .errors import BadRequestError

Kind = Literal["project", "episode", "script"]
KINDS: tuple[Kind, ...] = ("project", "episode", "script")


@dataclass(slots=True)
class Record:
    """One item: a project's row, an episode's row, or a script (vector, file, queue entry)."""

    seq: int
    kind: Kind
    id: str
    data: dict[str, Any]
    """What was asked for; after the acknowledgement also what the service answered."""
    requested_ns: int
    """`time.time_ns()` just before it was sent."""
    acknowledged_ns: int | None = None
    """`time.time_ns()` just after the answer was received; None: not known whether it was done."""


class Journal:
    """Appends to `path`; an existing journal is continued. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._seq, self._last_ns = 0, 0
        complete = 0
        if path.exists():
            for entry, time_ns, end in _lines(path):
                self._seq, self._last_ns, complete = entry["seq"], time_ns, end
        self._file = path.open("ab")
        self._file.truncate(complete)  # a torn last line is what a crash leaves
        self._lock = Lock()

    def request(self, kind: Kind, item_id: str, data: dict[str, Any]) -> int:
        """Note what is about to be asked for; its sequence number."""
        return self._append({"kind": kind, "id": item_id, "data": data})

    def acknowledge(self, request: int, data: dict[str, Any]) -> None:
        """Note that `request` was acknowledged, and what was answered."""
        self._append({"of": request, "data": data})

    def close(self) -> None:
        """Make everything durable and close the file."""
        with self._lock:
            os.fsync(self._file.fileno())
            self._file.close()

    def _append(self, entry: dict[str, Any]) -> int:
        with self._lock:
            self._seq += 1
            self._last_ns = max(self._last_ns, time.time_ns())
            line = {"seq": self._seq, "time_ns": self._last_ns, **entry}
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            return self._seq


def read_journal(path: Path) -> list[Record]:
    """Every item of a journal, in the order of the requests; a torn last line is left out.

    Raises BadRequestError when the journal is damaged anywhere else.
    """
    records: dict[int, Record] = {}
    for entry, time_ns, _ in _lines(path):
        if "of" in entry:
            record = records[entry["of"]]
            record.acknowledged_ns = time_ns
            record.data |= entry["data"]
        else:
            records[entry["seq"]] = Record(
                entry["seq"], entry["kind"], entry["id"], entry["data"], time_ns
            )
    return list(records.values())


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """(entry, its time, offset behind it) of each complete line."""
    seq, last_ns, end = 0, 0, 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                entry = json.loads(line)
                following, time_ns = int(entry["seq"]), int(entry["time_ns"])
            except (ValueError, KeyError, TypeError) as error:
                raise BadRequestError(f"{path}: line {seq + 1} is damaged: {error}") from error
            if following != seq + 1 or time_ns < last_ns:
                raise BadRequestError(f"{path}: line {seq + 1} is out of sequence")
            seq, last_ns = following, time_ns
            yield entry, time_ns, end
