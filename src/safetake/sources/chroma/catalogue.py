"""What chroma.sqlite3 says about a store: segments, collections, positions, counts.

Every question works on the schemas of Chroma 0.4 to 1.5 (a column that is not there yet counts as
absent) and is asked of a connection that the caller owns: the live database under the lock, the
captured cut, or a restored copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import apsw

VECTOR_SCOPE = "VECTOR"
PERSISTED = ("urn:chroma:segment/vector/hnsw-local-persisted",)


@dataclass(frozen=True, slots=True)
class Segment:
    """A live vector segment and how far its files reach, as SQLite has it."""

    id: str
    type: str
    collection: str
    max_seq_id: int | None


def segments(connection: apsw.Connection) -> list[Segment]:
    """The vector segments; a few rows, so that it can be asked inside a hold. Raises apsw.Error."""
    rows = connection.execute(
        "SELECT s.id, s.type, s.collection, m.seq_id FROM segments s"
        " LEFT JOIN max_seq_id m ON m.segment_id = s.id WHERE s.scope = ? ORDER BY s.id",
        (VECTOR_SCOPE,),
    ).fetchall()
    return [Segment(str(row[0]), str(row[1]), str(row[2] or ""), position(row[3])) for row in rows]


def position(value: object) -> int | None:
    """A sequence number: an integer since 1.0, big-endian bytes before."""
    if isinstance(value, bytes):
        return int.from_bytes(value, "big")
    return value if isinstance(value, int) else None


def missing_tables(connection: apsw.Connection) -> list[str]:
    """Tables without which this is no store of Chroma 0.4 or newer."""
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    wanted = {"collections", "segments", "embeddings", "embeddings_queue", "max_seq_id"}
    return sorted(wanted - there)


def describe(connection: apsw.Connection) -> dict[str, Any]:
    """The facts of a snapshot about tenants, databases, collections, segments and the queue."""
    versions: dict[str, int] = {}
    for row in connection.execute("SELECT dir, max(version) FROM migrations GROUP BY dir"):
        versions[row[0]] = row[1]
    found: dict[str, Any] = {
        "migrations": versions,
        "tenants": _names(connection, "tenants", "id"),
        "databases": [
            {"id": row["id"], "name": row["name"], "tenant": row["tenant_id"]}
            for row in rows(connection, "databases", ["id", "name", "tenant_id"])
        ],
        "queue": queue(connection),
        "collections": {},
    }
    vectors = {segment.collection: segment for segment in segments(connection)}
    metadata = {
        row[0]: (row[1], position(row[2]), row[3])
        for row in connection.execute(
            "SELECT s.collection, s.id, m.seq_id,"
            " (SELECT count(*) FROM embeddings e WHERE e.segment_id = s.id) FROM segments s"
            " LEFT JOIN max_seq_id m ON m.segment_id = s.id WHERE s.scope = 'METADATA'"
        )
    }
    for row in rows(connection, "collections", ["id", "name", "dimension", "database_id"]):
        vector, other = vectors.get(row["id"]), metadata.get(row["id"], (None, None, 0))
        found["collections"][row["id"]] = {
            "name": row["name"],
            "database": row["database_id"],
            "dimension": row["dimension"],
            "space": space(connection, row["id"], vector.id if vector else None),
            "records": other[2],
            "vector_segment": vector.id if vector else None,
            "vector_max_seq_id": vector.max_seq_id if vector else None,
            "metadata_segment": other[0],
            "metadata_max_seq_id": other[1],
        }
    return found


def queue(connection: apsw.Connection) -> dict[str, Any]:
    """Smallest and largest position in the write-ahead queue, and its length."""
    row = connection.execute("SELECT min(seq_id), max(seq_id), count(*) FROM embeddings_queue").get
    return {"min": row[0], "max": row[1], "count": row[2]}


def space(connection: apsw.Connection, collection: str, segment: str | None) -> str:
    """How a collection measures distance: 'l2', 'cosine' or 'ip'."""
    for table, key, owner in (
        ("segment_metadata", "segment_id", segment),
        ("collection_metadata", "collection_id", collection),
    ):
        row = connection.execute(
            f"SELECT str_value FROM {table} WHERE {key} = ? AND key = 'hnsw:space'", (owner,)
        ).fetchone()
        if row and row[0]:
            return str(row[0])
    for row in rows(connection, "collections", ["id", "config_json_str", "schema_str"]):
        if row["id"] == collection:
            return _configured_space(row["schema_str"]) or (
                _configured_space(row["config_json_str"]) or "l2"
            )
    return "l2"


def _configured_space(text: object) -> str | None:
    import json

    try:
        return _find_space(json.loads(text)) if isinstance(text, str) else None
    except ValueError:
        return None


def _find_space(value: object) -> str | None:
    """The first 'space' below '#embedding' (1.x schema) or anywhere (older configuration)."""
    if not isinstance(value, dict):
        return None
    if isinstance(keys := value.get("keys"), dict) and "#embedding" in keys:
        return _find_space(keys["#embedding"])
    if isinstance(value.get("space"), str):
        return str(value["space"])
    for inner in value.values():
        if found := _find_space(inner):
            return found
    return None


def rows(connection: apsw.Connection, table: str, wanted: list[str]) -> list[dict[str, Any]]:
    """Rows of a small table; columns that this schema does not have are None."""
    there = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    known = [name for name in wanted if name in there]
    if not known:
        return []
    rows = connection.execute(f"SELECT {', '.join(known)} FROM {table} ORDER BY 1").fetchall()
    return [dict.fromkeys(wanted) | dict(zip(known, row, strict=True)) for row in rows]


def _names(connection: apsw.Connection, table: str, column: str) -> list[str]:
    return [str(row[column]) for row in rows(connection, table, [column])]
