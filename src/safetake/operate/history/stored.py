"""The history in the repository: sealed documents of the kind `history`, which restic never sees.

Each push writes one document; many small ones are put together into segments, so that a machine
without any memory reads few files. Records keep their ids whatever document they are in. A segment
is durable, and was read back, before what it replaces is removed; a crash between the two leaves
records in two documents, which does no harm.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

from safetake.errors import DamagedError
from safetake.operate.history.record import Record, from_dict

if TYPE_CHECKING:
    from safetake.repository import Repository

SEGMENT = 1000
"""Records in one document, at most."""
SMALL = 64
"""So many documents of few records are put together."""
_MAX_BYTES = 64 << 20
_TRIES = 5


def names(repository: Repository) -> dict[str, int]:
    """Documents and their bytes. Raises StorageError."""
    return dict(repository.storage.list("history"))


def load(repository: Repository, name: str) -> list[Record]:
    """The records of a document. Raises FileNotFoundError, DamagedError, StorageError."""
    if repository.storage.size("history", name) > _MAX_BYTES:
        raise DamagedError(f"history/{name} is damaged: impossibly large")
    document = repository.load_document("history", name)
    records = document.get("records")
    if document.get("format") != 1 or not isinstance(records, list):
        raise DamagedError(f"history/{name} is damaged: not a document of the history")
    try:
        return [from_dict(record) for record in records]
    except DamagedError as error:
        raise DamagedError(f"history/{name} is damaged: {error}") from error


def fresh(
    repository: Repository, known: Container[str]
) -> tuple[dict[str, list[Record]], dict[str, int], list[str]]:
    """(documents that are not known, all that there are, what could not be read).

    Raises StorageError when the repository cannot be listed.
    """
    found: dict[str, list[Record]] = {}
    damaged: dict[str, str] = {}
    there: dict[str, int] = {}
    for _ in range(_TRIES):
        there = names(repository)
        gone = False
        for name in sorted(there):
            if name in known or name in found or name in damaged:
                continue
            try:
                found[name] = load(repository, name)
            except FileNotFoundError:
                gone = True  # put together with others since the listing: look again
            except DamagedError as error:
                damaged[name] = str(error)
        if not gone:
            break
    return found, there, [damaged[name] for name in sorted(damaged)]


def push(repository: Repository, records: list[Record]) -> dict[str, list[str]]:
    """Store records durably; by document what it holds. Raises StorageError."""
    stored: dict[str, list[str]] = {}
    for start in range(0, len(records), SEGMENT):
        group = records[start : start + SEGMENT]
        document = {"format": 1, "records": [record.as_dict() for record in group]}
        name = repository.save_document("history", document)
        stored[name] = [record.id for record in group]
    return stored


def put_together(repository: Repository, held: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Replace small documents by segments, when there are many; by segment what it holds.

    `held` says which records each document holds that is there. What others hold, too, is removed
    only: where nothing may be removed, no segment is made a second time. Raises StorageError.
    """
    needed: dict[str, list[str]] = {}
    covered: set[str] = set()
    for name in sorted(held, key=lambda name: (-len(held[name]), name)):
        if not covered.issuperset(held[name]):
            needed[name] = held[name]
            covered.update(held[name])
    small = [name for name, ids in needed.items() if len(ids) * 2 <= SEGMENT]
    old = [name for name in held if name not in needed]
    segments: dict[str, list[str]] = {}
    if len(small) >= SMALL:
        records = {record.id: record for name in small for record in _there(repository, name)}
        ordered = sorted(records.values(), key=lambda record: (record.ended_ns, record.id))
        segments = push(repository, ordered)
        old += small
    elif not old:
        return {}
    staying = [name for name in [*needed, *segments] if name not in old]
    kept = {record.id for name in staying for record in _there(repository, name)}
    for name in old:
        # what is damaged, or holds what nobody else holds any more, stays
        if kept.issuperset(held[name]) and name not in segments:
            repository.storage.remove("history", name)
    return segments


def _there(repository: Repository, name: str) -> list[Record]:
    """The records of a document as it is now; none when it is gone or damaged."""
    try:
        return load(repository, name)
    except (FileNotFoundError, DamagedError):
        return []
