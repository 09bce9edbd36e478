"""Which ids a collection has once Chroma has replayed its queue, by vectors and by metadata.

After every start Chroma applies what the queue holds above each segment's recorded position. Doing
the same with sets of ids shows whether vectors and metadata will agree, and with the manifest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import apsw

_ADD, _UPDATE, _UPSERT, _DELETE = 0, 1, 2, 3


def ids_after_replay(
    connection: apsw.Connection, collection: str, ids: Iterable[str], position: int
) -> set[str]:
    """`ids` and what the queue does to them above `position`. Raises apsw.Error."""
    found = set(ids)
    rows = connection.execute(
        "SELECT operation, id FROM embeddings_queue WHERE seq_id > ? AND topic LIKE ?"
        " ORDER BY seq_id",
        (position, f"%/{collection}"),
    )
    for operation, one in rows:
        if operation in (_ADD, _UPSERT):
            found.add(str(one))
        elif operation == _DELETE:
            found.discard(str(one))
    return found


def metadata_ids(connection: apsw.Connection, segment: str) -> Iterable[str]:
    """Ids that the metadata segment has. Raises apsw.Error."""
    rows = connection.execute(
        "SELECT embedding_id FROM embeddings WHERE segment_id = ?", (segment,)
    )
    return (str(row[0]) for row in rows)


def digest(ids: Iterable[str]) -> str:
    """SHA-256 over sorted ids, each with its length."""
    whole = hashlib.sha256()
    for one in sorted(ids):
        data = one.encode("utf-8", "surrogatepass")
        whole.update(b"%d:" % len(data) + data)
    return whole.hexdigest()
