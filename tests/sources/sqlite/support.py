"""Databases to capture, and one call that captures them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from safetake.config import SqliteConfig
from safetake.model import CaptureContext, Captured, Parent
from safetake.sources.sqlite import SqliteSource, questions
from tests.support.memory_writer import MemoryRepository, entry_of, find, materialise, read_file


def database(path: Path, mode: str = "wal", rows: int = 500, **pragmas: int | str) -> Path:
    """A small database with two tables and an index; closed again."""
    connection = apsw.Connection(str(path))
    for name, value in pragmas.items():
        connection.pragma(name, value)
    connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    connection.execute("CREATE TABLE projects(id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
    connection.execute(
        "CREATE TABLE episodes(id INTEGER PRIMARY KEY, project_id INTEGER REFERENCES projects(id),"
        " script TEXT); CREATE INDEX by_project ON episodes(project_id)"
    )
    add_rows(connection, rows)
    connection.close()
    return path


def add_rows(connection: apsw.Connection, rows: int) -> None:
    """More projects, each with an episode."""
    with connection:
        for _ in range(rows):
            connection.execute("INSERT INTO projects(title) VALUES ('드라마 ' || random())")
            project = connection.last_insert_rowid()
            connection.execute(
                "INSERT INTO episodes(project_id, script) VALUES (?, hex(randomblob(100)))",
                (project,),
            )


def capture(
    path: Path,
    repository: MemoryRepository,
    parent: Parent | None = None,
    before_hold: Callable[[], object] = lambda: None,
    in_hold: Callable[[], object] = lambda: None,
    before_capture: Callable[[], object] = lambda: None,
    **config: Any,
) -> Captured:
    """One whole session; the callables run between its steps."""
    source = SqliteSource("projects", SqliteConfig(type="sqlite", path=path, **config))
    with tempfile.TemporaryDirectory() as scratch:
        session = source.session(
            CaptureContext(repository, parent, Path(scratch), reader=repository)
        )
        try:
            session.prepare()
            before_hold()
            session.hold(2.0)
            in_hold()
            session.release()
            before_capture()
            captured = session.capture()
        finally:
            session.close()
    assert repository.buffers_out == 0
    return captured


def as_parent(captured: Captured, repository: MemoryRepository) -> Parent:
    """A captured source as the next run's parent, its entry gone through JSON."""
    return Parent(entry_of(captured), captured.node, repository)


def stored_bytes(captured: Captured, repository: MemoryRepository) -> bytes:
    """The database file in the snapshot."""
    return read_file(repository, find(repository, captured.node, captured.facts["file"]))


def prove(captured: Captured, repository: MemoryRepository, folder: Path) -> None:
    """Write the snapshot out and fail on the first question that it does not answer well."""
    materialise(repository, captured.node, folder)
    checks = questions(folder, entry_of(captured))
    assert {check.name for check in checks} >= {"content", "integrity_check", "row counts"}
    assert [check for check in checks if not check.ok] == []
