"""What was in the stores: a drill compares what came back with what was there, item by item.

The items lie in a SQLite file, so memory does not grow with the data.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from safetake.drill.items import Item
from safetake.errors import SafetakeError

EXAMPLES = 10
TTL_SLACK_MS = 2000
"""How far a restored expiry may be from the one before: the clocks of two commands."""


@dataclass(slots=True)
class Difference:
    """What one truth has and the other has not, in one store."""

    missing: int = 0
    changed: int = 0
    extra: int = 0
    examples: list[str] = field(default_factory=list)
    """Some of them by name, each with what is wrong with it."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.changed or self.extra)

    def words(self) -> str:
        """In one line."""
        counts = f"{self.missing} missing, {self.changed} changed, {self.extra} extra"
        return counts + (": " + "; ".join(self.examples) if self.examples else "")


class Truth:
    """What each store held at one time, in the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = sqlite3.connect(path)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS item (source TEXT, part TEXT, name TEXT, digest BLOB, "
            "expires INTEGER, shape INTEGER, PRIMARY KEY (source, part, name, shape)) WITHOUT ROWID"
        )

    def take(self, source: str, items: Iterable[Item]) -> int:
        """Remember what a store holds; returns how many items. Raises SafetakeError.

        An item that is told twice, as Redis' SCAN may, is one. Two that only share a name are an
        error: one of them would be compared with nothing.
        """
        with self._db:
            self._db.execute("DELETE FROM item WHERE source = ?", (source,))
            for i in items:
                row = (source, i.part, i.name, i.digest, i.expires_ms, i.shape)
                try:
                    self._db.execute("INSERT INTO item VALUES (?, ?, ?, ?, ?, ?)", row)
                except sqlite3.IntegrityError as error:
                    sql = "SELECT digest FROM item WHERE (source, part, name, shape) = (?, ?, ?, ?)"
                    key = (source, i.part, i.name, i.shape)
                    if self._db.execute(sql, key).fetchone() != (i.digest,):
                        raise SafetakeError(
                            f"{source}: two things are called {i.part} {i.name}"
                        ) from error
        return self.count(source)

    def adopt(self, other: Truth, source: str) -> None:
        """Remember of a store what another truth does."""
        self._db.execute("ATTACH ? AS other", (str(other.path),))
        try:
            with self._db:
                self._db.execute("DELETE FROM main.item WHERE source = ?", (source,))
                self._db.execute(
                    "INSERT INTO main.item SELECT * FROM other.item WHERE source = ?", (source,)
                )
        finally:
            self._db.execute("DETACH other")

    def concede(self, old: Truth, now: Truth, source: str) -> int:
        """Expect what is newer than `old` as it is `now`; returns how many items that changes.

        No snapshot has it, so nothing that a disaster did to it can be undone.
        """
        for name, other in (("old", old), ("now", now)):
            self._db.execute(f"ATTACH ? AS {name}", (str(other.path),))
        try:
            with self._db:
                self._db.execute(
                    "CREATE TEMP TABLE newer AS SELECT part, name, shape FROM main.item WHERE "
                    "source = :source EXCEPT SELECT part, name, shape FROM old.item "
                    "WHERE source = :source", {"source": source},
                )  # fmt: skip
                these = "source = ? AND (part, name, shape) IN temp.newer"
                gone = self._db.execute(
                    "SELECT count(*) FROM (SELECT part, name, shape, digest FROM main.item WHERE "
                    f"{these} EXCEPT SELECT part, name, shape, digest FROM now.item "
                    "WHERE source = ?)", (source, source),
                ).fetchone()[0]  # fmt: skip
                self._db.execute(f"DELETE FROM main.item WHERE {these}", (source,))
                self._db.execute(
                    f"INSERT INTO main.item SELECT * FROM now.item WHERE {these}", (source,)
                )
                self._db.execute("DROP TABLE newer")
        finally:
            self._db.execute("DETACH old")
            self._db.execute("DETACH now")
        return int(gone)

    def count(self, source: str) -> int:
        """Items of a store."""
        row = self._db.execute(
            "SELECT count(*) FROM item WHERE source = ? AND NOT shape", (source,)
        ).fetchone()
        return int(row[0])

    def parts(self, source: str) -> dict[str, int]:
        """Items of each part of a store."""
        rows = self._db.execute(
            "SELECT part, count(*) FROM item WHERE source = ? AND NOT shape GROUP BY part",
            (source,),
        )
        return {str(part): int(count) for part, count in rows}

    def holders(self, source: str) -> dict[str, int]:
        """Tables and collections of a store, each with 0: also those that hold nothing."""
        rows = self._db.execute(
            "SELECT name FROM item WHERE source = ? AND shape AND part IN ('table', 'collection')",
            (source,),
        )
        return {str(name): 0 for (name,) in rows}

    def compare(self, other: Truth, source: str) -> Difference:
        """What `other` (now) has of a store, against this one (expected).

        A key that has expired since it was remembered is not missing.
        """
        found = Difference()
        db = self._db
        db.execute("ATTACH ? AS now", (str(other.path),))
        try:
            mine = "SELECT part, name, shape FROM main.item WHERE source = :source"
            theirs = "SELECT part, name, shape FROM now.item WHERE source = :source"
            alive = " AND (expires = 0 OR expires > :later)"
            later = int(time.time() * 1000) + TTL_SLACK_MS
            binding = {"source": source, "later": later, "slack": TTL_SLACK_MS}
            for field_, query in (
                ("missing", f"{mine}{alive} EXCEPT {theirs}"),
                ("extra", f"{theirs} EXCEPT {mine}"),
                (
                    "changed",
                    "SELECT a.part, a.name, a.shape, a.digest != b.digest, a.expires, b.expires "
                    "FROM main.item a JOIN now.item b ON b.source = a.source AND b.part = a.part "
                    "AND b.name = a.name AND b.shape = a.shape WHERE a.source = :source AND "
                    "(a.digest != b.digest OR abs(a.expires - b.expires) > :slack)",
                ),
            ):
                count = db.execute(f"SELECT count(*) FROM ({query})", binding).fetchone()[0]
                setattr(found, field_, int(count))
                for part, name, _, *how in db.execute(f"{query} LIMIT {EXAMPLES}", binding):
                    what = _WHAT.get(field_) or _change(*how)
                    found.examples.append(f"{part + ' ' if part else ''}{name} {what}")
        finally:
            db.execute("DETACH now")
        del found.examples[EXAMPLES:]
        return found

    def close(self) -> None:
        """Close the file."""
        self._db.close()


_WHAT = {"missing": "is missing", "extra": "was not there"}


def _change(content: int, before_ms: int, now_ms: int) -> str:
    if content:
        return "is another"
    if not now_ms:
        return "never expires, and did"
    if not before_ms:
        return "expires, and did not"
    seconds = abs(before_ms - now_ms) / 1000
    return f"expires {seconds:.0f} s {'earlier' if now_ms < before_ms else 'later'} than it did"
