"""What the configuration names and does not hold: folders on volumes, secrets, sockets.

Each place of the configuration is a place in the pod. It has to be on a volume, or be a file that
comes out of a Secret; the pod's own file system is read-only and gone with the pod. What does not
fit is a problem in words, and all problems are told at once. No secret is read here, only named.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from safetake.config import Config
from safetake.configkube import VolumeConfig, pod_folder
from safetake.hostname import VARIABLE as HOST_VARIABLE
from safetake.operate.kubernetes.walk import Value, raw, values
from safetake.password import FALLBACKS
from safetake.wording import nearest

CONFIG = "/etc/safetake/safetake.toml"
"""Where the configuration is in the pod."""
STATE = "/var/lib/safetake"
CACHE = f"{STATE}/cache"
TEMPORARY = "/tmp"

OWN_VARIABLES = (
    "HOME",
    "PATH",
    "SAFETAKE_CONFIG",
    HOST_VARIABLE,
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"(?!\.\.)[-._a-zA-Z0-9]{1,253}")
_SECRET_FILES = ("password_file", "urls_file", "tls_ca", "tls_cert", "tls_key")
_VARIABLES = ("password_env", "urls_env", "headers_env", "ping_env")


@dataclass(frozen=True, slots=True)
class Reference:
    """A variable or a file whose value is in a Secret."""

    name: str
    secret: str
    key: str


@dataclass(slots=True)
class Outside:
    """What the pods need beside the image and the configuration."""

    variables: list[Reference] = field(default_factory=list)
    files: list[Reference] = field(default_factory=list)
    state_on_volume: bool = False
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def look(config: Config, data: Mapping[str, Any]) -> Outside:
    """Everything; `data` is the file as it was written."""
    return _Look(config, data).outside()


class _Look:
    def __init__(self, config: Config, data: Mapping[str, Any]) -> None:
        self._config = config
        self._section = config.kubernetes
        self._data = data
        self._found = Outside()
        self._on: dict[str, list[str]] = {}
        """By volume: what lies on it."""

    def outside(self) -> Outside:
        """Everything that is needed, and what stands in the way."""
        for value in values(self._config, without=("kubernetes",)):
            if isinstance(value.value, Path) or value.loc[-1] == "location":
                self._path(value)
            elif value.key in _VARIABLES:
                self._variables(value)
            elif value.key == "url":
                self._socket(value)
        repository = self._config.repository
        if not (repository.password_file or repository.password_env or repository.password_command):
            self._variable("repository", FALLBACKS[0])
        self._state()
        self._unused()
        self._advice()
        return self._found

    # ---------------------------------------------------------------------------- paths

    def _path(self, value: Value) -> None:
        written = raw(self._data, value.loc)
        if isinstance(written, str) and written.startswith("~"):
            self._problem(value.where, "begins with ~: there is no home folder in the pod")
            return
        path = str(value.value)
        if value.key in _SECRET_FILES and (
            path in self._section.secrets or self._volume(path) is None
        ):
            self._file(value.where, path)
            return
        name = self._volume(path)
        if name is None:
            self._problem(
                value.where,
                f"{path} is on no volume of the pod: add [kubernetes.volumes.NAME] with its claim "
                "and mount",
            )
            return
        volume = self._section.volumes[name]
        self._on.setdefault(name, []).append(value.where)
        kind = self._kind(value)
        if kind == "sqlite" and path == volume.mount:
            self._problem(
                value.where, f"mount the folder of {path}, not the file: its log is beside"
            )
        if volume.read_only and kind not in ("files", "secret"):
            self._problem(
                value.where, f"kubernetes.volumes.{name} is read_only, and this must be written"
            )

    def _kind(self, value: Value) -> str:
        if value.key in _SECRET_FILES:
            return "secret"
        if value.loc[0] == "sources" and value.key == "path":
            return self._config.sources[value.loc[1]].type
        return value.loc[0]

    def _volume(self, path: str) -> str | None:
        """The volume that holds a place: the one with the longest mount above it."""
        over = [
            (len(volume.mount), name)
            for name, volume in self._section.volumes.items()
            if path == volume.mount or path.startswith(volume.mount + "/")
        ]
        return max(over)[1] if over else None

    def _socket(self, value: Value) -> None:
        parts = urlsplit(value.value)
        if parts.scheme == "unix":
            path = posixpath.normpath(unquote(parts.path))
            if self._volume(path) is None:
                self._problem(value.where, "a socket is on no volume of the pod: use redis://")

    def _state(self) -> None:
        state = self._config.restore.state
        name = self._volume(STATE)
        self._found.state_on_volume = name is not None
        if name is not None and self._section.volumes[name].read_only:
            self._problem(f"kubernetes.volumes.{name}", f"read_only, and {STATE} must be written")
        if state is None and not self._found.state_on_volume:
            self._found.warnings.append(
                f"the state folder goes with the pod, and with it the journal of a restore that is "
                f'cut off: add [kubernetes.volumes.state] with a claim, mount = "{STATE}"'
            )

    # --------------------------------------------------------------------------- secrets

    def _variables(self, value: Value) -> None:
        found = value.value.values() if isinstance(value.value, Mapping) else [value.value]
        for name in found:
            self._variable(value.where, str(name))

    def _variable(self, where: str, name: str) -> None:
        if _VARIABLE.fullmatch(name) is None:
            self._problem(where, f"{name[:80]!r} is no name of an environment variable")
        elif name in OWN_VARIABLES:
            self._problem(where, f"${name} is set in the pod already")
        else:
            self._reference(where, name, name, self._found.variables)

    def _file(self, where: str, path: str) -> None:
        folder, name = posixpath.split(path)
        try:
            pod_folder(folder)
        except ValueError as error:
            self._problem(where, f"{error}; put {name} into {posixpath.dirname(CONFIG)}")
            return
        if any(part.startswith("..") for part in path.split("/")):
            self._problem(where, f"{path}: a Secret's file can not begin with two dots")
            return
        mounts = [STATE, *(volume.mount for volume in self._section.volumes.values())]
        closed = [v.mount + "/" for v in self._section.volumes.values() if v.read_only]
        if path == CONFIG or folder in mounts or path.startswith(tuple(closed)):
            self._problem(where, f"{path} is taken; put it into {posixpath.dirname(CONFIG)}")
            return
        self._reference(where, path, name, self._found.files)

    def _reference(self, where: str, name: str, key: str, into: list[Reference]) -> None:
        given = self._section.secrets.get(name)
        secret, key = given.split("/", 1) if given is not None else (self._section.secret, key)
        if _KEY.fullmatch(key) is None or key == ".":
            self._problem(
                where,
                f"{key[:80]!r} can be no key of a Secret: name one in [kubernetes.secrets]",
            )
        elif Reference(name, secret, key) not in into:
            into.append(Reference(name, secret, key))

    def _unused(self) -> None:
        known = [each.name for each in (*self._found.variables, *self._found.files)]
        for name in self._section.secrets:
            if name not in known and not self._found.problems:
                self._problem(
                    f"kubernetes.secrets.{name}",
                    "the configuration reads no such variable or file" + nearest(name, known),
                )

    # ---------------------------------------------------------------------------- advice

    def _advice(self) -> None:
        drills = self._config.drill.kubernetes
        closed = [posixpath.dirname(CONFIG)]
        closed += [posixpath.dirname(each.name) for each in self._found.files]
        closed += [v.mount for v in self._section.volumes.values() if v.read_only]
        for name, volume in self._section.volumes.items():
            for folder in closed:
                if volume.mount.startswith(folder + "/") or volume.mount == closed[0]:
                    text = f"nothing can be mounted in {folder}: it is read-only"
                    self._problem(f"kubernetes.volumes.{name}.mount", text)
                    break
            on = self._on.get(name, [])
            stores = [each for each in on if each.startswith("sources.")]
            if drills is not None and volume.claim == drills.claim:
                stores = []  # copies: what drills take from the paths is only the files' names
            self._found.warnings += list(_advice(name, volume, stores, on))
        if drills is not None and drills.context is not None:
            self._problem("drill.kubernetes.context", "there is no kubeconfig in a pod")
        for name, service in self._config.services.items():
            for key in ("systemd", "compose", "context"):
                if getattr(service, key) is not None:
                    self._problem(
                        f"services.{name}.{key}",
                        "can not be reached from a pod: use kubernetes = "
                        '"deployment/NAME" without context',
                    )

    def _problem(self, where: str, text: str) -> None:
        self._found.problems.append(f"{where}: {text}")


def _advice(name: str, volume: VolumeConfig, stores: list[str], on: list[str]) -> Iterator[str]:
    if stores and not volume.used_by:
        yield (
            f"kubernetes.volumes.{name}: no used_by, so that pods may run on another node than the "
            "application: a ReadWriteOnce volume is not reached then, and SQLite's locks are not "
            "seen on any"
        )
    if stores and any(each.endswith(".location") for each in on):
        yield (
            f"kubernetes.volumes.{name}: the repository is on the volume that it protects: keep a "
            "second one on another ([copies.NAME])"
        )
