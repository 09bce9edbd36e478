"""References between stores: every id on the side that refers must be on the other side.

Live stores are read one after the other while the application writes, so that one pass proves
nothing against it: an id that is missing is asked for again, by itself, at once and after it had
time to settle. It is an offender when at the end it still refers, is still missing, and refers even
then: whoever writes what is referred to first and deletes it last never has such an id, and
whoever does not has the time of `settle`.

In a snapshot or a restored copy nothing moves, and one pass is the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from safetake.errors import SafetakeError
from safetake.findings import KEPT_IDS, Finding
from safetake.integrity.ends import Live, Place, Staged, Stored
from safetake.integrity.idsets import FEW, IdSets
from safetake.scratch import scratch_folder
from safetake.snapshots import SnapshotInfo, read_manifest, root_nodes

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.configjobs import ReferenceConfig, ReferenceEnd
    from safetake.ids import IdReader
    from safetake.repository import Repository

__all__ = ["Live", "Staged", "Stored", "check_references", "check_snapshot"]

Sleep = Callable[[float], None]


def check_references(
    config: Config,
    sources: Iterable[str] | None = None,
    *,
    place: Place | None = None,
    scratch: Path | None = None,
    sleep: Sleep = time.sleep,
) -> list[Finding]:
    """A finding for each declared reference with a side in one of `sources` (None: all).

    A side that cannot be read is a finding as well. Nothing is raised for what is found.
    """
    wanted = None if sources is None else set(sources)
    place = Live() if place is None else place
    findings: list[Finding] = []
    with scratch_folder(scratch) as folder:
        for name, reference in config.references.items():
            ends = {reference.from_.source, reference.to.source}
            if wanted is None or wanted & ends:
                findings.append(_check(config, name, reference, place, folder, sleep))
    return findings


def check_snapshot(
    config: Config, repository: Repository, snapshot: SnapshotInfo, *, scratch: Path | None = None
) -> list[Finding]:
    """The same inside a snapshot, out of the repository: is the backup itself consistent?

    References to or from a source that is not in it are left out. Raises DamagedError when the
    snapshot cannot be read at all.
    """
    reader = repository.reader()
    manifest = read_manifest(reader, snapshot)
    if manifest is None:
        return []
    there = set(manifest["sources"])
    inside = {
        name: reference
        for name, reference in config.references.items()
        if {reference.from_.source, reference.to.source} <= there
    }
    stored = Stored(reader, root_nodes(reader, snapshot), manifest, snapshot.time_ns)
    only = config.model_copy(update={"references": inside})
    return check_references(only, place=stored, scratch=scratch)


def _check(
    config: Config,
    name: str,
    reference: ReferenceConfig,
    place: Place,
    folder: Path,
    sleep: Sleep,
) -> Finding:
    source, check = reference.from_.source, f"reference {name}"
    try:
        refers = place.reader(config, reference.from_, folder)
        target = place.reader(config, reference.to, folder)
        sets = IdSets(Path(mkdtemp(prefix="ids-", dir=folder)))
        try:
            # what refers first: what is created meanwhile is then on the other side only
            count = sets.fill("from", refers.ids())
            sets.fill("to", target.ids())
            missing = sets.suspect("from", "to")
            if missing and place.moving:
                missing = _confirmed(sets, refers, target, reference.settle, sleep)
            ids = sets.first(KEPT_IDS)
        finally:
            sets.close()
    except SafetakeError as error:
        return Finding(source, check, False, detail=f"cannot be checked: {error}", hint=error.hint)
    where = f"{said(reference.from_)} refers to {said(reference.to)}"
    if not missing:
        return Finding(source, check, True, detail=f"{where}: {count:,} ids, all there")
    return Finding(
        source,
        check,
        False,
        detail=f"{where}: {missing:,} of {count:,} ids are not there",
        ids=ids,
        hint=f"bring what is missing in {reference.to.source} back from a snapshot, or remove what"
        f" refers to it in {source}",
    )


def _confirmed(
    sets: IdSets, refers: IdReader, target: IdReader, settle: float, sleep: Sleep
) -> int:
    """How many stay suspected when they are asked about again: at once, and after `settle`."""
    for pause in dict.fromkeys((0.0, settle)):
        if pause:
            sleep(pause)
        for reader, there in ((refers, False), (target, True), (refers, False)):
            _clear(sets, reader, there=there)
            if not sets.count:
                return 0
    return sets.count


def _clear(sets: IdSets, reader: IdReader, *, there: bool) -> None:
    """Suspects that the reader has (or has not) are suspected no longer."""
    if sets.count > FEW:
        sets.fill("again", reader.ids())
        sets.clear_by("again", there=there)
        return
    suspects = set(sets.suspects())
    found = reader.among(suspects)
    sets.clear(found if there else suspects - found)


def said(end: ReferenceEnd) -> str:
    """One side in a few words: `vectors (scripts.project_id)`."""
    if end.sql is not None:
        what = " ".join(end.sql.split())
    elif end.collection is not None:
        what = f"{end.collection}.{end.field}"
    else:
        what = end.keys or end.files or ""
    return f"{end.source} ({what if len(what) <= 60 else what[:59] + '…'})"
