"""What a drill asks chromadb, in a process of its own: `python -m safetake.drill.chroma …`.

`list FOLDER` prints one JSON line `[collection, id, digest, false]` for each record (embedding as
32-bit floats, document, metadata, URI), and `["collection", name, digest, true]` for each
collection. `lose FOLDER SHARE ID` deletes the newest share of each collection's records (at least
one, never ID); `add FOLDER ID NAME…` adds one record to each but the collections NAME; `drop FOLDER
NAME` drops one. All print what they did.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

_PAGE = 500


def _collections(folder: str) -> list[Any]:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
    return [
        client.get_collection(one.name, embedding_function=None)
        for one in client.list_collections()
    ]


def _print(value: Any) -> None:
    print(json.dumps(value))


def list_records(folder: str) -> None:
    """Print a digest for each record, and for each collection."""
    import numpy as np

    for collection in _collections(folder):
        made = getattr(collection, "configuration_json", None) or {}  # the distance, among others
        of_index = [made.get("hnsw"), made.get("spann")]
        own = json.dumps([collection.metadata, of_index], sort_keys=True).encode()
        _print(
            ["collection", collection.name, hashlib.blake2b(own, digest_size=16).hexdigest(), True]
        )
        offset = 0
        while True:
            found = collection.get(
                limit=_PAGE,
                offset=offset,
                include=["embeddings", "documents", "metadatas", "uris"],
            )
            for i, id_ in enumerate(found["ids"]):
                digest = hashlib.blake2b(digest_size=16)
                digest.update(np.asarray(found["embeddings"][i], dtype="<f4").tobytes())
                rest = [found[what][i] for what in ("documents", "metadatas", "uris")]
                digest.update(json.dumps(rest, sort_keys=True).encode())
                _print([collection.name, id_, digest.hexdigest(), False])
            if len(found["ids"]) < _PAGE:
                break
            offset += _PAGE


def lose(folder: str, share: float, newer: str) -> None:
    """Delete the newest records but the one called `newer`."""
    for collection in _collections(folder):
        ids = [one for one in collection.get(include=[])["ids"] if one != newer]
        lost = ids[-max(1, int(len(ids) * share)) :] if ids else []
        for at in range(0, len(lost), _PAGE):
            collection.delete(ids=lost[at : at + _PAGE])
        _print([collection.name, len(lost)])


def drop(folder: str, name: str) -> None:
    """Drop a collection."""
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
    client.delete_collection(name)
    _print([name])


def add(folder: str, name: str, left_out: list[str]) -> None:
    """Add a record that is like the first one; print each collection, and whether it took one."""
    for collection in _collections(folder):
        if collection.name in left_out:
            continue
        found = collection.get(limit=1, include=["embeddings", "documents", "metadatas"])
        if not found["ids"]:  # of what dimension one would be is for the application to say
            _print([collection.name, False])
            continue
        more = {"metadatas": found["metadatas"]} if found["metadatas"][0] else {}
        if found["documents"][0] is not None:
            more["documents"] = found["documents"]
        collection.add(ids=[name], embeddings=found["embeddings"], **more)
        _print([collection.name, True])


def main(words: list[str]) -> int:
    """One verb; returns the exit code."""
    if words[0] == "list":
        list_records(words[1])
    elif words[0] == "lose":
        lose(words[1], float(words[2]), words[3])
    elif words[0] == "drop":
        drop(words[1], words[2])
    else:
        add(words[1], words[2], words[3:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
