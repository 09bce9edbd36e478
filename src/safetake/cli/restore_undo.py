"""What `restore --undo` and `--rollback` mean: the newest of three kinds of restores.

Whole sources have a journal and a safety snapshot; records of Chroma and keys of Redis have an undo
file each, in the folders `records` and `keys` of the state folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from safetake.cli import output

if TYPE_CHECKING:
    from safetake.cli.common import Settings
    from safetake.config import Config


@dataclass(frozen=True, slots=True)
class Done:
    """One restore in place of some records or keys that can be undone."""

    kind: Literal["records", "keys"]
    id: str
    time_ns: int
    order: int
    """As of journals: the newest has the highest."""
    path: Path


def some(config: Config) -> list[Done]:
    """Restores of records and keys that were not taken back, oldest first."""
    from safetake.recovery.journal import file_order
    from safetake.sources.chroma.undo import SUFFIX as RECORDS
    from safetake.sources.chroma.undo import is_undone
    from safetake.sources.redis.undofile import SUFFIX as KEYS
    from safetake.state import state_folder

    found = []
    kinds: tuple[tuple[Literal["records", "keys"], str], ...] = (
        ("records", RECORDS),
        ("keys", KEYS),
    )
    for kind, suffix in kinds:
        folder = state_folder(config.restore.state, kind, create=False)
        for path in folder.glob("*" + suffix) if folder.is_dir() else ():
            if kind == "records" and is_undone(path):
                continue
            name = path.name.removesuffix(suffix)
            found.append(Done(kind, name, path.stat().st_mtime_ns, file_order(path), path))
    return sorted(found, key=lambda done: done.order)


def undo(
    settings: Settings, wanted: str, *, dry_run: bool, yes: bool, other_server: bool = False
) -> int:
    """Undo the restore whose id begins with `wanted`, or the newest of all (also `latest`).

    `other_server` is about keys: see `take_back_keys`.
    """
    from safetake.cli import restore_in_place as whole
    from safetake.errors import UsageError
    from safetake.recovery.inplace import restores_folder
    from safetake.recovery.journal import journals

    config = settings.load()
    committed = [j for j in journals(restores_folder(config)) if j.ended == "committed"]
    parts = some(config)
    wanted = "" if wanted == "latest" else wanted
    if wanted:
        chosen = [done for done in parts if done.id.startswith(wanted)]
        if not chosen or any(journal.id.startswith(wanted) for journal in committed):
            _about_keys(other_server)
            return whole.undo(settings, wanted, dry_run=dry_run, yes=yes)
        if len(chosen) > 1:
            raise UsageError(f"{wanted!r} begins the ids of {len(chosen)} restores")
        newest = chosen[0]
    else:
        if not parts or (committed and parts[-1].order < committed[-1].order):
            _about_keys(other_server)
            return whole.undo(settings, "", dry_run=dry_run, yes=yes)
        newest = parts[-1]
    _about_keys(other_server and newest.kind != "keys")
    if dry_run:
        raise UsageError(
            f"the restore {newest.id} is of {newest.kind}: --dry-run is for whole sources",
            hint="--undo without it takes back what that restore did, and nothing written since",
        )
    if not yes:
        if not sys.stdin.isatty() or settings.json:
            raise UsageError(
                f"the restore {newest.id} is of {newest.kind}, to be taken back in the running "
                "server, and there is nobody to ask",
                hint="add --yes",
            )
        if not click.confirm(f"Take back the restore of {newest.kind} {newest.id}?", err=True):
            output.line("nothing was changed")
            return 1
    return _take_back(settings, newest.kind, newest.path, other_server=other_server)


def _about_keys(other_server: bool) -> None:
    """Of another restore the option would mean nothing. Raises UsageError."""
    from safetake.errors import UsageError

    if other_server:
        raise UsageError(
            "--other-server is about keys of Redis, and this restore is of something else",
            hint="leave it out, or name the restore: `safetake restore --list`",
        )


def _take_back(
    settings: Settings,
    kind: Literal["records", "keys"],
    path: Path | None,
    *,
    other_server: bool = False,
) -> int:
    if kind == "keys":
        from safetake.cli.restore_keys import take_back_keys

        return take_back_keys(settings, path, other_server=other_server)
    from safetake.cli.restore_records import take_back

    return take_back(settings, path)


def roll_back(settings: Settings) -> int:
    """End what was begun and not ended with what was there before."""
    from safetake.cli import restore_in_place as whole
    from safetake.cli.restore_records import records_folder
    from safetake.recovery.inplace import restores_folder
    from safetake.recovery.journal import open_restore
    from safetake.sources.chroma.undo import unfinished

    config = settings.load()
    if open_restore(restores_folder(config)) is None and unfinished(records_folder(config)):
        return _take_back(settings, "records", None)
    return whole.end(settings, resume=False)
