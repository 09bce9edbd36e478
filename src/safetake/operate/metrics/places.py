"""What can be seen of a repository without its password: is it there, how large, how much room.

Snapshots are read, too, where it is open. Nothing raises: what cannot be reached is the answer.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.errors import SafetakeError

if TYPE_CHECKING:
    from safetake.config import RepositoryConfig
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo


@dataclass(slots=True)
class Place:
    """One repository, as far as it can be seen."""

    reachable: bool = False
    bytes: int | None = None
    """Of all its files."""
    snapshots: int | None = None
    free_bytes: int | None = None
    size_bytes: int | None = None
    """Of its file system."""


def look(repository: RepositoryConfig) -> Place:
    """Count its files, and ask its file system."""
    from safetake.connect import open_storage
    from safetake.storage.base import KINDS

    place = Place()
    try:
        storage = open_storage(repository)
        if not storage.exists():
            return place
        sizes = {kind: [size for _, size in storage.list(kind)] for kind in KINDS}
        place.bytes = sum(map(sum, sizes.values()))
        place.snapshots = len(sizes["snapshots"])
        usage = shutil.disk_usage(Path(repository.location))
        place.free_bytes, place.size_bytes = usage.free, usage.total
        place.reachable = True
    except (OSError, SafetakeError):
        return Place()
    return place


def read_snapshots(repository: Repository | None) -> list[SnapshotInfo] | None:
    """All snapshots with their rungs, the newest last; None when they cannot be read."""
    from safetake.snapshots import list_snapshots

    if repository is None:
        return None
    try:
        return list_snapshots(repository)
    except (OSError, SafetakeError):
        return None


def interrupted_restore(state: Path | None) -> bool | None:
    """Whether a restore in place is open and nobody works on it; None when that cannot be seen.

    Reads only: the journal of a restore that is at work is not to be touched.
    """
    import json

    from safetake.recovery.journal import parse
    from safetake.state import state_folder

    try:
        restores = state_folder(state, "restores", create=False)
        if not restores.is_dir():
            return False
        for folder in restores.iterdir():
            if not (folder / "plan.json").is_file():
                continue
            journal = folder / "journal"
            records, _ = parse(journal.read_bytes() if journal.exists() else b"")
            if not any("end" in record for record in records):
                return not _at_work(restores)
    except (OSError, ValueError, SafetakeError, json.JSONDecodeError):
        return None
    return False


def _at_work(restores: Path) -> bool:
    """Whether who last took the lock is alive: asking the lock itself would hold it."""
    import os

    try:
        pid = int((restores / "lock").read_text(encoding="ascii"))
        os.kill(pid, 0)
    except (OSError, ValueError) as error:
        return isinstance(error, PermissionError)
    return True
