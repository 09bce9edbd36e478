"""The state folder: what must outlive the process and is not in the repository.

Journals of restores and what an undo needs lie in it, readable by their owner only.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetake.errors import SafetakeError
from safetake.swap import sync_folder


def state_folder(configured: Path | None, *inner: str, create: bool = True) -> Path:
    """`configured`, else `$XDG_STATE_HOME/safetake` (in `~/.local/state`), with `inner` below.

    Made (0700) when it is not there, unless `create` is False. Raises SafetakeError.
    """
    if configured is None:
        home = os.environ.get("XDG_STATE_HOME", "")
        try:
            base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"  # noqa: PTH117
        except RuntimeError:
            raise SafetakeError(
                "there is no home folder to keep the journal of a restore in",
                hint="set `state` in the [restore] section of the configuration",
            ) from None
        configured = base / "safetake"
    folder = configured.joinpath(*inner)
    if create:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SafetakeError(
                f"cannot make the folder {folder}: {error.strerror}",
                hint="set `state` in the [restore] section to a folder that may be written",
            ) from error
    return folder


def write_durably(path: Path, data: bytes) -> None:
    """Write a private file (0600) that is whole or not there at all. Raises OSError."""
    fd, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).rename(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, document: Any) -> None:
    """`write_durably` of a JSON document, in ASCII: names of files need not be UTF-8. OSError."""
    write_durably(path, json.dumps(document).encode())
