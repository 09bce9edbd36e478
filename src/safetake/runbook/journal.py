"""The journal of a runbook: what is about to be done, what was found and decided, durable at once.

`<state>/runbooks/ID/plan.json` says how it was begun, `journal` has a line for everything since, in
the form of recovery's journal (a CRC-32, a space, JSON; a torn last line is no line). Beside them
lie the output of each command, and at the end the report. One runbook is open at a time in a state
folder; `<state>/runbooks/lock` is held while a process walks through it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.clock import now_ns
from safetake.errors import RefusedError, SafetakeError, UsageError
from safetake.recovery.journal import parse
from safetake.state import state_folder, write_json
from safetake.swap import sync_folder

if TYPE_CHECKING:
    from safetake.config import Config

_PLAN, _JOURNAL, _LOCK = "plan.json", "journal", "lock"
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(slots=True)
class Journal:
    """One runbook's record. Made by `create` or `the_open`."""

    folder: Path
    plan: dict[str, Any]
    begun: dict[int, int] = field(default_factory=dict)
    """By step: when it was first begun, nanoseconds."""
    done: dict[int, dict[str, Any]] = field(default_factory=dict)
    """By step: what was found, and when it ended (`time_ns`)."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What later steps need of earlier ones."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Every decision, in order."""
    interruptions: int = 0
    ended: str = ""

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return self.folder.name

    def begin(self, step: int) -> None:
        """The intent of a step. Raises SafetakeError when that is not durable, as all below."""
        self._add({"begin": step})

    def finish(self, step: int, found: dict[str, Any]) -> None:
        """A step is done."""
        self._add({"done": step, "found": found})

    def forget(self, step: int) -> None:
        """A step has to be done again."""
        self._add({"forget": step})

    def fact(self, name: str, value: Any) -> None:
        """Something that later steps need."""
        self._add({"fact": name, "value": value})

    def answer(self, step: int, key: str, value: str, question: str, shown: str, by: str) -> None:
        """A decision, and in which words; `by` is a user, or `default`."""
        words = {"question": question, "shown": shown}
        self._add({"answer": key, "step": step, "value": value, **words, "by": by})

    def resumed(self) -> None:
        """Somebody goes on with it."""
        self._add({"resumed": True})

    def end(self, how: str) -> None:
        """Nothing is left to do."""
        self._add({"end": how})

    def _add(self, record: dict[str, Any]) -> None:
        record = {**record, "time_ns": now_ns()}
        text = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode()
        path = self.folder / _JOURNAL
        try:
            with open(path, "ab", buffering=0, opener=_private) as file:
                length = os.fstat(file.fileno()).st_size
                try:
                    line = b"%08x %s\n" % (zlib.crc32(text), text)
                    if file.write(line) != len(line):
                        raise OSError(28, os.strerror(28))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(length)
                    raise
            if not length:
                sync_folder(self.folder)
        except OSError as error:
            raise SafetakeError(
                f"the journal {path} cannot be written: {error.strerror}",
                hint="free space there, then `safetake runbook --resume`",
            ) from error
        self._take(record)

    def _take(self, record: dict[str, Any]) -> None:
        if "begin" in record:
            self.begun.setdefault(int(record["begin"]), int(record["time_ns"]))
        elif "done" in record:
            self.done[int(record["done"])] = {**record["found"], "time_ns": record["time_ns"]}
        elif "forget" in record:
            self.done.pop(int(record["forget"]), None)
        elif "fact" in record:
            self.facts[record["fact"]] = record["value"]
        elif "answer" in record:
            self.answers.append(record)
        elif "resumed" in record:
            self.interruptions += 1
        elif "end" in record:
            self.ended = record["end"]

    def previous(self, key: str) -> str | None:
        """What was answered to a question last."""
        found = [one["value"] for one in self.answers if one["answer"] == key]
        return found[-1] if found else None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def runbooks_folder(config: Config) -> Path:
    """Where the journals are. Raises SafetakeError."""
    return state_folder(config.restore.state, "runbooks")


@contextlib.contextmanager
def alone(config: Config) -> Iterator[Path]:
    """The folder of all runbooks, while nobody else walks. Raises RefusedError, SafetakeError."""
    folder = runbooks_folder(config)
    try:
        lock = _private(str(folder / _LOCK), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise SafetakeError(
            f"{folder / _LOCK} cannot be opened: {error.strerror}",
            hint="run it as the user whose folder that is, or set `state` in [restore]",
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                "another process walks through a runbook here",
                hint="go on in its terminal, or end that process; the journal keeps what was done",
            ) from None
        yield folder
    finally:
        os.close(lock)


def create(folder: Path, plan: dict[str, Any]) -> Journal:
    """Begin a runbook, durably. Raises RefusedError when one is open, SafetakeError."""
    there = _open(folder)
    if there is not None:
        raise RefusedError(
            f"the runbook {there.id} was begun and not ended: {len(there.done)} of 10 steps done",
            hint="`safetake runbook --resume` goes on with it, `--abandon` ends it",
        )
    own = folder / secrets.token_hex(8)
    try:
        own.mkdir(mode=0o700)
        write_json(own / _PLAN, plan)
        sync_folder(folder)
    except OSError as error:
        raise SafetakeError(
            f"the journal {own} cannot be written: {error.strerror}",
            hint="nothing was done yet; free space there, or set `state` in [restore]",
        ) from error
    return Journal(own, plan)


def the_open(folder: Path) -> Journal:
    """The runbook that was begun and not ended. Raises UsageError, SafetakeError."""
    found = _open(folder)
    if found is not None:
        return found
    for one in unreadable(folder):
        if not one.ended:
            raise SafetakeError(
                f"the journal {one.folder} cannot be read: {one.why}; it may be an unfinished "
                "recovery",
                hint="`safetake runbook` begins a new one; `safetake restore --list` shows what was"
                " restored, and whether a restore is open",
            )
    raise UsageError(f"no runbook is open in {folder}", hint="`safetake runbook` begins one")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A runbook of which nobody can say what was done."""

    folder: Path
    why: str
    ended: bool
    """Its last line says that it ended; else it may be an unfinished one."""


def unreadable(folder: Path) -> list[Unreadable]:
    """Those whose journals are damaged. Nothing of them is changed."""
    return [one for one in map(_load, _entries(folder)) if isinstance(one, Unreadable)]


def _entries(folder: Path) -> list[Path]:
    found = [e for e in folder.iterdir() if _ID.fullmatch(e.name) and (e / _PLAN).is_file()]
    return sorted(found)


def _open(folder: Path) -> Journal | None:
    found = [
        one for one in map(_load, _entries(folder)) if isinstance(one, Journal) and not one.ended
    ]
    return max(found, key=lambda one: int(one.plan["time_ns"]), default=None)


def _load(folder: Path) -> Journal | Unreadable:
    try:
        journal = Journal(folder, json.loads((folder / _PLAN).read_text(encoding="utf-8")))
        path = folder / _JOURNAL
        data = path.read_bytes() if path.exists() else b""
        records, length = parse(data)
        if length < len(data):
            with path.open("r+b") as file:
                file.truncate(length)
                os.fsync(file.fileno())
        for record in records:
            journal._take(record)
        int(journal.plan["time_ns"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Unreadable(folder, f"{type(error).__name__}: {error}", _says_end(folder / _JOURNAL))
    return journal


def _says_end(path: Path) -> bool:
    """Whether the last line is whole and the end: lines are only ever added."""
    try:
        records, _ = parse(path.read_bytes().rstrip(b"\n").rpartition(b"\n")[2] + b"\n")
    except (OSError, ValueError):
        return False
    return bool(records) and "end" in records[-1]
