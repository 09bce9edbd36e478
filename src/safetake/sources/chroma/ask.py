"""Opens a copy of a store with the real chromadb and answers on stdout; run as its own process.

`python -m safetake.sources.chroma.ask FOLDER` reads from stdin, as JSON, which databases to look
into and which ids to query; a store can crash or hang the process that opens it, and opening
changes the folder.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_PAGE = 10_000
_NEAREST = 10


def main(folder: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Per collection id: count, digest of the ids, and the answers about the chosen ids."""
    import chromadb
    from chromadb.config import Settings

    from safetake.sources.chroma.replay import digest

    settings = Settings(anonymized_telemetry=False)
    answer: dict[str, Any] = {"version": chromadb.__version__, "collections": {}}
    for database in wanted["databases"]:
        client = chromadb.PersistentClient(
            folder, settings, tenant=database["tenant"], database=database["name"]
        )
        for name in database["collections"]:
            collection = client.get_collection(name, embedding_function=None)
            total = collection.count()
            ids: list[str] = []
            for offset in range(0, total, _PAGE):
                ids += collection.get(include=[], limit=_PAGE, offset=offset)["ids"]
            answer["collections"][str(collection.id)] = {
                "count": total,
                "ids": digest(ids),
                "records": _records(collection, wanted["samples"].get(str(collection.id), [])),
            }
    return answer


def _records(collection: Any, ids: list[str]) -> dict[str, Any]:
    import numpy as np

    found: dict[str, Any] = {}
    if not ids:
        return found
    got = collection.get(ids=ids, include=["embeddings", "documents"])
    for one, vector, document in zip(got["ids"], got["embeddings"], got["documents"], strict=True):
        near = collection.query(
            query_embeddings=[vector], n_results=_NEAREST, include=["distances"]
        )
        found[one] = {
            "vector": np.asarray(vector, np.float32).tobytes().hex(),
            "document": document,
            "nearest": near["ids"][0],
            "distances": [float(value) for value in near["distances"][0]],
        }
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.load(sys.stdin))))
