"""One setting in a file of NAME=VALUE lines, read and replaced.

Every other line stays as it is, byte for byte, and so do the file's owner and mode. The new file is
written beside, made durable and renamed: a service that starts meanwhile reads the old or the new.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from safetake.errors import ServiceError

_LINE = re.compile(rb"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+=,?&~-]*")
MAX_BYTES = 1 << 20


def read_setting(path: Path, setting: str) -> str:
    """Its value; of several lines the last counts, as it does for the readers of such files.

    Raises ServiceError when the file or the setting is not there, or its value needs a shell.
    """
    found = [value for name, value in _lines(path) if name == setting]
    if not found:
        raise ServiceError(
            f"{path} has no line {setting}=…", hint="write the value of now into it, then again"
        )
    return _unquote(found[-1], path, setting)


def write_setting(path: Path, setting: str, value: str) -> None:
    """Replace its value, durably. Raises ServiceError, also for a value that can not be written."""
    read_setting(path, setting)
    if not value.isprintable():
        raise ServiceError(f"the value of {setting} holds control characters")
    text = _content(path)
    lines = text.splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if _name(line) == setting)
    match = _LINE.fullmatch(lines[last])
    assert match is not None
    end = lines[last][len(lines[last].rstrip(b"\r\n")) :]
    lines[last] = lines[last][: match.start(2)] + _quote(value, path, setting).encode() + end
    try:
        _replace(path, b"".join(lines))
    except OSError as error:
        raise ServiceError(
            f"{path} can not be written: {error.strerror}",
            hint="run as a user who may write the file and its folder",
        ) from error


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ServiceError(f"{path} can not be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ServiceError(f"{path} is too large for a file of settings")
    return content


def _lines(path: Path) -> list[tuple[str, bytes]]:
    found = []
    for line in _content(path).splitlines():
        match = _LINE.fullmatch(line)
        if match is not None:
            found.append((match[1].decode("ascii"), match[2].strip()))
    return found


def _name(line: bytes) -> str:
    match = _LINE.fullmatch(line)
    return match[1].decode("ascii") if match is not None else ""


def _unquote(raw: bytes, path: Path, setting: str) -> str:
    text = raw.decode("utf-8", "surrogateescape")
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        inner = text[1:-1]
        if text[0] not in inner and "\\" not in inner and "$" not in inner:
            return inner
    elif not re.search(r"[\s'\"\\$`#]", text):
        return text
    raise ServiceError(
        f"{path}: the value of {setting} is not plain text",
        hint="write it without quotes inside, `$`, `\\` or comments",
    )


def _quote(value: str, path: Path, setting: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if not set(value) & set("'\"\\$`"):
        return f'"{value}"'
    raise ServiceError(f"{path}: the value for {setting} can not be written as plain text")


def _replace(path: Path, content: bytes) -> None:
    target = path.resolve()
    was = target.stat()
    descriptor, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), was.st_uid, was.st_gid)
            os.fchmod(file.fileno(), was.st_mode & 0o7777)
            os.fsync(file.fileno())
        Path(beside).replace(target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
