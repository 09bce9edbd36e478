"""Projects and episodes in SQLite: what project-service owns.

A row that was returned is on disk (synchronous=FULL). A database that is missing, empty, foreign or
damaged is an error, never replaced by a new one: only `create` makes one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

from .errors import ConflictError, NotFoundError, StoreError

APPLICATION_ID = 0x5C121970
_SCHEMA = """
CREATE TABLE projects (
    id TEXT PRIMARY KEY NOT NULL,
    title TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE episodes (
    id TEXT PRIMARY KEY NOT NULL,
    project_id TEXT NOT NULL REFERENCES projects (id),
    number INTEGER NOT NULL,
    title TEXT NOT NULL,
    synopsis TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (project_id, number)
);
"""
_COLUMNS = {
    "projects": ("id", "title", "created_at"),
    "episodes": ("id", "project_id", "number", "title", "synopsis", "created_at"),
}


def create(path: Path, journal_mode: Literal["wal", "delete"] = "wal") -> None:
    """Make a new, empty database at `path`; complete or not there at all.

    Raises StoreError when something is there already.
    """
    if path.exists():
        raise StoreError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with closing(sqlite3.connect(building, isolation_level=None)) as db:
            db.execute(f"PRAGMA journal_mode = {journal_mode}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        building.rename(path)
    except (sqlite3.Error, OSError) as error:
        building.unlink(missing_ok=True)
        raise StoreError(f"{path} could not be created: {error}") from error


class ProjectStore:
    """The database at `path`, opened when first used. Safe to use from several threads."""

    def __init__(self, path: Path, busy_timeout: float = 30.0) -> None:
        self.path = path
        self._timeout = busy_timeout
        self._lock = RLock()
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def add_project(self, title: str, project_id: str | None = None) -> dict[str, Any]:
        """Store a project. Raises ConflictError when the id is taken."""
        row = {"id": project_id or uuid4().hex, "title": title, "created_at": _now()}
        with self._open() as db:
            db.execute("INSERT INTO projects VALUES (:id, :title, :created_at)", row)
        return row

    def add_episode(
        self,
        project_id: str,
        title: str,
        synopsis: str,
        *,
        episode_id: str | None = None,
        number: int | None = None,
    ) -> dict[str, Any]:
        """Store an episode; without a number it becomes the project's next.

        Raises ConflictError when the id or number is taken or the project does not exist.
        """
        row = {
            "id": episode_id or uuid4().hex,
            "project_id": project_id,
            "number": number,
            "title": title,
            "synopsis": synopsis,
            "created_at": _now(),
        }
        with self._open() as db:
            (row["number"],) = db.execute(
                "INSERT INTO episodes SELECT :id, :project_id, coalesce(:number, "
                "(SELECT coalesce(max(number), 0) + 1 FROM episodes WHERE project_id = :project_id)"
                "), :title, :synopsis, :created_at RETURNING number",
                row,
            ).fetchall()[0]
        return row

    def project(self, project_id: str) -> dict[str, Any]:
        """A project with its episodes. Raises NotFoundError."""
        with self._open() as db:
            found = db.execute("SELECT * FROM projects WHERE id = ?", (project_id,)).fetchone()
            if found is None:
                raise NotFoundError(f"no project {project_id}")
            episodes = db.execute(
                "SELECT * FROM episodes WHERE project_id = ? ORDER BY number", (project_id,)
            ).fetchall()
        return {**dict(found), "episodes": [dict(row) for row in episodes]}

    def projects(self) -> list[dict[str, Any]]:
        """The newest hundred projects, newest first."""
        with self._open() as db:
            found = db.execute("SELECT * FROM projects ORDER BY created_at DESC, id LIMIT 100")
            return [dict(row) for row in found.fetchall()]

    def episode(self, episode_id: str) -> dict[str, Any]:
        """An episode. Raises NotFoundError."""
        with self._open() as db:
            found = db.execute("SELECT * FROM episodes WHERE id = ?", (episode_id,)).fetchone()
        if found is None:
            raise NotFoundError(f"no episode {episode_id}")
        return dict(found)

    def check(self) -> dict[str, Any]:
        """Prove that the database is there and right; counts of its tables.

        Opens it afresh, read-write, checks that it is ours and sound (quick_check: about a second
        per gigabyte), can be written and answers. Raises StoreError saying what is wrong.
        """
        with self._lock, closing(self._connect(timeout=5.0)) as db:
            try:
                if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                    raise StoreError(f"{self.path} is not a database of this application")
                for table, columns in _COLUMNS.items():
                    found = tuple(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
                    if found != columns:
                        what = f"has columns {', '.join(found)}" if found else "is missing"
                        raise StoreError(f"{self.path}: table {table} {what}")
                # quick_check exits well whatever it finds: only a single row "ok" is good.
                verdict = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
                if verdict != ["ok"]:
                    raise StoreError(f"{self.path} is damaged: {'; '.join(map(str, verdict))}")
                db.execute("BEGIN IMMEDIATE")
                counts = {
                    table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                    for table in _COLUMNS
                }
                db.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}") from error
            self._same_file()
        return counts

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db, self._identity = None, None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._db is None:
                self._identity = _identity(self.path)
                self._db = self._connect(self._timeout)
            self._same_file()
            try:
                yield self._db
            except sqlite3.IntegrityError as error:
                raise ConflictError(str(error)) from error
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}") from error

    def _same_file(self) -> None:
        """A connection goes on with a file that was deleted or replaced: never acknowledge that."""
        if self._identity is not None and _identity(self.path) != self._identity:
            raise StoreError(f"{self.path} was replaced under the running service: restart it")

    def _connect(self, timeout: float) -> sqlite3.Connection:
        _identity(self.path)
        try:
            # mode=rw: a missing database is an error; connect() alone would make an empty one
            db = sqlite3.connect(
                f"file:{quote(str(self.path.absolute()))}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=timeout,
                check_same_thread=False,
            )
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        return db


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    if status.st_size == 0:
        raise StoreError(f"{path} is empty (0 bytes)")
    return status.st_dev, status.st_ino


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
