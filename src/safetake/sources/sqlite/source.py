"""The source `sqlite`: one live database file, in WAL or rollback-journal mode.

`SqliteSource` only looks and starts sessions; how a cut is made is in `session`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from safetake.errors import SourceError
from safetake.model import CaptureContext, Session, SourceState
from safetake.sources.sqlite import facts, live
from safetake.sources.sqlite.header import read_header, status
from safetake.sources.sqlite.session import SqliteSession

if TYPE_CHECKING:
    from safetake.config import SqliteConfig

_RANK_ROLLBACK, _RANK_WAL = 20, 30
_LARGE_LOG = 4
"""A log this many times the database's size is told: checkpoints do not pass."""


class SqliteSource:
    """`model.Source` for a database file. Two sources, or two sessions at once, on one file wait
    for each other's hold like any two writers."""

    type = "sqlite"

    def __init__(self, name: str, config: SqliteConfig) -> None:
        self.name = name
        self._config = config

    @property
    def hold_rank(self) -> int:
        """30 in WAL mode, 20 with a rollback journal, whose hold has to read; looked up now."""
        try:
            return _RANK_WAL if read_header(self._config.path).wal else _RANK_ROLLBACK
        except SourceError:
            return _RANK_WAL  # the session tells what is wrong

    def inspect(self) -> SourceState:
        path = self._config.path
        try:
            header = read_header(path)
            size = status(path).st_size
            connection = live.connect(path, header, self._config.busy_timeout)
            try:
                with live.explained(path):
                    tables = facts.tables(connection)
                    pages = connection.pragma("page_count")
                    page_size = connection.pragma("page_size")
            finally:
                connection.close()
        except SourceError as error:
            return SourceState(False, str(error), problems=[(str(error), error.hint)])
        details = {
            "journal_mode": "wal" if header.wal else "rollback",
            "page_size": page_size,
            "page_count": pages,
            "tables": len(tables),
            "sqlite_version": apsw.sqlite_lib_version(),
        }
        problems: list[tuple[str, str]] = []
        if not tables and not self._config.may_be_empty:
            problems.append(
                (f"{path} has no table", "check `path`, or set `may_be_empty = true`"),
            )
        log = live.wal_path(path)
        log_bytes = log.stat().st_size if header.wal and log.exists() else 0
        if log_bytes > max(size * _LARGE_LOG, 1 << 30):
            problems.append(
                (
                    f"{log} has grown to {log_bytes} bytes",
                    "a reader that never ends its transaction keeps checkpoints from passing",
                )
            )
        details["wal_bytes"] = log_bytes
        summary = f"{details['journal_mode']} mode, {len(tables)} tables, {pages * page_size} bytes"
        return SourceState(not problems, summary, pages * page_size, details, problems)

    def session(self, context: CaptureContext) -> Session:
        return SqliteSession(self.name, self._config, context)
