"""One record of a collection, wherever it comes from, and when two of them are the same."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

CLOSE_ULPS = 4
"""Cosine vectors are kept normalised: one that another tool wrote again is up to 2 units in the
last place off, and is no other vector."""


@dataclass(frozen=True, slots=True)
class Record:
    """What Chroma gives back for an id. `vector` is little-endian float32."""

    id: str
    document: str | None
    metadata: dict[str, Any]
    """Empty where there is none: Chroma gives back either for it."""
    uri: str | None
    vector: bytes
    sent: bytes | None = None
    """What has to be sent so that `vector` is given back; None: the same."""

    def words(self) -> str:
        """Everything but the vector, in one form; 1, 1.0 and true are told apart."""
        return json.dumps([self.document, self.metadata, self.uri], sort_keys=True)

    def words_digest(self) -> str:
        """SHA-256 of `words`."""
        return hashlib.sha256(self.words().encode("utf-8", "surrogatepass")).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """For a file of JSON lines, numbers exactly."""
        return {
            "id": self.id,
            "document": self.document,
            "metadata": self.metadata,
            "uri": self.uri,
            "vector": base64.b64encode(self.vector).decode(),
        }


def definition_of(
    metadata: dict[str, Any] | None, schema: Any, configuration: Any
) -> dict[str, Any]:
    """What `WritableServer.create` makes a collection like it of."""
    made: dict[str, Any] = {"metadata": metadata or None}
    if schema:
        made["schema"] = schema
    elif configuration:
        made["configuration"] = configuration
    within = schema
    for key in ("keys", "#embedding", "float_list", "vector_index", "config", "embedding_function"):
        within = within.get(key) if isinstance(within, dict) else None
    made["embedding_function"] = (configuration or {}).get("embedding_function") or within
    return made


def from_dict(known: dict[str, Any]) -> Record:
    """What `as_dict` wrote. Raises KeyError, ValueError."""
    return Record(
        known["id"],
        known["document"],
        known["metadata"],
        known["uri"],
        base64.b64decode(known["vector"], validate=True),
    )


def same_vector(one: bytes, other: bytes, space: str) -> bool:
    """Bit for bit, in a cosine space up to rounding."""
    if one == other:
        return True
    if space != "cosine" or len(one) != len(other):
        return False
    return distance_ulps(one, other) <= CLOSE_ULPS


def distance_ulps(one: bytes, other: bytes) -> int:
    """The largest distance in units in the last place of two vectors of one length."""
    import numpy as np

    from safetake.sources.chroma.cosine import ulps

    return ulps(np.frombuffer(one, np.float32), np.frombuffer(other, np.float32))


def same(one: Record | None, other: Record | None, space: str) -> bool:
    """Whether two records say the same."""
    if one is None or other is None:
        return one is other
    return one.words() == other.words() and same_vector(one.vector, other.vector, space)


def has_strays(found: Record, keys: Collection[str]) -> bool:
    """Whether a record that was written with these keys has lists of another one besides.

    Chroma 1.5.9 leaves the rows of `embedding_metadata_array` behind when it deletes a collection,
    and SQLite gives their numbers to the next records, which then have those lists as their own.
    """
    more = found.metadata.keys() - set(keys)
    return bool(more) and all(isinstance(found.metadata[key], list) for key in more)


def without_strays(found: Record, keys: Collection[str]) -> Record:
    """The record as it was written."""
    if not has_strays(found, keys):
        return found
    return replace(found, metadata={k: v for k, v in found.metadata.items() if k in keys})
