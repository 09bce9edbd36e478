"""`safetake key`: the passwords that open the repository."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from safetake.cli.common import Group, Settings, pass_settings


@click.group(cls=Group)
def command() -> None:
    """Manage the repository's passwords.

    Each key opens the whole repository with its own password.
    """


@command.command("list")
@pass_settings
def list_keys(settings: Settings) -> int:
    """List the keys; * marks the one in use."""
    from safetake.cli import output

    with settings.open(settings.load()) as repository:
        keys = repository.keys.list()
    if settings.json:
        output.document([key.as_dict() for key in keys])
        return 0
    rows = [
        [
            ("*" if key.current else " ") + key.id[:8],
            f"{key.username}@{key.hostname}",
            key.created[:19].replace("T", " "),
        ]
        for key in keys
    ]
    output.table([" id", "made by", "made (UTC)"], rows)
    return 0


@command.command("add")
@click.option(
    "--new-password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with the new password; asked for on a terminal when not given.",
)
@pass_settings
def add_key(settings: Settings, new_password_file: Path | None) -> int:
    """Add a key: one more password that opens the repository."""
    from safetake.cli import output
    from safetake.errors import UsageError
    from safetake.operate.history import recorded
    from safetake.password import read_file

    if new_password_file is None and not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for the new password",
            hint="give it with --new-password-file FILE",
        )
    config = settings.load()
    with recorded(config, "key") as run, settings.open(config) as repository:
        run.repository = repository
        run.facts["action"] = "add"
        if new_password_file is not None:
            password = read_file(
                new_password_file, hint="write the new password into it: one line, mode 0600"
            )
        else:
            password = click.prompt(
                "new password", hide_input=True, confirmation_prompt=True, err=True
            )
        key_id = run.facts["key"] = repository.keys.add(password)
    if settings.json:
        output.document({"id": key_id})
    elif not settings.quiet:
        output.line(f"key {key_id[:8]} added")
    return 0


@command.command("remove")
@click.argument("key_id", metavar="ID")
@pass_settings
def remove_key(settings: Settings, key_id: str) -> int:
    """Remove a key: its password opens the repository no more."""
    from safetake.cli import output
    from safetake.operate.history import recorded

    config = settings.load()
    with recorded(config, "key") as run, settings.open(config) as repository:
        run.repository = repository
        run.facts |= {"action": "remove", "key": key_id}
        removed = run.facts["key"] = repository.keys.remove(key_id)
    if settings.json:
        output.document({"id": removed})
    elif not settings.quiet:
        output.line(f"key {removed[:8]} removed")
    return 0
