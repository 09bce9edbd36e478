"""From a configuration to an open repository and to sources."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.errors import ConfigError

if TYPE_CHECKING:
    from safetake.config import Config, RepositoryConfig
    from safetake.repository import Repository
    from safetake.storage import Storage


def open_storage(repository: RepositoryConfig) -> Storage:
    """The storage that the location names. Raises ConfigError for what is no folder."""
    from safetake.storage import LocalStorage, OverlayStorage

    location = repository.location
    if "://" in location:
        raise ConfigError(
            f"[repository] location {location!r}: only folders are supported by this version",
            hint="give the path of a folder",
        )
    storage = LocalStorage(Path(location))
    if repository.overlay is None:
        return storage
    try:
        repository.overlay.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"[repository] overlay {repository.overlay} cannot be made: {error.strerror}",
            hint="name a folder that may be written",
        ) from error
    return OverlayStorage(storage, repository.overlay)


def open_repository(config: Config) -> Repository:
    """Open with the configured password.

    Raises ConfigError, RepositoryMissingError, WrongPasswordError, DamagedError.
    """
    return open_configured(config.repository)


def open_configured(repository: RepositoryConfig) -> Repository:
    """Open what one section says. Raises as `open_repository`."""
    from safetake.password import read_password

    found = _opened(open_storage(repository), read_password(repository))
    found.lock_wait = repository.lock_wait
    return found


def open_location(location: str, password: str) -> Repository:
    """Open the repository in a folder. Raises as `open_repository`."""
    from safetake.storage import LocalStorage

    return _opened(LocalStorage(Path(location)), password)


def on_the_volume_of(repository: RepositoryConfig, config: Config) -> list[str]:
    """Sources whose files are on the file system of a repository: one disk takes both."""
    device = _device(Path(repository.location))
    found = []
    for name, source in config.sources.items():
        path = source.data if source.type == "redis" else source.path
        if path is not None and device is not None and _device(path) == device:
            found.append(name)
    return found


def _device(path: Path) -> int | None:
    """The file system of a place, or of where it will be."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            return os.stat(place).st_dev  # noqa: PTH116 - one call, of a place that may be gone
    return None


def _opened(storage: Storage, password: str) -> Repository:
    from safetake.repository import Repository
    from safetake.repository.cache import IndexCache, cache_folder

    repository = Repository.open(storage, password)
    folder = cache_folder()
    if folder is not None and repository.id.isalnum():  # it names a folder
        repository.cache = IndexCache(folder, repository.id, repository.key)
    return repository
