"""Sets of ids of any size, on disk: which of one are not in the other.

A private SQLite file in a scratch folder. Ids are appended and indexed afterwards, which sorts in
runs on disk: a process with two sets of a million ids has 44 MB, with two of four million 58 (a set
in memory takes 90 MB a million, of 16-byte digests as much: Python's objects are what costs).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from itertools import islice
from pathlib import Path

import apsw

_REMEMBERED = 50_000
"""Ids of a set in memory, so that one which comes again and again is written once."""
FEW = 50_000
"""So many suspects are asked about by name; more by reading a side once more."""


class IdSets:
    """Two sides of a reference and what is suspected between them. Close it; one thread."""

    def __init__(self, folder: Path) -> None:
        self._db = apsw.Connection(str(folder / "ids.db"))
        for setting in (
            "page_size = 16384",
            "journal_mode = off",
            "synchronous = off",
            "locking_mode = exclusive",
            "cache_size = -16384",
            "temp_store = file",
        ):
            self._run(f"PRAGMA {setting}")
        self._run("CREATE TABLE suspects (id BLOB PRIMARY KEY) WITHOUT ROWID")

    def close(self) -> None:
        """Drop the connection; the file goes with its folder."""
        self._db.close(force=True)

    def fill(self, side: str, ids: Iterable[str]) -> int:
        """Make a side anew; how many different ids it has. Raises what reading `ids` raises."""
        self._run(f'DROP TABLE IF EXISTS "{side}"')
        self._run(f'CREATE TABLE "{side}" (id BLOB)')
        self._run("BEGIN")
        try:
            self._db.executemany(f'INSERT INTO "{side}" VALUES (?)', _encoded(ids))
        finally:
            self._run("COMMIT")
        self._run(f'CREATE INDEX "{side}_ids" ON "{side}" (id)')
        return self._number(f'SELECT count(DISTINCT id) FROM "{side}"')

    def suspect(self, side: str, other: str) -> int:
        """Suspect what is on one side and not on the other; how many they are."""
        self._run("DELETE FROM suspects")
        self._run(
            f'INSERT INTO suspects SELECT DISTINCT id FROM "{side}" AS s'
            f' WHERE NOT EXISTS (SELECT 1 FROM "{other}" AS o WHERE o.id = s.id)'
        )
        return self.count

    @property
    def count(self) -> int:
        """How many are suspected."""
        return self._number("SELECT count(*) FROM suspects")

    def suspects(self) -> Iterator[str]:
        """The suspected ids, sorted."""
        for (one,) in self._db.execute("SELECT id FROM suspects ORDER BY id"):
            yield bytes(one).decode("utf-8", "surrogatepass")

    def first(self, count: int) -> list[str]:
        """The first suspected ids."""
        return list(islice(self.suspects(), count))

    def clear(self, ids: Set[str]) -> None:
        """These are suspected no longer."""
        self._run("BEGIN")
        self._db.executemany("DELETE FROM suspects WHERE id = ?", _encoded(ids))
        self._run("COMMIT")

    def clear_by(self, side: str, *, there: bool) -> None:
        """Those that are (or are not) on a side are suspected no longer."""
        word = "EXISTS" if there else "NOT EXISTS"
        self._run(
            f'DELETE FROM suspects WHERE {word} (SELECT 1 FROM "{side}" AS s'
            " WHERE s.id = suspects.id)"
        )

    def _run(self, sql: str) -> None:
        self._db.execute(sql).fetchall()

    def _number(self, sql: str) -> int:
        return int(self._db.execute(sql).get or 0)


def _encoded(ids: Iterable[str]) -> Iterator[tuple[bytes]]:
    """Once each, as far as is remembered. A name with undecodable bytes is text here, too."""
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            continue
        if len(seen) < _REMEMBERED:
            seen.add(one)
        yield (one.encode("utf-8", "surrogatepass"),)
