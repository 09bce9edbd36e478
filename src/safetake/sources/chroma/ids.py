"""The ids of a Chroma folder's records, or the values of one key of their metadata.

Read from chroma.sqlite3 alone: what its metadata segment holds and what the write-ahead queue has
above that, replayed as Chroma does at its start. Only what is committed is seen. A live database
is asked in pages, each a transaction of milliseconds, because a reader of a database with a
rollback journal keeps Chroma's writers waiting; rows keep their numbers, so that a record which is
there all the time is met.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import apsw

from safetake.errors import DamagedError, SourceError
from safetake.ids import as_text, unicode_only
from safetake.model import Node, Reader
from safetake.sources.chroma import catalogue
from safetake.sources.chroma.database import BUSY_SECONDS, NAME
from safetake.sources.sqlite import live
from safetake.sources.sqlite.header import read_header
from safetake.sources.sqlite.reading import reading
from safetake.sources.sqlite.readonly import restrict
from safetake.sources.sqlite.vfs import open_snapshot
from safetake.wording import nearest

ID = "id"
"""As a field: the record's own id, not a key of its metadata."""
_PAGE = 5000
_ASKED = 500
_ADD, _UPDATE, _UPSERT, _DELETE = 0, 1, 2, 3

Opening = Callable[[], AbstractContextManager[apsw.Connection]]


class _Collection(NamedTuple):
    id: str
    segment: str
    """Of its metadata."""
    position: int
    """How far the metadata has taken over the queue."""


class _Change(NamedTuple):
    operation: int
    values: dict[str, Any] | None


class FolderIds:
    """`safetake.ids.IdReader` over one collection: `NAME`, or `DATABASE/NAME` where several
    databases have it. Raises SourceError when it is not there, or when several are."""

    def __init__(self, opening: Opening, collection: str, field: str = ID) -> None:
        self._opening = opening
        self._collection = collection
        self._field = field

    def ids(self) -> Iterator[str]:
        with self._opening() as connection:
            found = find(connection, self._collection)
            queued = _queued(connection, found)
            last = 0
            while (first := _next(connection, last)) is not None:
                last = first + _PAGE - 1
                values = self._values(connection, first, last)
                # `+`: by row numbers, not by an index that would have to be sorted for each page
                rows = connection.execute(
                    "SELECT id, embedding_id FROM embeddings"
                    " WHERE +segment_id = ? AND id BETWEEN ? AND ?",
                    (found.segment, first, last),
                ).fetchall()
                for row, text in rows:
                    one = str(text)
                    before = [one] if self._field == ID else values.get(_whole(row), [])
                    yield from _texts(self._after(one, before, queued.pop(one, ())))
            for one, changes in queued.items():
                yield from _texts(self._after(one, None, changes))

    def among(self, wanted: Set[str]) -> set[str]:
        if self._field != ID:
            return {one for one in self.ids() if one in wanted}
        there: set[str] = set()
        with self._opening() as connection:
            found = find(connection, self._collection)
            queued = _queued(connection, found)
            asked = unicode_only(wanted)
            for at in range(0, len(asked), _ASKED):
                some = asked[at : at + _ASKED]
                marks = ", ".join("?" * len(some))
                rows = connection.execute(
                    "SELECT embedding_id FROM embeddings"
                    f" WHERE segment_id = ? AND embedding_id IN ({marks})",
                    (found.segment, *some),
                ).fetchall()
                there |= {str(row[0]) for row in rows}
            for one in wanted & queued.keys():
                if self._after(one, [one] if one in there else None, queued[one]) is None:
                    there.discard(one)
                else:
                    there.add(one)
        return there

    def _values(self, connection: apsw.Connection, first: int, last: int) -> dict[int, list[Any]]:
        """What the field holds, by row; several where it is an array."""
        if self._field == ID:
            return {}
        found: dict[int, list[Any]] = {}
        for table in ("embedding_metadata", "embedding_metadata_array"):
            there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            if not there:
                continue
            truth = "bool_value" if "bool_value" in there else "NULL"
            values = connection.execute(
                f"SELECT id, string_value, int_value, float_value, {truth} FROM {table}"
                " WHERE key = ? AND id BETWEEN ? AND ?",
                (self._field, first, last),
            ).fetchall()
            for row, text, whole, real, bit in values:
                number = whole if whole is not None else real
                value = text if text is not None else number
                if value is None and bit is not None:
                    value = bool(bit)
                found.setdefault(_whole(row), []).append(value)
        return found

    def _after(
        self, one: str, values: list[Any] | None, changes: Sequence[_Change]
    ) -> list[Any] | None:
        """What the field holds once the queue is applied; None when there is no record."""
        for operation, new in changes:
            if operation == _DELETE:
                values = None
            elif (operation == _ADD and values is not None) or (
                operation == _UPDATE and values is None
            ):
                continue
            elif self._field == ID:
                values = [one]
            else:
                values = values or []
                if new is not None and self._field in new:
                    value = new[self._field]
                    values = value if isinstance(value, list) else [value]
        return values


def live_ids(folder: Path, collection: str, field: str = ID) -> FolderIds:
    """Of a live folder."""
    path = folder / NAME

    @contextmanager
    def opening() -> Iterator[apsw.Connection]:
        header = read_header(path)
        with reading(path, header, BUSY_SECONDS) as connection, live.explained(path):
            yield connection

    return FolderIds(opening, collection, field)


def staged_ids(folder: Path, collection: str, field: str = ID) -> FolderIds:
    """Of a restored folder that nobody uses; nothing is written into it."""
    path = folder / NAME

    @contextmanager
    def opening() -> Iterator[apsw.Connection]:
        read_header(path)
        uri = f"file:{quote(os.fspath(path))}?immutable=1"
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        with live.explained(path), closing(apsw.Connection(uri, flags=flags)) as connection:
            restrict(connection)
            yield connection

    return FolderIds(opening, collection, field)


def stored_ids(reader: Reader, node: Node, collection: str, field: str = ID) -> FolderIds:
    """Of a snapshot's folder; nothing is restored."""

    @contextmanager
    def opening() -> Iterator[apsw.Connection]:
        entries = reader.tree(node.subtree) if node.subtree is not None else []
        database = next((entry for entry in entries if entry.name == NAME), None)
        if database is None:
            raise DamagedError(f"the snapshot of {node.name} has no {NAME}")
        try:
            with closing(open_snapshot(reader, database)) as connection:
                yield connection
        except (ValueError, apsw.Error) as error:
            raise DamagedError(
                f"{NAME} of {node.name} in the snapshot cannot be read: {error}",
                hint="run `safetake verify` on the snapshot",
            ) from error

    return FolderIds(opening, collection, field)


def find(connection: apsw.Connection, name: str) -> _Collection:
    """The one collection of the name. Raises SourceError, apsw.Error."""
    databases = {
        row["id"]: str(row["name"])
        for row in catalogue.rows(connection, "databases", ["id", "name"])
    }
    there = [
        (str(row["id"]), str(row["name"]), databases.get(row["database_id"], "default_database"))
        for row in catalogue.rows(connection, "collections", ["id", "name", "database_id"])
    ]
    chosen = only(name, there)
    row = connection.execute(
        "SELECT s.id, m.seq_id FROM segments s LEFT JOIN max_seq_id m ON m.segment_id = s.id"
        " WHERE s.scope = 'METADATA' AND s.collection = ?",
        (chosen,),
    ).fetchone()
    if row is None:
        return _Collection(chosen, "", 0)
    return _Collection(chosen, str(row[0]), catalogue.position(row[1]) or 0)


def only(name: str, there: Sequence[tuple[str, str, str]]) -> str:
    """The id of the one collection that a name means, of (id, name, database). SourceError."""
    found = [entry for entry in there if name in (entry[1], f"{entry[2]}/{entry[1]}")]
    if not found:
        raise SourceError(
            f"there is no collection {name!r}" + nearest(name, {entry[1] for entry in there}),
            hint="correct the reference; if the collection was there, it was lost: restore it",
        )
    if len(found) > 1:
        several = ", ".join(f"{database}/{title}" for _, title, database in found)
        raise SourceError(f"{name!r} names several collections", hint=f"name one of {several}")
    return found[0][0]


def _queued(connection: apsw.Connection, collection: _Collection) -> dict[str, list[_Change]]:
    """What the queue will do to the metadata of each record. Some records on a live store."""
    found: dict[str, list[_Change]] = {}
    rows = connection.execute(
        "SELECT seq_id, operation, id, metadata FROM embeddings_queue"
        " WHERE seq_id > ? AND topic LIKE ? ORDER BY seq_id",
        (collection.position, f"%/{collection.id}"),
    ).fetchall()
    for _, operation, one, text in rows:
        found.setdefault(str(one), []).append(_Change(_whole(operation), _json(text)))
    return found


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _next(connection: apsw.Connection, row: int) -> int | None:
    """The first row after another; None at the end."""
    found = connection.execute("SELECT min(id) FROM embeddings WHERE id > ?", (row,)).get
    return found if isinstance(found, int) else None


def _texts(values: list[Any] | None) -> Iterator[str]:
    for value in values or ():
        text = as_text(value)
        if text is not None:
            yield text


def _json(text: object) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
