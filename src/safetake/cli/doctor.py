"""`safetake doctor`: looks for problems of the set-up, each with the next step.

Changes nothing. A problem makes it exit 1; a warning does not.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from safetake.cli.common import Command, Settings, pass_settings
from safetake.errors import ConfigError, SafetakeError
from safetake.wording import counted

if TYPE_CHECKING:
    from safetake.config import Config

State = Literal["ok", "warning", "problem", "info"]
MARKS: dict[State, tuple[str, str]] = {
    "ok": ("ok", "32"),
    "info": ("--", "0"),
    "warning": ("warn", "33"),
    "problem": ("FAIL", "31"),
}
LOW_SPACE = 1 << 30
ROLLBACK = "rollback-journal mode: writers are held while the database is compared with its copy"
ROLLBACK_HINT = "PRAGMA journal_mode=WAL makes the hold independent of its size"


@dataclass(slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    text: str
    hint: str = ""


@click.command(cls=Command)
@pass_settings
def command(settings: Settings) -> int:
    """Look for problems of the set-up.

    Configuration, password, repository, locks, free space, every source and the tools that proofs
    need. Changes nothing. Exit code 1 when there is a problem.
    """
    from safetake.cli import output

    findings = examine(settings)
    bad = any(finding.state == "problem" for finding in findings)
    if settings.json:
        output.document({"ok": not bad, "findings": [asdict(f) for f in findings]})
        return int(bad)
    for finding in findings:
        if settings.quiet and finding.state in ("ok", "info"):
            continue
        word, colour = MARKS[finding.state]
        mark = output.style(f"{word:<4}", colour)
        output.paragraph(f"{mark}  {output.printable_lines(f'{finding.what}: {finding.text}')}")
        if finding.hint:
            output.paragraph(f"      hint: {output.printable_lines(finding.hint)}")
    return int(bad)


def examine(settings: Settings) -> list[Finding]:
    """Everything, in the order in which one thing needs the other."""
    try:
        config = settings.load()
    except ConfigError as error:
        return [Finding("configuration", "problem", str(error), error.hint), *tools(None)]
    found = [Finding("configuration", "ok", counted(len(config.sources), "source"))]
    if not config.sources:
        found[0] = Finding("configuration", "problem", "no source", "add a [sources.NAME] section")
    found += password(config)
    found += repository(config)
    found += space(config)
    for name in config.sources:
        found += source(config, name)
    found += state(config)
    found += restores(config)
    found += services(config)
    return found + tools(config)


def _tried(what: str, look: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """What the look found, or the error that it ended with."""
    try:
        found = look()
    except SafetakeError as error:
        return [Finding(what, "problem", str(error), error.hint)]
    return found if isinstance(found, list) else [found]


def password(config: Config) -> list[Finding]:
    """Readable, and by nobody else."""
    from safetake.password import describe, file_problem, read_password

    def look() -> Finding:
        read_password(config.repository)
        file = config.repository.password_file
        problem = file_problem(file) if file is not None else None
        if problem is not None:
            return Finding("password", "warning", problem, f"chmod 600 {file}")
        return Finding("password", "ok", f"from {describe(config.repository)}")

    return _tried("password", look)


def state(config: Config) -> list[Finding]:
    """Restores, runbooks and the history need the state folder, or the place to make it."""
    import os

    from safetake.state import state_folder

    def look() -> list[Finding]:
        folder = there = state_folder(config.restore.state, create=False)
        while not os.path.lexists(there) and there != there.parent:
            there = there.parent
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            return []
        text = f"{folder} cannot be written ({there}): no restore in place, no runbook"
        hint = "set `state` in the [restore] section to a folder that may be written"
        return [Finding("state folder", "problem", text, hint)]

    return _tried("state folder", look)


def restores(config: Config) -> list[Finding]:
    """Nothing half-way."""
    from safetake.clock import utc
    from safetake.recovery.journal import open_restore
    from safetake.state import state_folder

    def look() -> list[Finding]:
        journal = open_restore(state_folder(config.restore.state, "restores", create=False))
        if journal is None:
            return _left(config)
        names = ", ".join(journal.plan["sources"])
        text = f"{journal.id} of {names} was begun {utc(journal.plan['time'])} and not ended"
        hint = (
            "`safetake restore --resume` ends it with the restored data, `--rollback` with the "
            "data from before"
        )
        return [Finding("restore", "problem", text, hint)]

    return _tried("restore", look)


def _left(config: Config) -> list[Finding]:
    """Work of a restore of another state folder, or of one whose journal was lost."""
    from safetake.errors import RefusedError
    from safetake.recovery import workfolder
    from safetake.sources import restorer

    found = []
    for name, source in config.sources.items():
        place = restorer(name, source).place()
        try:
            if place is not None:
                workfolder.free(place / workfolder.name_for(name))
        except RefusedError as error:
            found.append(Finding("restore", "problem", str(error), error.hint))
    return found


def services(config: Config) -> list[Finding]:
    """What a restore would need of each; and whether it uses the file that is backed up."""
    from safetake.services import build_all
    from safetake.services.elsewhere import elsewhere

    found = []
    for name, service in build_all(config).items():
        problems = service.problems()
        what = f"service {name}"
        found += [Finding(what, "problem", text, hint) for text, hint in problems]
        if not problems:
            found.append(Finding(what, "ok", service.describe()))
    for one in elsewhere(config, list(config.sources)):
        text = f"{one}: backups take a file that it does not use"
        found.append(Finding(f"service {one.service}", "problem", text, one.hint))
    return found


def repository(config: Config) -> list[Finding]:
    """Opens; its snapshots, keys and locks."""
    from safetake.connect import open_repository

    def look() -> list[Finding]:
        with open_repository(config) as opened:
            snapshots = sum(1 for _ in opened.storage.list("snapshots"))
            text = f"{config.repository.location} opens, {counted(snapshots, 'snapshot')}"
            found = [Finding("repository", "ok", text)]
            for lock in opened.locks.list():
                if lock.stale():
                    found.append(Finding("lock", "warning", f"stale: {lock}", "safetake unlock"))
                else:
                    found.append(Finding("lock", "info", str(lock)))
        return found

    return _tried("repository", look)


def space(config: Config) -> list[Finding]:
    """Free space below the repository, and whether it shares a file system with a source."""
    place = Path(config.repository.location)
    while not place.exists() and place != place.parent:
        place = place.parent
    from safetake.wording import size

    try:
        usage = shutil.disk_usage(place)
        device = place.stat().st_dev
    except OSError as error:
        return [Finding("space", "problem", f"{place}: {error.strerror}")]
    low = usage.free < max(LOW_SPACE, usage.total // 50)
    found = [
        Finding(
            "space",
            "warning" if low else "ok",
            f"{size(usage.free)} free of {size(usage.total)}",
            "make room before the next backup fails" if low else "",
        )
    ]
    shared = [
        name
        for name, section in config.sources.items()
        if (path := getattr(section, "path", None)) is not None and _device(path) == device
    ]
    if shared:
        found.append(
            Finding(
                "space",
                "warning",
                f"the repository is on the file system of: {', '.join(shared)}",
                "one broken disk takes data and backups: keep the repository on another volume",
            )
        )
    return found


def _device(path: Path) -> int | None:
    try:
        return path.stat().st_dev
    except OSError:
        return None  # the source's own look says it


def source(config: Config, name: str) -> list[Finding]:
    """What the source says of itself."""
    from safetake.sources import build

    what = f"source {name}"

    def look() -> list[Finding]:
        state = build(name, config.sources[name]).inspect()
        found = [Finding(what, "ok" if state.ok else "problem", state.summary)]
        for text, hint in state.problems:
            found.append(Finding(what, "warning" if state.ok else "problem", text, hint))
        if state.details.get("journal_mode") == "rollback" and not state.problems:
            found.append(Finding(what, "info", ROLLBACK, ROLLBACK_HINT))
        return found

    return _tried(what, look)


def tools(config: Config | None) -> list[Finding]:
    """Versions of what backups use, and of what deeper proofs would use."""
    import sqlite3

    import apsw

    from safetake import __version__

    python = sys.version.split()[0]
    found = [
        Finding(
            "tools",
            "info",
            f"safetake {__version__}, Python {python}, SQLite {apsw.sqlite_lib_version()}"
            f" (Python's own: {sqlite3.sqlite_version})",
        )
    ]
    types = {section.type for section in config.sources.values()} if config else set()
    if "chroma" in types:
        found.append(_chromadb())
    if "redis" in types:
        found.append(_redis_server())
    restic = shutil.which("restic")
    found.append(Finding("tools", "info", f"restic: {restic or 'not installed (not needed)'}"))
    return found


def _chromadb() -> Finding:
    try:
        version = importlib.metadata.version("chromadb")
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            "tools",
            "warning",
            "chromadb is not installed: copies are proven by their structure alone",
            "pip install 'safetake[chroma]' on the machine that verifies",
        )
    return Finding("tools", "info", f"chromadb {version} opens copies for proof")


def _redis_server() -> Finding:
    from safetake.sources.redis.scratch import find_binaries

    found = find_binaries()
    if not found:
        return Finding(
            "tools",
            "warning",
            "there is no redis-server: copies are proven by parsing alone, and kept as an "
            "append-only folder instead of one dump.rdb",
            "install redis-server of the same version on this machine",
        )
    names = ", ".join(f"{binary.family} {'.'.join(map(str, binary.version))}" for binary in found)
    return Finding("tools", "info", f"scratch servers for proof: {names}")
