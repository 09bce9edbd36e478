"""The command `safetake` itself: finds the command's module, and turns what is raised into words.

An expected failure is one `error:` line, with `hint:` where there is a next step, and restic's exit
code; with --json it is one document. What nobody expected goes to `safetake.cli.crash`.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

from safetake.cli import crash
from safetake.cli.common import Settings, global_options
from safetake.cli.output import Closed, print_error
from safetake.errors import SafetakeError

INTERRUPTED = 130
CLOSED = 141
"""What a shell reports of a process that SIGPIPE ended: the reader went away, nothing is wrong."""

COMMANDS = {
    "init": "Write a configuration, create the repository.",
    "backup": "Take one consistent snapshot.",
    "snapshots": "List the snapshots and how far each is proven.",
    "show": "Show what is in a snapshot.",
    "diff": "Show what changed from one snapshot to another (`latest` by default).",
    "verify": "Prove a snapshot: read it back, open its stores.",
    "check": "Check the repository itself.",
    "integrity": "Check the live data: each store, references between them, drift.",
    "drill": "Rehearse a disaster on isolated copies.",
    "runbook": "Walk through an emergency recovery, step by step.",
    "evidence": "What proofs, restores and drills found.",
    "status": "Show whether the objectives are met.",
    "history": "Show what ran, newest last.",
    "restore": "Bring a snapshot back, beside the live data or in its place.",
    "query": "Ask a database in a snapshot, read-only SQL.",
    "rows": "Compare rows of a snapshot with the live database, and bring them back.",
    "prune": "Remove what [retention] does not keep, and the space that nothing uses.",
    "copy": "Copy snapshots into the repository [copies.NAME].",
    "run": "Run jobs when they are due, or one job now.",
    "notify": "Who hears of failures: try it, and see how delivery goes.",
    "services": "The applications that use the data.",
    "systemd": "Write units of systemd: a timer for each job with a schedule, or the daemon.",
    "kubernetes": "Render the configuration as objects of Kubernetes.",
    "doctor": "Look for problems of the set-up.",
    "kit": "Print the recovery kit, or check that it is enough.",
    "key": "Manage the repository's passwords.",
    "unlock": "Remove locks that crashed processes left.",
    "demo": "The whole story on a throw-away application.",
    "completion": "Print the completion script for a shell.",
}
"""Every command with its short help: the list is shown without importing a single one."""


class Root(click.Group):
    """The group of all commands, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"safetake.cli.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from safetake.wording import nearest

            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from safetake import __version__

        click.echo(f"safetake {__version__}")
        ctx.exit()


root = Root(
    name="safetake",
    help="One consistent, proven snapshot of SQLite, Chroma, Redis and files.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 done in part, "
    "10 no repository, 11 locked, 12 wrong password, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[
        *global_options(),
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_version,
            help="Show the version and exit.",
        ),
    ],
)


def _terminate(_signal: int, _frame: object) -> None:
    """SIGTERM and SIGHUP end like Ctrl-C: every `finally` runs, so that locks are released.

    (SIGHUP only without a lock: `repository.locks` says why.)
    """
    raise KeyboardInterrupt


def catch_signals() -> None:
    """SIGTERM and SIGHUP end what runs as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup's SIG_IGN stays
            signal.signal(number, _terminate)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # known before parsing: a wrong command line is answered in JSON, too
    settings = Settings(json="--json" in (words[: words.index("--")] if "--" in words else words))
    crash.install(settings)
    catch_signals()

    def failed(message: str, hint: str, code: int) -> int:
        print_error(message, hint, code, settings.json)
        return code

    try:
        result: Any = root.main(words, "safetake", standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "safetake"
        return failed(error.format_message(), f"`{path} --help` shows what there is", 2)
    except click.ClickException as error:
        return failed(error.format_message(), "", 2)
    except SafetakeError as error:
        return failed(str(error), error.hint, error.exit_code)
    except (click.Abort, KeyboardInterrupt, EOFError):
        return failed("interrupted", "", INTERRUPTED)
    except Closed:
        sys.stdout = None  # nothing is left to flush at exit
        return CLOSED
    return result if isinstance(result, int) else 0
