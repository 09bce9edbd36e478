"""`copy`: from the repository into one of [copies.NAME], which is opened, or made, for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safetake.config import Config, RepositoryConfig
    from safetake.model import Progress
    from safetake.repository import Repository
    from safetake.repository.copy import CopyResult


def copy_section(config: Config, name: str) -> RepositoryConfig:
    """[copies.NAME]. Raises UsageError when there is none."""
    from safetake.errors import UsageError
    from safetake.wording import nearest

    if name not in config.copies:
        raise UsageError(
            f"there is no copy {name!r} in the configuration{nearest(name, config.copies)}",
            hint="[copies.NAME] says where it is",
        )
    return config.copies[name]


def run_copy(
    config: Config,
    repository: Repository,
    name: str,
    snapshots: tuple[str, ...] = (),
    *,
    progress: Progress | None = None,
    make: bool = False,
) -> CopyResult:
    """Open the second repository and copy into it. Raises what both of them raise."""
    from safetake.connect import open_configured, open_storage
    from safetake.errors import RepositoryMissingError
    from safetake.evidence.store import copy_all
    from safetake.repository.copy import copy
    from safetake.snapshots import find_snapshot

    wanted = [find_snapshot(repository, word).id for word in snapshots]
    place = copy_section(config, name)
    if make and not open_storage(place).exists():
        from safetake.password import read_password
        from safetake.repository import Repository

        Repository.init(open_storage(place), read_password(place))
    try:
        target = open_configured(place)
    except RepositoryMissingError as error:
        raise RepositoryMissingError(
            str(error),
            hint=f"make it with `safetake copy {name} --init`, or correct [copies.{name}] location",
        ) from error
    with target:
        result = copy(repository, target, wanted or None, progress)
        # last, as the snapshots that it tells of are there; all of it, or the chain had gaps
        result.evidence, result.problems = copy_all(repository, target)
        return result
