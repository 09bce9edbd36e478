"""A restore of single records taken back, from its undo file alone.

Batches are undone from the last to the first. A record goes back only when it is what was written
(or what was between two writes of ours): what an application wrote since stays, and is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetake.config import ChromaConfig
from safetake.errors import RestoreError
from safetake.model import Progress
from safetake.sources.chroma import undo as undo_file
from safetake.sources.chroma.record import Record, same, without_strays
from safetake.sources.chroma.rest_write import WritableServer, server_of
from safetake.sources.chroma.undo import Batch


@dataclass(slots=True)
class TakenBack:
    """What was taken back."""

    removed: int = 0
    put_back: int = 0
    dropped: list[str] = field(default_factory=list)
    """Collections that were made and are gone again."""
    kept: list[str] = field(default_factory=list)
    """Written by an application since, and left alone; `collection: id`."""
    different: list[str] = field(default_factory=list)
    """Read back and not what was there before."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the undo file."""
        return {
            "removed": self.removed,
            "put_back": self.put_back,
            "dropped": self.dropped,
            "kept": len(self.kept),
            "different": len(self.different),
            "examples": {"kept": self.kept[:10], "different": self.different[:10]},
        }


def undo(
    name: str,
    config: ChromaConfig,
    undo_path: Path,
    progress: Progress = lambda what, done, total: None,
) -> TakenBack:
    """Take back what a restore did, finished or not. Can be cut off and called again.

    Raises ConfigError, RestoreError, SourceError.
    """
    file = undo_file.read(undo_path)
    result = TakenBack()
    with server_of(name, config) as server:
        if file.begin.get("server") != server.where:
            raise RestoreError(
                f"the records were brought back into {file.begin.get('server')}, and source {name}"
                f" is at {server.where} now",
                hint="correct `url` or `server` of the source",
            )
        used: dict[tuple[str, ...], str] = {}
        for number, batch in enumerate(file.batches_back()):
            _batch(server, batch, result)
            used[_name_of(batch.collection)] = batch.collection["id"]
            progress("undo", number + 1, len(file.places))
        for known in reversed(file.created):
            _drop(server, known, used.get(_name_of(known)), result)
    file.write_undone(result.as_dict())
    return result


def _name_of(known: dict[str, Any]) -> tuple[str, str, str]:
    return known["tenant"], known["database"], known["name"]


def _find(server: WritableServer, known: dict[str, Any], made: str | None) -> dict[str, Any] | None:
    """The collection that was written to; None when it is gone, or was made anew since."""
    found = server.find(*_name_of(known))
    return None if found is not None and made not in (None, found["id"]) else found


def _batch(server: WritableServer, batch: Batch, result: TakenBack) -> None:
    known, space = batch.collection, batch.collection["space"]
    collection = _find(server, known, known["id"])
    if collection is None:
        gone = "the collection is gone, or was made anew since"
        result.kept += [f"{known['name']}: {one}, {gone}" for one in batch.old]
        return
    now = server.read(collection, batch.ids)
    remove: list[str] = []
    back: list[Record] = []
    for one in batch.ids:
        old, live, new = batch.old.get(one), now.get(one), batch.new.get(one)
        if same(old, live, space):
            continue
        if old is not None and live is not None:
            bare = without_strays(live, old.metadata.keys())
            if same(old, bare, space):  # put back by an undo that was cut off
                back.append(old)
                continue
        between = live is None and one in batch.again
        if not between and not (new is not None and new.is_now(live, space)):
            result.kept.append(f"{known['name']}: {one}")
        elif old is None:
            remove.append(one)
        else:
            back.append(old)
    server.delete(collection, remove)
    exact = _as_sent(back, space)
    server.add(collection, [record for record in exact if record.id not in now])
    server.update(collection, [(now[record.id], record) for record in exact if record.id in now])
    after = server.read(collection, remove) | server.read_back(collection, exact)
    result.different += [f"{known['name']}: {one}" for one in remove if one in after]
    for record in back:
        if not same(record, after.get(record.id), space):
            result.different.append(f"{known['name']}: {record.id}")
    result.removed += len(remove)
    result.put_back += len(back)


def _as_sent(records: Sequence[Record], space: str) -> list[Record]:
    """The same, with what Chroma has to be sent to give them back exactly."""
    if space != "cosine" or not records:
        return list(records)
    import numpy as np

    from safetake.sources.chroma import cosine

    given = np.stack([np.frombuffer(record.vector, "<f4") for record in records])
    sent = cosine.to_be_given_back(given)
    return [replace(record, sent=sent[number].tobytes()) for number, record in enumerate(records)]


def _drop(
    server: WritableServer, known: dict[str, Any], made: str | None, result: TakenBack
) -> None:
    """Remove a collection that the restore made, unless an application has records in it."""
    collection = server.find(*_name_of(known))
    if collection is None:
        return
    if made not in (None, collection["id"]):
        result.kept.append(f"the collection {known['name']}: it was made anew since")
        return
    if left := server.ids(collection):
        result.kept.append(f"the collection {known['name']}: it has {len(left)} records")
        return
    server.drop(collection)
    result.dropped.append(known["name"])
