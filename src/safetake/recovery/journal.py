"""The journal of a restore in place: what was decided and done, durable before it is acted upon.

`<state>/restores/ID/plan.json` says everything that a resume or a rollback needs, so that neither
the repository nor its password is needed then. `<state>/restores/ID/journal` has one line for each
step begun and done: a CRC-32 in hexadecimal, a space, JSON. A last line that a power cut tore is no
line. One restore is open at a time; `<state>/restores/lock` is held while a process works on it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetake.clock import go_time, now_ns, parse_go_time
from safetake.errors import RefusedError, RestoreError
from safetake.state import write_json
from safetake.swap import sync_folder

COMMIT, BACK = "commit", "back"
ENDED = "ended"
_PLAN, _JOURNAL, _LOCK = "plan.json", "journal", "lock"
_ID = re.compile(r"[0-9a-f]{16}")
_DIGITS = 20
"""Of the order in the name of an undo file."""
_APART = 10_000
"""At the least: lists show 16 of the digits."""


@dataclass(slots=True)
class Journal:
    """One restore's record. Made by `create` or `load`."""

    folder: Path
    plan: dict[str, Any]
    begun: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By step: what was recorded when it began."""
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By source: what its restorer noted."""
    decision: str = ""
    """`commit` or `back` once that can not be changed any more."""
    ended: str = ""
    """`committed` or `rolled back` once nothing is left to do."""
    saved: dict[str, str] = field(default_factory=dict)
    """By source: the snapshot of what was there before anything was replaced, one for all; without
    those of which nothing was there. A restore that went on after a crash saves anew what it had
    not replaced yet: `saved_since`."""
    reason: str = ""
    """Why it was rolled back."""
    torn_at: int | None = None
    """Where a torn last line begins: it is cut off before something is added, never by a reader,
    since another process may be writing it."""

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return self.folder.name

    @property
    def order(self) -> int:
        """Higher than that of every restore begun before it, whatever the clock said."""
        try:
            return int(self.plan.get("order") or parse_go_time(str(self.plan.get("time", ""))))
        except (TypeError, ValueError):
            return 0

    @property
    def saved_since(self) -> dict[str, str]:
        """By source: the snapshot of what a crash had left to be replaced, when the restore went
        on: what was written to it in between is nowhere else."""
        return {
            name: str(self.done[f"safety:{name}"]["snapshot"])
            for name, first in self.saved.items()
            if self.done[f"safety:{name}"]["snapshot"] != first
        }

    def amend(self, plan: dict[str, Any]) -> None:
        """Another plan, whole or not at all: before a step of what is new in it was begun. Raises
        RestoreError when that is not durable.
        """
        plan = {**plan, "order": self.order}
        try:
            write_json(self.folder / _PLAN, plan)
        except OSError as error:
            raise RestoreError(
                f"the journal {self.folder} cannot be written: {error.strerror}",
                hint="free space there",
            ) from error
        self.plan = plan

    def timeline(self) -> list[tuple[str, int, float, bool]]:
        """Each step that was begun: when (nanoseconds since the epoch), how many seconds it took,
        and whether it was done. Raises OSError, ValueError.
        """
        found: dict[str, tuple[str, int, float, bool]] = {}
        running = ""
        for record in parse((self.folder / _JOURNAL).read_bytes())[0]:
            at = parse_go_time(record["time"])
            name = str(record.get("done", ""))
            if running and name in ("", running):
                began = found[running][1]
                spent = float(record.get("seconds", (at - began) / 1e9))
                found[running] = (running, began, max(0.0, spent), bool(name))
                running = running if "note" in record else ""
            if "begin" in record:
                running = str(record["begin"])
                found.pop(running, None)
                found[running] = (running, at, 0.0, False)
        return list(found.values())

    def step(self, name: str) -> bool:
        """Whether a step is done."""
        return name in self.done

    def begin(self, step: str, **facts: Any) -> None:
        """Record that a step is about to be done. Raises RestoreError when that is not durable."""
        self._add({"begin": step, **facts})

    def finish(self, step: str, **facts: Any) -> None:
        """Record that a step is done. Raises RestoreError."""
        self._add({"done": step, **facts})

    def forget(self, step: str) -> None:
        """A step that has to be done again. Raises RestoreError."""
        self._add({"forget": step})

    def note(self, source: str, key: str, value: Any) -> None:
        """A durable fact of a source's restorer. Raises RestoreError."""
        self._add({"note": source, "key": key, "value": value})

    def decide(self, decision: str, reason: str = "") -> None:
        """From here on there is one way only. Raises RestoreError."""
        self._add({"decide": decision, "reason": reason})

    def end(self, how: str) -> None:
        """Nothing is left to do. Raises RestoreError."""
        self._add({"end": how})

    def _add(self, record: dict[str, Any]) -> None:
        line = _line({**record, "time": go_time(now_ns())})
        path = self.folder / _JOURNAL
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self.torn_at is not None:
                    os.ftruncate(fd, self.torn_at)
                    self.torn_at = None
                _append(fd, line)
            finally:
                os.close(fd)
        except OSError as error:
            raise RestoreError(
                f"the journal {path} cannot be written: {error.strerror}",
                hint="free space there, then `safetake restore --resume` or `--rollback`",
            ) from error
        self._take(record)

    def _take(self, record: dict[str, Any]) -> None:
        facts = {k: v for k, v in record.items() if k not in ("begin", "done", "time")}
        if "begin" in record:
            self.begun[record["begin"]] = facts
        elif "done" in record:
            self.done[record["done"]] = facts
            if record["done"].startswith("safety:") and facts.get("snapshot"):
                self._take_saved(str(facts["snapshot"]))
        elif "forget" in record:
            self.begun.pop(record["forget"], None)
            self.done.pop(record["forget"], None)
        elif "note" in record:
            self.notes.setdefault(record["note"], {})[record["key"]] = record["value"]
        elif "decide" in record:
            self.decision, self.reason = record["decide"], record["reason"]
        elif "end" in record:
            self.ended = record["end"]

    def _take_saved(self, snapshot: str) -> None:
        """What was replaced is not saved again: the last one that holds as much as any was taken
        before the first was replaced."""
        held = {
            step.partition(":")[2]: snapshot
            for step, facts in self.done.items()
            if step.startswith("safety:") and facts.get("snapshot") == snapshot
        }
        if len(held) >= len(self.saved):
            self.saved = held


def _append(fd: int, line: bytes) -> None:
    """All of the line durably, or nothing of it. Raises OSError."""
    length = os.fstat(fd).st_size
    try:
        if os.write(fd, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, length)
        raise


def _line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def parse(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The records of a journal and the length that they fill; what follows was torn.

    Only the last line can have been torn by a power cut, since each is durable before its step.
    Raises ValueError when a line before it is broken.
    """
    records = []
    at = 0
    while (end := data.find(b"\n", at)) >= 0:
        record = _record(data[at:end])
        if record is None:
            if any(_record(line) is not None for line in data[end + 1 :].split(b"\n")):
                raise ValueError(f"the line at byte {at} is broken")
            break
        records.append(record)
        at = end + 1
    return records, at


def _record(line: bytes) -> dict[str, Any] | None:
    crc, _, text = line.partition(b" ")
    try:
        if len(crc) != 8 or int(crc, 16) != zlib.crc32(text):
            return None
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def create(restores: Path, name: str, plan: dict[str, Any]) -> Journal:
    """Begin a restore: durable when it returns. What a killed one left before its plan was durable
    is removed. Raises RestoreError.
    """
    for begun in restores.iterdir():
        if _ID.fullmatch(begun.name) and not (begun / _PLAN).exists():
            shutil.rmtree(begun, ignore_errors=True)
    folder = restores / name
    plan = {**plan, "order": next_order(restores)}
    try:
        folder.mkdir(mode=0o700)
        write_json(folder / _PLAN, plan)
        sync_folder(restores)
    except OSError as error:
        raise RestoreError(
            f"the journal {folder} cannot be written: {error.strerror}",
            hint="nothing was changed; free space there, or set `state` in [restore]",
        ) from error
    journal = Journal(folder, plan)
    journal.begin("restore")
    try:
        sync_folder(folder)  # the name of the journal itself
    except OSError as error:
        raise RestoreError(
            f"the journal {folder} cannot be written: {error.strerror}",
            hint="nothing was changed; mend that, then `safetake restore --rollback`",
        ) from error
    return journal


def load(folder: Path) -> Journal:
    """A restore's journal, without a torn end. Raises RestoreError."""
    try:
        plan = json.loads((folder / _PLAN).read_text(encoding="utf-8"))
        if not isinstance(plan, dict):
            raise ValueError(f"{_PLAN} is no plan")
        path = folder / _JOURNAL
        data = path.read_bytes() if path.exists() else b""
        records, length = parse(data)
        journal = Journal(folder, plan, torn_at=length if length < len(data) else None)
        for record in records:
            journal._take(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RestoreError(
            f"the journal {folder} cannot be read: {error}",
            hint="when `.safetake-restore-…` lies beside a live store, this restore may not have "
            "ended: what was replaced is in it, and the safety snapshot in the repository; when "
            "none does, move that folder away",
        ) from error
    return journal


def journals(restores: Path) -> list[Journal]:
    """All restores on record, in the order in which they were begun. Raises RestoreError."""
    if not restores.is_dir():
        return []
    folders = [entry for entry in restores.iterdir() if (entry / _PLAN).is_file()]
    found = [load(folder) for folder in folders]
    return sorted(found, key=lambda journal: journal.order)


def next_order(restores: Path) -> int:
    """For a restore that begins now, with the lock held: the time in nanoseconds, or more when the
    clock was set back since the last one. Restores of records and keys have it in the names of
    their undo files. Raises RestoreError.
    """
    seen = [journal.order for journal in journals(restores)]
    for kind in ("records", "keys"):
        folder = restores.parent / kind
        seen += [file_order(path) for path in folder.iterdir()] if folder.is_dir() else []
    return max([now_ns(), *(order + _APART for order in seen)])


def file_order(path: Path) -> int:
    """What the name of an undo file begins with; 0: nothing like that."""
    number = path.name.partition("-")[0]
    return int(number) if len(number) == _DIGITS and number.isdecimal() else 0


def undo_file_name(restores: Path, source: str, suffix: str) -> str:
    """For a restore of records or keys that begins now, with the lock held. Raises RestoreError."""
    return f"{next_order(restores):0{_DIGITS}}-{source}{suffix}"


def open_restore(restores: Path) -> Journal | None:
    """The restore that was begun and not ended. Raises RestoreError."""
    return next((journal for journal in journals(restores) if not journal.ended), None)


@contextlib.contextmanager
def working(restores: Path) -> Iterator[None]:
    """Hold the lock of the state folder. Raises RefusedError when another process works."""
    fd = os.open(restores / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.read(fd, 100).decode(errors="replace").strip()
            raise RefusedError(
                f"another restore is at work{f' (process {said})' if said else ''}",
                hint="wait for it to end, or end that process; the journal says how far it came",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)
