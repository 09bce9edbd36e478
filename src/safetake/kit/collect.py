"""What the page is made of: which snapshot each source comes back from, places, keys, rehearsals.

Sources that different jobs back up have different newest snapshots, so they come back in groups:
`latest` alone would bring back what the newest job happened to hold, and nothing would say so.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake import __version__, evidence
from safetake.clock import go_time, now_ns
from safetake.connect import on_the_volume_of, open_configured
from safetake.errors import DamagedError, SafetakeError
from safetake.evidence.versions import place
from safetake.kit.configuration import for_paper, hidden, hidden_words, known_secrets
from safetake.password import describe, read_password
from safetake.snapshots import SnapshotInfo, list_snapshots, read_manifest
from safetake.wording import printable

if TYPE_CHECKING:
    from safetake.config import Config, RepositoryConfig, SourceConfig
    from safetake.evidence import Evidence
    from safetake.repository import Repository
    from safetake.repository.keys import KeyInfo


@dataclass(frozen=True, slots=True)
class Group:
    """Sources that come back together, and the newest snapshot that has them all."""

    sources: list[str]
    snapshot: SnapshotInfo | None
    """None while nothing was backed up."""


@dataclass(frozen=True, slots=True)
class Place:
    """A repository: where it is, and how it is opened."""

    name: str
    """Empty for the first one."""
    location: str
    password_place: str
    """In words: where the password is kept."""
    password: str | None
    """Only when it is to be on the page."""
    shares: list[str]
    """Sources on the same file system."""
    state: str = ""
    """Of a second copy: what is in it, or why nobody knows."""


@dataclass(frozen=True, slots=True)
class Store:
    """A source as it comes back."""

    name: str
    type: str
    bytes: int
    target: str
    """Where the application has it, or empty."""
    file: str = ""
    """Of a database: its name in the folder of the source."""
    served: bool = False
    """A Chroma server's: what comes back is an export."""


@dataclass(frozen=True, slots=True)
class Kit:
    """Everything on the page."""

    made: str
    host: str
    version: str
    configuration_file: str
    first: Place
    copies: list[Place]
    repository: str
    keys: list[KeyInfo]
    groups: list[Group]
    whole: SnapshotInfo | None
    """The newest snapshot that has every source, when there are several groups."""
    stores: dict[str, Store]
    entries: dict[str, dict[str, Any]] = field(repr=False)
    """By source: what its snapshot says of it, to compare with; not of one that is damaged."""
    damaged: list[str]
    """Snapshots that can not be read, in words."""
    missing: list[str]
    """Configured, and in no snapshot."""
    rehearsed: Evidence | None
    """The newest check of a kit."""
    services: list[tuple[str, str]]
    """Name and what is known of it, in the order in which they are started."""
    configuration: str

    @property
    def newest(self) -> SnapshotInfo | None:
        """The newest snapshot of all groups."""
        there = [one.snapshot for one in self.groups if one.snapshot is not None]
        return max(there, key=lambda one: one.time_ns, default=None)

    @property
    def bytes(self) -> int:
        """What comes back."""
        return sum(store.bytes for store in self.stores.values())


def make(config: Config, repository: Repository, path: Path, *, with_password: bool) -> Kit:
    """Collect it. Raises DamagedError, ConfigError, StorageError."""
    snapshots = [one for one in list_snapshots(repository) if one.ours and not one.safety]
    groups, missing = grouped(config, snapshots)
    secrets = known_secrets(config)
    entries, damaged = _entries(repository, groups)
    names = [name for group in groups for name in group.sources]
    complete = [one for one in snapshots if set(names) <= set(one.sources)]
    return Kit(
        made=go_time(now_ns())[:10],
        host=place()[0],
        version=__version__,
        configuration_file=str(path.absolute()),
        first=_place("", config.repository, config, secrets, with_password=with_password),
        copies=[
            _place(name, one, config, secrets, with_password=with_password)
            for name, one in config.copies.items()
        ],
        repository=repository.id,
        keys=repository.keys.list(),
        groups=groups,
        whole=complete[-1] if len(groups) > 1 and complete else None,
        stores={name: _store(name, entries.get(name), config.sources.get(name)) for name in names},
        entries=entries,
        damaged=damaged,
        missing=missing,
        rehearsed=_rehearsed(repository),
        services=_services(config, secrets),
        configuration=for_paper(config, secrets),
    )


def grouped(config: Config, snapshots: list[SnapshotInfo]) -> tuple[list[Group], list[str]]:
    """The configured sources (else all that any snapshot has) by what holds them, and those that
    no snapshot has. `snapshots`: the newest last.

    Two sources are of one group when the same jobs back them up and the same snapshot is the
    newest of both.
    """
    newest = {name: one for one in snapshots for name in one.sources}
    wanted = list(config.sources or newest)
    if not snapshots:
        return [Group(wanted, None)] if wanted else [], wanted
    backups = {name: job for name, job in config.jobs.items() if job.kind == "backup"}
    found: dict[tuple[str, frozenset[str]], list[str]] = {}
    for name in wanted:
        if name in newest:
            jobs = frozenset(
                job_name for job_name, job in backups.items() if name in (job.sources or wanted)
            )
            found.setdefault((newest[name].id, jobs), []).append(name)
    groups = [Group(names, newest[names[0]]) for names in found.values()]
    return groups, [name for name in wanted if name not in newest]


def _entries(
    repository: Repository, groups: list[Group]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    reader = repository.reader()
    found: dict[str, dict[str, Any]] = {}
    damaged: dict[str, None] = {}
    for group in groups:
        try:
            manifest = read_manifest(reader, group.snapshot) if group.snapshot is not None else None
            if manifest is not None:
                found |= {name: manifest["sources"][name] for name in group.sources}
        except DamagedError as error:
            damaged[str(error)] = None
        except KeyError as error:
            damaged[f"{group.sources}: the manifest of their snapshot has no {error}"] = None
    return found, list(damaged)


def _place(
    name: str, one: RepositoryConfig, config: Config, secrets: list[str], *, with_password: bool
) -> Place:
    state = ""
    if name:
        try:
            there = [each for each in list_snapshots(open_configured(one)) if each.ours]
            state = f"{len(there)} snapshots"
            if there:
                state += f", the newest of {go_time(there[-1].time_ns)[:16].replace('T', ' ')} UTC"
        except SafetakeError as error:
            state = f"NOT REACHED when this page was made: {error}"
    kept = describe(one)
    if one.password_command is not None:
        command = hidden(one.password_command, secrets)
        kept = f"what the command `{command}` prints"
    return Place(
        name,
        one.location,
        kept,
        read_password(one) if with_password else None,
        on_the_volume_of(one, config),
        state,
    )


def _store(name: str, entry: dict[str, Any] | None, source: SourceConfig | None) -> Store:
    facts = (entry or {}).get("facts", {})
    target, served = "", False
    if source is not None:
        target = str(source.url if source.type == "redis" else source.path or "")
        if source.type == "redis" and source.data is not None:
            target += f", {source.data}"
        served = source.type == "chroma" and source.path is None
        if source.type == "chroma" and source.url is not None:
            target = source.url
    kind = str(entry["type"]) if entry is not None else source.type if source is not None else "?"
    file = str(facts.get("file", "")) if kind == "sqlite" else ""
    return Store(name, kind, int((entry or {}).get("bytes") or 0), target, file, served)


def _services(config: Config, secrets: list[str]) -> list[tuple[str, str]]:
    found = []
    for name, one in reversed(config.services.items()):
        said = []
        for how in ("systemd", "compose", "kubernetes"):
            if getattr(one, how):
                said.append(f"{how} `{getattr(one, how)}`")
        if one.start:
            command = shlex.join(hidden_words(one.start, secrets)).replace("`", "'")
            said.append(f"`{printable(command)}`")
        if one.health is not None and one.health.url is not None:
            url = hidden(one.health.url, secrets).replace("`", "'")
            said.append(f"well when `{url}` answers")
        found.append((name, ", ".join(said)))
    return found


def _rehearsed(repository: Repository) -> Evidence | None:
    """The last rehearsal of this repository: a copy has those of the first one, too."""
    kits = (
        one
        for one in evidence.each(repository)
        if one.kind == "kit" and one.repository == repository.id
    )
    return max(kits, key=lambda one: one.ended_ns, default=None)
