"""The use cases of restores in place: begin one, go on with one, put one back, undo one.

At most one restore is open in a state folder. The lock is held while a process works on it.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.clock import go_time, now_ns, utc
from safetake.errors import RefusedError, UsageError
from safetake.recovery import workfolder
from safetake.recovery.engine import Engine, Say
from safetake.recovery.journal import Journal, create, journals, open_restore, working
from safetake.recovery.outcome import Outcome, told_since
from safetake.recovery.plan import PlannedRestore, Wishes, plan_restore, whereabouts
from safetake.state import state_folder

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.model import Progress
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo

Agree = Callable[[PlannedRestore], bool]
"""Shows the plan and says whether it may be carried out."""


@dataclass(slots=True)
class Telling:
    """Where a restore says what it does."""

    say: Say
    progress: Progress | None = None


def restores_folder(config: Config) -> Path:
    """Where the journals are. Raises SafetakeError."""
    return state_folder(config.restore.state, "restores")


def restore_in_place(
    repository: Repository,
    config: Config,
    snapshot: SnapshotInfo,
    names: list[str],
    wishes: Wishes,
    agree: Agree,
    telling: Telling,
    *,
    undo_of: Journal | None = None,
) -> tuple[PlannedRestore, Outcome | None]:
    """Plan, ask, and do. None when it was not agreed to: nothing was changed then.

    Raises RefusedError while another restore is open, RolledBackError when a step failed and
    everything is as it was, RestoreError when it could not even be put back.
    """
    restores = restores_folder(config)
    with working(restores):
        _none_open(restores)
        plan = plan_restore(repository, config, snapshot, names, wishes, journals(restores))
        if undo_of is not None:
            plan.undo_of = undo_of.id
            plan.warnings += _not_undone(undo_of)
        if not agree(plan):
            return plan, None
        name = secrets.token_hex(8)
        journal = create(restores, name, described(restores, name, plan))
        return plan, engine_of(config, journal, telling).forward(lambda: (repository, snapshot))


def engine_of(config: Config, journal: Journal, telling: Telling) -> Engine:
    """What does, or undoes, what a journal says. Raises RefusedError for another configuration."""
    made = Engine
    if journal.plan.get("drill"):
        from safetake.recovery.rehearsed import RehearsedEngine

        made = RehearsedEngine
    return made(config, journal, say=telling.say, progress=telling.progress)


def described(restores: Path, name: str, plan: PlannedRestore) -> dict[str, Any]:
    """The plan of the restore `name` as its journal keeps it. Raises RefusedError when another
    restore is open on one of the stores.
    """
    sources = {}
    for source in plan.sources.values():
        place = source.restorer.place() or restores / name
        saved = "nothing" if source.outline.absent else "raw" if source.outline.damaged else ""
        sources[source.name] = {
            "type": source.config.type,
            "live": whereabouts(source.config),
            "mode": source.outline.mode,
            "work": str(place / workfolder.name_for(source.name)),
            "options": source.options,
            "saved": saved or "capture",
            "entry": source.entry,
        }
    for one in sources.values():
        workfolder.free(Path(str(one["work"])))
    return {
        "format": 1,
        "time": go_time(now_ns()),
        "host": socket.gethostname(),
        "snapshot": plan.snapshot.id,
        "bytes": sum(source.bytes for source in plan.sources.values()),
        "sources": sources,
        "stop": plan.stop,
        "switch": [list(pair) for pair in plan.switch],
        "gate": plan.gate,
        "undo_of": plan.undo_of,
    }


def _none_open(restores: Path) -> None:
    journal = open_restore(restores)
    if journal is not None:
        undone = str(journal.plan.get("undo_of", ""))
        what, new, old = "", "the restored data", "the data from before"
        if undone:
            what = f", the undo of {undone[:8]},"
            new, old = f"what was there before {undone[:8]}", "what was there before the undo"
        raise RefusedError(
            f"the restore {journal.id}{what} of {', '.join(journal.plan['sources'])} was begun "
            f"{utc(journal.plan['time'])} and not ended",
            hint=f"`safetake restore --resume` ends it with {new}, `--rollback` with {old}",
        )


@contextlib.contextmanager
def alone(config: Config, *, writing: bool = True) -> Iterator[None]:
    """No restore in place at the same time, neither at work nor begun and not ended: for rows,
    records and keys, whose undo files are no journal of it. Does nothing without `writing`.

    Raises RefusedError.
    """
    if not writing:
        yield
        return
    restores = restores_folder(config)
    with working(restores):
        _none_open(restores)
        yield


def _the_open(restores: Path) -> Journal:
    journal = open_restore(restores)
    if journal is None:
        raise UsageError(
            f"no restore is open in {restores}",
            hint="a restore that has ended is taken back with `safetake restore --undo`",
        )
    return journal


def resume(
    config: Config, opening: Callable[[str], tuple[Repository, SnapshotInfo]], telling: Telling
) -> Outcome:
    """End the open restore with the restored data, or go on with the way back when that was begun.

    `opening` opens the repository and finds the snapshot, when they are needed at all. Raises
    UsageError when no restore is open, otherwise as `restore_in_place`.
    """
    restores = restores_folder(config)
    with working(restores):
        journal = _the_open(restores)
        engine = engine_of(config, journal, telling)
        return engine.forward(lambda: opening(str(journal.plan["snapshot"])))


def roll_back(
    config: Config, telling: Telling, opening: Callable[[], Repository] | None = None
) -> Outcome:
    """End the open restore with the data from before. Needs no repository; `opening` opens it when
    somebody wrote to what was restored, to keep that.

    Raises UsageError when no restore is open, RefusedError when it is committed already.
    """
    restores = restores_folder(config)
    with working(restores):
        return engine_of(config, _the_open(restores), telling).back(opening=opening)


def undoable(config: Config, wanted: str) -> tuple[Journal, str]:
    """The committed restore (the newest, or the one that `wanted` begins the id of) and the one
    snapshot that holds what it replaced (`Journal.saved`). Raises UsageError, RefusedError.
    """
    restores = restores_folder(config)
    _none_open(restores)
    found = [
        journal
        for journal in journals(restores)
        if journal.ended == "committed" and journal.id.startswith(wanted)
    ]
    if not found:
        raise UsageError(
            f"there is no restore {wanted!r} to undo" if wanted else "there is no restore to undo",
            hint="`safetake restore --list` shows them",
        )
    if wanted and len(found) > 1:
        raise UsageError(f"{wanted!r} begins the ids of {len(found)} restores")
    journal = found[-1]
    if not journal.saved:
        raise RefusedError(
            f"restore {journal.id} replaced nothing: there was no data before it",
            hint="there is nothing to bring back",
        )
    return journal, next(iter(journal.saved.values()))


def _not_undone(journal: Journal) -> list[str]:
    """What the undo of a restore does not bring back, for the person."""
    absent = [name for name in journal.plan["sources"] if name not in journal.saved]
    return [
        *(
            f"{name}: nothing was there before the restore; what is there now stays"
            for name in absent
        ),
        *told_since(journal.saved_since),
    ]
