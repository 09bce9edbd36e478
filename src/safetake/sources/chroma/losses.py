"""What a restore of a whole Chroma folder would lose: ids now, against the ids of the snapshot.

Both sides are read from SQLite with the queue replayed: the live one in pages of short reads (a
long read keeps Chroma's readers out), the snapshot's straight out of the repository. A record whose
position in the log differs was written again since. Bounded: collections that are too large are
told as unknown, with the counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw

from safetake.errors import SafetakeError
from safetake.model import Loss, Node, Reader
from safetake.sources.chroma import catalogue, residents
from safetake.sources.chroma.database import NAME
from safetake.sources.sqlite.vfs import open_snapshot

MOST_RECORDS = 2_000_000
SECONDS = 20.0
_PAGE = 20_000
_EXAMPLES = 10
_ADD, _UPSERT, _DELETE = 0, 2, 3

Positions = dict[str, object]
"""id to where it was last written: a position in the log"""


def losses(folder: Path, facts: Mapping[str, Any], reader: Reader, node: Node) -> list[Loss]:
    """One for each collection that differs; a single unknown one when the live store is not read.

    `facts` and `node` are the snapshot's. Never raises for what it finds.
    """
    try:
        live = residents.connect(folder / NAME)
    except (apsw.Error, OSError) as error:
        return [Loss("vectors", unknown=f"{NAME} cannot be read: {error}")]
    try:
        return _compare(live, facts, reader, node)
    except (apsw.Error, UnicodeDecodeError, SafetakeError) as error:
        return [Loss("vectors", unknown=f"the collections cannot be compared: {error}")]
    finally:
        live.close()


def _compare(
    live: apsw.Connection, facts: Mapping[str, Any], reader: Reader, node: Node
) -> list[Loss]:
    files = reader.tree(node.subtree) if node.subtree is not None else []
    stored = open_snapshot(reader, next(file for file in files if file.name == NAME))
    try:
        now, then = _by_name(catalogue.describe(live)), _by_name(facts)
        deadline = time.monotonic() + SECONDS
        budget = MOST_RECORDS
        found = []
        for name in sorted({*now, *then}):
            mine, old = now.get(name), then.get(name)
            size = sum(side["records"] for side in (mine, old) if side is not None)
            loss = Loss(f"vectors of {name}")
            if size > budget or time.monotonic() > deadline:
                counts = [side["records"] if side is not None else 0 for side in (mine, old)]
                loss.unknown = f"too many to compare: {counts[0]} now, {counts[1]} in the snapshot"
            else:
                budget -= size
                _count(
                    loss,
                    positions(live, mine) if mine is not None else {},
                    positions(stored, old) if old is not None else {},
                )
            if loss.unknown or loss.newer or loss.changed or loss.missing:
                found.append(loss)
            elif (mine is None) != (old is None):  # an empty one
                found.append(Loss("collections", int(old is None), 0, int(mine is None), [name]))
        return found
    finally:
        stored.close(force=True)


def _count(loss: Loss, now: Positions, then: Positions) -> None:
    for one, position in now.items():
        if one not in then:
            loss.newer += 1
            if len(loss.examples) < _EXAMPLES:
                loss.examples.append(one)
        elif then[one] != position:
            loss.changed += 1
    loss.missing = len(then) - (len(now) - loss.newer)


def _by_name(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The collections by name, with tenant and database in front where there is more than one.

    Each has its id as `id`.
    """
    tenants = {entry["tenant"] for entry in found["databases"]}
    databases = {
        entry["id"]: entry["name"] if len(tenants) < 2 else f"{entry['tenant']}/{entry['name']}"
        for entry in found["databases"]
    }
    several = len(databases) > 1
    return {
        f"{databases.get(known['database'])}/{known['name']}" if several else known["name"]: {
            **known,
            "id": key,
        }
        for key, known in found["collections"].items()
    }


def positions(connection: apsw.Connection, known: Mapping[str, Any]) -> Positions:
    """Every id of a collection and where it was written last. Raises apsw.Error.

    `known` is what `catalogue.describe` says about the collection, and its `id`.
    """
    found: Positions = {}
    after = ""
    while True:
        rows = connection.execute(
            "SELECT embedding_id, seq_id FROM embeddings WHERE segment_id = ? AND embedding_id > ?"
            " ORDER BY embedding_id LIMIT ?",
            (known["metadata_segment"] or "", after, _PAGE),
        ).fetchall()
        found |= {str(row[0]): catalogue.position(row[1]) for row in rows}
        if len(rows) < _PAGE:
            break
        after = str(rows[-1][0])
    queued = connection.execute(
        "SELECT operation, id, seq_id FROM embeddings_queue WHERE seq_id > ? AND topic LIKE ?"
        " ORDER BY seq_id",
        (known["metadata_max_seq_id"] or 0, f"%/{known['id']}"),
    ).fetchall()
    for operation, one, seq_id in queued:
        if operation == _DELETE:
            found.pop(str(one), None)
        elif str(one) in found:
            if operation != _ADD:
                found[str(one)] = seq_id
        elif operation in (_ADD, _UPSERT):
            found[str(one)] = seq_id
    return found
