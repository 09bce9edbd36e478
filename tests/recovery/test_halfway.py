"""No backup of a store that is half restored, whichever of the two began first."""

from __future__ import annotations

from pathlib import Path

import pytest

from safetake.backup import run_backup
from safetake.errors import RefusedError
from safetake.recovery.halfway import refuse_half_restored
from safetake.recovery.inplace import restores_folder
from safetake.recovery.journal import create
from safetake.snapshots import list_snapshots
from tests.recovery.test_engine import Site
from tests.support.repositories import open_repository


def test_a_restore_that_begins_while_a_backup_reads_ends_the_backup(tmp_path: Path) -> None:
    """Its cut could lie between the switches of two stores."""
    site = Site(tmp_path)
    names = ["projects", "scripts"]
    begun: list[str] = []

    def progress(what: str, done: int, total: int | None) -> None:
        if not begun:
            begun.append("0" * 16)
            plan = {"time": "2026-01-01T00:00:00Z", "sources": {"projects": {}}}
            create(restores_folder(site.config), begun[0], plan)

    refuse_half_restored(site.config, names)
    before = len(list_snapshots(site.repository))
    with pytest.raises(RefusedError, match="projects is not ended"):
        run_backup(
            site.config,
            sources=names,
            progress=progress,
            opened=lambda: open_repository(site.folder / "repository"),
            still=lambda: refuse_half_restored(site.config, names),
        )
    assert begun
    assert len(list_snapshots(open_repository(site.folder / "repository"))) == before
