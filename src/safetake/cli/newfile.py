"""A new file for people: never over another, and whole or not there."""

from __future__ import annotations

import os
from pathlib import Path


def write_new(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write it, durably. Raises UsageError."""
    from safetake.errors import UsageError

    hint = "name a file in a folder that is there and may be written"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise UsageError(
            f"{path} exists already and is never overwritten", hint="name another file"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint=hint) from error
    try:
        with open(fd, "wb") as file:  # noqa: PTH123
            file.write(content)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint=hint) from error
