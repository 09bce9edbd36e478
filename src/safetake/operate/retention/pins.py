"""What no rule may remove: the last good snapshots of each source, and what a restore needs.

Sources are told apart by host and name, and count also when they are configured no longer. Nothing
here writes: journals and undo files may belong to a restore that is at work at this moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.errors import RestoreError
from safetake.recovery.journal import Journal, journals
from safetake.snapshots import FAILED, RUNGS, STORED, SnapshotInfo
from safetake.state import state_folder

if TYPE_CHECKING:
    from safetake.config import Config

Pins = dict[str, list[str]]
"""By the snapshot's id: why it stays."""
Source = tuple[str, str]
"""Host and name."""
_FOR_NOTHING = "what a restore may need is not known, and nothing was removed"


def by_source(snapshots: Iterable[SnapshotInfo], now_ns: int) -> dict[Source, list[SnapshotInfo]]:
    """The ordinary snapshots that hold each source, oldest first.

    Later ones than `now_ns` are left out: a clock that went wrong for a day would stand in the way
    of every newer proof. Where nothing but safety snapshots hold a source, it is those.
    """
    ordinary: dict[Source, list[SnapshotInfo]] = {}
    safety: dict[Source, list[SnapshotInfo]] = {}
    for snapshot in sorted(snapshots, key=lambda one: (one.time_ns, one.id)):
        if snapshot.time_ns <= now_ns:
            for name in snapshot.sources:
                found = safety if snapshot.safety else ordinary
                found.setdefault((snapshot.document.get("hostname", ""), name), []).append(snapshot)
    return {**safety, **ordinary}


def proven(sources: dict[Source, list[SnapshotInfo]]) -> Pins:
    """Of each source, the newest snapshot on the highest rung, and the newest without damage; the
    newest at all where each was found damaged.
    """
    pins: Pins = {}
    for (_, name), snapshots in sources.items():
        good = [one for one in snapshots if one.rung.name != FAILED]
        if not good:
            _pin(pins, snapshots[-1].id, f"last of {name}, and damaged")
            continue
        _pin(pins, good[-1].id, f"last of {name}")
        highest = max(RUNGS.index(one.rung.name) for one in good)
        if RUNGS[highest] != STORED:
            best = [one for one in good if one.rung.name == RUNGS[highest]]
            _pin(pins, best[-1].id, f"last {RUNGS[highest]} of {name}")
    return pins


def complete(
    sources: dict[Source, list[SnapshotInfo]],
    manifest: Callable[[SnapshotInfo], dict[str, Any] | None],
) -> Pins:
    """Of each source of whose newest snapshot something was not read, the newest complete one.

    So the newest snapshots are read: raises DamagedError when the last good one of a source cannot
    be, and nothing may be removed then.
    """
    pins: Pins = {}
    for (_, name), snapshots in sources.items():
        newest_first = [one for one in reversed(snapshots) if one.rung.name != FAILED]
        for snapshot in newest_first:
            entry = (manifest(snapshot) or {}).get("sources", {}).get(name)
            if entry is not None and not entry.get("unread"):
                if snapshot is not newest_first[0]:  # which `proven` pins already
                    _pin(pins, snapshot.id, f"last complete of {name}")
                break
    return pins


def needed(config: Config, snapshots: Sequence[SnapshotInfo]) -> Pins:
    """What a restore that is open, or the undo of the newest one, takes from the repository.

    Raises RestoreError when a record of a restore cannot be read.
    """
    wanted: Pins = {}
    committed: list[Journal] = []
    for journal in _journals(state_folder(config.restore.state, "restores", create=False)):
        if not journal.ended:
            for one in (str(journal.plan["snapshot"]), *_saved(journal)):
                _pin(wanted, one, f"the open restore {journal.id[:8]} needs it")
        elif journal.ended == "committed":
            committed.append(journal)
    if committed:
        newest = max(committed, key=lambda journal: journal.order)
        for one in newest.saved.values():
            _pin(wanted, one, f"`restore --undo` of {newest.id[:8]} needs it")
        for one in newest.saved_since.values():
            _pin(wanted, one, f"saved while restore {newest.id[:8]} was cut off")
    for one in _cut_off(state_folder(config.restore.state, "records", create=False)):
        _pin(wanted, one, "a restore of records that was cut off needs it")
    # `restic tag` and `rewrite` give a snapshot a new id, and keep the first one
    renamed = {str(s.document["original"]): s.id for s in snapshots if "original" in s.document}
    for old, reasons in list(wanted.items()):
        if old in renamed:
            wanted.setdefault(renamed[old], []).extend(reasons)
    return wanted


def tagged(snapshots: Iterable[SnapshotInfo], tags: Iterable[str]) -> Pins:
    """Those with one of the tags that somebody gave them to be kept."""
    pins: Pins = {}
    keep = set(tags)
    for snapshot in snapshots:
        for tag in sorted(keep.intersection(snapshot.document.get("tags") or ())):
            _pin(pins, snapshot.id, f"tagged {tag}")
    return pins


def merged(*some: Pins) -> Pins:
    """All reasons together, each once."""
    found: Pins = {}
    for pins in some:
        for name, reasons in pins.items():
            for reason in reasons:
                _pin(found, name, reason)
    return found


def _pin(pins: Pins, name: str, reason: str) -> None:
    reasons = pins.setdefault(name, [])
    if reason not in reasons:
        reasons.append(reason)


def _journals(restores: Path) -> list[Journal]:
    try:
        found = journals(restores)
    except RestoreError as error:
        raise RestoreError(f"{error}: {_FOR_NOTHING}", hint=error.hint) from error
    for journal in found:
        if "snapshot" not in journal.plan:
            raise _unknown(journal.folder, KeyError("snapshot"))
    return found


def _saved(journal: Journal) -> list[str]:
    saved = (f["snapshot"] for step, f in journal.done.items() if step.startswith("safety:"))
    return [*journal.saved.values(), *(str(one) for one in saved if one)]


def _cut_off(records: Path) -> list[str]:
    from safetake.sources.chroma.undo import SUFFIX

    found = []
    for path in sorted(records.glob("*" + SUFFIX)) if records.is_dir() else ():
        try:
            data = path.read_bytes()
            lines = [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
            if lines and not any("done" in line or "undone" in line for line in lines):
                found.append(str(lines[0]["begin"]["snapshot"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unknown(path, error) from error
    return found


def _unknown(path: Path, error: Exception) -> RestoreError:
    return RestoreError(
        f"{path} cannot be read ({error}): {_FOR_NOTHING}",
        hint="mend it, or move it away when that restore is over",
    )
