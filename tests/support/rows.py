"""A database, its snapshot in memory, and `safetake rows` on both without a command line."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from safetake.config import SqliteConfig
from safetake.model import CaptureContext, Node
from safetake.sources.sqlite import SqliteSource
from safetake.sources.sqlite.rows.apply import Result
from safetake.sources.sqlite.rows.job import Place, Report, Wish, look_and_apply, read_undo, undo
from safetake.sources.sqlite.rows.listing import Most
from safetake.sources.sqlite.rows.select import Selection
from tests.support.memory_writer import MemoryRepository

Row = tuple[Any, ...]


@dataclass
class Ground:
    """`live.db`, and what was captured of it."""

    folder: Path
    repository: MemoryRepository = field(default_factory=MemoryRepository)
    node: Node | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder / "live.db"

    @property
    def state(self) -> Path:
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        return state

    def sql(self, *statements: str, foreign_keys: bool = False) -> list[Row]:
        """Run as the application does; the rows of the last statement."""
        connection = apsw.Connection(str(self.path))
        try:
            connection.set_busy_timeout(20_000)
            connection.pragma("foreign_keys", foreign_keys)
            connection.pragma("synchronous", "off")
            found: list[Row] = []
            connection.execute("BEGIN").fetchall()
            for statement in statements:
                found = connection.execute(statement).fetchall()
            connection.execute("COMMIT").fetchall()
            return found
        finally:
            connection.close()

    def many(self, statement: str, rows: list[Row]) -> None:
        connection = apsw.Connection(str(self.path))
        connection.pragma("synchronous", "off")
        with connection:
            connection.executemany(statement, rows)
        connection.close()

    def capture(self) -> None:
        """Take the snapshot."""
        source = SqliteSource("live", SqliteConfig(type="sqlite", path=self.path))
        with tempfile.TemporaryDirectory() as scratch:
            session = source.session(
                CaptureContext(self.repository, None, Path(scratch), reader=self.repository)
            )
            try:
                session.prepare()
                session.hold(2.0)
                session.release()
                captured = session.capture()
            finally:
                session.close()
        self.node, self.facts = captured.node, captured.facts

    def rows(
        self,
        *,
        confirm: Callable[[Report], bool] = lambda report: True,
        facts: bool = True,
        tables: tuple[str, ...] = (),
        where: str = "",
        since: float | None = None,
        until: float | None = None,
        time_column: str = "",
        show: tuple[str, ...] = (),
        most: Most | None = None,
        **wish: Any,
    ) -> Report:
        """Compare, and do what is wished."""
        assert self.node is not None
        known = self.facts["rows"] if facts else {}
        return look_and_apply(
            Place(self.path, 2.0, self.repository, self.node, known),
            Wish(
                Selection(tables, where, since, until, time_column),
                frozenset(show),
                most or Most(),
                **wish,
            ),
            lambda: self.state,
            {"snapshot": "s", "source": "live", "time": "now"},
            confirm,
        )

    def undo(self, wanted: str = "latest", *, dry_run: bool = False, fire: bool = False) -> Result:
        folder, record = read_undo(self.state, wanted)
        return undo(folder, record, self.path, 2.0, dry_run=dry_run, fire_triggers=fire)

    def table(self, name: str, columns: str = "*") -> Counter[Row]:
        """All rows, with their types."""
        return Counter(
            tuple((type(value).__name__, value) for value in row)
            for row in self.sql(f"SELECT {columns} FROM {name}")
        )

    def healthy(self) -> None:
        assert self.sql("PRAGMA integrity_check") == [("ok",)]
        assert self.sql("PRAGMA foreign_key_check") == []

    def left_out(self, report: Report) -> dict[str, str]:
        """`table key` to the reason."""
        assert report.result is not None
        return {f"{row['table']} {row['key']}": row["reason"] for row in report.result.reasons}
