"""A list in a file, one JSON value a line, read from either end without being held.

The first line says what the list is and in which version, the last one how many values there are.
Both are looked at before any value is given: what another version wrote, or what was cut short, is
an error and never read as something else.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from safetake.errors import RestoreError

VERSION = 2
"""1 was one JSON document for all."""
_BLOCK = 1 << 16
_END_BYTES = 64


def write(path: Path, kind: str, values: Iterable[Any]) -> None:
    """Write the list, synced and then renamed into place; the folder is for the caller to sync.

    Raises OSError, and whatever `values` raises.
    """
    beside = path.with_name(path.name + ".new")
    count = 0
    with beside.open("w", encoding="ascii") as file:
        file.write(_head(kind))
        for value in values:
            file.write(json.dumps(value, separators=(",", ":")) + "\n")
            count += 1
        file.write(_end(count))
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)


def read(path: Path, kind: str) -> Iterator[Any]:
    """The values, first to last. Raises FileNotFoundError, OSError, RestoreError."""
    with path.open("rb") as file:
        left = _checked(file, path, kind)
        for line in file:
            if not left:
                return
            left -= 1
            yield _value(line, path)


def read_backwards(path: Path, kind: str) -> Iterator[tuple[int, Any]]:
    """The values with their numbers, last to first. Raises as `read`."""
    with path.open("rb") as file:
        number = _checked(file, path, kind)
        begin = file.tell()
        at = file.seek(0, os.SEEK_END) - len(_end(number)) - 1  # without the last line's newline
        begun = b""
        """What was read of a line whose beginning was not."""
        while at > begin:
            step = min(_BLOCK, at - begin)
            at -= step
            file.seek(at)
            begun, *lines = (file.read(step) + begun).split(b"\n")
            for line in reversed(lines):
                number -= 1
                yield number, _value(line, path)
        if begun:
            yield number - 1, _value(begun, path)


def _head(kind: str) -> str:
    return json.dumps({"safetake": kind, "version": VERSION}) + "\n"


def _end(count: int) -> str:
    return json.dumps({"end": count}) + "\n"


def _checked(file: IO[bytes], path: Path, kind: str) -> int:
    """How many values there are; the file then stands at the first."""
    head = _head(kind).encode()
    if file.read(len(head)) != head:
        raise RestoreError(
            f"{path} is not a list of {kind} as this version of safetake writes it",
            hint="end the restore with the version that began it: `safetake restore --resume` or "
            "`--rollback` there",
        )
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES))
    last = file.read().rpartition(b"\n{")[2]
    count = None
    if last.endswith(b"}\n"):
        with contextlib.suppress(ValueError):
            count = json.loads(b"{" + last).get("end")
    if not isinstance(count, int):
        raise RestoreError(
            f"{path} is cut short",
            hint="it was durable before it was used: look at the disk; what the restore replaced "
            "lies beside it, in `old`",
        )
    file.seek(len(head))
    return count


def _value(line: bytes, path: Path) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise RestoreError(
            f"{path} is damaged: {error}",
            hint="look at the disk; what the restore replaced lies beside it, in `old`",
        ) from error
