"""Collections and records brought back into a running Chroma server, exactly, and undoably.

`plan` compares the snapshot with the server; `apply` makes the change, batch by batch, each
recorded in the undo file before it is made, and read back after it; `takeback.undo` takes back
whatever of it was done. A batch is small and applications go on meanwhile: what they add under the
same ids is never overwritten by an addition (Chroma ignores ids that are there), and is told where
it shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from safetake.errors import RestoreError
from safetake.model import Progress
from safetake.sources.chroma import undo as undo_file
from safetake.sources.chroma.record import distance_ulps, same
from safetake.sources.chroma.recordplan import EXAMPLES, CollectionPlan, RecordsPlan, plan
from safetake.sources.chroma.rest_write import batch_of, loses_words, space_of
from safetake.sources.chroma.undo import ADD, DELETE, UPDATE, Batch, UndoFile

__all__ = ["RecordsPlan", "RecordsReport", "apply", "plan"]


@dataclass(slots=True)
class RecordsReport:
    """What was done."""

    added: int = 0
    updated: int = 0
    deleted: int = 0
    created: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Left as they are, because an application wrote them meanwhile."""
    different: list[str] = field(default_factory=list)
    """Read back and not what was written."""
    ulps: int = 0
    """How far the worst vector is from its snapshot, in units in the last place."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the undo file."""
        return {
            "added": self.added,
            "updated": self.updated,
            "deleted": self.deleted,
            "created": self.created,
            "kept": len(self.kept),
            "different": len(self.different),
            "ulps": self.ulps,
            "examples": {"kept": self.kept[:EXAMPLES], "different": self.different[:EXAMPLES]},
        }


def apply(
    plan: RecordsPlan,
    undo_path: Path,
    progress: Progress = lambda what, done, total: None,
) -> RecordsReport:
    """Do what was planned. A file that is there already is the one of a restore that was cut off.

    Everything that was done is in the undo file, also when this raises (RestoreError, SourceError).
    """
    file = undo_file.read(undo_path) if undo_path.exists() else UndoFile(undo_path)
    if not file.begin:
        undo_path.unlink(missing_ok=True)  # cut off before its first line
        file.write_begin(plan.facts)
    report = RecordsReport()
    for batch in islice(file.batches_back(), 1):
        _finish(plan, batch)
    for one in plan.collections:
        _Applying(plan, one, file, report, progress).run()
    file.write_done(report.as_dict())
    return report


def _finish(plan: RecordsPlan, batch: Batch) -> None:
    """The last batch before we were cut off was perhaps written, and not yet read back."""
    known = batch.collection
    for one in plan.collections:
        stored = one.stored
        place = (stored.tenant, stored.database, stored.name)
        if (
            one.live is not None
            and one.live["id"] == known["id"]
            and place == tuple(known[key] for key in ("tenant", "database", "name"))
        ):
            plan.server.read_back(one.live, list(stored.records(batch.ids).values()))


class _Applying:
    """One collection."""

    def __init__(
        self,
        plan: RecordsPlan,
        one: CollectionPlan,
        file: UndoFile,
        report: RecordsReport,
        progress: Progress,
    ) -> None:
        self._plan, self._one, self._file, self._report = plan, one, file, report
        self._server, self._stored = plan.server, one.stored
        self._progress = progress
        self._place = {
            "tenant": one.stored.tenant,
            "database": one.stored.database,
            "name": one.stored.name,
            "space": one.stored.space,
        }

    def run(self) -> None:
        one = self._one
        if one.live is None:
            one.live = self._create()
        self._live = one.live
        self._place["id"] = one.live["id"]
        work = [(ADD, one.missing)]
        if self._plan.changed:
            work.append((UPDATE, one.changed))
        if self._plan.exact:
            work.append((DELETE, one.newer))
        for how, ids in work:
            self._all(how, ids)

    def _create(self) -> dict[str, Any]:
        stored = self._stored
        place = (stored.tenant, stored.database, stored.name)
        if (there := self._server.find(*place)) is not None:
            return there  # an application made it meanwhile
        self._file.write_create(self._place)
        made = self._server.create(*place, stored.definition())
        self._report.created.append(stored.name)
        if (space := space_of(made)) is not None and space != stored.space:
            self._server.drop(made)
            raise RestoreError(
                f"the collection {stored.name} was made with the distance {space!r},"
                f" not {stored.space!r}, and was removed again",
                hint="restore the whole folder, or use a server of the snapshot's version",
            )
        return made

    def _all(self, how: str, ids: list[str]) -> None:
        first = 0
        while first < len(ids):
            size = batch_of(int(self._live.get("dimension") or self._dimension(ids[first])))
            some = ids[first : first + size]
            if how == DELETE:
                self._delete(some)
            else:
                self._write(how, some)
            first += len(some)
            self._progress(f"{how} {self._one.label}", first, len(ids))

    def _dimension(self, one: str) -> int:
        """Of a new collection, as the snapshot has it: the server knows it after the first add."""
        found = self._stored.records([one]).get(one)
        dimension = len(found.vector) // 4 if found is not None else 1
        self._live = self._live | {"dimension": dimension}
        return dimension

    def _write(self, how: str, ids: list[str]) -> None:
        server, space, report = self._server, self._stored.space, self._report
        now, stored = server.read(self._live, ids), self._stored.records(ids)
        todo = {}
        for one, record in stored.items():
            if same(record, now.get(one), space):
                continue  # done before we were cut off
            if how == ADD and one in now:
                report.kept.append(one)
            else:
                todo[one] = record
        if not todo:
            return
        old = {one: now[one] for one in todo if one in now}
        again = [one for one in old if loses_words(old[one], todo[one])]
        self._file.write_batch(self._place, how, todo, old, todo, again)
        server.add(self._live, [record for one, record in todo.items() if one not in old])
        server.update(
            self._live, [(old[one], record) for one, record in todo.items() if one in old]
        )
        after = server.read_back(self._live, list(todo.values()))
        for one, record in todo.items():
            found = after.get(one)
            if found is None or not same(record, found, space):
                report.different.append(one)
            else:
                report.ulps = max(report.ulps, distance_ulps(record.vector, found.vector))
        report.added += len(todo) - len(old)
        report.updated += len(old)

    def _delete(self, ids: list[str]) -> None:
        now = self._server.read(self._live, ids)
        if not now:
            return
        self._file.write_batch(self._place, DELETE, now, now, {}, list(now))
        self._server.delete(self._live, list(now))
        self._report.deleted += len(now)
        self._report.different += list(self._server.read(self._live, list(now)))
