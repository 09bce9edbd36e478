"""`safetake runbook`: the ten steps of an emergency, with a person."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from safetake.cli.common import Command, Settings, pass_settings


class _Terminal:
    """The person at this terminal, or nobody."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent

    def tell(self, text: str) -> None:
        from safetake.cli import output

        if not self._silent:
            output.line("  " + output.printable_lines(text))

    def heading(self, text: str) -> None:
        from safetake.cli import output

        if not self._silent:
            output.line()
            output.line(output.style(output.printable_lines(text), "1"))

    def ask(self, question: str, default: str) -> str:
        from safetake.cli import output

        shown = output.printable_lines(question)
        try:
            return str(click.prompt(f"  {shown}", default=default, show_default=bool(default)))
        except click.Abort:
            raise KeyboardInterrupt from None


@click.command(cls=Command)
@click.option("--resume", "go_on", is_flag=True, help="Go on with the runbook that was begun.")
@click.option("--abandon", is_flag=True, help="End the runbook that was begun, where it is.")
@click.option("--yes", "-y", is_flag=True, help="Take every default, ask nobody.")
@click.option("--language", type=click.Choice(["en", "ko"]),
              help="Default: what LC_ALL or LANG says.")  # fmt: skip
@click.option("--output", "folder", type=click.Path(path_type=Path, file_okay=False),
              metavar="DIR", help="Also write report and calendar file into DIR.")  # fmt: skip
@pass_settings
def command(
    settings: Settings,
    go_on: bool,
    abandon: bool,
    yes: bool,
    language: str | None,
    folder: Path | None,
) -> int:
    """Walk through an emergency recovery, step by step.

    Backups, RTO, current state, restore, integrity, services, application, monitoring,
    stakeholders, review: what can be done is done, what must be decided is asked. Works with
    nothing but the configuration of the recovery kit. Exit code 1 when a step failed or the RTO
    was missed.
    """
    from safetake import runbook
    from safetake.cli import output
    from safetake.errors import RefusedError, UsageError
    from safetake.operate.history import recorded
    from safetake.runbook.words import default_language

    if go_on and abandon:
        raise UsageError("--resume and --abandon exclude each other")
    alone = yes or abandon
    if not alone and (settings.json or settings.quiet or not sys.stdin.isatty()):
        raise UsageError(
            "a runbook asks questions, and there is no terminal to ask on",
            hint="add --yes to take every default",
        )
    path = settings.find().absolute()
    config = settings.load()
    if folder is not None:
        _usable(folder)
    person = _Terminal(settings.json or settings.quiet)
    with recorded(config, "runbook") as run:
        try:
            if abandon:
                run.facts["action"] = "abandon"
                report = runbook.abandon(config, path, person, language)
            elif go_on:
                run.facts["action"] = "resume"
                report = runbook.resume(config, path, person, language, unattended=yes)
            else:
                chosen = language or default_language()
                report = runbook.start(config, path, person, chosen, unattended=yes)
        except (RefusedError, UsageError):
            run.wanted = False  # nothing was begun
            raise
        except KeyboardInterrupt:
            with contextlib.suppress(OSError, output.Closed):  # the terminal may be gone
                output.note("\n`safetake runbook --resume` goes on, `--abandon` ends it")
            raise
        run.exit_code = 0 if abandon else report.exit_code
        run.facts |= {
            "evidence": report.evidence.id,
            "outcome": report.evidence.verdict,
            "snapshot": report.evidence.snapshot,
        }
        if run.exit_code:
            run.error = "a step failed, or the RTO was missed"
    if folder is not None:
        _copies(report.files, folder)
    if settings.json:
        output.document(report.as_dict())
    return run.exit_code


def _usable(folder: Path) -> None:
    """The folder, made now: not after an hour of work. Raises UsageError."""
    from safetake.errors import UsageError

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from error


def _copies(files: list[Path], folder: Path) -> None:
    from safetake.errors import SafetakeError
    from safetake.runbook.afterwards import MEETING_FILE
    from safetake.state import write_durably

    meeting = files[0].parent / MEETING_FILE
    for file in [*files, *([meeting] if meeting.exists() else [])]:
        try:
            write_durably(folder / file.name, file.read_bytes())
        except OSError as error:
            raise SafetakeError(
                f"{folder / file.name} cannot be written: {error.strerror}",
                hint=f"the report is in {file.parent}",
            ) from error
