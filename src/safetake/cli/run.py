"""`safetake run`: all jobs when they are due, or one job now."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from safetake.cli.common import Command, Settings, complete_jobs, pass_settings

_ROUTINE = {"listening", "running", "leader", "started", "done", "stopping", "stopped"}
"""Events of a daemon in which nothing is wrong: not told with --quiet."""


@click.command(cls=Command)
@click.argument("job", metavar="[JOB]", required=False, shell_complete=complete_jobs)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Without JOB: where /metrics, /healthz and /readyz are served; empty: nowhere. "
    "Default: [daemon] listen.",
)
@pass_settings
def command(settings: Settings, job: str | None, listen: str | None) -> int:
    """Run jobs when they are due, or one job now.

    Without JOB it goes on until SIGTERM, starts every job at the times of its schedule, and says
    what it does on stderr, one event a line (--json: one JSON document a line). SIGHUP reads the
    configuration again. With JOB it runs that job once: with its locks, time limit and retries.
    """
    if job is None:
        return _daemon(settings, listen)
    if listen is not None:
        from safetake.errors import UsageError

        raise UsageError("--listen goes without JOB", hint="`safetake run` alone is the daemon")
    return _once(settings, job)


def _once(settings: Settings, name: str) -> int:
    from safetake.cli import output
    from safetake.operate.job import JobRun
    from safetake.wording import duration

    path = settings.find()

    def say(text: str) -> None:
        if not settings.quiet:
            output.note(output.printable_lines(f"job {name}: {text}"))

    outcome = JobRun(settings.load(), path, name, say=say).run()
    if settings.json:
        output.document(outcome.as_dict())
        return outcome.exit_code
    if outcome.error:
        output.print_error(outcome.error, outcome.hint, outcome.exit_code, False)
    elif not settings.quiet:
        seconds = (outcome.ended_ns - outcome.started_ns) / 1e9
        output.line(f"job {name} ({outcome.kind}) done in {duration(seconds)}")
    return outcome.exit_code


def _daemon(settings: Settings, listen: str | None) -> int:
    import json

    from safetake.cli import output
    from safetake.clock import go_time, now_ns
    from safetake.operate.daemon import Daemon

    def log(event: str, text: str, **fields: Any) -> None:
        if settings.quiet and event in _ROUTINE:
            return
        at = go_time(now_ns() // 10**6 * 10**6)
        if settings.json:
            line = json.dumps({"time": at, "event": event, "text": text, **fields})
        else:
            line = f"{at[:19]}Z {output.printable_lines(text)}"
        with contextlib.suppress(ValueError):  # closed: nobody reads it, the work goes on
            output.note(line, whole=True)

    return Daemon(settings.find(), log, listen=listen).run()
