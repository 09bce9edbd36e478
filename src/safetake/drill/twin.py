"""The isolated copy of the application: its own folder, ports, configuration and password file.

Nothing in the twin's configuration names a place of production but the repository, and that is only
read: whatever would be written to it goes to a folder of the drill.
"""

from __future__ import annotations

import random
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from safetake.drill import scratchredis
from safetake.errors import UsageError
from safetake.tomltext import toml

if TYPE_CHECKING:
    from safetake.config import Config

EPHEMERAL = range(32768, 61000)
"""Linux' default range of ports for those who do not care."""
OVERLAY = "overlay"
"""The folder of a drill's that takes what would be written to the repository."""
_PLACEHOLDER = re.compile(r"\{([\w.-]+(?::[\w.-]+)?)\}")
OWN = range(20000, 30000)
"""Ports for a drill's own servers: below the ephemeral ones, and those of Kubernetes' nodes."""


@dataclass(slots=True)
class Twin:
    """Where everything of a drill is."""

    folder: Path
    places: dict[str, str]
    """By source: a path, or the URL of its Redis server."""
    store_ports: dict[str, int]
    """By source: of its Redis server, or of the Chroma server that brings records back."""
    service_ports: dict[str, int]
    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Its configurations by the name of the file in the folder."""

    @property
    def config(self) -> Path:
        """The twin's configuration."""
        return self.folder / "safetake.toml"

    @property
    def config_with_servers(self) -> Path:
        """The same while the servers run that bring records back."""
        return self.folder / "safetake-servers.toml"

    @property
    def data(self) -> Path:
        """Where the stores are."""
        return self.folder / "data"

    @property
    def processes(self) -> Path:
        """Where the drill's processes are described."""
        return self.folder / "processes"

    def filled(self, text: str, service: str = "", where: str = "") -> str:
        """The text with its placeholders filled. Raises UsageError for an unknown one."""
        known: dict[str, str] = {**self.places}
        known |= {f"port:{name}": str(port) for name, port in self.service_ports.items()}
        if service:
            known["port"] = str(self.service_ports[service])
        return fill(text, known, where or f"drill.services.{service}")


def fill(text: str, known: Mapping[str, str], where: str) -> str:
    """The text with each `{NAME}` that is known. Raises UsageError for another one."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in known:
            raise UsageError(
                f"{where}: there is no {found[0]}",
                hint="known are: "
                + ", ".join("{" + each + "}" for each in known)
                + "; a service whose `uses` are not all rehearsed is left out",
            )
        return known[found[1]]

    return _PLACEHOLDER.sub(value, text)


def build(
    config: Config,
    folder: Path,
    sources: Mapping[str, str],
    password: str,
    claims: ExitStack,
    *,
    redis_password: bool = False,
) -> Twin:
    """Lay out a twin of `sources` (type by name) in an empty private folder. Raises UsageError.

    Its ports are no other drill's until `claims` is closed.

    `redis_password`: its Redis servers want the one in the environment (`scratchredis`).
    """
    with ExitStack() as held:
        services = list(config.drill.services)
        served = [name for name, kind in sources.items() if kind in ("redis", "chroma")]
        count, production = len(services) + len(served), set(_production_ports(config))
        free = iter(_free_ports(count, production, held, claims))
        service_ports = {name: next(free) for name in services}
        store_ports = {name: next(free) for name in served}
    twin = Twin(folder, {}, store_ports, service_ports)
    written: dict[str, Any] = {}
    for name in sources:
        written[name] = _source(config, name, twin)
        if redis_password and sources[name] == "redis":
            written[name]["password_env"] = scratchredis.PASSWORD
    for inside in (twin.data, twin.processes, folder / "state", folder / "tmp", folder / "home",
                   folder / OVERLAY):  # fmt: skip
        inside.mkdir(mode=0o700)
    (folder / "password").touch(mode=0o600)
    (folder / "password").write_text(password, encoding="utf-8")
    document = {
        "repository": {
            "location": config.repository.location,
            "password_file": str(folder / "password"),
            "overlay": str(folder / OVERLAY),
        },
        "restore": {"state": str(folder / "state")},
        "sources": written,
        "references": {
            name: reference.model_dump(by_alias=True, exclude_none=True)
            for name, reference in config.references.items()
            if reference.from_.source in sources and reference.to.source in sources
        },
    }
    twin.written[twin.config.name] = deepcopy(document)
    for name, port in store_ports.items():
        if sources[name] == "chroma":
            written[name]["server"] = f"http://127.0.0.1:{port}"
    twin.written[twin.config_with_servers.name] = document
    for file_name, content in twin.written.items():
        (folder / file_name).write_text(toml(content), encoding="utf-8")
    return twin


def allowed_ports(config: Config, twin: Twin, closed: Iterable[int] = ()) -> list[int]:
    """The TCP ports that a drill may use: its own and ephemeral ones, none of production's."""
    production = {*_production_ports(config), *closed}
    own = {*twin.service_ports.values(), *twin.store_ports.values()}
    return sorted((set(EPHEMERAL) - production) | own | {0})  # 0: to be given any


def _production_ports(config: Config) -> Iterable[int]:
    urls = [getattr(source, "url", None) for source in config.sources.values()]
    urls += [getattr(source, "server", None) for source in config.sources.values()]
    urls += [one.health.url for one in config.services.values() if one.health is not None]
    for url in filter(None, urls):
        parts = urlsplit(str(url))
        default = {"https": 443, "http": 80, "redis": 6379, "rediss": 6379}.get(parts.scheme, 0)
        yield parts.port or default


def _source(config: Config, name: str, twin: Twin) -> dict[str, Any]:
    found = config.sources.get(name)
    if found is None:
        raise UsageError(
            f"the configuration has no source {name!r}, which the snapshot has",
            hint="name the sources to rehearse: `safetake drill SCENARIO SOURCE…`",
        )
    section: dict[str, Any] = {"type": found.type}
    inside = twin.data / name
    if found.type == "redis":
        twin.places[name] = f"redis://127.0.0.1:{twin.store_ports[name]}"
        return {**section, "url": twin.places[name], "may_be_empty": True}
    if found.path is None:
        raise UsageError(
            f"sources.{name}: a Chroma server without its folder can not be rehearsed",
            hint="name the other sources: `safetake drill SCENARIO SOURCE…`",
        )
    place = inside / found.path.name if found.type == "sqlite" else inside
    twin.places[name] = str(place)
    section["path"] = str(place)
    if found.type == "sqlite":
        section["checks"] = [check.model_dump() for check in found.checks]
    if found.type in ("sqlite", "files"):
        section["may_be_empty"] = True
    return section


def _free_ports(count: int, production: set[int], held: ExitStack, claims: ExitStack) -> list[int]:
    """Ports that nobody listens at; each is held until all are chosen, and claimed for longer.

    None is ephemeral: a server that a drill starts anew would find its port given to somebody's
    connection meanwhile.
    """
    found: list[int] = []
    own = sorted(set(OWN) - production)
    for port in random.sample(own, len(own)):
        if len(found) == count:
            break
        with suppress(OSError):  # somebody has it
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", port))
            _claim(port, claims)
            found.append(port)
    return found


def _claim(port: int, claims: ExitStack) -> None:
    """No other drill on this machine (or in this container) is given the port: its servers are
    stopped and started, and nobody listens in between. Raises OSError when one has it.

    A name that Linux forgets with its last process; each network has names of its own, as it has
    ports. Other systems have no such names.
    """
    if sys.platform == "linux":
        name = claims.enter_context(socket.socket(socket.AF_UNIX))
        name.bind(f"\0safetake-drill-{port}")
