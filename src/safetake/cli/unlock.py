"""`safetake unlock`: removes locks that nobody holds any more."""

from __future__ import annotations

import click

from safetake.cli.common import Command, Settings, pass_settings


@click.command(cls=Command)
@click.option("--all", "all_locks", is_flag=True, help="Remove live locks, too.")
@pass_settings
def command(settings: Settings, all_locks: bool) -> int:
    """Remove locks that crashed processes left.

    A lock is stale when its process on this host is gone, or after 30 minutes without a sign of
    life. `--all` removes the others, too: only when you know that nothing uses the repository.
    """
    from safetake.cli import output
    from safetake.operate.history import recorded

    config = settings.load()
    with recorded(config, "unlock") as run, settings.open(config) as repository:
        run.repository = repository
        removed = repository.locks.remove(all_locks=all_locks)
        run.facts |= {"all": all_locks, "removed": [str(lock) for lock in removed]}
    if settings.json:
        output.document([lock.as_dict() for lock in removed])
    elif not settings.quiet:
        for lock in removed:
            output.line(f"removed {lock}")
        output.line(f"{len(removed)} locks removed")
    return 0
