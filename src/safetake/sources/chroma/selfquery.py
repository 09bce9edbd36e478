"""A running Chroma server, asked over its API: every collection answers, and finds its own records.

The copy says what is on disk; only the server says what it has in memory. Some records of each
collection are read, and each one's vector is asked for: the record must be among the nearest, as
far as an approximate index promises that. Reads only. Records that writers change meanwhile are
asked again, and never held against the store.
"""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING, Any

from safetake.errors import SafetakeError
from safetake.findings import Asked, Asking, Finding
from safetake.sources.chroma.rest import Server, quoted

if TYPE_CHECKING:
    from safetake.config import ChromaConfig

_SAMPLE = 4
_NEAREST = 10
_TOLERANCE = 1e-4


class _Asker(Server):
    """The read-only calls that a question needs."""

    def __enter__(self) -> _Asker:
        return self

    def count(self, known: dict[str, Any]) -> int:
        return int(self._call("GET", f"{self._place(known)}/count"))

    def some(self, known: dict[str, Any], offset: int) -> dict[str, Any]:
        body = {"limit": _SAMPLE, "offset": offset, "include": ["embeddings"]}
        return self._get(known, body)

    def nearest(self, known: dict[str, Any], vector: list[float]) -> dict[str, Any]:
        body = {"query_embeddings": [vector], "n_results": _NEAREST, "include": ["distances"]}
        answer = self._call("POST", f"{self._place(known)}/query", body)
        if not isinstance(answer, dict) or not isinstance(answer.get("ids"), list):
            raise self._not_chroma()
        return answer

    def _place(self, known: dict[str, Any]) -> str:
        return (
            f"tenants/{quoted(known['tenant'])}/databases/{quoted(known['database'])}"
            f"/collections/{quoted(known['id'])}"
        )


def ask_server(config: ChromaConfig, asking: Asking, found: Asked) -> None:
    """Add the findings about the server to `found`. Never raises for what it finds."""
    name = asking.name
    begun = time.monotonic()
    try:
        with _Asker(config.model_copy(update={"url": config.url or config.server})) as server:
            found.facts["server_version"] = server.version()
            found.facts["server_answers_ms"] = round((time.monotonic() - begun) * 1000, 1)
            tenant, databases = server.databases()
            counts: dict[str, int] = {}
            for database in databases:
                for each in server.collections(tenant, database):
                    known = each | {"tenant": tenant, "database": database}
                    counts[str(each["name"])] = _collection(server, known, name, found)
            found.facts["server_collections"] = counts
            found.findings.append(Finding(name, "server answers", True))
    except SafetakeError as error:
        found.findings.append(
            Finding(name, "server answers", False, "error", str(error), [], error.hint)
        )


def _collection(server: _Asker, known: dict[str, Any], name: str, found: Asked) -> int:
    """Ask one collection; returns how many records it says it has."""
    check = f"collection {known['name']}: a vector finds itself"
    try:
        count = server.count(known)
        asked, missed, broken = _ask(server, known, count)
    except SafetakeError as error:
        if _deleted(server, known):
            return 0
        hint = "look at the server's log; restart it, or restore the collection"
        found.findings.append(Finding(name, check, False, "error", str(error), [], hint))
        return 0
    hint = "the index may be damaged: restart the server, or restore the collection"
    bad = broken or missed if broken or len(missed) > asked // 2 else []
    detail = f"{asked} asked"
    if broken:
        detail = f"{len(broken)} of {asked} have vectors that are none"
    elif missed:
        detail = f"{len(missed)} of {asked} do not find themselves"
    found.findings.append(Finding(name, check, not bad, "error", detail, bad, hint))
    return count


def _ask(server: _Asker, known: dict[str, Any], count: int) -> tuple[int, list[str], list[str]]:
    """(how many were asked, ids that were not found, ids whose vectors are no vectors)"""
    missed, broken = [], []
    offset = random.SystemRandom().randrange(max(1, count - _SAMPLE)) if count > _SAMPLE else 0
    got = server.some(known, offset)
    dimension = known.get("dimension")
    for one, vector in zip(got["ids"], got.get("embeddings") or [], strict=False):
        if (
            not isinstance(vector, list)
            or (dimension and len(vector) != dimension)
            or not all(isinstance(x, int | float) and math.isfinite(x) for x in vector)
        ):
            broken.append(str(one))
        elif not _finds(server, known, one, vector) and _still(server, known, one, vector):
            missed.append(str(one))
    return len(got["ids"]), missed, broken


def _finds(server: _Asker, known: dict[str, Any], one: str, vector: list[float]) -> bool:
    answer = server.nearest(known, vector)
    near = answer["ids"][0] if answer["ids"] else []
    distances = (answer.get("distances") or [[]])[0]
    # equal vectors may take all the places; of inner products a longer vector's is larger
    square = sum(x * x for x in vector)
    own = 1 - square if _space(known) == "ip" else 0.0
    limit = own + _TOLERANCE * max(1.0, square)
    return one in near or any(far <= limit for far in distances if far is not None)


def _space(known: dict[str, Any]) -> str:
    configured = known.get("configuration_json") or {}
    for part in (configured.get("hnsw"), configured.get("spann"), known.get("metadata")):
        if isinstance(part, dict) and (found := part.get("space") or part.get("hnsw:space")):
            return str(found)
    return "l2"


def _still(server: _Asker, known: dict[str, Any], one: str, vector: list[float]) -> bool:
    """Whether the record is there as it was: nobody changed it while it was asked for."""
    got = server.records(known, [one])
    return bool(got["ids"]) and (got.get("embeddings") or [None])[0] == vector


def _deleted(server: _Asker, known: dict[str, Any]) -> bool:
    """Whether the collection was deleted since it was listed."""
    try:
        there = {each["id"] for each in server.collections(known["tenant"], known["database"])}
    except SafetakeError:
        return False
    return known["id"] not in there
