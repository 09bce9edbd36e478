"""The collections of a snapshot of a Chroma folder, record by record, nothing restored.

Ids, documents and metadata come out of chroma.sqlite3 through the SQLite VFS over the repository,
vectors from the stored columns; what the write-ahead queue holds above each segment's position is
replayed as Chroma does at its start. Memory holds the ids of one collection and some blobs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from safetake.errors import DamagedError
from safetake.model import Node, Reader
from safetake.sources.chroma import catalogue, cosine
from safetake.sources.chroma.database import NAME
from safetake.sources.chroma.record import Record, definition_of
from safetake.sources.chroma.vectors import StoredVectors
from safetake.sources.sqlite.vfs import open_snapshot

_ADD, _UPDATE, _UPSERT, _DELETE = 0, 1, 2, 3
_DOCUMENT, _URI = "chroma:document", "chroma:uri"
_ASKED = 200


class StoredStore:
    """A snapshot's folder. Close it. Raises DamagedError."""

    def __init__(self, reader: Reader, node: Node) -> None:
        self._reader = reader
        self._entries = {
            entry.name: entry
            for entry in (reader.tree(node.subtree) if node.subtree is not None else [])
        }
        if NAME not in self._entries:
            raise DamagedError(
                f"the snapshot of {node.name} has no {NAME}",
                hint="run `safetake verify` on the snapshot",
            )
        self._connection = open_snapshot(reader, self._entries[NAME])
        with _Plain():
            self._found = catalogue.describe(self._connection)

    def close(self) -> None:
        """Drop the connection. Idempotent."""
        self._connection.close(force=True)

    def collections(self) -> Iterator[StoredCollection]:
        """Every collection; nothing of their records is read yet."""
        databases = {entry["id"]: entry for entry in self._found["databases"]}
        default = {"name": "default_database", "tenant": "default_tenant"}
        for key, known in self._found["collections"].items():
            database = databases.get(known["database"], default)
            folder = self._entries.get(known["vector_segment"] or "")
            place = (str(database["tenant"]), str(database["name"]))
            yield StoredCollection(self._connection, self._reader, folder, key, place, known)


class StoredCollection:
    """One collection. What it gives is what Chroma would give back of the restored folder."""

    def __init__(
        self,
        connection: apsw.Connection,
        reader: Reader,
        folder: Node | None,
        key: str,
        place: tuple[str, str],
        known: dict[str, Any],
    ) -> None:
        self.id = key
        self.name: str = known["name"]
        self.tenant, self.database = place
        self.space: str = known["space"]
        self.dimension: int | None = known["dimension"]
        self._connection = connection
        self._reader = reader
        self._folder = folder
        self._known = known
        self._rows: dict[str, int] | None = None
        self._vectors: StoredVectors | None = None
        self._queue: dict[str, list[tuple[int, int, bytes | None, str | None]]] | None = None
        self._tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}

    def definition(self) -> dict[str, Any]:
        """What makes a collection like it: see `record.definition_of`."""
        with _Plain():
            metadata = self._values("collection_metadata", "collection_id", self.id)
            rows = catalogue.rows(
                self._connection, "collections", ["id", "config_json_str", "schema_str"]
            )
        row = next(row for row in rows if row["id"] == self.id)
        schema, configuration = _json(row["schema_str"]), _json(row["config_json_str"])
        if configuration and "_type" in configuration:
            configuration = None  # of 0.5 and 0.6, which no newer server takes
        if not configuration and not any(str(key).startswith("hnsw:") for key in metadata):
            configuration = {"hnsw": {"space": self.space}}
        return definition_of(metadata, schema, configuration)

    def ids(self) -> list[str]:
        """All ids, in the order in which they were added. Raises DamagedError."""
        if self._rows is None:
            with _Plain():
                self._load()
        return list(self._rows or ())

    def records(self, ids: Sequence[str]) -> dict[str, Record]:
        """The records of ids that there are. Raises DamagedError."""
        there = set(self.ids())
        wanted = [one for one in ids if one in there]
        with _Plain():
            words = self._words(wanted)
            vectors = self._read_vectors(wanted)
        found = {}
        for one in wanted:
            document, metadata, uri = words[one]
            vector, sent = vectors[one]
            found[one] = Record(one, document, metadata, uri, vector, sent)
        return found

    # ids, documents, metadata

    def _load(self) -> None:
        rows = self._connection.execute(
            "SELECT embedding_id, id FROM embeddings WHERE segment_id = ? ORDER BY id",
            (self._known["metadata_segment"] or "",),
        )
        found = {str(one): int(row) for one, row in rows}
        self._queue = {}
        lowest = min(self._known["metadata_max_seq_id"] or 0, self._known["vector_max_seq_id"] or 0)
        queued = self._connection.execute(
            "SELECT seq_id, operation, id, vector, metadata FROM embeddings_queue"
            " WHERE seq_id > ? AND topic LIKE ? ORDER BY seq_id",
            (lowest, f"%/{self.id}"),
        )
        for seq_id, operation, one, vector, metadata in queued:
            entry = (catalogue.position(seq_id) or 0, operation, vector, metadata)
            self._queue.setdefault(str(one), []).append(entry)
            if entry[0] <= (self._known["metadata_max_seq_id"] or 0):
                continue
            if operation in (_ADD, _UPSERT):
                found.setdefault(str(one), 0)
            elif operation == _DELETE:
                found.pop(str(one), None)
        self._rows = found

    def _words(
        self, ids: Sequence[str]
    ) -> dict[str, tuple[str | None, dict[str, Any], str | None]]:
        rows = {one: (self._rows or {})[one] for one in ids}
        stored: dict[int, dict[str, Any]] = {row: {} for row in rows.values() if row}
        for first in range(0, len(ids), _ASKED):
            some = [row for row in list(rows.values())[first : first + _ASKED] if row]
            for row, key, value in self._metadata(some):
                stored[row][key] = value
        found = {}
        for one, row in rows.items():
            values = self._replayed(one, dict(stored[row]) if row else None)
            document, uri = values.pop(_DOCUMENT, None), values.pop(_URI, None)
            found[one] = (document, values, uri)
        return found

    def _metadata(self, rows: list[int]) -> Iterator[tuple[int, str, Any]]:
        marks = ", ".join("?" * len(rows))
        columns = self._columns("embedding_metadata")
        for row, key, *values in self._connection.execute(
            f"SELECT id, key, {columns} FROM embedding_metadata WHERE id IN ({marks})", rows
        ):
            yield row, key, _value(values)
        if "embedding_metadata_array" not in self._tables:
            return
        arrays: dict[tuple[int, str], list[Any]] = {}
        columns = self._columns("embedding_metadata_array")
        for row, key, *values in self._connection.execute(
            f"SELECT id, key, {columns} FROM embedding_metadata_array WHERE id IN ({marks})"
            " ORDER BY rowid",
            rows,
        ):
            arrays.setdefault((row, key), []).append(_value(values))
        for (row, key), several in arrays.items():
            yield row, key, several

    def _columns(self, table: str) -> str:
        there = {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}
        return "string_value, int_value, float_value, " + (
            "bool_value" if "bool_value" in there else "NULL"
        )

    def _values(self, table: str, key: str, owner: str) -> dict[str, Any]:
        there = {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}
        columns = "str_value, int_value, float_value, " + (
            "bool_value" if "bool_value" in there else "NULL"
        )
        rows = self._connection.execute(
            f"SELECT key, {columns} FROM {table} WHERE {key} = ?", (owner,)
        )
        return {name: _value(values) for name, *values in rows}

    def _replayed(self, one: str, values: dict[str, Any] | None) -> dict[str, Any]:
        for seq_id, operation, _, text in (self._queue or {}).get(one, ()):
            if seq_id <= (self._known["metadata_max_seq_id"] or 0):
                continue
            if operation == _DELETE:
                values = None
            elif (operation == _ADD and values is not None) or (
                operation == _UPDATE and values is None
            ):
                continue
            else:
                values = (values or {}) | (_json(text) or {})
                values = {key: value for key, value in values.items() if value is not None}
        return values or {}

    # vectors

    def _read_vectors(self, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
        if self._vectors is None and self._folder is not None:
            self._vectors = StoredVectors(self._reader, self._folder)
        rows = self._vectors.row_of if self._vectors is not None else {}
        queued: dict[str, bytes] = {}
        for one in ids:
            vector = self._queued_vector(one, one in rows)
            if vector is not None:
                queued[one] = vector
        found = {one: self._as_given(vector) for one, vector in queued.items()}
        rest = [one for one in ids if one not in queued]
        if missing := [one for one in rest if one not in rows]:
            raise DamagedError(
                f"collection {self.name}: {missing[0]!r} has no vector in the snapshot",
                hint="run `safetake verify` on the snapshot, and take an older one",
            )
        if rest and self._vectors is not None:
            kept = self._vectors.read(rest)
            given, sent = kept, None
            if self.space == "cosine":
                lengths = self._vectors.lengths(rest)
                given, sent = (
                    cosine.given_back(kept, lengths),
                    cosine.to_be_kept(kept, lengths),
                )
            for number, one in enumerate(rest):
                found[one] = (
                    given[number].tobytes(),
                    sent[number].tobytes() if sent is not None else None,
                )
        return found

    def _queued_vector(self, one: str, there: bool) -> bytes | None:
        """The vector that the queue gives an id; None when it is the index's."""
        vector: bytes | None = None
        for seq_id, operation, data, _ in (self._queue or {}).get(one, ()):
            if seq_id <= (self._known["vector_max_seq_id"] or 0):
                continue
            if operation == _DELETE:
                vector, there = None, False
            elif (operation == _ADD and there) or (operation == _UPDATE and not there):
                continue
            else:
                there = True
                vector = data if data is not None else vector
        return vector

    def _as_given(self, vector: bytes) -> tuple[bytes, bytes | None]:
        if self.space != "cosine":
            return vector, None
        import numpy as np

        given = cosine.given_back(*cosine.kept(np.frombuffer(vector, "<f4")[None, :]))
        return given[0].tobytes(), vector


class _Plain:
    """What SQLite raises about a stored database is damage."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (apsw.Error, UnicodeDecodeError)):
            raise DamagedError(
                f"{NAME} in the snapshot cannot be read: {error}",
                hint="run `safetake verify` on the snapshot, and take an older one",
            ) from error


def _value(values: Sequence[Any]) -> Any:
    """The one of string, integer, float and boolean that is there."""
    text, whole, real, truth = values
    if text is not None:
        return text
    if whole is not None:
        return whole
    return real if real is not None else (bool(truth) if truth is not None else None)


def _json(text: object) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if isinstance(found, dict) and found else None
