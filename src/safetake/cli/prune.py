"""`safetake prune`: remove what the retention does not keep; explain it; look a year ahead."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from safetake.cli.common import Command, Settings, pass_settings

if TYPE_CHECKING:
    from datetime import tzinfo

    from safetake.config import Config
    from safetake.operate.retention.decide import Group
    from safetake.operate.retention.report import PruneReport

_COLUMNS = 80


@click.command(cls=Command)
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would go and stay, and why.")
@click.option("--simulate", is_flag=True, help="What schedule and retention keep over a year.")
@click.option(
    "--days",
    type=click.IntRange(1, 36500),
    default=None,
    help="With --simulate: over so many days (365).",
)
@click.option(
    "--copy", "copy", metavar="NAME", help="The second repository [copies.NAME], by the same rules."
)
@pass_settings
def command(
    settings: Settings, dry_run: bool, simulate: bool, days: int | None, copy: str | None
) -> int:
    """Remove what [retention] does not keep, and the space that nothing uses.

    Counted back from the newest snapshot of each job, as restic's --keep-within-… does. Never
    removed: the newest proven snapshot of each source, the last good one of each, what an undo or
    an open restore needs, and snapshots that safetake did not make. Exit code 3 when damage
    stood in the way of removing.
    """
    from safetake.errors import UsageError

    if days is not None and not simulate:
        raise UsageError("--days goes with --simulate")
    if simulate:
        if dry_run or copy:
            raise UsageError("--simulate reads no repository: give it alone, or with --days")
        return _simulated(settings, days or 365)
    from safetake.cli import output
    from safetake.cli.progress import Progress
    from safetake.operate.history import recorded
    from safetake.operate.retention.run import run_prune

    config = settings.load()
    pruned = _second(config, copy) if copy is not None else config
    with recorded(config, "prune") as run:
        run.wanted = not dry_run
        with settings.open(pruned) as repository, Progress(settings.quiet) as progress:
            if copy is None:  # else the record waits for a run that opens the first one
                run.repository = repository
            report = run_prune(pruned, repository, dry_run=dry_run, progress=progress)
        run.facts, run.exit_code = report.facts(), report.exit_code
        if copy is not None:
            # not of the first: its growth is worked out from what prunes have freed
            run.facts = {
                "copy": copy,
                "copy_freed_bytes": run.facts.pop("freed_bytes"),
                **run.facts,
            }
        run.error = "; ".join(report.held)
    if settings.json:
        output.document(report.as_dict())
        return report.exit_code
    for text in report.held:
        output.note(output.printable_lines(f"warning: {text}"))
    if not settings.quiet:
        _print(report)
    return report.exit_code


def _second(config: Config, name: str) -> Config:
    """The configuration with a second repository in the place of the first."""
    from safetake.cli.common import choose

    (name,) = choose([name], list(config.copies), "copy")
    # of the first: whether this one may be pruned, its storage says
    retention = config.retention.model_copy(update={"append_only": False})
    return config.model_copy(update={"repository": config.copies[name], "retention": retention})


def _print(report: PruneReport) -> None:
    from zoneinfo import ZoneInfo

    from safetake.cli import output
    from safetake.wording import counted, size

    zone = ZoneInfo(report.timezone)
    for group in report.groups:
        if report.dry_run or group.removed:
            _print_group(group, zone, every=report.dry_run)
    for text in report.notes:
        if text not in report.held:
            output.line(output.printable_lines(f"note: {text}"))
    if report.undo_files:
        what = f"{counted(len(report.undo_files), 'restore')} of rows, records or keys"
        word = "would be" if report.dry_run else "is"
        output.line(f"what {what} left for an undo {word} removed (`safety`)")
    removed = len(report.forget)
    kept = sum(1 for _ in report.decisions) - removed
    words = "would be removed" if report.dry_run else "removed"
    freed = report.space.get("freed_bytes")
    space = f", {size(freed)} {'would be ' if report.dry_run else ''}freed" if freed else ""
    what = "snapshot" if removed == 1 else "snapshots"
    output.line(f"{removed} {what} {words}, {kept} kept{space}")


def _print_group(group: Group, zone: tzinfo, *, every: bool) -> None:
    from safetake.cli import output
    from safetake.operate.retention.calendar import local

    what = {"safety": "before restores", "foreign": "not safetake's"}.get(group.kind)
    what = what or (f"job {group.job}" if group.job else "by hand")
    names = ", ".join(group.sources)
    head = f"{what} on {group.host}" + (f": {names}" if names else "")
    for line in _wrapped(head, ""):
        output.line(output.style(line, "1"))
    for line in _wrapped(group.rules, "  "):
        output.line(line)
    for one in group.decisions:
        if not (every or not one.keep):
            continue
        time = local(one.snapshot.time_ns, zone).strftime("%Y-%m-%d %H:%M")
        word = output.style("keep  ", "32") if one.keep else output.style("remove", "31")
        first, *rest = _wrapped(", ".join(one.reasons), "", _COLUMNS - 38) or [""]
        output.line(f"  {one.snapshot.id[:8]}  {time}  {word}  {first}".rstrip())
        for more in rest:
            output.line(" " * 38 + more)
    output.line()


def _wrapped(text: str, indent: str, columns: int = _COLUMNS) -> list[str]:
    from safetake.cli import output

    return textwrap.wrap(
        output.printable_lines(text), columns, initial_indent=indent, subsequent_indent=indent
    )


def _simulated(settings: Settings, days: int) -> int:
    from zoneinfo import ZoneInfo

    from safetake import clock
    from safetake.cli import output
    from safetake.operate.retention.calendar import local
    from safetake.operate.retention.simulate import simulate

    config = settings.load()
    found = simulate(config, days=days, now_ns=clock.now_ns())
    if settings.json:
        output.document({"days": days, "jobs": [one.as_dict() for one in found]})
        return 0
    zone = ZoneInfo(config.retention.timezone)
    for one in found:
        output.line(output.style(f"job {one.job}: {one.schedule} ({one.timezone})", "1"))
        for line in _wrapped(one.rules, "  "):
            output.line(line)
        rows: list[list[str]] = []
        for look in one.looks:
            rows.append([str(look["day"]), str(look["kept"]), _day(look, zone)])
        output.table(["after days", "kept", "oldest"], rows, right=(0, 1))
        rules = ", ".join(f"{count} {rule}" for rule, count in one.by_rule.items())
        last = local(one.kept[0][0], zone).strftime("%Y-%m-%d %H:%M") if one.kept else "-"
        text = f"{one.taken} taken, the last {last}; {len(one.kept)} kept: {rules}"
        for line in _wrapped(text, ""):
            output.line(line)
        output.line()
    if not settings.quiet:
        output.note("pins (last proven, last of a source, undo) keep more than this")
    return 0


def _day(look: dict[str, Any], zone: tzinfo) -> str:
    from safetake.clock import parse_go_time
    from safetake.operate.retention.calendar import local

    if look["oldest"] is None:
        return "-"
    return local(parse_go_time(look["oldest"]), zone).strftime("%Y-%m-%d")
