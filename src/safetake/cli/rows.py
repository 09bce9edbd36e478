"""`safetake rows`: single rows of a snapshot against the live database, and back into it."""

from __future__ import annotations

import sys
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
    from pathlib import Path

    from safetake.config import Config, SqliteConfig
    from safetake.sources.sqlite.rows.job import Report, Wish

LISTED = 100


@click.command(cls=Command)
@click.argument("snapshot", metavar="[ID]", required=False, shell_complete=complete_snapshots)
@click.argument("source", required=False, shell_complete=complete_sources)
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this; repeatable.")
@click.option("--where", metavar="SQL", default="", help="Only rows that meet a condition.")
@click.option("--since", metavar="TIME", help="Only rows from then on: 2026-11-22 21:58, or 6h.")
@click.option("--until", metavar="TIME", help="Only rows before.")
@click.option("--time-column", metavar="COLUMN", default="", help="Where a row's time is.")
@click.option("--missing", is_flag=True, help="List the rows that are missing.")
@click.option("--changed", is_flag=True, help="List what changed; with --apply: put it back, too.")
@click.option("--extra", is_flag=True, help="List the rows that are newer than the snapshot.")
@click.option("--limit", type=click.IntRange(min=0), default=LISTED, metavar="N",
              help=f"List at most N rows of a kind and table; default {LISTED}.")  # fmt: skip
@click.option("--apply", "apply", is_flag=True, help="Bring the missing rows back.")
@click.option("--recycled", is_flag=True, help="With --changed: also over rows that may be others.")
@click.option("--fire-triggers", is_flag=True, help="Let the tables' triggers fire.")
@click.option("--undo", metavar="ID", help="Take an earlier --apply back; `latest` is the newest.")
@click.option("--dry-run", "-n", is_flag=True,
              help="Do everything, roll it back, and say what it was.")  # fmt: skip
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@pass_settings
def command(
    settings: Settings,
    snapshot: str | None,
    source: str | None,
    tables: tuple[str, ...],
    where: str,
    since: str | None,
    until: str | None,
    time_column: str,
    missing: bool,
    changed: bool,
    extra: bool,
    limit: int,
    apply: bool,
    recycled: bool,
    fire_triggers: bool,
    undo: str | None,
    dry_run: bool,
    yes: bool,
) -> int:
    """Compare rows of a snapshot with the live database, and bring them back.

    SOURCE is a sqlite source. Missing rows are in the snapshot and not live, extra ones are live
    only, changed ones differ. --apply brings the missing back, in one transaction, while the
    application goes on; what was written since stays. Exit code 3: some rows were left out, and are
    named.
    """
    from safetake.errors import UsageError

    if undo is not None:
        if snapshot is not None or apply:
            raise UsageError(
                "--undo takes no snapshot and no --apply",
                hint="`safetake rows --undo latest`, or the id that --apply printed",
            )
        choice: dict[str, object] = {
            "--table": tables,
            "--where": where,
            "--since": since,
            "--until": until,
            "--time-column": time_column,
            "--missing": missing,
            "--changed": changed,
            "--extra": extra,
            "--recycled": recycled,
        }
        if given := [name for name, value in choice.items() if value]:
            raise UsageError(
                f"{given[0]} does not go with --undo: all that one --apply did is taken back",
                hint="leave it out",
            )
        return _undo(settings, undo, dry_run, fire_triggers, yes)
    if snapshot is None or source is None:
        raise UsageError("ID and SOURCE are needed", hint="safetake rows latest SOURCE")
    if (recycled or fire_triggers or dry_run or yes) and not apply:
        raise UsageError(
            "--recycled, --fire-triggers, --dry-run and --yes go with --apply",
            hint="without --apply nothing is written: rows are only compared",
        )
    if time_column and not (since or until):
        raise UsageError(
            "--time-column goes with --since or --until", hint="add one, such as --since 6h"
        )
    if recycled and not changed:
        raise UsageError("--recycled goes with --changed", hint="add --changed, or leave it out")

    import time

    from safetake.cli import rows_output
    from safetake.sources.sqlite.rows.job import SHOWS, Wish
    from safetake.sources.sqlite.rows.listing import Most
    from safetake.sources.sqlite.rows.select import Selection, parse_time

    now = time.time()
    asked = dict(zip(SHOWS, (missing, changed and not apply, extra), strict=True))
    wish = Wish(
        Selection(
            tables,
            where,
            parse_time(since, now) if since else None,
            parse_time(until, now) if until else None,
            time_column,
        ),
        frozenset(name for name, wanted in asked.items() if wanted),
        Most(limit, 0 if settings.json else rows_output.FETCHED),
        apply,
        changed,
        recycled,
        dry_run,
        fire_triggers,
    )
    return _rows(settings, snapshot, source, wish, yes)


def _rows(settings: Settings, snapshot: str, source: str, wish: Wish, yes: bool) -> int:
    import time

    from safetake.cli import output, rows_output
    from safetake.clock import go_time, now_ns
    from safetake.operate.history import facts, recorded
    from safetake.recovery.inplace import alone
    from safetake.restore.beside import choose
    from safetake.snapshots import find_snapshot, read_manifest
    from safetake.sources.sqlite.rows.job import Place, look_and_apply

    started = time.perf_counter()
    config = settings.load()
    live = _live(config, source)
    with (
        recorded(config, "rows", wanted=wish.apply and not wish.dry_run) as run,
        settings.open(config) as repository,
        alone(config, writing=wish.apply and not wish.dry_run),
    ):
        run.repository = repository
        found = find_snapshot(repository, snapshot, [source])
        run.facts |= {"action": "apply", "snapshot": found.id, "sources": [source]}
        reader = repository.reader()
        node = choose(reader, found, [source])[source]
        manifest = read_manifest(reader, found) or {"sources": {}}
        entry = manifest["sources"].get(source, {})
        place = Place(
            live.path, live.busy_timeout, reader, node, entry.get("facts", {}).get("rows") or {}
        )

        shown = declined = False

        def confirm(report: Report) -> bool:
            nonlocal shown, declined
            if yes:
                return True
            _ask_somebody(settings)
            rows_output.print_report(report)
            shown = True
            output.line()
            declined = not click.confirm("Bring rows back into the live database?", err=True)
            return not declined

        report = look_and_apply(
            place,
            wish,
            lambda: _folder(config),
            {"snapshot": found.id, "source": source, "time": go_time(now_ns())},
            confirm,
        )
        stored = sum(size for _, size in repository.storage.list("data"))
        read = {
            "repository_bytes": reader.fetched_bytes,
            "repository_share": round(reader.fetched_bytes / stored, 6) if stored else 0.0,
            "local_bytes": report.local_bytes,
        }
        seconds = time.perf_counter() - started
        left_out = report.result is not None and report.result.skipped
        code = 3 if wish.apply and (left_out or report.unable) else 0
        code = 1 if declined else code
        run.wanted = run.wanted and report.result is not None
        facts.part(
            run, "apply", source, code, seconds=round(seconds, 3),
            id="" if report.undo is None else report.undo.id,
        )  # fmt: skip
    if settings.json:
        document = rows_output.as_document(report)
        output.document(
            {
                "snapshot": found.id,
                "source": source,
                "database": str(live.path),
                **document,
                "dry_run": wish.dry_run,
                "read": read,
                "seconds": round(seconds, 3),
            }
        )
        return code
    if settings.quiet and wish.apply:
        rows_output.print_left_out(report.result)
        return code
    if not shown:
        rows_output.print_report(report)
    if not wish.apply:
        return code
    output.line()
    if report.result is None:
        output.line("nothing was changed")
    else:
        rows_output.print_result(report.result, wish.dry_run, "brought back", "put back")
    if not wish.changed and not declined:
        rows_output.print_changed(report)
    if report.undo is not None:
        output.line(f"undo with: safetake rows --undo {report.undo.id}")
    return code


def _live(config: Config, source: str) -> SqliteConfig:
    from safetake.config import SqliteConfig
    from safetake.errors import UsageError
    from safetake.wording import nearest

    if source not in config.sources:
        raise UsageError(f"there is no source {source!r}{nearest(source, config.sources)}")
    live = config.sources[source]
    if not isinstance(live, SqliteConfig):
        raise UsageError(
            f"source {source!r} is of type {live.type}, and has no rows",
            hint="name a sqlite source; `safetake restore` brings others back",
        )
    return live


def _folder(config: Config) -> Path:
    from safetake.state import state_folder

    return state_folder(config.restore.state, "rows")


def _ask_somebody(settings: Settings) -> None:
    from safetake.errors import UsageError

    if settings.json or not sys.stdin.isatty():
        raise UsageError(
            "rows would be written, and there is nobody to ask",
            hint="look with --dry-run, then add --yes",
        )


def _undo(settings: Settings, wanted: str, dry_run: bool, fire_triggers: bool, yes: bool) -> int:
    from safetake.cli import output, rows_output
    from safetake.operate.history import facts, recorded
    from safetake.recovery.inplace import alone
    from safetake.sources.sqlite.rows.job import read_undo, undo
    from safetake.wording import counted

    config = settings.load()
    folder, record = read_undo(_folder(config), wanted)
    live = _live(config, record["source"])
    inserted = sum(record.get("inserted", {}).values())
    updated = sum(record.get("updated", {}).values())
    if not yes and not dry_run:
        _ask_somebody(settings)
        output.paragraph(
            f"{folder.id} ({record['time'][:19]}Z): {counted(inserted, 'row')} brought back, "
            f"{updated} put back"
        )
        if not click.confirm("Take them back?", err=True):
            output.line("nothing was changed")
            return 1
    with recorded(config, "rows", wanted=not dry_run) as run, alone(config, writing=not dry_run):
        run.facts |= {"action": "undo", "sources": [record["source"]], "id": folder.id}
        result = undo(
            folder,
            record,
            live.path,
            live.busy_timeout,
            dry_run=dry_run,
            fire_triggers=fire_triggers,
        )
        code = 3 if result.skipped else 0
        facts.part(run, "undo", record["source"], code, snapshot=record["snapshot"])
    if settings.json:
        found = result.as_dict()
        output.document(
            {
                "id": folder.id,
                "snapshot": record["snapshot"],
                "source": record["source"],
                "database": record["database"],
                "dry_run": dry_run,
                "removed": found.pop("inserted"),
                "put_back": found.pop("updated"),
                **found,
            }
        )
        return code
    if record["state"] == "prepared":
        output.note("note: it is not known whether these rows were ever committed")
    if settings.quiet:
        rows_output.print_left_out(result)
        return code
    rows_output.print_result(result, dry_run, "removed again", "put back as before")
    return code
