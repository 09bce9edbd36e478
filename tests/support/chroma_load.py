"""A writer for Chroma whose every state is known, and a checker that tells which one a copy holds.

`python chroma_load.py write TARGET SECONDS JOURNAL NAME THRESHOLD SPACE DIM BATCH [PRELOAD]` writes
to one collection, through the embedded client when TARGET is a folder and through a server when it
is host:port, one operation after the other; the number of the operation and when it was
acknowledged go to JOURNAL. `python chroma_load.py check FOLDER` opens a copy in this fresh process
and prints, for every collection, how many operations it is the exact result of.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

Operation = tuple[str, list[str], Any]
"""('add' | 'update' | 'upsert' | 'delete', ids, vectors or None)"""


def operation(name: str, number: int, dim: int, batch: int) -> Operation:
    """The operation of that number, the same in every process."""
    kind = ("add", "add", "add", "update", "add", "add", "upsert", "delete")[number % 8]
    seed = [number, *name.encode()]
    vectors = np.random.default_rng(seed).random((batch, dim), dtype=np.float32)
    if kind == "add":
        first = number * batch
    elif kind == "upsert":  # half of them there, half of them new
        first = number * batch
        ids = [f"{name}-{(number - 1) * batch + i}" for i in range(batch // 2)]
        ids += [f"{name}-{first + i}" for i in range(batch - batch // 2)]
        return kind, ids, vectors
    else:
        first = (number - (2 if kind == "update" else 5)) * batch
        vectors = vectors[: max(1, batch // 2)]
    ids = [f"{name}-{first + i}" for i in range(len(vectors))]
    return kind, ids, None if kind == "delete" else vectors


def model(name: str, count: int, dim: int, batch: int) -> dict[str, Any]:
    """Ids and vectors after the first `count` operations."""
    state: dict[str, Any] = {}
    for number in range(count):
        apply(state, operation(name, number, dim, batch))
    return state


def apply(state: dict[str, Any], done: Operation) -> None:
    kind, ids, vectors = done
    for index, one in enumerate(ids):
        if kind == "delete":
            state.pop(one, None)
        elif kind == "add":
            state.setdefault(one, vectors[index])
        elif kind == "upsert" or one in state:
            state[one] = vectors[index]


def client(target: str) -> Any:
    import chromadb
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False)
    if ":" in target and "/" not in target:
        host, port = target.split(":")
        return chromadb.HttpClient(host, int(port), settings=settings)
    return chromadb.PersistentClient(target, settings=settings)


def write(
    target: str,
    seconds: float,
    journal: Path,
    name: str,
    threshold: int,
    space: str,
    dim: int,
    batch: int,
    preload: int = 0,
) -> None:
    metadata = {
        "hnsw:space": space,
        "hnsw:sync_threshold": threshold,
        "hnsw:batch_size": min(threshold, 100),
        "hnsw:construction_ef": 40,  # quick to fill
        "dim": dim,
        "batch": batch,
        "preload": preload,
    }
    for attempt in range(20):
        try:
            collection = client(target).get_or_create_collection(
                name, embedding_function=None, metadata=metadata
            )
            break
        except Exception:  # two clients that create the schema at once
            if attempt == 19:
                raise
            time.sleep(0.3)
    for first in range(0, preload, 500) if collection.count() < preload else ():
        ids, vectors = preloaded(name, first, min(500, preload - first), dim)
        collection.add(ids=ids, embeddings=vectors)
    with journal.open("a", buffering=1) as out:
        end = time.monotonic() + seconds
        number = 0
        print(json.dumps({"done": number, "at": time.monotonic()}), file=out)
        while time.monotonic() < end:
            kind, ids, vectors = operation(name, number, dim, batch)
            documents = [f"document {one} of {number}" for one in ids]
            if kind == "delete":
                collection.delete(ids=ids)
            else:
                getattr(collection, kind)(ids=ids, embeddings=vectors, documents=documents)
            number += 1
            print(json.dumps({"done": number, "at": time.monotonic()}), file=out)


def preloaded(name: str, first: int, count: int, dim: int) -> tuple[list[str], Any]:
    vectors = np.random.default_rng([7, first, *name.encode()]).random(
        (count, dim), dtype=np.float32
    )
    return [f"{name}-p{first + i}" for i in range(count)], vectors


def check(folder: str) -> dict[str, Any]:
    """Open a copy; per collection the number of operations whose exact result it is, or a text."""
    answer: dict[str, Any] = {}
    opened = client(folder)
    for listed in opened.list_collections():
        collection = opened.get_collection(listed.name, embedding_function=None)
        meta = collection.metadata
        dim, batch, preload = meta["dim"], meta["batch"], meta["preload"]
        found: dict[str, Any] = {}
        total = collection.count()
        for offset in range(0, total, 5000):
            page = collection.get(include=["embeddings", "documents"], limit=5000, offset=offset)
            for one, vector, text in zip(
                page["ids"], page["embeddings"], page["documents"], strict=True
            ):
                found[one] = (np.asarray(vector, np.float32), text)
        answer[listed.name] = _which(
            listed.name, found, total, dim, batch, preload, meta["hnsw:space"] == "cosine"
        )
    return answer


def _which(
    name: str, found: dict[str, Any], total: int, dim: int, batch: int, preload: int, near: bool
) -> int | str:
    if len(found) != total:
        return f"count() is {total}, get() gives {len(found)}"
    for first in range(0, preload, 500):
        ids, vectors = preloaded(name, first, min(500, preload - first), dim)
        for one, vector in zip(ids, vectors, strict=True):
            if one not in found or not _equal(found.pop(one)[0], vector, near):
                return f"{one} of the preload is missing or wrong"
    state: dict[str, Any] = {}
    texts: dict[str, str] = {}
    highest = max((int(one.rsplit("-", 1)[1]) // batch for one in found), default=0) + 12
    for number in range(highest + 1):
        if state.keys() == found.keys() and all(
            _equal(found[one][0], state[one], near) and found[one][1] == texts[one] for one in state
        ):
            return number
        done = operation(name, number, dim, batch)
        before = set(state)
        apply(state, done)
        for one in done[1]:
            if one in state and (done[0] != "add" or one not in before):
                texts[one] = f"document {one} of {number}"
    missing = sorted(set(model(name, highest - 12, dim, batch)) - set(found))[:5]
    return (
        f"no prefix of the operations; {len(found)} ids, about {highest - 12} operations, {missing}"
    )


def _equal(one: Any, other: Any, near: bool) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.allclose(one, other, rtol=1e-5)) if near else one.tobytes() == other.tobytes()


def main(words: list[str]) -> None:
    if words[0] == "check":
        print(json.dumps(check(words[1])))
        return
    _, target, seconds, journal, name, threshold, space, dim, batch, *rest = words
    write(
        target,
        float(seconds),
        Path(journal),
        name,
        int(threshold),
        space,
        int(dim),
        int(batch),
        int(rest[0]) if rest else 0,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
