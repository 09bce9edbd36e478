"""Between an interrupted restore and its end a store is neither old nor new: no backup of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetake.errors import RefusedError
from safetake.state import state_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safetake.config import Config


def refuse_half_restored(config: Config, sources: Sequence[str]) -> None:
    """Raises RefusedError when a restore of one of the sources was begun and not ended."""
    restores = state_folder(config.restore.state, "restores", create=False)
    if not restores.is_dir():
        return
    from safetake.recovery.journal import open_restore

    journal = open_restore(restores)
    touched = [name for name in sources if journal is not None and name in journal.plan["sources"]]
    if journal is not None and touched:
        raise RefusedError(
            f"the restore {journal.id} of {', '.join(touched)} is not ended: a snapshot now could "
            "hold half of it",
            hint="`safetake restore --resume` or `safetake restore --rollback` first",
        )
