"""`safetake init`: a commented configuration, a password, a repository, and the recovery kit.

Never overwrites anything: what is there already is used, so that it can be run again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safetake.cli.common import Command, Settings, pass_settings

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository


@dataclass(slots=True)
class Wanted:
    """A source to write into the configuration."""

    name: str
    type: str
    key: str
    value: str


def _named(value: str, type_: str, key: str, name: str) -> Wanted:
    """`NAME=VALUE`, or a value with the default name."""
    from safetake.config import NAME

    left, equals, right = value.partition("=")
    if equals and NAME.fullmatch(left):
        name, value = left, right
    return Wanted(name, type_, key, value if key == "url" else str(Path(value).absolute()))


def _default(file: str) -> str:
    """A source's name made of a file's."""
    import re

    return re.sub(r"[^A-Za-z0-9._-]+", "-", file).strip("._-")[:64] or "data"


def wanted_sources(
    sqlite: tuple[str, ...],
    chroma: tuple[str, ...],
    redis: tuple[str, ...],
    files: tuple[str, ...],
) -> list[Wanted]:
    """The sources that the options name. Raises UsageError when two have one name."""
    from safetake.errors import UsageError

    found = [
        *(_named(value, "sqlite", "path", _default(Path(value).stem)) for value in sqlite),
        *(
            _named(value, "chroma", "url" if "://" in value else "path", "vectors")
            for value in chroma
        ),
        *(_named(value, "redis", "url", "queue") for value in redis),
        *(_named(value, "files", "path", _default(Path(value).name)) for value in files),
    ]
    names = [source.name for source in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two sources are named {name!r}", hint="name them: NAME=VALUE")
    return found


@click.command(cls=Command)
@click.option(
    "--preset",
    type=click.Choice(["ai-script-generator"]),
    help="Write a whole policy: schedule, retention, targets, checks.",
)
@click.option(
    "--timezone",
    metavar="ZONE",
    help="With --preset: zone of its schedules and days, such as Asia/Seoul; default UTC.",
)
@click.option("--repository", metavar="DIR", help="Folder of the repository.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with the password; made with a random one when missing. "
    "Default: safetake.password beside the configuration.",
)
@click.option("--sqlite", multiple=True, metavar="[NAME=]PATH", help="A SQLite database.")
@click.option("--chroma", multiple=True, metavar="[NAME=]PATH", help="A Chroma folder or URL.")
@click.option("--redis", multiple=True, metavar="[NAME=]URL", help="A Redis server.")
@click.option("--files", multiple=True, metavar="[NAME=]PATH", help="A folder of files.")
@pass_settings
def command(
    settings: Settings,
    preset: str | None,
    timezone: str | None,
    repository: str | None,
    password_file: Path | None,
    sqlite: tuple[str, ...],
    chroma: tuple[str, ...],
    redis: tuple[str, ...],
    files: tuple[str, ...],
) -> int:
    """Write a configuration, create the repository.

    Writes a commented safetake.toml when there is none (else uses it), makes a random password when
    there is none, creates the repository, and prints what is needed to restore without safetake.
    """
    from safetake import configfile
    from safetake.connect import open_storage
    from safetake.operate.history import recorded

    if timezone:
        _refuse_zone(timezone, preset)
    wanted = wanted_sources(sqlite, chroma, redis, files)
    path = settings.config_file or Path(os.environ.get(configfile.VARIABLE) or "safetake.toml")
    written = not os.path.lexists(path)
    if written:
        if preset:
            repository = repository or default_repository(preset)
            policy = preset_policy(wanted, timezone or "UTC")
        else:
            policy = _sources(wanted)
        text = _new_file(path, repository, password_file) + policy
        config = configfile.parse(text, path)
    else:
        _refuse_options(path, repository, password_file, wanted, preset)
        config = configfile.load(path)
    storage = open_storage(config.repository)
    exists = storage.exists()
    password_made = _password(config, exists)
    if written:
        _write(path, text)
    with recorded(config, "init") as run, _repository(config, exists) as opened:
        run.repository = opened
        run.facts |= {"repository": opened.id, "repository_made": not exists}
        run.facts |= {"config_written": written, "password_made": password_made}
        kit = recovery_kit(config, opened, path)
    kit["config_written"] = written
    kit["password_made"] = password_made
    kit["repository_made"] = not exists
    _print(settings, kit)
    return 0


def _refuse_options(
    path: Path,
    repository: str | None,
    password_file: Path | None,
    wanted: list[Wanted],
    preset: str | None,
) -> None:
    from safetake.errors import UsageError

    if repository or password_file or wanted or preset:
        raise UsageError(
            f"{path} exists already and is never overwritten",
            hint="edit it, or name another file with --config FILE",
        )


def _quote(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's, but for DEL. Raises UsageError."""
    import json

    from safetake.errors import UsageError

    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!a} is not UTF-8: TOML can not hold it") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    """A TOML key: quoted where a bare one can not hold it (a '.' would be a sub-table)."""
    import re

    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quote(name)


def _refuse_zone(zone: str, preset: str | None) -> None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from safetake.errors import UsageError

    if not preset:
        raise UsageError("--timezone goes with --preset")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"there is no time zone {zone[:60]!r}", hint="write Asia/Seoul or Europe/Berlin"
        ) from None


def default_repository(preset: str) -> str:
    """Where a preset keeps its backups."""
    from safetake.cli.preset import REPOSITORY

    return REPOSITORY


def preset_policy(wanted: list[Wanted], zone: str) -> str:
    """The sources and the policy of the preset. Raises UsageError for sources that it has not."""
    from safetake.cli.preset import SOURCES, policy
    from safetake.errors import UsageError

    places = {}
    for source in wanted:
        if source.type in places:
            raise UsageError(
                f"the preset has one {source.type} source",
                hint="add others to the configuration afterwards",
            )
        places[source.type] = (source.key, source.value)
    assert set(places) <= set(SOURCES)
    return policy(places, zone, _quote)


def _new_file(path: Path, repository: str | None, password_file: Path | None) -> str:
    from safetake.errors import UsageError

    if repository is None:
        raise UsageError(
            "where shall the repository be?",
            hint="name its folder, on another disk than the data: --repository DIR",
        )
    if "://" not in repository:
        repository = str(Path(repository).absolute())
    password = (password_file or path.with_name("safetake.password")).absolute()
    parts = [
        "# The configuration of safetake; every key is in docs/reference/config.md.",
        "# Relative paths are relative to this file.",
        "",
        "[repository]",
        "# Keep it on another disk than the data that it protects.",
        f"location = {_quote(repository)}",
        "# Without this password nothing can be restored: keep a copy elsewhere.",
        f"password_file = {_quote(str(password))}",
    ]
    return "\n".join(parts) + "\n"


def _sources(wanted: list[Wanted]) -> str:
    parts = []
    for source in wanted:
        parts += [
            "",
            f"[sources.{_key(source.name)}]",
            f"type = {_quote(source.type)}",
            f"{source.key} = {_quote(source.value)}",
        ]
    return "\n".join([*parts, ""]) + _JOB if wanted else _EXAMPLES


_EXAMPLES = """
# What is protected. Take away the '#' of what you have:
#
# [sources.projects]
# type = "sqlite"
# path = "/data/projects.db"
#
# [sources.vectors]
# type = "chroma"
# path = "/data/chroma"
#
# [sources.queue]
# type = "redis"
# url = "redis://127.0.0.1:6379"
# # username = "backup"
# # password_file = "/etc/safetake/redis-password"
#
# [sources.scripts]
# type = "files"
# path = "/data/scripts"
# # exclude = ["*.tmp"]
#
"""

_JOB = """
# A job names some of the sources: `safetake backup nightly`.
#
# [jobs.nightly]
# kind = "backup"
# sources = []   # empty: all
"""


def _password(config: Config, exists: bool) -> bool:
    """Make the password file when it is wanted and missing; whether one was made."""
    from safetake.errors import ConfigError
    from safetake.password import create_file

    file = config.repository.password_file
    if file is None or os.path.lexists(file):
        return False
    if exists:
        raise ConfigError(
            f"{config.repository.location} is a repository; its password file {file} is missing",
            hint="bring the password back: a new one can not open it",
        )
    create_file(file)
    return True


def _write(path: Path, text: str) -> None:
    from safetake.errors import ConfigError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{path} can not be written: {error.strerror}") from error


def _repository(config: Config, exists: bool) -> Repository:
    from safetake.connect import open_repository, open_storage
    from safetake.password import read_password
    from safetake.repository import Repository

    if exists:
        return open_repository(config)
    return Repository.init(open_storage(config.repository), read_password(config.repository))


def recovery_kit(config: Config, repository: Repository, path: Path) -> dict[str, object]:
    """What is needed to restore without safetake, and without this machine."""
    import shlex

    from safetake.password import describe

    location = config.repository.location
    how = ""
    if config.repository.password_file is not None:
        how = f" --password-file {shlex.quote(str(config.repository.password_file))}"
    elif config.repository.password_command is not None:
        how = f" --password-command {shlex.quote(config.repository.password_command)}"
    restic = f"restic -r {shlex.quote(location)}{how}"
    return {
        "config": str(path.absolute()),
        "location": location,
        "repository": repository.id,
        "key": repository.keys.current,
        "password": describe(config.repository),
        "restic": [
            f"{restic} snapshots --tag safetake",
            f"{restic} restore latest --tag backup --target DIR",
            "python3 DIR/.safetake/join.py DIR",
        ],
    }


def _print(settings: Settings, kit: dict[str, object]) -> None:
    from safetake.cli import output

    if settings.json:
        output.document(kit)
        return
    if settings.quiet:
        return
    state = {True: " (new)", False: " (was there)"}
    output.fields(
        [
            ("configuration", f"{kit['config']}{state[bool(kit['config_written'])]}"),
            ("repository", f"{kit['location']}{state[bool(kit['repository_made'])]}"),
            ("repository id", str(kit["repository"])[:16]),
            ("key", str(kit["key"])[:8]),
            ("password", f"{kit['password']}{' (new)' if kit['password_made'] else ''}"),
        ]
    )
    output.line()
    output.line("Keep a copy of the password elsewhere: without it nothing can be restored.")
    output.line("To restore without safetake, with restic and Python alone:")
    commands = kit["restic"]
    assert isinstance(commands, list)
    for command_line in commands:
        output.line(f"  {command_line}")
    output.line("`safetake kit` prints the page to keep, with what each job saves by itself.")
    output.line()
    output.line("Next: `safetake doctor`, then `safetake backup`.")
