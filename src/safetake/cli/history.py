"""`safetake history`: what ran, how it ended, and whether the chain of records is whole."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from safetake.cli.common import Command, Settings, choose, pass_settings

if TYPE_CHECKING:
    from safetake.operate.history import History, Record

LISTED = 30
KINDS = (
    "backup", "verify", "check", "integrity", "prune", "copy", "restore", "rows", "drill",
    "runbook", "kit", "key", "unlock", "init", "daemon", "missed",
)  # fmt: skip


@click.command(cls=Command)
@click.option("--job", metavar="NAME", help="Only runs of this job.")
@click.option("--kind", metavar="KIND", help="Only runs of this kind: backup, restore, prune, …")
@click.option("--since", metavar="TIME", help="Only from then on: 2026-11-22 21:58 (UTC), or 6h.")
@click.option("--failed", is_flag=True, help="Only what failed.")
@click.option("--limit", type=click.IntRange(min=1), default=LISTED, show_default=True,
              metavar="N", help="At most the newest N.")  # fmt: skip
@click.option("--verify", "verify", is_flag=True, help="Check every record and the chain.")
@pass_settings
def command(
    settings: Settings,
    job: str | None,
    kind: str | None,
    since: str | None,
    failed: bool,
    limit: int,
    verify: bool,
) -> int:
    """Show what ran, newest last.

    Every run leaves a record on its machine and in the repository, chained by hash. Exit code 1
    when --verify finds a record that was changed, is missing, or was cut off.
    """
    import time

    from safetake.cli import output
    from safetake.errors import SafetakeError
    from safetake.operate.history import History
    from safetake.operate.history.chain import heads

    since_ns = 0
    if since is not None:
        from safetake.sources.sqlite.rows.select import parse_time

        since_ns = round(parse_time(since, time.time()) * 1e9)
    config = settings.load()
    if kind is not None:
        choose([kind], KINDS, "kind of run")
    unreachable = ""
    with contextlib.ExitStack() as stack:
        history = History(config)
        try:
            history = History(config, stack.enter_context(settings.open(config)))
        except SafetakeError as error:
            unreachable = str(error)
        problems = history.verify() if verify else []
        records = history.records()
        if job is not None:
            choose([job], sorted({*config.jobs, *(one.job for one in records if one.job)}), "job")
        chosen = [
            record
            for record in records
            if (job is None or record.job == job)
            and (kind is None or record.kind == kind)
            and record.ended_ns >= since_ns
            and not (failed and record.ok)
        ][-limit:]
        ends = heads(records)
    if settings.json:
        output.document(
            {
                "records": [record.as_dict() for record in chosen],
                "count": len(records),
                "heads": ends,
                "unpushed": history.unpushed(),
                "repository_open": not unreachable,
                "reason": unreachable,
                "trouble": history.trouble,
                "verified": verify,
                "problems": problems,
            }
        )
        return 1 if problems else 0
    if not settings.quiet:
        _show(chosen)
    _notes(history, unreachable)
    for problem in problems:
        output.note(output.printable_lines(f"problem: {problem}"))
    if verify and not problems and not settings.quiet:
        output.line()
        output.line(f"{len(records)} records, whole; the chain ends with {_ends(ends)}")
    return 1 if problems else 0


def _show(records: list[Record]) -> None:
    from safetake.cli import output
    from safetake.cli.snapshots import local_time
    from safetake.wording import duration

    if not records:
        output.line("nothing like that is on record")
        return
    rows = [
        [
            record.id[:8],
            local_time(record.ended_ns)[:16],
            record.kind[:9],
            output.cut(record.job or f"({record.trigger})", 18),
            "ok" if record.ok else f"failed {record.exit_code}",
            duration(record.seconds),
        ]
        for record in records
    ]
    output.table(["id", "ended", "kind", "job", "result", "took"], rows, right=[5])
    for record in records:
        if not record.ok and record.error:
            first = output.printable_lines(record.error).split("\n")[0]
            output.line(output.cut(f"{record.id[:8]}  {first}", 80))


def _notes(history: History, unreachable: str) -> None:
    from safetake.cli import output

    if unreachable:
        output.note(output.printable_lines(f"note: only what this machine knows: {unreachable}"))
    for text in history.trouble:
        output.note(output.printable_lines(f"note: {text}"))
    waiting = history.unpushed()
    if waiting:
        output.note(f"note: {waiting} records are not in the repository yet")


def _ends(ends: list[str]) -> str:
    return ", ".join(end[:16] for end in ends) or "nothing"
