"""The calls of a Chroma server that change something, as a restore of records needs them.

A record is never sent with an empty document or uri in an update: Chroma 1.5.9 merges an update
into what is there, and `"chroma:document": null` makes every later write to that server fail with
"Error sending message to compactor", also after a restart (measured). What must lose its document
is deleted and added again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from safetake.config import ChromaConfig
from safetake.errors import ConfigError, RestoreError, SourceError
from safetake.sources.chroma.record import Record, has_strays
from safetake.sources.chroma.rest import Server, quoted

_INCLUDE = ["documents", "embeddings", "metadatas", "uris"]
MOST_RECORDS = 256
_MOST_BYTES = 8 << 20
_JSON_BYTES_PER_NUMBER = 24


def server_of(name: str, config: ChromaConfig) -> WritableServer:
    """The server of a source: its `url`, or the `server` beside its `path`. Raises ConfigError."""
    url = config.url or config.server
    if url is None:
        raise ConfigError(
            f"source {name} has no server to bring records back into",
            hint=f'set `server = "http://host:8000"` in [sources.{name}], or restore the whole'
            " folder while nobody uses it",
        )
    return WritableServer(config.model_copy(update={"url": url}))


def space_of(collection: dict[str, Any]) -> str | None:
    """How a server's collection measures distance, where it says so."""
    hnsw = (collection.get("configuration_json") or {}).get("hnsw") or {}
    return hnsw.get("space")


def batch_of(dimension: int) -> int:
    """Records that are sent at once: some megabytes of JSON."""
    return max(1, min(MOST_RECORDS, _MOST_BYTES // (_JSON_BYTES_PER_NUMBER * max(1, dimension))))


class WritableServer(Server):
    """A server whose collections can be changed. Errors are SourceErrors and RestoreErrors."""

    def __enter__(self) -> WritableServer:
        return self

    def find(self, tenant: str, database: str, name: str) -> dict[str, Any] | None:
        """The collection of that name, with its tenant and database; None when there is none."""
        if not self._there(tenant, database):
            return None
        for known in self.collections(tenant, database):
            if known.get("name") == name:
                return known | {"tenant": tenant, "database": database}
        return None

    def collection_ids(self, tenant: str, database: str) -> set[str]:
        """The ids of all collections of a database."""
        if not self._there(tenant, database):
            return set()
        return {str(known["id"]) for known in self.collections(tenant, database)}

    def create(
        self, tenant: str, database: str, name: str, definition: dict[str, Any]
    ) -> dict[str, Any]:
        """Make a collection, and its tenant and database where they are missing."""
        self._make_place(tenant, database)
        path = f"{_place(tenant, database)}/collections"
        body = {"name": name, "metadata": definition["metadata"], "get_or_create": False}
        tries = [
            {key: definition[key]}
            for key in ("schema", "configuration")
            if definition.get(key) is not None
        ]
        if any(str(key).startswith("hnsw:") for key in definition["metadata"] or {}):
            # a schema is refused together with these, which say the same, but for one thing
            function = definition.get("embedding_function")
            if function is not None:
                tries.insert(0, {"configuration": {"embedding_function": function}})
            tries.append({})
        elif not tries:
            tries.append({})
        for number, more in enumerate(tries, 1):
            try:
                made = self._call("POST", path, body | more)
                break
            except SourceError as error:
                if number == len(tries):
                    raise RestoreError(
                        f"the collection {name} cannot be made: {error}",
                        hint="look at the server's log, then give the same command again, or take"
                        " back what was done with `safetake restore --rollback`",
                    ) from error
        return dict(made) | {"tenant": tenant, "database": database}

    def drop(self, collection: dict[str, Any]) -> None:
        """Remove a whole collection."""
        place = _place(collection["tenant"], collection["database"])
        self._call("DELETE", f"{place}/collections/{quoted(collection['name'])}")

    def read(self, collection: dict[str, Any], ids: Sequence[str]) -> dict[str, Record]:
        """The records of ids that are there."""
        import numpy as np

        if not ids:
            return {}
        got = self._get(collection, {"ids": list(ids), "include": _INCLUDE})
        if not (count := len(got["ids"])):
            return {}
        matrix = np.asarray(got.get("embeddings") or [], "<f4").reshape(count, -1)
        blank = [None] * count
        columns = [got.get(key) or blank for key in ("documents", "metadatas", "uris")]
        return {
            one: Record(one, document, metadata or {}, uri, matrix[number].tobytes())
            for number, (one, document, metadata, uri) in enumerate(
                zip(got["ids"], *columns, strict=True)
            )
        }

    def read_back(self, collection: dict[str, Any], records: Sequence[Record]) -> dict[str, Record]:
        """What there is of records that were just written; lists of others are taken off them."""
        found = self.read(collection, [record.id for record in records])
        stray = [
            (found[record.id], record)
            for record in records
            if record.id in found and has_strays(found[record.id], record.metadata.keys())
        ]
        if stray:
            self.update(collection, stray)
            found |= self.read(collection, [record.id for _, record in stray])
        return found

    def add(self, collection: dict[str, Any], records: Sequence[Record]) -> None:
        """Add records; ids that are there stay as they are (Chroma's own rule)."""
        if records:
            self._write(collection, "add", records, [record.metadata for record in records])

    def update(self, collection: dict[str, Any], pairs: Sequence[tuple[Record, Record]]) -> None:
        """Change records (first) to what the second says, keys that it does not have removed.

        A record that would lose its document or uri is deleted and added again.
        """
        merged = [pair for pair in pairs if not loses_words(*pair)]
        if merged:
            metadata = [
                new.metadata | dict.fromkeys(old.metadata.keys() - new.metadata.keys())
                for old, new in merged
            ]
            self._write(collection, "update", [new for _, new in merged], metadata)
        again = [new for old, new in pairs if loses_words(old, new)]
        if again:
            self.delete(collection, [record.id for record in again])
            self.add(collection, again)

    def delete(self, collection: dict[str, Any], ids: Sequence[str]) -> None:
        """Remove records; ids that are not there are no error."""
        if ids:
            self._call("POST", f"{_path(collection)}/delete", {"ids": list(ids)})

    def _write(
        self,
        collection: dict[str, Any],
        verb: str,
        records: Sequence[Record],
        metadata: list[dict[str, Any]],
    ) -> None:
        import numpy as np

        vectors = [
            np.frombuffer(record.vector if record.sent is None else record.sent, "<f4")
            for record in records
        ]
        for record, vector in zip(records, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise RestoreError(
                    f"record {record.id!r} has a vector that is not finite: no server takes it",
                    hint="leave it out, or restore the whole folder",
                )
        for some in _portions(records):
            body = {
                "ids": [record.id for record in records[some]],
                "embeddings": [vector.astype(float).tolist() for vector in vectors[some]],
                "documents": [record.document for record in records[some]],
                "metadatas": [entry or None for entry in metadata[some]],
                "uris": [record.uri for record in records[some]],
            }
            self._call("POST", f"{_path(collection)}/{verb}", body)

    def _there(self, tenant: str, database: str) -> bool:
        """Whether there is such a database: the server lists nothing, and no error, otherwise."""
        try:
            self._call("GET", _place(tenant, database))
        except SourceError as error:
            if "answers 404" in str(error):
                return False
            raise
        return True

    def _make_place(self, tenant: str, database: str) -> None:
        if self._there(tenant, database):
            return
        try:
            self._call("GET", f"tenants/{quoted(tenant)}")
        except SourceError:
            self._call("POST", "tenants", {"name": tenant})
        self._call("POST", f"tenants/{quoted(tenant)}/databases", {"name": database})


def _portions(records: Sequence[Record]) -> Iterator[slice]:
    """Records that go together: Chroma 1.5.9 takes 40 MiB at once, and documents are of any
    length."""
    first = size = 0
    for number, record in enumerate(records):
        more = len(record.words()) + _JSON_BYTES_PER_NUMBER * (len(record.vector) // 4)
        if number > first and size + more > _MOST_BYTES:
            yield slice(first, number)
            first, size = number, 0
        size += more
    yield slice(first, len(records))


def loses_words(old: Record, new: Record) -> bool:
    """Whether a change would take a document or uri away, which no update can do."""
    return (old.document is not None and new.document is None) or (
        old.uri is not None and new.uri is None
    )


def _place(tenant: str, database: str) -> str:
    return f"tenants/{quoted(tenant)}/databases/{quoted(database)}"


def _path(collection: dict[str, Any]) -> str:
    place = _place(collection["tenant"], collection["database"])
    return f"{place}/collections/{quoted(collection['id'])}"
