"""chroma.sqlite3 as the SQLite source takes it, with Chroma's questions asked at the right moments.

Composition by three seams of `SqliteSession`: what runs inside the hold before the database is
fixed, which facts are read from the cut, and the file node that comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from safetake.model import CaptureContext, Parent
from safetake.sources.chroma import catalogue
from safetake.sources.sqlite import facts, live
from safetake.sources.sqlite.header import read_header
from safetake.sources.sqlite.session import Settings, SqliteSession

NAME = "chroma.sqlite3"
BUSY_SECONDS = 5.0


class ChromaDatabase(SqliteSession):
    """The SQLite part of a Chroma folder; `held` is asked inside the hold and may refuse it."""

    part = True

    def __init__(
        self, name: str, path: Path, context: CaptureContext, held: Callable[[], None]
    ) -> None:
        super().__init__(name, Settings(path, BUSY_SECONDS), _part_of(context))
        self._held = held
        self._database_path = path
        self._questions: apsw.Connection | None = None

    def segments(self) -> list[catalogue.Segment]:
        """The live segments now, asked over a connection of its own, also while this one holds."""
        with live.explained(self._database_path):
            return catalogue.segments(self._asking())

    def missing_tables(self) -> list[str]:
        """What keeps this database from being Chroma's."""
        with live.explained(self._database_path):
            return catalogue.missing_tables(self._asking())

    def _asking(self) -> apsw.Connection:
        if self._questions is None:
            header = read_header(self._database_path)
            self._questions = live.connect(self._database_path, header, BUSY_SECONDS)
        return self._questions

    def close(self) -> None:
        if self._questions is not None:
            self._questions.close()
            self._questions = None
        super().close()

    def in_hold(self) -> None:
        self._held()

    def describe(self, connection: apsw.Connection) -> dict[str, Any]:
        # The counts and hashes of every table would read most of the database after each hold;
        # `content` proves its bytes, and Chroma's own questions what they mean.
        return {
            "schema_sha256": facts.schema_hash(connection),
            "user_version": connection.pragma("user_version"),
            "application_id": connection.pragma("application_id"),
            "rows": {},
            "foreign_key_violations": None,
            "chroma": catalogue.describe(connection),
        }


def _part_of(context: CaptureContext) -> CaptureContext:
    """The context of the SQLite part: the parent's SQLite part as its parent."""
    parent = context.parent
    if parent is not None:
        found: dict[str, Any] = parent.entry.get("facts") or {}
        prints: dict[str, Any] = parent.entry.get("fingerprint") or {}
        if isinstance(found.get("sqlite"), dict) and isinstance(prints.get("sqlite"), dict):
            rest = {key: found[key] for key in found if key not in ("sqlite", "segments")}
            part = {"facts": found["sqlite"] | {"chroma": rest}, "fingerprint": prints["sqlite"]}
            parent = Parent(part, parent.node, parent.reader)
        else:
            parent = None
    return CaptureContext(context.writer, parent, context.scratch, context.progress, context.reader)
