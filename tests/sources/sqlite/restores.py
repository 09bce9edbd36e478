"""A live database, a snapshot of it from before some changes, and the steps to bring it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from safetake.config import SqliteConfig
from safetake.sources.sqlite import SqliteSource
from safetake.sources.sqlite.restore import SqliteRestorer
from tests.sources.sqlite.support import capture, database
from tests.support.memory_writer import MemoryRepository
from tests.support.restoring import Steps

OLD_ROWS = 300


def steps_for(path: Path, repository: MemoryRepository, captured: Any, **config: Any) -> Steps:
    """A restorer of the database at `path` and its ordinary source."""
    section = SqliteConfig(type="sqlite", path=path, may_be_empty=True, **config)
    return Steps(
        SqliteRestorer("projects", section),
        SqliteSource("projects", section),
        captured,
        repository,
    )


def prepared(
    folder: Path, repository: MemoryRepository, mode: str = "wal", **pragmas: Any
) -> Steps:
    """A database of OLD_ROWS projects in a snapshot, which then loses ten, changes ten and gains
    twenty; nobody has it open."""
    path = database(folder / "projects.db", mode, OLD_ROWS, **pragmas)
    captured = capture(path, repository)
    with opened(path) as connection, connection:
        connection.execute("DELETE FROM projects WHERE id <= 10").fetchall()
        connection.execute("UPDATE projects SET title = 'x' WHERE id BETWEEN 11 AND 20").fetchall()
        for number in range(20):
            connection.execute("INSERT INTO projects(title) VALUES (?)", (f"new {number}",))
    return steps_for(path, repository, captured)


@contextmanager
def opened(path: Path) -> Iterator[apsw.Connection]:
    """A connection as an application has it."""
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5000)
    try:
        yield connection
    finally:
        connection.close()


def content(path: Path) -> dict[str, list[Any]]:
    """Every row of every table."""
    with opened(path) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {
            str(name): connection.execute(f'SELECT rowid, * FROM "{name}" ORDER BY 1').fetchall()
            for (name,) in names
        }


def is_restored(found: dict[str, list[Any]]) -> bool:
    """Whether it is the content of the snapshot of `prepared`."""
    titles = [row[2] for row in found["projects"]]
    return (
        set(found) == {"projects", "episodes"}
        and len(titles) == OLD_ROWS
        and not any(title == "x" or title.startswith("new") for title in titles)
    )


def is_old(found: dict[str, list[Any]]) -> bool:
    """Whether it is what was there before the restore."""
    titles = [row[2] for row in found["projects"]]
    return (
        set(found) == {"projects", "episodes"}
        and len(titles) == OLD_ROWS + 10
        and titles.count("x") == 10
    )
