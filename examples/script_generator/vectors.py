"""Embeddings of scripts in an embedded Chroma: what generation-service searches.

A vector that was added is in Chroma's write-ahead queue, which is synchronous. A folder that is
missing or wrong is an error, never replaced: `PersistentClient` would quietly make a new one, so
everything is looked at before the client may open it.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .errors import NotFoundError, StoreError

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

COLLECTION = "scripts"


def create(path: Path, sync_threshold: int = 1000) -> None:
    """Make a new folder with an empty collection. Raises StoreError when one is there already."""
    if (path / "chroma.sqlite3").exists():
        raise StoreError(f"{path} holds a Chroma store already")
    path.mkdir(parents=True, exist_ok=True)
    # l2: cosine would store normalised copies, and a float32 would not come back bit for bit
    _client(path).create_collection(
        COLLECTION,
        embedding_function=None,
        configuration={"hnsw": {"space": "l2", "sync_threshold": sync_threshold}},
    )


def open_collection(path: Path) -> Any:
    """The `chromadb.Collection` at `path` (its own types refuse plain lists: Any).

    It is looked for first, so nothing is created. Raises StoreError.
    """
    _look(path)
    with _named(path):
        return _client(path).get_collection(COLLECTION, embedding_function=None)


class VectorStore:
    """The collection of the folder at `path`, opened when first used. For one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = RLock()
        self._collection: Any = None
        self._identity: tuple[int, int] | None = None
        self._segments: set[str] = set()

    def put(self, vector_id: str, vector: array[float], text: str, project_id: str) -> None:
        """Store a vector with its text; the same id again replaces it."""
        with self._lock:
            collection = self._open()
            with _named(self.path):
                collection.upsert(
                    ids=[vector_id],
                    embeddings=[vector.tolist()],
                    documents=[text],
                    metadatas=[{"project_id": project_id}],
                )

    def search(self, vector: array[float], limit: int = 5) -> list[dict[str, Any]]:
        """The nearest scripts, nearest first."""
        with self._lock:
            collection = self._open()
            with _named(self.path):
                found = collection.query(query_embeddings=[vector.tolist()], n_results=limit)
        return [
            {"episode_id": name, "distance": distance}
            for name, distance in zip(found["ids"][0], (found["distances"] or [[]])[0], strict=True)
        ]

    def text(self, vector_id: str) -> str:
        """The text stored with a vector. Raises NotFoundError."""
        with self._lock:
            collection = self._open()
            with _named(self.path):
                found = collection.get(ids=[vector_id], include=["documents"])
        if not found["ids"]:
            raise NotFoundError(f"no vector {vector_id}")
        return str((found["documents"] or [""])[0])

    def check(self) -> dict[str, Any]:
        """Prove that the collection opens, counts and answers a query. Raises StoreError."""
        with self._lock:
            collection = self._open()
            with _named(self.path):
                count = collection.count()
                if count:
                    # count() comes from SQLite and stays right when every vector is gone
                    sample = collection.get(limit=1, include=["embeddings"])
                    vectors = sample["embeddings"]
                    found = vectors is not None and len(vectors) == 1
                    if found and vectors is not None:
                        answer = collection.query(query_embeddings=[vectors[0]], n_results=1)
                        found = bool(answer["ids"][0])
            if count and not found:
                raise StoreError(f"{self.path}: {count} records, but no vector comes back")
            self._same_folder()
        return {"vectors": count}

    def _open(self) -> Any:
        if self._collection is None:
            identity = _identity(self.path)
            self._collection = open_collection(self.path)
            self._identity = identity
        self._same_folder()
        return self._collection

    def _same_folder(self) -> None:
        """An open store goes on in memory when its files are gone: never acknowledge that.

        Only stat and listing: any open and close of chroma.sqlite3 outside Chroma's own SQLite
        would drop this process's locks on it (POSIX).
        """
        if _identity(self.path) != self._identity:
            raise StoreError(f"{self.path} was replaced under the running service: restart it")
        segments = {header.parent.name for header in self.path.glob("*/header.bin")}
        if gone := self._segments - segments:
            raise StoreError(f"{self.path}: index folder {', '.join(sorted(gone))} is gone")
        self._segments = segments


def _client(path: Path) -> ClientAPI:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(str(path), Settings(anonymized_telemetry=False))


def _identity(path: Path) -> tuple[int, int]:
    database = path / "chroma.sqlite3"
    try:
        status = database.stat()
    except OSError as error:
        raise StoreError(f"{database}: {error.strerror}") from error
    if status.st_size == 0:
        raise StoreError(f"{database} is empty (0 bytes)")
    return status.st_dev, status.st_ino


def _look(path: Path) -> None:
    """Look before the client may open (and so create): is there a store with our collection?"""
    _identity(path)
    database = path / "chroma.sqlite3"
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(database.absolute()))}?mode=rw", uri=True)
        ) as db:
            names = [row[0] for row in db.execute("SELECT name FROM collections")]
    except sqlite3.Error as error:
        raise StoreError(f"{database}: {error}") from error
    if COLLECTION not in names:
        raise StoreError(f"{database} has no collection {COLLECTION!r}")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what Chroma raises into a StoreError that names the folder.

    Chroma's Rust core reports some damage as a pyo3 PanicException: no Exception, no name to
    import.
    """
    from chromadb.errors import ChromaError

    try:
        yield
    except (ChromaError, ValueError, RuntimeError, OSError) as error:
        raise StoreError(f"{path}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise StoreError(f"{path}: {error}") from error
