"""What lies in a Chroma folder, and whose it is: Chroma's own entries, and everybody else's.

Read from names and from one look into chroma.sqlite3. Nothing is opened for writing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import apsw

from safetake.sources.chroma import catalogue, hnsw
from safetake.sources.chroma.database import NAME
from safetake.sources.sqlite.reader import ReadingConnection

WORK_PREFIX = ".safetake-restore-"
SIDE_FILES = tuple(NAME + end for end in ("-journal", "-wal", "-shm"))
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BUSY_MS = 5000


@dataclass(slots=True)
class Residents:
    """The entries of a folder, by name."""

    states: dict[str, os.stat_result] = field(default_factory=dict)
    """Every entry but the work folders of restores, not following symbolic links."""
    segments: set[str] = field(default_factory=set)
    """Folders that belong to a live collection."""
    orphans: list[str] = field(default_factory=list)
    """Folders that Chroma left behind when it deleted a collection, as far as they can be told."""
    foreign: list[str] = field(default_factory=list)
    """What is not Chroma's."""
    damaged: str = ""
    """Why chroma.sqlite3 can not be read."""

    @property
    def chromas(self) -> set[str]:
        """Entries that belong to the store as it is: they go when another store takes its place."""
        own = {NAME, *SIDE_FILES} | self.segments
        return {name for name in self.states if name in own}


def look(folder: Path) -> Residents:
    """Look at a folder. Raises OSError when it cannot be listed."""
    found = Residents()
    for entry in os.scandir(folder):
        if not entry.name.startswith(WORK_PREFIX):
            found.states[entry.name] = entry.stat(follow_symlinks=False)
    shaped = {name for name in found.states if _looks_like_segment(folder / name)}
    segments: set[str] | None = None
    if NAME in found.states:
        segments, found.damaged = _segments(folder / NAME)
    elif shaped:
        found.damaged = f"{folder} has no {NAME}"
    found.segments = shaped if segments is None else segments
    for name in sorted(found.states):
        if name in found.chromas:
            continue
        if name in shaped:
            found.orphans.append(name)
        else:
            found.foreign.append(name)
    return found


def connect(path: Path) -> apsw.Connection:
    """A connection that reads a live database; in transactions of one statement each.

    Raises OSError and apsw.Error, the latter also where an application crashed and its journal
    waits for the next writer.
    """
    name, flags = os.fspath(path), 0
    with path.open("rb") as file:  # nobody of this process has a lock on it
        wal = file.read(20)[18:20] == b"\2\2"
    if wal and not Path(name + "-wal").exists():
        # nobody is connected, and a reader would leave an empty log behind
        name, flags = "file:" + quote(name) + "?immutable=1", apsw.SQLITE_OPEN_URI
    connection = ReadingConnection(name, flags)
    connection.set_busy_timeout(_BUSY_MS)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    return connection


def _segments(path: Path) -> tuple[set[str] | None, str]:
    """The live segments, or None when they cannot be told; what is wrong with the database."""
    try:
        connection = connect(path)
    except (apsw.ReadOnlyError, apsw.CantOpenError):
        return None, ""  # its journal waits for a writer
    except (apsw.Error, OSError) as error:
        return None, f"{path} cannot be opened: {error}"
    try:
        if missing := catalogue.missing_tables(connection):
            return None, f"{path} has no table {', '.join(missing)}: no Chroma store"
        return {segment.id for segment in catalogue.segments(connection)}, ""
    except (apsw.ReadOnlyError, apsw.CantOpenError):
        return None, ""
    except (apsw.Error, UnicodeDecodeError) as error:
        return None, f"{path} cannot be read: {error}"
    finally:
        connection.close()


def _looks_like_segment(path: Path) -> bool:
    if _UUID.fullmatch(path.name) is None or path.is_symlink() or not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    return not names or not names.isdisjoint(hnsw.FILES)
