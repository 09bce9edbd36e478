"""The collections of a snapshot that was taken of a server over its REST API, record by record.

The same questions as to `stored`, over the files that `export` describes. Memory holds the ids of
one collection and where their lines begin.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from safetake.errors import DamagedError
from safetake.model import Node, Reader
from safetake.sources.chroma import cosine
from safetake.sources.chroma.export import COLLECTION, EMBEDDINGS, RECORDS
from safetake.sources.chroma.record import Record, definition_of
from safetake.sources.sqlite.vfs import BlobFile


class ExportedStore:
    """A snapshot's export. Raises DamagedError."""

    def __init__(self, reader: Reader, node: Node) -> None:
        self._reader = reader
        self._node = node

    def close(self) -> None:
        """Nothing is held."""

    def collections(self) -> Iterator[ExportedCollection]:
        """Every collection; nothing of their records is read yet."""
        for folder in _entries(self._reader, self._node).values():
            if folder.subtree is not None:
                yield ExportedCollection(self._reader, folder)


class ExportedCollection:
    """One collection of an export."""

    def __init__(self, reader: Reader, folder: Node) -> None:
        self._files = _entries(reader, folder)
        self._reader = reader
        about = self._read(COLLECTION)
        try:
            self._about: dict[str, Any] = json.loads(about.read(about.size, 0))
            self.id = str(self._about["id"])
            self.name = str(self._about["name"])
            self.tenant = str(self._about["tenant"])
            self.database = str(self._about["database"])
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(f"{folder.name}/{COLLECTION}: {error}") from error
        configuration = self._about.get("configuration_json") or {}
        self.space = str((configuration.get("hnsw") or {}).get("space") or "l2")
        self.dimension: int | None = self._about.get("dimension")
        self._lines: dict[str, tuple[int, int, int]] | None = None

    def definition(self) -> dict[str, Any]:
        """What makes a collection like it."""
        about = self._about
        return definition_of(
            about.get("metadata"), about.get("schema"), about.get("configuration_json")
        )

    def ids(self) -> list[str]:
        """All ids, in the order of the export. Raises DamagedError."""
        if self._lines is None:
            self._lines = {}
            at = number = 0
            for line in _lines(self._read(RECORDS)):
                one = self._record(line)["id"]
                self._lines[one] = (at, len(line), number)
                at, number = at + len(line), number + 1
        return list(self._lines)

    def records(self, ids: Sequence[str]) -> dict[str, Record]:
        """The records of ids that there are. Raises DamagedError."""
        import numpy as np

        self.ids()
        lines = self._lines or {}
        wanted = [one for one in ids if one in lines]
        if not wanted:
            return {}
        records, vectors = self._read(RECORDS), self._read(EMBEDDINGS)
        width = vectors.size // len(lines)
        data = b"".join(vectors.read(width, lines[one][2] * width) for one in wanted)
        if not width or len(data) != width * len(wanted) or width % 4:
            raise _damaged(f"collection {self.name}: {EMBEDDINGS} has the wrong size")
        given = np.frombuffer(data, "<f4").reshape(len(wanted), -1)
        sent = cosine.to_be_given_back(given) if self.space == "cosine" else given
        found = {}
        for number, one in enumerate(wanted):
            at, length, _ = lines[one]
            known = self._record(records.read(length, at))
            found[one] = Record(
                one,
                known.get("document"),
                known.get("metadata") or {},
                known.get("uri"),
                given[number].tobytes(),
                sent[number].tobytes(),
            )
        return found

    def _record(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
            if isinstance(found, dict) and isinstance(found["id"], str):
                return found
        except (ValueError, KeyError):
            pass
        raise _damaged(f"collection {self.name}: {RECORDS} has a line that is no record")

    def _read(self, name: str) -> BlobFile:
        node = self._files.get(name)
        if node is None:
            raise _damaged(f"{name} is missing")
        return BlobFile(self._reader, node.content or [], node.size)


def _lines(file: BlobFile) -> Iterator[bytes]:
    rest, at = b"", 0
    while at < file.size:
        data = file.read(1 << 20, at)
        at += len(data)
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def _entries(reader: Reader, node: Node) -> dict[str, Node]:
    return {e.name: e for e in (reader.tree(node.subtree) if node.subtree is not None else [])}


def _damaged(what: str) -> DamagedError:
    return DamagedError(
        f"the export in the snapshot: {what}",
        hint="run `safetake verify` on the snapshot, and take an older one",
    )
