"""What an application of rows leaves behind, durably before it commits: enough to take it back.

One folder (0700) for each application, in the state folder:

    rows.sqlite    every row as it was inserted; every changed row as it was before and after
    skipped.json   which of them were left out; written just before the commit
    record.json    what, where, when, and `state`: prepared, applied or undone
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from safetake.clock import go_time, now_ns
from safetake.errors import DamagedError, SafetakeError, UsageError
from safetake.sources.sqlite.facts import quoted
from safetake.sources.sqlite.rows.connect import UNDO
from safetake.sources.sqlite.rows.plan import any_of
from safetake.sources.sqlite.rows.schema import NONE, Column, Table
from safetake.sources.sqlite.rows.sql import run
from safetake.state import write_json
from safetake.swap import sync_folder

ROWS, SKIPPED, RECORD = "rows.sqlite", "skipped.json", "record.json"
FORMAT = 1


@dataclass(slots=True)
class Rows:
    """The rows of one table in `rows.sqlite`, and SQL that sets them against the live ones.

    `ins_N` has the columns c0, c1, … of the live table (and r, the rowid, where it has no key);
    `upd_N` has b0, … (before) and a0, … (after). n numbers the rows of either.
    """

    number: int
    table: Table

    @property
    def ins(self) -> str:
        """The inserted rows."""
        return f"{UNDO}.ins_{self.number}"

    @property
    def upd(self) -> str:
        """The changed rows."""
        return f"{UNDO}.upd_{self.number}"

    def columns(self, prefix: str) -> list[str]:
        """`c0`, `c1`, …"""
        return [f"{prefix}{n}" for n in range(len(self.table.columns))]

    def _declared(self, prefix: str, defaults: Container[str] = ()) -> list[str]:
        return [
            f"{prefix}{n} {column.affinity}"
            + (f" DEFAULT {_default(column.default)}" if column.name in defaults else "")
            for n, column in enumerate(self.table.columns)
        ]

    def column(self, name: str) -> int:
        """The number of a column by its name."""
        return self.table.names.index(name)

    def found(self, live: str, kept: str, prefix: str) -> str:
        """SQL: the live row under the alias has the key of the kept one."""
        if self.table.kind == NONE:
            return f"{live}.{self.table.rowid} = {kept}.r"
        values = [f"{kept}.{prefix}{self.column(name)}" for name in self.table.key]
        return self.table.key_is(live, values)

    def differs(self, live: str, kept: str, prefix: str) -> str:
        """SQL: the live row is not, value for value, the kept one."""
        return any_of(
            [
                _differs(f"{live}.{quoted(column.name)}", f"{kept}.{prefix}{n}", column)
                for n, column in enumerate(self.table.columns)
            ]
        )

    def create(self, connection: apsw.Connection, added: Container[str]) -> None:
        """Make both tables, empty; columns of `added` have their defaults in `ins`."""
        # with the affinity of the live columns: kept values are what the live table makes of them
        plain = ", ".join(self._declared("c", added))
        row = "r INTEGER UNIQUE, " if self.table.kind == NONE else ""
        both = ", ".join((*self._declared("b"), *self._declared("a")))
        run(connection, f"CREATE TABLE {self.ins} (n INTEGER PRIMARY KEY, {row}{plain})")
        run(connection, f"CREATE TABLE {self.upd} (n INTEGER PRIMARY KEY, {both})")
        if self.table.kind != NONE:
            for name, prefix in (("ins", "c"), ("upd", "a")):
                parts = ", ".join(
                    f"{prefix}{self.column(key)} COLLATE {quoted(collation)}"
                    for key, collation in zip(self.table.key, self.table.collations, strict=True)
                )
                run(
                    connection,
                    f"CREATE INDEX {UNDO}.{name}_{self.number}_key"
                    f" ON {name}_{self.number} ({parts})",
                )


def _default(sql: str | None) -> str:
    """What the schema says behind DEFAULT, to be said once more: a bare word may be a text there,
    and in brackets it would be a column."""
    return f"({sql or 'NULL'})" if not re.fullmatch(r'\w+|".*"', sql or "") else str(sql)


def _differs(live: str, kept: str, column: Column) -> str:
    plain = f"{live} COLLATE BINARY IS NOT {kept}"
    if column.affinity == "BLOB":
        return f"({plain} OR typeof({live}) <> typeof({kept}))"
    return plain


@dataclass(slots=True)
class UndoFolder:
    """One application's folder."""

    id: str
    path: Path
    keep: bool = False
    """It may be needed, although the application did not end well."""

    @property
    def rows(self) -> Path:
        """The database of rows."""
        return self.path / ROWS

    def write_record(self, record: dict[str, Any], state: str) -> None:
        """Durably. Raises SafetakeError."""
        self._write(RECORD, {**record, "format": FORMAT, "id": self.id, "state": state})

    def write_skipped(self, skipped: list[tuple[int, str, int]]) -> None:
        """(table's number, `ins` or `upd`, n) of the rows that were left out. Durably."""
        self._write(SKIPPED, skipped)

    def _write(self, name: str, document: Any) -> None:
        try:
            write_json(self.path / name, document)
        except OSError as error:
            raise SafetakeError(
                f"cannot write {self.path / name}: {error.strerror}",
                hint="free space there, or set `state` in the [restore] section",
            ) from error

    def record(self) -> dict[str, Any]:
        """What was done. Raises DamagedError."""
        try:
            found = json.loads((self.path / RECORD).read_bytes())
            if found["format"] != FORMAT:
                raise DamagedError(f"{self.path} was written by another version of safetake")
            return dict(found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{self.path / RECORD} cannot be read: {error}") from error

    def skipped(self) -> list[tuple[int, str, int]]:
        """What `write_skipped` wrote; nothing when the application did not get there."""
        try:
            return [
                (int(t), str(k), int(n))
                for t, k, n in json.loads((self.path / SKIPPED).read_bytes())
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise DamagedError(f"{self.path / SKIPPED} cannot be read: {error}") from error

    def sync(self) -> None:
        """Make `rows.sqlite` durable."""
        fd = os.open(self.rows, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_folder(self.path)

    def remove(self) -> None:
        """Nothing was applied: nothing is to be undone."""
        if self.keep:
            return
        shutil.rmtree(self.path, ignore_errors=True)


def new_folder(state: Path) -> UndoFolder:
    """A fresh folder below `state`. Raises SafetakeError."""
    now = now_ns()
    seconds = go_time(now)[:19].replace("-", "").replace(":", "")
    name = f"{seconds}-{now // 1000 % 10**6:06d}-{secrets.token_hex(2)}"
    path = state / name
    try:
        path.mkdir(mode=0o700)
        os.close(os.open(path / ROWS, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        sync_folder(state)
    except OSError as error:
        raise SafetakeError(
            f"cannot make {path}: {error.strerror}",
            hint="set `state` in the [restore] section to a folder that may be written",
        ) from error
    return UndoFolder(name, path)


def find_folder(state: Path, wanted: str) -> UndoFolder:
    """By its path, or by the beginning of its id; `latest` is the newest that is not undone.

    Raises UsageError, DamagedError.
    """
    if "/" in wanted:
        path = Path(wanted)
        return UndoFolder(path.name, path)
    names = sorted(path.parent.name for path in state.glob(f"*/{RECORD}"))
    found = [name for name in names if wanted and name.startswith(wanted)]
    if wanted == "latest":
        for name in reversed(names):
            folder = UndoFolder(name, state / name)
            if folder.record()["state"] != "undone":
                return folder
    if len(found) != 1:
        raise UsageError(
            f"{'more than one' if found else 'no'} application of rows that can be undone has the "
            f"id {wanted!r}",
            hint="the newest are: " + ", ".join(names[-5:])
            if names
            else f"no rows were brought back yet: nothing is in {state}",
        )
    return UndoFolder(found[0], state / found[0])


@contextmanager
def attached(connection: apsw.Connection, path: Path | None) -> Iterator[None]:
    """`rows.sqlite`, or for a rehearsal a private temporary database, as `undo`.

    Without a journal of its own: it is complete and synced before the live database is written,
    and only read from then on, so that no commit spans both.
    """
    run(connection, f"ATTACH ? AS {UNDO}", ("" if path is None else os.fspath(path),))
    try:
        connection.pragma("journal_mode", "memory", schema=UNDO)
        connection.pragma("synchronous", "off", schema=UNDO)
        yield
    finally:
        with suppress(apsw.Error):  # after a failure; closing the connection does it as well
            run(connection, f"DETACH {UNDO}")
