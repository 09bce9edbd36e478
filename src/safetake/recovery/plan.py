"""What a restore in place will do, worked out without changing anything.

For each source: how it will be replaced, what will be lost, what comes back, the room that is
needed; for the whole: the services that stop, the time that it should take against the objective.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.errors import DamagedError, RefusedError, UsageError
from safetake.restore.beside import choose
from safetake.snapshots import SnapshotInfo, read_manifest
from safetake.state import state_folder

if TYPE_CHECKING:
    from safetake.config import Config, SourceConfig
    from safetake.model import RestoreOutline, Restorer
    from safetake.recovery.journal import Journal
    from safetake.repository import Repository
    from safetake.services.base import Service

ORDER = {"redis": 0, "files": 1, "chroma": 2, "sqlite": 3}
"""What refers to rows is replaced before the rows, so that nothing newer points at a row gone."""
_ASSUMED_RATE = 60e6
"""Bytes a second of staging and checking, until a restore on this machine has measured it."""
_FIXED_S = 5.0


@dataclass(slots=True)
class PlannedSource:
    """One source of the plan."""

    name: str
    config: SourceConfig
    restorer: Restorer
    entry: dict[str, Any]
    outline: RestoreOutline
    options: dict[str, Any]

    @property
    def bytes(self) -> int:
        """What is staged."""
        staged = self.outline.bytes
        return int(self.entry.get("bytes") or 0) if staged is None else staged

    def as_dict(self) -> dict[str, Any]:
        """Its part of the JSON of `restore --in-place --dry-run`."""
        outline = self.outline
        return {
            "type": self.config.type,
            "mode": outline.mode,
            "target": outline.target,
            "bytes": self.bytes,
            "space": {str(folder): need for folder, need in outline.space.items()},
            "absent": outline.absent,
            "damaged": outline.damaged,
            "losses": [asdict(loss) for loss in outline.losses],
            "warnings": outline.warnings,
        }


@dataclass(slots=True)
class PlannedRestore:
    """A restore in place that could begin."""

    snapshot: SnapshotInfo
    sources: dict[str, PlannedSource]
    stop: list[str]
    """Services that will be stopped, in this order, and started in the reverse."""
    switch: list[tuple[str, str]] = field(default_factory=list)
    """(service, source): settings that will name the new data."""
    gate: list[str] = field(default_factory=list)
    """Services whose health is waited for."""
    seconds: float = 0.0
    measured: bool = False
    """Whether `seconds` comes from restores on this machine or from an assumed rate."""
    rto: float | None = None
    warnings: list[str] = field(default_factory=list)
    undo_of: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `restore --in-place --dry-run`."""
        return {
            "snapshot": self.snapshot.id,
            "sources": {name: source.as_dict() for name, source in self.sources.items()},
            "stop": self.stop,
            "switch": [list(pair) for pair in self.switch],
            "health": self.gate,
            "expected_seconds": round(self.seconds, 1),
            "expected_from": "restores on this machine" if self.measured else "an assumed rate",
            "rto_seconds": self.rto,
            "undo_of": self.undo_of,
            "warnings": self.warnings,
        }


@dataclass(slots=True)
class Wishes:
    """What the user asked for on the command line."""

    mode: str = ""
    """``, `online` or `beside`."""
    delete_extra: bool = False
    paths: tuple[str, ...] = ()
    gate: bool = True
    """Wait for the services' health, and go back when they do not get well."""


def plan_restore(
    repository: Repository,
    config: Config,
    snapshot: SnapshotInfo,
    names: list[str],
    wishes: Wishes,
    history: list[Journal],
) -> PlannedRestore:
    """Look at every live store and every trap. Changes nothing.

    Raises UsageError, DamagedError, and RefusedError for whatever stands in the way.
    """
    from safetake.services import build_all, users
    from safetake.sources import restorer

    reader = repository.reader()
    nodes = choose(reader, snapshot, names)
    entries = (read_manifest(reader, snapshot) or {"sources": {}})["sources"]
    services = build_all(config)
    planned: dict[str, PlannedSource] = {}
    for name in nodes:
        source = _configured(config, name, entries.get(name), snapshot)
        if wishes.paths and source.type != "files":
            raise UsageError(
                f"paths choose files, and {name!r} is {source.type}: all of it would be replaced",
                hint="name the sources of type files that the paths are in",
            )
        _refuse_switched(config, name, source, services, history)
        options = {
            "delete_extra": wishes.delete_extra,
            "paths": list(wishes.paths),
            "can_stop": wishes.mode != "online"
            and any(services[s].can_stop for s in users(config, name)),
        }
        made = restorer(name, source)
        outline = made.outline(entries[name], wishes.mode, options, reader, nodes[name])
        if made.place() is None:  # a server elsewhere: staged, and what it has now, lie with us
            folder = state_folder(config.restore.state, "restores", create=False)
            need = 2 * int(entries[name].get("bytes", 0))
            outline.space[folder] = outline.space.get(folder, 0) + need
        planned[name] = PlannedSource(name, source, made, entries[name], outline, options)
    planned = dict(sorted(planned.items(), key=lambda item: ORDER[item[1].config.type]))
    plan = PlannedRestore(snapshot, planned, *_services(config, planned, services, wishes))
    plan.seconds, plan.measured = _expected(plan, history)
    plan.rto = _rto(config, planned)
    if plan.rto is not None and plan.seconds > plan.rto:
        plan.warnings.append(
            f"this will take about {plan.seconds:.0f} s, and the objective is {plan.rto:.0f} s"
        )
    _room(plan)
    return plan


def _configured(
    config: Config, name: str, entry: Mapping[str, Any] | None, snapshot: SnapshotInfo
) -> SourceConfig:
    if entry is None:
        raise UsageError(
            f"snapshot {snapshot.id[:8]} was not made by safetake: there are no facts to check",
            hint="restore it with --to, or with restic",
        )
    found = config.sources.get(name)
    if found is None:
        raise UsageError(
            f"the configuration has no source {name!r}: where it lives is not known",
            hint="add it to the configuration, or restore it with --to",
        )
    if entry.get("type") not in (found.type, "raw"):
        raise UsageError(
            f"source {name!r} is {found.type} in the configuration and "
            f"{str(entry.get('type'))[:20]} in the snapshot"
        )
    tree = entry.get("tree")
    if not isinstance(tree, str):
        raise DamagedError(f"snapshot {snapshot.id[:8]}: no tree of {name!r} in its manifest")
    return found


def _refuse_switched(
    config: Config,
    name: str,
    source: SourceConfig,
    services: dict[str, Service],
    history: list[Journal],
) -> None:
    """A service that an earlier `--beside` switched uses a file that the configuration does not
    name: another would be replaced, and saved, and nothing would change for the service.
    """
    if source.type != "sqlite":
        return
    news = [
        Path(str(journal.notes[name]["new_path"]))
        for journal in history
        if journal.ended == "committed" and "new_path" in journal.notes.get(name, {})
    ]
    here = os.path.realpath(source.path)
    news = [new for new in news if new.exists() and os.path.realpath(new) != here]
    for service in (s for s in services if news and name in config.services[s].switch):
        now = services[service].current(name)
        for new in news:
            if now == services[service].value(name, new):
                raise RefusedError(
                    f"{service} uses {new} since an earlier restore, and source {name!r} is still "
                    f"{source.path}",
                    hint=f'set `path = "{new}"` in [sources.{name}], then again',
                )


def _services(
    config: Config,
    planned: dict[str, PlannedSource],
    services: dict[str, Service],
    wishes: Wishes,
) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    from safetake.services import users

    stop: dict[str, None] = {}
    switch: list[tuple[str, str]] = []
    gate: dict[str, None] = {}
    for name, source in planned.items():
        mine = users(config, name)
        gate.update(dict.fromkeys(s for s in mine if config.services[s].health is not None))
        if source.outline.mode == "offline" and wishes.mode != "online":
            stop.update(dict.fromkeys(s for s in mine if services[s].can_stop))
        if source.outline.mode == "beside":
            found = [s for s in mine if name in config.services[s].switch]
            if not found:
                raise RefusedError(
                    f"no service has a setting that names the place of {name!r}",
                    hint=f"add a [services.NAME.switch.{name}] section, or leave --beside out",
                )
            for service in found:
                if not services[service].can_stop:
                    raise RefusedError(
                        f"{service} would go on with the old file: nothing says how it is stopped "
                        "and started, and its processes read the setting at their start",
                        hint=f"add `stop` and `start` to [services.{service}]; or restore with "
                        "--to, and set it by hand",
                    )
            switch += [(service, name) for service in found]
            stop.update(dict.fromkeys(found))
    order = [name for name in config.services if name in stop]
    return order, switch, [name for name in config.services if name in gate and wishes.gate]


def _expected(plan: PlannedRestore, history: list[Journal]) -> tuple[float, bool]:
    total = sum(source.bytes for source in plan.sources.values())
    amount = spent = 0.0
    for journal in history[-20:]:
        if journal.ended != "committed":
            continue
        amount += float(journal.plan.get("bytes", 0))
        spent += sum(float(facts.get("seconds", 0)) for facts in journal.done.values())
    if amount > 0 and spent > 0:
        fixed = spent / max(1, sum(j.ended == "committed" for j in history[-20:]))
        return max(min(fixed, _FIXED_S), total * spent / amount), True
    return _FIXED_S + total / _ASSUMED_RATE, False


def _rto(config: Config, planned: dict[str, PlannedSource]) -> float | None:
    if len(planned) > 1 and (system := config.objectives.get("system")) is not None:
        return system.rto
    found = [config.objectives[name].rto for name in planned if name in config.objectives]
    return max((rto for rto in found if rto is not None), default=None)


def _room(plan: PlannedRestore) -> None:
    """Refuse when a file system has less free space than the restore needs for a while."""
    needs: dict[int, tuple[Path, int]] = {}
    for source in plan.sources.values():
        for folder, need in source.outline.space.items():
            there = _existing(folder)
            device = os.stat(there).st_dev  # noqa: PTH116
            _, before = needs.get(device, (there, 0))
            needs[device] = (there, before + need)
    for folder, need in needs.values():
        free = free_space(folder)
        if free < need:
            from safetake.wording import size

            raise RefusedError(
                f"{folder} has {size(free)} free, and the restore needs {size(need)} there",
                hint="free space first; nothing was changed",
            )


def _existing(folder: Path) -> Path:
    """The folder, or where it will be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def free_space(folder: Path) -> int:
    """Bytes that this user may still write there."""
    return shutil.disk_usage(_existing(folder)).free


def whereabouts(source: SourceConfig) -> str:
    """Where the configuration says that a live store is, its folder with symbolic links followed.

    The store's own name is not: half-way through a switch it is a link that leads nowhere.
    """
    found = []
    for key in ("path", "url", "data"):
        value = getattr(source, key, None)
        if value is not None:
            plain = key == "url"
            found.append(str(value if plain else value.parent.resolve() / value.name))
    return ", ".join(found)
