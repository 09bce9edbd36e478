"""The page itself: where the repository is, what is needed, and the exact commands.

It is Markdown that is read on paper as well. Its commands stand in `console` blocks, and the check
(`kit.rehearse`) runs exactly these, so the page can not promise what does not work.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetake import __version__
from safetake.clock import go_time, now_ns
from safetake.password import describe

if TYPE_CHECKING:
    from safetake.config import Config
    from safetake.repository import Repository
    from safetake.snapshots import SnapshotInfo

PASSWORD_FILE = "kit.password"
CONFIG_FILE = "kit.toml"
RESTORED = "restored"
PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Kit:
    """What a page is made of."""

    location: str
    repository: str
    password_place: str
    """In words: where the password is kept."""
    password: str | None
    """Only when it is to be on the page."""
    sources: dict[str, str]
    """Type by name, of the newest snapshot."""
    snapshot: str
    configuration: str
    """The text of the configuration file, for what comes after the data is back."""


def make(
    config: Config,
    repository: Repository,
    newest: SnapshotInfo | None,
    password: str | None,
    text: str,
) -> Kit:
    """Collect it. `password` only when it is wanted on the page."""
    sources: dict[str, str] = {name: one.type for name, one in config.sources.items()}
    if newest is not None:
        sources = {name: sources.get(name, "?") for name in newest.sources}
    return Kit(
        config.repository.location,
        repository.id,
        describe(config.repository),
        password,
        sources,
        newest.id if newest is not None else "",
        text,
    )


def markdown(kit: Kit) -> str:
    """The page."""
    place = shlex.quote(kit.location)
    restic = f"restic -r {place} --password-file {PASSWORD_FILE}"
    minimal = f"[repository]\nlocation = {json.dumps(kit.location)}\n"
    minimal += f'password_file = "{PASSWORD_FILE}"\n'
    write_config = f"printf '%s' {shlex.quote(minimal)} > {CONFIG_FILE}"
    lines = [
        "# Recovery kit",
        "",
        f"Made by safetake {__version__} on {go_time(now_ns())[:10]}. With this page, the "
        "repository and its password, everything comes back, on any machine.",
        "",
        "| | |",
        "| --- | --- |",
        f"| repository | `{kit.location}` |",
        f"| its id | `{kit.repository}` |",
        f"| password | {kit.password_place} |",
        f"| newest snapshot then | `{kit.snapshot[:8] or 'none'}` |",
        f"| what is in it | {', '.join(f'{n} ({t})' for n, t in kit.sources.items())} |",
        "",
        "## 1. The password",
        "",
    ]
    if kit.password is None:
        lines += [
            f"It is not on this page. Write it into a file `{PASSWORD_FILE}` (one line, mode 0600) "
            "in an empty folder, and go on in that folder.",
        ]
    else:
        lines += [
            "**Whoever has this page and the repository has the data.** In an empty folder:",
            "",
            "```console",
            f"$ umask 077; printf '%s\\n' {shlex.quote(kit.password)} > {PASSWORD_FILE}",
            "```",
        ]
    lines += [
        "",
        "## 2. With safetake",
        "",
        "`pip install safetake` (Python 3.11 or newer), then:",
        "",
        "```console",
        f"$ {write_config}",
        f"$ safetake --config {CONFIG_FILE} snapshots",
        f"$ safetake --config {CONFIG_FILE} check",
        f"$ safetake --config {CONFIG_FILE} restore latest --to {RESTORED}",
        "```",
        "",
        "## 3. Without safetake",
        "",
        "restic 0.14 or newer and Python 3.8 or newer are enough:",
        "",
        "```console",
        f"$ {restic} snapshots --tag safetake",
        f"$ {restic} restore latest --tag backup --target {PLAIN}",
        f"$ python3 {PLAIN}/.safetake/join.py {PLAIN}",
        "```",
        "",
        "## 4. Start the stores on what came back",
        "",
        f"Each source is a folder in `{RESTORED}` (or `{PLAIN}`):",
        "",
        "| source | how |",
        "| --- | --- |",
        *(f"| `{name}` | {_how(kind)} |" for name, kind in kit.sources.items()),
        "",
        "## The configuration that was in use",
        "",
        "```toml",
        kit.configuration.rstrip().replace("```", "` ` `"),
        "```",
        "",
    ]
    return "\n".join(lines)


def _how(kind: str) -> str:
    return {
        "sqlite": "copy the database into place, without any old `-wal`, `-shm` or `-journal`",
        "chroma": "stop Chroma, put the whole folder into place, start it",
        "redis": "stop Redis, put `dump.rdb` into its `dir`, start it with `appendonly no` "
        "(`README.txt` beside it says more when it is there)",
        "files": "copy the files",
    }.get(kind, "see docs/how-to/restore-with-restic.md")


def commands(page: str) -> list[str]:
    """The commands of a page, in order."""
    found: list[str] = []
    inside = False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append(line[2:])
        elif inside and found:
            found[-1] += "\n" + line
    return found
