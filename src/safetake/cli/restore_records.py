"""`safetake restore … --collection`: collections and records into a running Chroma server.

Called by the command `restore`. Each restore leaves an undo file in the state folder, and an
interrupted one goes on from there.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from safetake.cli.common import Settings
    from safetake.config import ChromaConfig, Config
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo
    from safetake.sources.chroma.recordplan import CollectionPlan, RecordsPlan

_SHOWN = 5


def restore_collection(
    settings: Settings,
    repository: Repository,
    snapshot: SnapshotInfo,
    source_name: str,
    source_config: ChromaConfig,
    collections: list[str],
    ids: list[str],
    *,
    changed: bool,
    exact: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Bring collections (all when none is named) or records back; prints, returns the exit code.

    0, or 3 when an application wrote some of the records meanwhile. Raises SafetakeError.
    """
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.operate.history import facts, recorded
    from safetake.recovery.inplace import alone
    from safetake.restore.beside import choose
    from safetake.snapshots import read_manifest
    from safetake.sources.chroma import records
    from safetake.wording import printable

    config = settings.load()
    reader = repository.reader()
    node = choose(reader, snapshot, [source_name])[source_name]
    entry = (read_manifest(reader, snapshot) or {"sources": {}})["sources"].get(source_name, {})
    with (
        recorded(config, "restore", repository=repository, wanted=not dry_run) as run,
        alone(config, writing=not dry_run),
        Progress(settings.quiet) as progress,
    ):
        run.facts |= {"action": "records", "snapshot": snapshot.id, "sources": [source_name]}
        plan = records.plan(
            source_name,
            source_config,
            entry,
            reader,
            node,
            collections,
            ids,
            snapshot=snapshot.id,
            changed=changed,
            exact=exact,
            progress=progress,
        )
        with contextlib.closing(plan):
            cut_off = None if dry_run else _cut_off(config, plan.facts)
            done = dry_run or (plan.nothing and cut_off is None)
            if not done and not yes:
                _need_somebody(settings)
            if not settings.json and not settings.quiet:
                _print(plan)
            if done:
                run.wanted = False
                if settings.json:
                    output.document(_document(plan, None, None, 0.0))
                elif not settings.quiet:
                    output.line("nothing was changed")
                return 0
            if not yes and not click.confirm("Change the records of the server?", err=True):
                output.note("nothing was changed")
                run.wanted = False
                return 1
            path = cut_off or _new_file(config, source_name)
            started = time.perf_counter()
            report = records.apply(plan, path, progress)
            seconds = time.perf_counter() - started
            facts.part(
                run, "records", source_name, 3 if report.kept or report.different else 0,
                seconds=round(seconds, 3), id=path.name, added=report.added,
                updated=report.updated, deleted=report.deleted,
            )  # fmt: skip
    if settings.json:
        output.document(_document(plan, report.as_dict(), path, seconds))
    elif not settings.quiet:
        output.line(
            f"{report.added} brought back, {report.updated} put back, {report.deleted} removed,"
            f" in {seconds:.1f} s"
        )
        if report.ulps:
            output.line(f"vectors are within {report.ulps} units in the last place")
        output.line(f"what was there before is in {path}")
        output.line("`safetake restore --undo` brings it back")
    for what, some in (
        ("written by an application meanwhile, and left alone", report.kept),
        ("not what was written when it was read back", report.different),
    ):
        if some:
            names = ", ".join(some[:_SHOWN])
            output.note(printable(f"{len(some)} {what}: {names}"))
    return 3 if report.kept or report.different else 0


def take_back(settings: Settings, path: Path | None = None) -> int:
    """Undo a restore of records: the one that was cut off, or the newest, or the one of `path`.

    Prints, returns the exit code: 3 when something was written since and was left alone. Raises
    SafetakeError.
    """
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.config import ChromaConfig
    from safetake.errors import RefusedError, UsageError
    from safetake.operate.history import facts, recorded
    from safetake.recovery.inplace import alone
    from safetake.sources.chroma import takeback, undo
    from safetake.wording import printable

    config = settings.load()
    folder = records_folder(config)
    with recorded(config, "restore") as run, alone(config):
        run.facts["action"] = "undo records"
        if path is None:
            path = next(iter(undo.unfinished(folder)), None) or undo.latest_done(folder)
        if path is None:
            raise RefusedError("no restore of records can be undone", hint=f"none is in {folder}")
        name = str(undo.read(path).begin.get("source"))
        source = config.sources.get(name)
        if not isinstance(source, ChromaConfig):
            raise UsageError(
                f"{path} is about the source {name!r}, which is no chroma source of the"
                " configuration",
                hint="put the section back under its old name",
            )
        with Progress(settings.quiet) as progress:
            result = takeback.undo(name, source, path, progress)
        code = 3 if result.kept or result.different else 0
        facts.part(run, "undo records", name, code, id=path.name)
    if settings.json:
        output.document({"undone": result.as_dict(), "file": str(path)})
    elif not settings.quiet:
        output.line(f"{result.removed} removed again, {result.put_back} put back as they were")
        for dropped in result.dropped:
            output.line(f"the collection {dropped} is gone again")
    for what, some in (
        ("written since, and left alone", result.kept),
        ("not what was there before when it was read back", result.different),
    ):
        if some:
            names = ", ".join(some[:_SHOWN])
            output.note(printable(f"{len(some)} {what}: {names}"))
    return code


def records_folder(config: Config) -> Path:
    """Where the undo files lie."""
    from safetake.state import state_folder

    return state_folder(config.restore.state, "records")


def refuse_cut_off(config: Config) -> None:
    """Raise RefusedError while a restore of records was begun and not ended."""
    from safetake.sources.chroma import undo
    from safetake.state import state_folder

    for path in undo.unfinished(state_folder(config.restore.state, "records", create=False)):
        raise _unfinished(path)


def _unfinished(path: Path) -> Exception:
    from safetake.errors import RefusedError
    from safetake.sources.chroma import undo

    begin = undo.read(path).begin
    words = ["safetake", "restore", str(begin.get("snapshot"))[:8], str(begin.get("source"))]
    for option, given in (("--collection", "collections"), ("--id", "ids")):
        for name in begin.get(given, []):
            words += [option, name]
    words += ["--exact"] if begin.get("exact") else (["--changed"] if begin.get("changed") else [])
    return RefusedError(
        f"a restore of records was cut off ({path})",
        hint=f"go on with `{shlex.join(words)} --in-place`, or take it back with"
        " `safetake restore --rollback`",
    )


def _cut_off(config: Config, facts: dict[str, Any]) -> Path | None:
    """The file to go on with. Raises RefusedError when another restore was cut off."""
    from safetake.sources.chroma import undo

    for path in undo.unfinished(records_folder(config)):
        if undo.read(path).begin != facts:
            raise _unfinished(path)
        return path
    return None


def _new_file(config: Config, source: str) -> Path:
    from safetake.recovery.inplace import restores_folder
    from safetake.recovery.journal import undo_file_name
    from safetake.sources.chroma.undo import SUFFIX

    return records_folder(config) / undo_file_name(restores_folder(config), source, SUFFIX)


def _need_somebody(settings: Settings) -> None:
    from safetake.errors import UsageError

    if settings.json or not sys.stdin.isatty():
        raise UsageError(
            "records would be written, and there is nobody to ask",
            hint="look with --dry-run, then add --yes",
        )


def _print(plan: RecordsPlan) -> None:
    from safetake.cli import output
    from safetake.wording import printable

    rows = [
        [
            one.label,
            str(len(one.missing)),
            str(len(one.changed) if plan.changed else 0),
            str(len(one.newer) if plan.exact else 0),
            "is made anew, with another id" if one.live is None else _other_id(one),
        ]
        for one in plan.collections
    ]
    heads = ["collection", "come back", "go back", "are removed", ""]
    output.table(heads, rows, right=[1, 2, 3])
    for one in plan.collections:
        if plan.exact and one.newer:
            more = f" and {len(one.newer) - 20} more" if len(one.newer) > 20 else ""
            names = ", ".join(one.newer[:20])
            output.line(printable(f"removed from {one.label}: {names}{more}"))
        if one.changed and not plan.changed:
            output.line(
                f"{len(one.changed)} of {one.label} were changed since: --changed puts them back"
            )
        if one.newer and not plan.exact:
            output.line(
                f"{len(one.newer)} of {one.label} were added since, and stay: --exact removes them"
            )


def _other_id(one: CollectionPlan) -> str:
    if one.live is None or one.live["id"] == one.stored.id:
        return ""
    return "made anew since: it has another id"


def _document(
    plan: RecordsPlan, report: dict[str, Any] | None, path: Path | None, seconds: float
) -> dict[str, Any]:
    return {
        "snapshot": plan.facts["snapshot"],
        "source": plan.facts["source"],
        "server": plan.server.where,
        "collections": [one.as_dict() for one in plan.collections],
        "report": report,
        "undo_file": str(path) if path is not None else None,
        "seconds": round(seconds, 3),
    }
