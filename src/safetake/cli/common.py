"""What all commands share: the global options, the settings made of them, names to complete."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from safetake.config import Config
    from safetake.repository import Repository


@dataclass(slots=True)
class Settings:
    """What the global options said; they may stand before or after the command."""

    config_file: Path | None = None
    json: bool = False
    quiet: bool = False

    def find(self) -> Path:
        """The configuration file. Raises ConfigError when there is none."""
        from safetake.configplace import find

        return find(self.config_file)

    def load(self) -> Config:
        """The configuration. Raises ConfigError."""
        from safetake import configfile

        return configfile.load(self.find())

    def open(self, config: Config) -> Repository:
        """The repository, opened with the configured password."""
        from safetake.connect import open_repository

        return open_repository(config)


pass_settings = click.make_pass_decorator(Settings)


def global_options() -> list[click.Parameter]:
    """--config, --json and --quiet, for the group and for every command."""

    def remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        settings = ctx.find_object(Settings)
        if settings is not None and value:
            setattr(settings, str(parameter.name), value)

    def option(*names: str, **more: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=remember, **more)

    return [
        option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Configuration; default $SAFETAKE_CONFIG, ./safetake.toml, "
            "/etc/safetake/safetake.toml.",
        ),
        option("--json", is_flag=True, help="Print exactly one JSON document."),
        option("--quiet", "-q", is_flag=True, help="Print errors only, no progress."),
    ]


class Command(click.Command):
    """A command that also takes the global options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(global_options())

    def invoke(self, ctx: click.Context) -> Any:
        """As click, which would end silently on a broken socket, call an early end an abort, and
        fail at an interrupt when nobody reads stderr.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            if sys.stderr.isatty():
                from safetake.cli import output

                output.note("")  # below the ^C
            raise click.Abort from interrupt
        except (BrokenPipeError, EOFError) as error:
            from safetake.errors import SafetakeError

            raise SafetakeError(f"a connection broke off ({type(error).__name__})") from error


class Group(click.Group):
    """A command with sub-commands, each of which takes the global options."""

    command_class = Command


def choose(given: Sequence[str], there_are: Sequence[str], what: str) -> list[str]:
    """The names given, each once, in their order. Raises UsageError with the nearest right name."""
    from safetake.errors import UsageError
    from safetake.wording import nearest

    for name in given:
        if name not in there_are:
            raise UsageError(f"there is no {what} {name!r}{nearest(name, there_are)}")
    return list(dict.fromkeys(given))


# ---------------------------------------------------------------------------- shell completion

Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def _completer(names: Callable[[Settings], Sequence[str]]) -> Completer:
    def complete(
        ctx: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from safetake.errors import SafetakeError

        settings = ctx.find_root().find_object(Settings) or Settings()
        given = ctx.find_root().params.get("config_file") or ctx.params.get("config_file")
        settings.config_file = settings.config_file or given
        try:
            found = names(settings)
        except SafetakeError:
            return []  # there is nobody to tell
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]

    return complete


def _snapshots(settings: Settings) -> list[str]:
    """From the names of the files alone: no password, no key derivation (0.4 s)."""
    from safetake.connect import open_storage

    storage = open_storage(settings.load().repository)
    return ["latest", *sorted(name[:8] for name, _ in storage.list("snapshots"))]


complete_sources = _completer(lambda settings: list(settings.load().sources))
complete_work = _completer(lambda settings: [*(config := settings.load()).sources, *config.jobs])
complete_jobs = _completer(lambda settings: list(settings.load().jobs))
complete_services = _completer(lambda settings: list(settings.load().services))
complete_snapshots = _completer(_snapshots)
