"""What services wrote to restored data goes away when that data does: before the way back it is
kept, in a snapshot of its own with the tag `safety`.

Nothing is kept where nothing was written, as the files' stamps tell; those of a store that is
restored while it is used are not known, so it is always kept. A way back must succeed: what can not
be kept is said, and lost.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.backup import snapshot_taken
from safetake.errors import SafetakeError, SourceError
from safetake.recovery.raw import RawSource
from safetake.snapshots import SAFETY_TAG

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.model import Progress, Restorer, RestoreWork, Source
    from safetake.recovery.journal import Journal
    from safetake.repository import Repository

NOTE = "unwritten"
_LOGS = ("-wal", "-journal")
_AGAIN = "again-stop"
"""A service that was stopped had been started again after a crash."""


def live_source(config: Config, restorer: Restorer, work: RestoreWork, *, raw: bool) -> Source:
    """The store as a source of a snapshot; `raw`: its files as they lie."""
    from safetake.sources import build

    if raw:
        return RawSource(restorer.name, restorer.raw_files(), work.work)
    section = config.sources[restorer.name]
    update: dict[str, Any] = {}
    if "may_be_empty" in type(section).model_fields:
        update["may_be_empty"] = True
    if "new_path" in work.notes:
        update["path"] = Path(str(work.notes["new_path"]))
    return build(restorer.name, section.model_copy(update=update))


def remember(restorer: Restorer, work: RestoreWork) -> None:
    """Note how the restored store's files look, before a service that writes is started."""
    if work.mode != "online" and NOTE not in work.notes:
        work.note(NOTE, _stamp(_files(restorer, work)))


def since(journal: Journal, restorer: Restorer, work: RestoreWork) -> bool:
    """Whether somebody may have written to the restored store."""
    words = {step.partition(":")[0] for step in journal.begun}
    if not journal.step(f"switch:{restorer.name}") and _AGAIN not in words:
        return False  # perhaps half-way, and nobody ran who could have written
    if work.mode == "online":
        return True
    if not words & {"start", "set", "health", _AGAIN}:
        return False
    return bool(work.notes.get(NOTE) != _stamp(_files(restorer, work)))


def keep(
    config: Config,
    restorer: Restorer,
    work: RestoreWork,
    opening: Callable[[], Repository] | None,
    progress: Progress,
) -> dict[str, str]:
    """`snapshot`, or `lost` with the reason. Does not raise what an unusable store or repository
    would."""
    try:
        if opening is None:
            raise SafetakeError("there is no repository to keep it in")
        opened = opening()
        try:
            return {"snapshot": _taken(config, restorer, work, opened, progress, raw=False)}
        except SourceError:  # what its services left may be no store any more
            if work.mode != "offline" or not restorer.raw_files():
                raise
        return {"snapshot": _taken(config, restorer, work, opened, progress, raw=True)}
    except (SafetakeError, OSError) as error:
        return {"lost": str(error)}


def told(source: str, kind: str, facts: dict[str, Any]) -> str:
    """For the person, of one source."""
    if "lost" in facts:
        return (
            f"what was written to {source} after it was replaced could not be kept, and is gone: "
            f"{facts['lost']}"
        )
    snapshot = str(facts["snapshot"])[:8]
    way = f"safetake restore {snapshot} {source} --to DIR"
    if kind == "sqlite":
        way = f"safetake rows {snapshot} {source}"
    return f"what was written to {source} after it was replaced is in snapshot {snapshot}: `{way}`"


def _taken(
    config: Config,
    restorer: Restorer,
    work: RestoreWork,
    opened: Repository,
    progress: Progress,
    *,
    raw: bool,
) -> str:
    tags = [SAFETY_TAG, f"restore={work.id}", "written-since"]
    source = live_source(config, restorer, work, raw=raw)
    with snapshot_taken(
        opened, [source], barrier=config.barrier, tags=tags, progress=progress
    ) as report:
        return report.id


def _files(restorer: Restorer, work: RestoreWork) -> list[Path]:
    if work.mode == "beside":
        new = Path(str(work.notes["new_path"]))
        return [new, *(new.with_name(new.name + suffix) for suffix in _LOGS)]
    return restorer.raw_files()


def _stamp(places: list[Path]) -> str:
    """Of every file: another one when anything was written. An empty log is only a trace of the
    database's readers."""
    seen = hashlib.sha256()
    for place in places:
        for path in _in(place):
            try:
                state = os.lstat(path)
            except FileNotFoundError:
                continue
            empty_log = not state.st_size and path.endswith(_LOGS)
            if not stat.S_ISDIR(state.st_mode) and not empty_log:
                told = (path, state.st_ino, state.st_size, state.st_mtime_ns)
                seen.update(repr(told).encode("utf-8", "surrogateescape"))
    return seen.hexdigest()


def _in(place: Path) -> Iterator[str]:
    """A file, or a folder and all files in it, in one order."""
    yield str(place)
    for base, folders, files in os.walk(place):
        folders.sort()
        for name in sorted(files):
            yield os.path.join(base, name)  # noqa: PTH118
