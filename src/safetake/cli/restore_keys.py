"""`safetake restore … --keys`: keys out of a snapshot into a running Redis server.

Called by the command `restore`. Each restore that changes anything leaves an undo file in the state
folder.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from safetake.cli.common import Settings
    from safetake.config import Config, RedisConfig
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo
    from safetake.sources.redis.keys import KeysReport

_SHOWN = 5


def restore_keys(
    settings: Settings,
    repository: Repository,
    snapshot: SnapshotInfo,
    source_name: str,
    source_config: RedisConfig,
    patterns: list[str],
    db: int | None,
    *,
    changed: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Bring back keys that are gone, with `changed` also those that are different; prints, returns
    the exit code.

    No pattern: every key. 0, or 3 when some keys could not be brought back. Raises SafetakeError.
    """
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.operate.history import facts as history_facts
    from safetake.operate.history import recorded
    from safetake.recovery.inplace import alone, restores_folder
    from safetake.recovery.journal import undo_file_name
    from safetake.restore.beside import choose
    from safetake.scratch import scratch_folder
    from safetake.snapshots import read_manifest
    from safetake.sources.redis.keys import Keys
    from safetake.sources.redis.store import materialise
    from safetake.sources.redis.undofile import SUFFIX, UndoFile, server_of
    from safetake.sources.redis.wire import Address, Connection

    config = settings.load()
    reader = repository.reader()
    node = choose(reader, snapshot, [source_name])[source_name]
    entry = (read_manifest(reader, snapshot) or {"sources": {}})["sources"].get(source_name, {})
    facts = entry.get("facts") or {}
    begin = {
        "source": source_name,
        "snapshot": snapshot.id,
        "patterns": patterns,
        "db": db,
        "changed": changed,
        "time": time.time_ns(),
    }
    with (
        recorded(config, "restore", repository=repository, wanted=not dry_run) as run,
        alone(config, writing=not dry_run),
        scratch_folder() as scratch,
        Connection(Address.of(source_config)) as connection,
        Progress(settings.quiet) as progress,
    ):
        run.facts |= {"action": "keys", "snapshot": snapshot.id, "sources": [source_name]}
        _refuse(facts, connection, source_name)
        dump = scratch / "dump.rdb"
        for inner in reader.tree(node.subtree) if node.subtree is not None else []:
            if inner.name == dump.name:
                materialise(inner, reader, dump)
        keys = Keys(dump, connection, patterns, db, changed=changed, progress=progress)
        if dry_run or not yes:
            planned = keys.run(None)
            _refuse_none(planned, patterns, db)
            if dry_run or not (planned.missing or (changed and planned.changed)):
                run.wanted = False
                return _print(settings, planned, None, begin, 0.0)
            if not settings.json and not settings.quiet:
                _table(planned, changed=changed)
            if not _confirmed(settings):
                run.wanted = False
                output.note("nothing was changed")
                return 1
        started = time.perf_counter()
        name = undo_file_name(restores_folder(config), source_name, SUFFIX)
        path = keys_folder(config) / name
        with UndoFile(path, {**begin, "server": server_of(connection)}) as undo:
            report = keys.run(undo)
            _refuse_none(report, patterns, db)
            kept = path if undo.made else None
        seconds = time.perf_counter() - started
        history_facts.part(
            run, "keys", source_name, 0 if report.complete else 3,
            seconds=round(seconds, 3), done=kept is not None, id="" if kept is None else kept.name,
        )  # fmt: skip
    if facts.get("functions") and db is None and (not patterns or "*" in patterns):
        output.note(
            "the functions of the snapshot are no keys, and are not brought back: a restore of the"
            " whole server does"
        )
    return _print(settings, report, kept, begin, seconds)


def take_back_keys(
    settings: Settings, path: Path | None = None, *, other_server: bool = False
) -> int:
    """Undo a restore of keys: the newest, or the one of `path`; with `other_server` also in one
    that is not known to be the server that they were restored into.

    Prints, returns the exit code: 3 when something was written since and was left alone. Raises
    SafetakeError.
    """
    from safetake.cli import output
    from safetake.config import RedisConfig
    from safetake.errors import RefusedError, UsageError
    from safetake.operate.history import facts, recorded
    from safetake.recovery.inplace import alone
    from safetake.sources.redis import undofile
    from safetake.sources.redis.wire import Address, Connection

    config = settings.load()
    with recorded(config, "restore") as run, alone(config):
        run.facts["action"] = "undo keys"
        if path is None:
            found = sorted(keys_folder(config).glob(f"*{undofile.SUFFIX}"))
            path = found[-1] if found else None
        if path is None:
            raise RefusedError(
                "no restore of keys can be undone", hint=f"none is in {keys_folder(config)}"
            )
        begin = undofile.read_begin(path)
        name = str(begin.get("source"))
        source = config.sources.get(name)
        if not isinstance(source, RedisConfig):
            raise UsageError(
                f"{path} is about the source {name!r}, which is no redis source of the"
                " configuration",
                hint="put the section back under its old name",
            )
        with Connection(Address.of(source)) as connection:
            if not other_server and (was := undofile.stranger(begin, connection)):
                raise RefusedError(
                    f"the keys of {path.name} were restored into {was}, and {connection.address} "
                    "is not known to be that server, nor a replica that took over from it",
                    hint="nothing was changed; if it has that server's data, add --other-server; "
                    f"else set the `url` of {name} back",
                )
            result = undofile.take_back(path, connection)
        facts.part(run, "undo keys", name, 3 if result.kept else 0, id=path.name)
        path = path.rename(path.with_suffix(".undone"))
    if settings.json:
        output.document({"undone": result.as_dict(), "file": str(path)})
    elif not settings.quiet:
        output.line(f"{result.removed} removed again, {result.put_back} put back as they were")
    if result.kept:
        _note("written since, and left alone", result.kept)
    return 3 if result.kept else 0


def keys_folder(config: Config) -> Path:
    """Where the undo files lie."""
    from safetake.state import state_folder

    return state_folder(config.restore.state, "keys")


def _refuse(facts: dict[str, Any], connection: Any, source: str) -> None:
    from safetake.errors import RefusedError
    from safetake.sources.redis.donor import refuse_newer
    from safetake.sources.redis.server import Server

    server = Server.ask(connection)
    if server.is_replica:
        raise RefusedError(
            f"{connection.address} is a replica, which takes no writes", hint="name its master"
        )
    if facts.get("raw"):
        raise RefusedError(f"the snapshot of {source} holds raw files, and no keys")
    if "family" not in facts:
        raise RefusedError(
            f"the snapshot of {source} was not made by safetake: its server's version is not known",
            hint="restore it with --to, and start a server on it",
        )
    if facts.get("form") == "aof":
        raise RefusedError(
            f"the snapshot of {source} is in append-only form: its keys cannot be told apart"
            " without a server",
            hint="restore it with --to and start a server on it (README.txt there)",
        )
    refuse_newer(facts, server)


def _refuse_none(report: KeysReport, patterns: list[str], db: int | None) -> None:
    """Whoever mistypes a pattern must not read that nothing had to be done."""
    from safetake.errors import RefusedError

    told = (report.missing, report.changed, report.same, report.expired)
    if any(told) or report.busy or report.refused or report.different:
        return
    named = f" named by {', '.join(patterns)}" if patterns else ""
    where = "" if db is None else f" in database {db}"
    raise RefusedError(
        f"the snapshot has no key{named}{where}",
        hint="patterns are those of KEYS: `*` is any text, and the whole key has to fit"
        if patterns
        else "`safetake show` says which databases it has",
    )


def _confirmed(settings: Settings) -> bool:
    from safetake.errors import UsageError

    if settings.json or not sys.stdin.isatty():
        raise UsageError(
            "keys would be written, and there is nobody to ask",
            hint="look with --dry-run, then add --yes",
        )
    return click.confirm("Change the keys of the running server?", err=True)


def _table(report: KeysReport, *, changed: bool) -> None:
    from safetake.cli import output
    from safetake.wording import printable

    rows = [
        ["gone", str(report.missing), "brought back"],
        ["changed", str(report.changed), "put back" if changed else "left; --changed puts back"],
        ["the same", str(report.same), "left"],
        ["expired since", str(report.expired), "not brought back"],
    ]
    output.table(["keys", "number", ""], rows, right=[1])
    if report.examples:
        more = " …" if len(report.examples) > _SHOWN else ""
        output.line(printable("such as " + ", ".join(report.examples[:_SHOWN]) + more))


def _print(
    settings: Settings,
    report: KeysReport,
    path: Path | None,
    begin: dict[str, Any],
    seconds: float,
) -> int:
    from safetake.cli import output

    if settings.json:
        output.document(
            {
                "snapshot": begin["snapshot"],
                "source": begin["source"],
                "patterns": begin["patterns"],
                "db": begin["db"],
                "put_changed_back": begin["changed"],
                "report": report.as_dict(),
                "done": path is not None,
                "undo_file": None if path is None else str(path),
                "seconds": round(seconds, 3),
            }
        )
    elif not settings.quiet:
        _table(report, changed=bool(begin["changed"]))
        if path is None:
            output.line("nothing was changed")
        else:
            output.line(f"done in {seconds:.1f} s; what was there before is in {path}")
            output.line("`safetake restore --undo` brings it back")
    for what, some in (
        ("written by an application again and again, and left alone", report.busy),
        ("refused by the server", report.refused),
        ("not what was written when it was read back", report.different),
    ):
        if some:
            _note(what, some)
    if report.evicted:
        output.note(
            f"{report.evicted} keys were evicted by the server meanwhile: it is at its maxmemory"
        )
    return 0 if report.complete else 3


def _note(what: str, some: list[str]) -> None:
    from safetake.cli import output
    from safetake.wording import printable

    names = ", ".join(some[:_SHOWN])
    output.note(printable(f"{len(some)} {what}: {names}"))
