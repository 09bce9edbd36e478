"""Opening a repository while its configuration is still to be checked, for runs that do little.

Two things take most of the time of a backup in which nothing changed, and need not wait for each
other: scrypt, and importing pydantic to check the configuration. So scrypt is begun with what the
file seems to say, and a configuration that was found good before is taken from the cache, where
pydantic is not needed at all. Neither decides anything: a guess that the checked configuration
does not bear out is dropped, and a file that is not, byte for byte, one that was found good by this
version of the code is checked. What is kept is sealed with the repository's key. Every mistake is
found, and told, by `configfile`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast

from safetake import __version__
from safetake.errors import DamagedError, SafetakeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from safetake.config import Config
    from safetake.repository import Repository

_PURPOSE = b"configuration"
_MAX_BYTES = 1 << 20
_MAX_FILES = 16
_CHECKERS = tuple(
    f"{name}.py"
    for name in (
        "config",
        "configbase",
        "configdrill",
        "configfile",
        "configjobs",
        "configkube",
        "configscenario",
        "configservices",
        "ids",
        "wording",
    )
)
_OTHERS_HOME = re.compile(r"~[^/\"'\s]")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


class Kept:
    """A section of a configuration that was found good before: its values, by name."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


@dataclass(frozen=True)
class _Guess:
    location: str
    password: str


def open_ahead(
    path: Path, meanwhile: Callable[[], None] = lambda: None
) -> tuple[Config, Callable[[], Repository]]:
    """The checked configuration at `path`, and what gives its repository, opened.

    `meanwhile` is called while scrypt runs: to import what will be needed.

    Raises what `configfile.load` raises; the function what `connect.open_repository` does.
    """
    from safetake.connect import open_repository

    text = _text(path)
    digest = _digest(text, path)
    guess = _guess(text, path)
    kept = _cache_file(digest)
    if guess is not None:
        _begin(guess)
        if kept is not None and os.path.lexists(kept):
            _import_sources(text)
            meanwhile()
            with contextlib.suppress(SafetakeError):  # met again below, after the configuration
                repository = _open(guess)
                good = _read(kept, digest, repository)
                if good is not None and good.repository.location == guess.location:
                    return good, lambda: repository
    from safetake import configfile

    config = configfile.load(path)

    def opened() -> Repository:
        found = open_repository(config)
        if kept is not None and _text(path) == text:
            _write(kept, digest, found, config)
        return found

    return config, opened


def _text(path: Path) -> str:
    """The file; empty when `configfile` will have to say what is wrong with it."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _sections(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


# scrypt, begun early


def _guess(text: str, path: Path) -> _Guess | None:
    """Where the repository seems to be, and its password; None when it is not that plain."""
    section = _sections(text).get("repository")
    if not isinstance(section, dict) or {"password_command", "overlay"} & section.keys():
        return None
    location, file = section.get("location"), section.get("password_file")
    variable = section.get("password_env")
    if not isinstance(location, str) or _REMOTE.match(location) or "\0" in location:
        return None
    base = path.absolute().parent
    try:
        if isinstance(file, str) and "\0" not in file:
            found = (base / Path(file).expanduser()).read_bytes().decode("utf-8-sig").strip()
        elif isinstance(variable, str):
            found = os.environ.get(variable, "")
        else:
            found = os.environ.get("SAFETAKE_PASSWORD") or os.environ.get("RESTIC_PASSWORD") or ""
        place = os.path.normpath(base / Path(location).expanduser())
    except (OSError, RuntimeError, ValueError):
        return None
    return _Guess(place, found) if found else None


def _begin(guess: _Guess) -> None:
    """Start scrypt for the first key file there; most repositories have one."""
    from safetake.repository import kdf
    from safetake.storage import LocalStorage

    storage = LocalStorage(Path(guess.location))
    with contextlib.suppress(OSError, SafetakeError):
        names = sorted(name for name, _ in storage.list("keys"))
        if names:
            kdf.begin(guess.password, names[0], storage.get("keys", names[0]))


def _open(guess: _Guess) -> Repository:
    from safetake.connect import open_location

    return open_location(guess.location, guess.password)


def _import_sources(text: str) -> None:
    """Import what the sources will need, while scrypt runs."""
    from safetake.sources import load

    sections = _sections(text).get("sources")
    for section in sections.values() if isinstance(sections, dict) else ():
        if isinstance(section, dict):
            load(section.get("type"))


# configurations that were found good


def _digest(text: str, path: Path) -> str:
    """Of everything that the outcome of the check depends on."""
    digest = hashlib.sha256()
    parts = [__version__, text, str(path.absolute().parent), os.path.expanduser("~")]  # noqa: PTH111
    for part in parts:
        digest.update(b"%d:" % len(part) + part.encode("utf-8", "surrogateescape"))
    for name in _CHECKERS:
        with contextlib.suppress(OSError):
            digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def _cache_file(digest: str) -> Path | None:
    from safetake.repository.cache import cache_folder

    folder = cache_folder()
    return None if folder is None else folder / "config" / digest


def _read(path: Path, digest: str, repository: Repository) -> Config | None:
    from safetake.repository.crypto import Sealer

    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb", buffering=0) as file:  # noqa: PTH123
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > _MAX_BYTES:
                return None
            sealed = file.read(state.st_size)
        plain = Sealer(repository.key.subkey(_PURPOSE)).unseal(sealed, "cache")
        document = json.loads(bytes(plain))
        if document["digest"] != digest:
            return None
        return cast("Config", _decoded(document["config"]))
    except (OSError, DamagedError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, digest: str, repository: Repository, config: Config) -> None:
    from safetake.repository.crypto import Sealer

    document = {"digest": digest, "config": _encoded(config)}
    plain = json.dumps(document, separators=(",", ":")).encode()
    sealed = Sealer(repository.key.subkey(_PURPOSE)).seal(plain)
    fresh = path.with_name(f"{path.name}.new")
    with contextlib.suppress(OSError):  # no place for it: checked again the next time
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in _oldest(path.parent):
            old.unlink(missing_ok=True)
        fresh.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o600), "wb") as file:  # noqa: PTH123
            file.write(sealed)
        fresh.rename(path)


def _oldest(folder: Path) -> Iterator[Path]:
    """What there is no room for any more, with room for one."""
    found = sorted(folder.iterdir(), key=lambda path: path.lstat().st_mtime_ns, reverse=True)
    yield from found[_MAX_FILES - 1 :]


def _encoded(value: Any) -> Any:
    """JSON of a checked value: a section and a path are marked, the rest stands for itself."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return {
            "section": {name: _encoded(getattr(value, name)) for name in type(value).model_fields}
        }
    if isinstance(value, PurePath):
        return {"path": str(value)}
    if isinstance(value, dict):
        return {"dict": {name: _encoded(inner) for name, inner in value.items()}}
    if isinstance(value, list | tuple):
        return [_encoded(inner) for inner in value]
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "path":
        return Path(inner)
    found = {name: _decoded(each) for name, each in inner.items()}
    return Kept(found) if kind == "section" else found
