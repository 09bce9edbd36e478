"""`safetake restore`: beside the live data, or in its place and undoable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from safetake.cli.common import (
    Command,
    Settings,
    complete_snapshots,
    complete_sources,
    pass_settings,
)

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo


@click.command(cls=Command)
@click.argument("snapshot", metavar="[ID]", required=False, shell_complete=complete_snapshots)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1, shell_complete=complete_sources)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Beside the live data: DIR/SOURCE/…; must be empty or new.",
)
@click.option("--overwrite", is_flag=True, help="With --to: replace what has the same name in DIR.")
@click.option("--sparse", is_flag=True, help="With --to: leave holes for blocks of zeros in files.")
@click.option(
    "--in-place", is_flag=True, help="Replace the live data, in a way that can be undone."
)
@click.option(
    "--dry-run", "-n", is_flag=True, help="Print the plan and what will be lost; do nothing."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--online", is_flag=True, help="Leave the services running.")
@click.option(
    "--beside", is_flag=True, help="SQLite: a new file, and the service's setting switched to it."
)
@click.option("--delete-extra", is_flag=True, help="Remove what the snapshot does not have.")
@click.option("--no-gate", is_flag=True, help="Do not wait for the services' health.")
@click.option(
    "--path", "paths", multiple=True, metavar="PATTERN", help="Files: only these, as in .gitignore."
)
@click.option("--collection", "collections", multiple=True, metavar="NAME", help="Chroma: only it.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Chroma: only this record.")
@click.option(
    "--keys", "patterns", multiple=True, metavar="PATTERN", help="Redis: only these keys."
)
@click.option("--db", type=click.IntRange(min=0), metavar="N", help="Redis: only this database.")
@click.option("--changed", is_flag=True, help="Records and keys: also those that changed since.")
@click.option("--exact", is_flag=True, help="Collections: also remove the records added since.")
@click.option("--resume", is_flag=True, help="End an interrupted restore with the restored data.")
@click.option("--rollback", is_flag=True, help="End an interrupted restore with the old data.")
@click.option("--undo", is_flag=True, help="Bring back what the last restore (or ID) replaced.")
@click.option("--other-server", is_flag=True, help="Undo of keys: also in another server.")
@click.option("--list", "listing", is_flag=True, help="List the restores in place, newest last.")
@pass_settings
def command(
    settings: Settings,
    snapshot: str | None,
    sources: tuple[str, ...],
    target: Path | None,
    overwrite: bool,
    sparse: bool,
    in_place: bool,
    dry_run: bool,
    yes: bool,
    online: bool,
    beside: bool,
    delete_extra: bool,
    no_gate: bool,
    paths: tuple[str, ...],
    collections: tuple[str, ...],
    ids: tuple[str, ...],
    patterns: tuple[str, ...],
    db: int | None,
    changed: bool,
    exact: bool,
    resume: bool,
    rollback: bool,
    undo: bool,
    other_server: bool,
    listing: bool,
) -> int:
    """Bring a snapshot back, beside the live data or in its place.

    ID is the beginning of a snapshot's id, or `latest`; without SOURCE all are restored. With --to
    nothing outside of DIR is touched. With --in-place what is there now is saved first, every step
    is journalled, and any failure puts everything back. Exit code 3: the bytes are right, but an
    owner or attribute could not be set and is named.
    """
    from safetake.cli import restore_in_place as live
    from safetake.cli import restore_undo as back
    from safetake.errors import UsageError

    ways = {
        "--to": target is not None,
        "--in-place": in_place,
        "--resume": resume,
        "--rollback": rollback,
        "--undo": undo,
        "--list": listing,
    }
    chosen = [way for way, given in ways.items() if given]
    if len(chosen) != 1:
        raise UsageError(
            "say where to restore to: --to DIR or --in-place"
            if not chosen
            else f"{' and '.join(chosen)} exclude each other",
            hint="--to writes beside the live data; --in-place replaces it, and can be undone",
        )
    options = {
        "--overwrite": overwrite,
        "--sparse": sparse,
        "--dry-run": dry_run,
        "--yes": yes,
        "--online": online,
        "--beside": beside,
        "--delete-extra": delete_extra,
        "--no-gate": no_gate,
        "--path": bool(paths),
        "--collection": bool(collections),
        "--id": bool(ids),
        "--keys": bool(patterns),
        "--db": db is not None,
        "--changed": changed,
        "--exact": exact,
        "--other-server": other_server,
    }
    _together(chosen[0], [option for option, there in options.items() if there])
    if resume or rollback or listing:
        if snapshot is not None:
            about = "all restores" if listing else "the restore that is open"
            raise UsageError(f"{chosen[0]} takes no ID: it is about {about}", hint="leave it out")
        if rollback:
            return back.roll_back(settings)
        return live.end(settings, resume=True) if resume else live.show(settings)
    if undo:
        if sources:
            raise UsageError(
                "--undo takes no SOURCE",
                hint="all that one restore replaced goes back together; restore a single source "
                "out of its safety snapshot: `safetake snapshots` lists it",
            )
        return back.undo(
            settings, snapshot or "", dry_run=dry_run, yes=yes, other_server=other_server
        )
    if snapshot is None:
        raise UsageError("which snapshot?", hint="`safetake snapshots` lists them; or `latest`")
    config = settings.load()
    with settings.open(config) as repository:
        from safetake.snapshots import find_snapshot

        found = find_snapshot(repository, snapshot, sources)
        if found.ours and not sources:
            _tell_elsewhere(settings, config, repository, found)
        if target is not None:
            return _beside(
                settings, config, repository, found, list(sources), target, overwrite, sparse
            )
        if collections or ids or patterns or db is not None:
            return _some(
                settings, repository, config, found, list(sources),
                collections, ids, patterns, db, changed, exact, dry_run, yes,
            )  # fmt: skip
        from safetake.recovery.plan import Wishes

        wishes = Wishes(_mode(online, beside), delete_extra, paths, not no_gate)
        return live.restore(
            settings, repository, config, found, list(sources), wishes, dry_run=dry_run, yes=yes
        )


def _tell_elsewhere(
    settings: Settings, config: Config, repository: Repository, found: SnapshotInfo
) -> None:
    """Whoever names no source expects them all, and jobs save different ones."""
    from safetake.cli import output
    from safetake.cli.snapshots import local_time
    from safetake.errors import DamagedError
    from safetake.snapshots import elsewhere

    if settings.quiet:
        return
    try:
        others = elsewhere(repository, found, config.sources)
    except DamagedError as error:  # of another snapshot: no reason not to restore this one
        lacking = ", ".join(sorted(set(config.sources) - set(found.sources)))
        output.note(f"{lacking}: not in snapshot {found.id[:8]}, and not looked for: {error}")
        return
    for name, one in others.items():
        output.note(
            f"{name} is not in snapshot {found.id[:8]}; the newest that has it is {one.id[:8]} of "
            f"{local_time(one.time_ns)}: `safetake restore {one.id[:8]} {name} …`"
        )


_GO_TOGETHER = {
    "--to": {"--overwrite", "--sparse"},
    "--in-place": {"--dry-run", "--online", "--beside", "--delete-extra", "--no-gate", "--path"},
    "--collection": {"--dry-run", "--collection", "--id", "--changed", "--exact"},
    "--keys": {"--dry-run", "--keys", "--db", "--changed"},
    "--undo": {"--dry-run", "--other-server"},
}


def _together(way: str, given: list[str]) -> None:
    """An option that would mean nothing is refused: whoever wrote it expects that it does."""
    from safetake.errors import UsageError

    allowed = _GO_TOGETHER.get(way, set())
    if way == "--in-place":
        if {"--collection", "--id"} & set(given):
            way = "--collection"
        elif {"--keys", "--db"} & set(given):
            way = "--keys"
        allowed = _GO_TOGETHER[way]
    wrong = [option for option in given if option not in allowed | {"--yes"}]
    if not wrong:
        return
    goes = [name for name, with_it in _GO_TOGETHER.items() if wrong[0] in with_it - {name}]
    if not goes or "--in-place" in goes:
        goes = [name for name in ("--in-place", *goes) if name not in ("--collection", "--keys")]
    raise UsageError(
        f"{wrong[0]} does not go with {way}",
        hint=f"leave it out; it goes with {' and '.join(dict.fromkeys(goes))}",
    )


def _mode(online: bool, beside: bool) -> str:
    from safetake.errors import UsageError

    if online and beside:
        raise UsageError("--online and --beside exclude each other", hint="leave one out")
    return "online" if online else "beside" if beside else ""


def _beside(
    settings: Settings,
    config: Config,
    repository: Repository,
    found: SnapshotInfo,
    sources: list[str],
    target: Path,
    overwrite: bool,
    sparse: bool,
) -> int:
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.operate.history import facts, recorded
    from safetake.restore.beside import restore_to
    from safetake.wording import size

    with (
        recorded(config, "restore", repository=repository) as run,
        Progress(settings.quiet) as progress,
    ):
        report = restore_to(
            repository,
            found,
            sources,
            target,
            overwrite=overwrite,
            progress=progress,
            sparse=sparse,
        )
        facts.restored_to(run, report)
    if settings.json:
        output.document(report.as_dict())
        return report.exit_code
    if not settings.quiet:
        rows = [
            [name, str(source["files"]), size(source["bytes"]), source["path"]]
            for name, source in report.sources.items()
        ]
        output.table(["source", "files", "size", "restored to"], rows, right=[1, 2])
        output.line()
        output.line(f"snapshot {found.id[:8]} restored in {report.seconds:.1f} s")
    for problem in report.problems:
        output.note(output.printable_lines(f"not set: {problem}"))
    return report.exit_code


_FITS = "of sqlite `safetake rows`, of files --path, of redis --keys, of chroma --collection"


def _some(
    settings: Settings,
    repository: Repository,
    config: Config,
    found: SnapshotInfo,
    sources: list[str],
    collections: tuple[str, ...],
    ids: tuple[str, ...],
    patterns: tuple[str, ...],
    db: int | None,
    changed: bool,
    exact: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Some records of a Chroma store, or some keys of a Redis server."""
    from safetake.cli.common import choose
    from safetake.errors import UsageError

    if len(sources) != 1:
        raise UsageError(
            "name the one SOURCE that the records or keys belong to",
            hint="safetake restore latest SOURCE --in-place …",
        )
    name = choose(sources, list(config.sources), "source")[0]
    source = config.sources[name]
    if patterns or db is not None:
        from safetake.cli.restore_keys import restore_keys

        if source.type != "redis":
            raise UsageError(
                f"--keys and --db are for Redis, and {name!r} is {source.type}", hint=_FITS
            )
        return restore_keys(
            settings, repository, found, name, source, list(patterns), db,
            changed=changed, dry_run=dry_run, yes=yes,
        )  # fmt: skip
    from safetake.cli.restore_records import restore_collection

    if source.type != "chroma":
        raise UsageError(f"--collection is for Chroma, and {name!r} is {source.type}", hint=_FITS)
    if not collections:
        raise UsageError(
            "--id needs --collection: ids are unique in a collection only",
            hint="add --collection NAME",
        )
    return restore_collection(
        settings, repository, found, name, source, list(collections), list(ids),
        changed=changed, exact=exact, dry_run=dry_run, yes=yes,
    )  # fmt: skip
