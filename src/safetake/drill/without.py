"""What a recovery does without: the newest snapshot, the repository, the password, the machine.

Before anything is spoiled this finds what is left: the repository that is recovered from, the
snapshot in it, the password that opens it, and what must be out of reach from the disaster on.
What is missing fails the drill and is named; what was never set up is a mistake of the
configuration. Passwords stay in memory, and in private files of the drill.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake import sandbox
from safetake.connect import open_location
from safetake.drill import mirror
from safetake.drill.aftermath import AFTER, PASSWORD_FILE
from safetake.errors import ConfigError, DamagedError, RefusedError, SafetakeError, UsageError
from safetake.password import FALLBACKS, describe, read_password
from safetake.snapshots import SnapshotInfo, list_snapshots
from safetake.storage import LocalStorage, OverlayStorage
from safetake.tomltext import toml
from safetake.wording import nearest

if TYPE_CHECKING:
    from safetake.config import Config, RepositoryConfig
    from safetake.configbase import PasswordPlace
    from safetake.configscenario import ScenarioConfig
    from safetake.repository import Repository

NEWEST, REPOSITORY, PASSWORD, MACHINE = "newest-snapshot", "repository", "password", "machine"


class NothingLeftError(SafetakeError):
    """Something that the recovery needs is not there: the drill has failed before it began."""

    def __init__(self, what: str, found: str) -> None:
        super().__init__(f"{what}: {found}")
        self.check = {"name": what, "ok": False, "expected": "it is so", "found": found}


@dataclass(slots=True)
class Left:
    """What is left after the disaster."""

    repository: Repository
    """Opened, and locked against a prune as long as the drill lasts."""
    location: str
    snapshot: SnapshotInfo
    """That is recovered."""
    password: str = field(repr=False)
    gone: str = ""
    """Id of the newest snapshot, when that is lost."""
    hidden: dict[str, Path] = field(default_factory=dict)
    """What no command can read from the disaster on, by what it is."""
    notes: list[str] = field(default_factory=list)


def find(
    config: Config,
    repository: Repository,
    snapshot: SnapshotInfo,
    scenario: ScenarioConfig,
    sources: Sequence[str],
    password: str,
    held: ExitStack,
) -> Left:
    """What is left of `repository` and its `snapshot`; `held` closes what this opens.

    Raises NothingLeftError, and UsageError when there is no copy.
    """
    without = scenario.without
    left = Left(repository, config.repository.location, snapshot, password)
    section: RepositoryConfig = config.repository
    usual: list[PasswordPlace] = [config.repository]
    if REPOSITORY in without:
        name = _copy(config, scenario)
        section = config.copies[name]
        left.location = section.location
        left.hidden["the first repository"] = Path(config.repository.location)
        left.notes.append(f"recovered from the copy {name!r}, in {section.location}")
        usual.append(section)
    if PASSWORD in without:
        left.password = _another(scenario, usual, left)
        with _opened(section, left.password, "another password opens the repository"):
            pass
    elif REPOSITORY in without:
        left.password = _read(section, "the copy's password is there")
    if REPOSITORY in without:
        opened = _opened(section, left.password, "the copy opens")
        left.repository = held.enter_context(opened)
        held.enter_context(opened.lock(exclusive=False))
    try:
        _choose(left, without, sources)
    except DamagedError as error:
        raise NothingLeftError("its snapshots can be listed", str(error)) from None
    if left.snapshot.tree != snapshot.tree and not all(one.everything for one in scenario.lose):
        raise UsageError(
            f"the copy's newest snapshot, {left.snapshot.id[:8]}, does not hold what "
            f"{snapshot.id[:8]} holds: parts can only be compared with the same snapshot",
            hint="run `safetake copy`, or lose everything",
        )
    if MACHINE in without:
        left.hidden |= {
            f"the place of {name}": path
            for name in sources
            if (path := getattr(config.sources.get(name), "path", None)) is not None
        }
        left.hidden |= _files(usual)
    return left


def lay_out(
    folder: Path,
    written: Mapping[str, dict[str, Any]],
    config: Config,
    left: Left,
    scenario: ScenarioConfig,
    snapshot: SnapshotInfo,
) -> dict[str, Any]:
    """Put what is left into the twin's folder, for the disaster; what its process must know.

    `written` are the twin's configurations. Raises UsageError, SafetakeError.
    """
    told = {
        "without": scenario.without,
        "snapshot": left.snapshot.id,
        "location": left.location,
        "other": left.snapshot.tree != snapshot.tree,
        "hidden": {what: str(path) for what, path in left.hidden.items()},
        "gone": left.gone,
    }
    if not scenario.without:
        return told
    file, overlay = folder / (AFTER + PASSWORD_FILE), folder / (AFTER + "overlay")
    file.touch(mode=0o600)
    file.write_text(left.password, encoding="utf-8")
    overlay.mkdir(mode=0o700)
    if left.gone:
        only_read = OverlayStorage(LocalStorage(Path(left.location)), overlay)
        only_read.remove("snapshots", left.gone)
    repository = {
        "location": left.location, "password_file": str(file), "overlay": str(overlay)
    }  # fmt: skip
    for name, document in written.items():
        (folder / (AFTER + name)).write_text(
            toml({**document, "repository": repository}), encoding="utf-8"
        )
    if MACHINE in scenario.without:
        mirror.lay_out(folder, config, left, {loss.source for loss in scenario.lose})
    return told


def refuse_unhidden(scenario: ScenarioConfig, confinement: sandbox.Confinement) -> None:
    """Raise RefusedError where the kernel can not take away what is to be out of reach."""
    hiding = [one for one in scenario.without if one != NEWEST]
    if hiding and not confinement.folders:
        raise RefusedError(
            f"the kernel can not take the {hiding[0]} out of reach of the recovery",
            hint="Linux 6.7 or newer with Landlock does; the other scenarios need it less",
        )


def _copy(config: Config, scenario: ScenarioConfig) -> str:
    name = scenario.recover_from
    if name is None and len(config.copies) == 1:
        return next(iter(config.copies))
    if not config.copies:
        raise UsageError(
            "without the repository nothing is left: no copy is configured",
            hint="add [copies.NAME] and run `safetake copy NAME --init`",
        )
    if name is None:
        raise UsageError(
            "which copy is recovered from? there are " + ", ".join(config.copies),
            hint="set recover_from in the scenario",
        )
    if name not in config.copies:
        raise UsageError(f"there is no copy {name!r}{nearest(name, config.copies)}")
    return name


def _another(scenario: ScenarioConfig, usual: Sequence[PasswordPlace], left: Left) -> str:
    """The password of the scenario, read where the usual ones are out of reach."""
    for place in usual:
        if _same(scenario, place):
            raise UsageError(
                f"the scenario finds the password where it was lost: {describe(place)}",
                hint="keep another one elsewhere: `safetake key add`",
            )
    left.hidden |= _files(usual)
    left.notes.append(f"password from {describe(scenario)}")
    if scenario.password_command is None:
        return _read(scenario, "another password is there")
    unset = [name for name in (*FALLBACKS, *(one.password_env for one in usual)) if name]
    try:
        words = shlex.split(scenario.password_command)
    except ValueError as error:
        raise ConfigError(f"password_command of the scenario: {error}") from None
    if left.hidden:
        words = sandbox.hiding(words, left.hidden.values())
    plain = ["env", *(word for name in unset for word in ("-u", name)), *words]
    place = scenario.model_copy(update={"password_command": shlex.join(plain)})
    try:
        return read_password(place)
    except ConfigError as error:
        reason = str(error).rpartition(f": {plain[0]} ")[2]
        raise NothingLeftError("another password is there", f"password_command {reason}") from None


def _same(one: PasswordPlace, other: PasswordPlace) -> bool:
    if one.password_file is not None and other.password_file is not None:
        return one.password_file.resolve() == other.password_file.resolve()
    if one.password_command is not None:
        return one.password_command == other.password_command
    known = [other.password_env] if other.password_ways else list(FALLBACKS)
    return one.password_env is not None and one.password_env in known


def _files(places: Sequence[PasswordPlace]) -> dict[str, Path]:
    """The usual files of passwords, which are hidden."""
    files = [place.password_file for place in places if place.password_file is not None]
    return {f"the usual password file {path.name}": path for path in files}


def _read(place: PasswordPlace, what: str) -> str:
    try:
        return read_password(place)
    except ConfigError as error:
        raise NothingLeftError(what, str(error)) from None


def _opened(section: RepositoryConfig, password: str, what: str) -> Repository:
    try:
        opened = open_location(section.location, password)
    except SafetakeError as error:
        raise NothingLeftError(what, str(error)) from None
    opened.lock_wait = section.lock_wait
    return opened


def _choose(left: Left, without: Sequence[str], sources: Sequence[str]) -> None:
    """The snapshot that is recovered."""
    if REPOSITORY not in without and NEWEST not in without:
        return
    there = [one for one in list_snapshots(left.repository) if not one.safety]
    fitting = [one for one in there if set(sources) <= set(one.sources)]
    named = ", ".join(sources)
    if REPOSITORY in without:
        if not fitting:
            raise NothingLeftError("the copy has a snapshot", f"it has none of {named}")
        left.snapshot = fitting[-1]
    if NEWEST in without:
        left.gone = left.snapshot.id
        older = [one for one in fitting if one.time_ns < left.snapshot.time_ns]
        if not older:
            raise NothingLeftError(
                "there is an older snapshot", f"none of {named} is older than {left.gone[:8]}"
            )
        left.snapshot = older[-1]
