"""`safetake runbook`: the ten steps of an emergency, with a person."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
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
            for line in _lines(output.printable_lines(text)):
                output.line(line)

    def heading(self, text: str) -> None:
        from safetake.cli import output

        if not self._silent:
            output.line()
            output.line(output.style(output.printable_lines(text), "1"))

    def waiting(self, text: str) -> None:
        from safetake.cli import output

        if not self._silent and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            shown = output.cut(f"  {output.printable_lines(text)}", _columns() - 1) if text else ""
            output.write(f"\r\x1b[K{shown}")

    def ask(self, question: str, default: str) -> str:
        from safetake.cli import output

        _forget_typed()
        # as everything else here, whatever the locale can say; a byte that it can not is no answer
        output.write("\n".join(_lines(output.printable_lines(f"{question} [{default}]:"))))
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")
        try:
            return str(click.prompt("", default=default, show_default=False, prompt_suffix=" "))
        except click.Abort:
            raise KeyboardInterrupt from None


def _forget_typed() -> None:
    """An Enter from before the question was there is no answer to it."""
    import termios

    with contextlib.suppress(OSError, ValueError, termios.error):  # no terminal: --yes
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


def _columns() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def _lines(text: str) -> list[str]:
    """Indented, and on a terminal broken between words. Commands stay whole, to be copied."""
    from safetake.cli import output

    if not sys.stdout.isatty():
        return [f"  {line}" for line in text.split("\n")]
    found = []
    for line in text.split("\n"):
        if line.startswith("$ "):
            found.append(f"  {line}")
            continue
        indent = " " * (2 + len(line) - len(line.lstrip(" ")))
        if output.width(line) + 2 < _columns():
            found.append(f"  {line}")
            continue
        row = indent
        for word in output.commands_whole(line).split():
            if row.strip() and output.width(row) + 1 + output.width(word) > _columns() - 1:
                found.append(row)
                row = indent
            row += f" {word}" if row.strip() else word
        found.append(row)
    return [row.replace("\0", " ") for row in found]


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
    nothing but the configuration of the recovery kit. Exit code 1 when a step failed or a target
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
        except KeyboardInterrupt as stop:
            with contextlib.suppress(OSError, output.Closed):  # the terminal may be gone
                output.note(f"\n{stop}" if str(stop) else "")
            raise
        run.exit_code = 0 if abandon else report.exit_code
        run.facts |= {
            "evidence": report.evidence.id,
            "outcome": report.evidence.verdict,
            "snapshot": report.evidence.snapshot,
        }
        if run.exit_code:
            run.error = "a step failed, or a target was missed"
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
