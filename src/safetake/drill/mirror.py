"""The repository as another machine sees it: there, but only read; and the kit's page about it.

A folder that looks like the repository: what holds the data are links to it, which the kernel lets
nobody write through, and what a command writes (locks, history) goes into folders of the drill.
A snapshot that is lost is not in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.connect import open_location
from safetake.errors import SafetakeError, UsageError
from safetake.kit.collect import make
from safetake.kit.page import markdown
from safetake.storage.base import KINDS

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.drill.without import Left

PAGE = "kit.md"
_LINKED = ("data", "index", "keys")


def lay_out(folder: Path, config: Config, left: Left, sources: Collection[str]) -> None:
    """Make `folder/repository` and the page `folder/kit.md` with which `sources` come back.

    Raises UsageError when the page would bring back another snapshot, SafetakeError.
    """
    place = folder / "repository"
    try:
        _mirror(Path(left.location), place, left.gone)
    except OSError as error:
        raise SafetakeError(f"{left.location} can not be linked to: {error}") from error
    moved = config.repository.model_copy(update={"location": str(place)})
    seen = config.model_copy(update={"repository": moved, "copies": {}})
    with open_location(str(place), left.password) as repository:
        kit = make(seen, repository, Path("safetake.toml"), with_password=False)
    for group in kit.groups:
        brought = group.snapshot.id if group.snapshot is not None else "none"
        if set(group.sources) & set(sources) and brought != left.snapshot.id:
            raise UsageError(
                f"the recovery kit brings {', '.join(group.sources)} back from {brought[:8]}, and "
                f"not from {left.snapshot.id[:8]}, as the drill wants it",
                hint="name sources that one job backs up, and no other --snapshot than latest",
            )
    (folder / PAGE).write_text(markdown(kit), encoding="utf-8")


def _mirror(repository: Path, place: Path, gone: str) -> None:
    place.mkdir(mode=0o700)
    (place / "config").symlink_to(repository / "config")
    for kind in _LINKED:
        (place / kind).symlink_to(repository / kind, target_is_directory=True)
    for kind in {*KINDS, "tmp"} - {"config", *_LINKED}:
        (place / kind).mkdir(mode=0o700)
    for path in (repository / "snapshots").iterdir():
        if path.name != gone and path.is_file():
            shutil.copyfile(path, place / "snapshots" / path.name)
