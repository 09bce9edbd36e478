"""The text of the units: what they start, when, and what they may touch.

Everything is read-only but what the configuration names: the repositories, the folders of the
stores (SQLite and Chroma are locked while they are read, which writes), the state folder. Restores
in place are not the units' work and not possible inside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.errors import ConfigError, UsageError
from safetake.operate.systemd.calendar import events
from safetake.state import state_folder

if TYPE_CHECKING:
    from safetake.config import Config

JOB = "safetake-job@.service"
DAEMON = "safetake.service"
_HOST = ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_SYS_PTRACE")
"""To read and lock files of other users, and to see who has them open."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One file."""

    name: str
    text: str


def timer_units(config: Config, path: Path, program: Path) -> list[Unit]:
    """A service for any job, and a timer for each that has a schedule.

    Raises UsageError when none has, ConfigError for a schedule that systemd cannot say.
    """
    timers = []
    for name, job in config.jobs.items():
        if job.schedule is None:
            continue
        try:
            times = events(job.schedule, job.timezone)
        except ValueError as error:
            raise ConfigError(
                f"jobs.{name}.schedule: {error}",
                hint="write the schedule otherwise, or use the daemon (`--daemon`)",
            ) from error
        timers.append(
            Unit(f"safetake-job@{name}.timer", _timer(name, times, job.jitter, job.catch_up))
        )
    if not timers:
        raise UsageError("no job has a schedule", hint="give a job in the configuration a schedule")
    start = f"{_word(program)} --config {_word(path)} run %i"
    lines = [
        "[Unit]",
        "Description=safetake job %i",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=oneshot",
        f"ExecStart={start}",
        "Environment=SAFETAKE_TRIGGER=timer",
        "# the job has a time limit of its own",
        "TimeoutStartSec=infinity",
        "TimeoutStopSec=90",
        "KillMode=mixed",
        *_confined(config),
    ]
    return [Unit(JOB, "\n".join([*lines, ""])), *timers]


def daemon_units(config: Config, path: Path, program: Path) -> list[Unit]:
    """The daemon."""
    lines = [
        "[Unit]",
        "Description=safetake: backups, proofs and checks on schedule",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={_word(program)} --config {_word(path)} run",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=on-failure",
        "RestartSec=30",
        "# jobs that run are asked to end, and are given so long",
        f"TimeoutStopSec={round(config.daemon.grace) + 30}",
        "KillMode=mixed",
        *_confined(config),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return [Unit(DAEMON, "\n".join([*lines, ""]))]


def _timer(name: str, times: Iterable[str], jitter: float, catch_up: bool) -> str:
    lines = [
        "[Unit]",
        f"Description=When safetake job {name} runs",
        "",
        "[Timer]",
        *(f"OnCalendar={time}" for time in times),
        "AccuracySec=1s",
        f"Persistent={'true' if catch_up else 'false'}",
    ]
    if jitter:
        lines += [f"RandomizedDelaySec={jitter:g}", "FixedRandomDelay=true"]
    return "\n".join([*lines, "", "[Install]", "WantedBy=timers.target", ""])


def _confined(config: Config) -> list[str]:
    state = state_folder(config.restore.state, create=False)
    return [
        *(["StateDirectory=safetake"] if state == Path("/var/lib/safetake") else []),
        "# variables with secrets, such as URLs of notifications: NAME=VALUE, mode 0600",
        "EnvironmentFile=-/etc/safetake/environment",
        "# copies that are opened for proof need the room of the largest store",
        "Environment=TMPDIR=/var/tmp",
        "CacheDirectory=safetake",
        "Environment=XDG_CACHE_HOME=/var/cache",
        "UMask=0077",
        "Nice=10",
        "IOSchedulingClass=best-effort",
        "IOSchedulingPriority=7",
        "NoNewPrivileges=true",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        *(f"ReadWritePaths={_word(place)}" for place in writable(config)),
        "PrivateTmp=true",
        "PrivateDevices=true",
        "ProtectClock=true",
        "ProtectControlGroups=true",
        "ProtectHostname=true",
        "ProtectKernelLogs=true",
        "ProtectKernelModules=true",
        "ProtectKernelTunables=true",
        "LockPersonality=true",
        "RestrictNamespaces=true",
        "RestrictRealtime=true",
        "RestrictSUIDSGID=true",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "SystemCallArchitectures=native",
        f"CapabilityBoundingSet={' '.join(_HOST)}",
    ]


def writable(config: Config) -> list[str]:
    """Folders that jobs write to; `-` before those that need not be there. Sorted."""
    from safetake.config import ChromaConfig, SqliteConfig

    found: set[Path] = set()
    for source in config.sources.values():
        if isinstance(source, SqliteConfig):
            found.add(source.path.parent)  # the log and the shared memory beside it
        elif isinstance(source, ChromaConfig) and source.path is not None:
            found.add(source.path)
    for repository in (config.repository, *config.copies.values()):
        found.add(Path(repository.location))
    if config.metrics.textfile is not None:
        found.add(config.metrics.textfile.parent)
    found.add(state_folder(config.restore.state, create=False))
    inner = {one for one in found if found.intersection(one.parents)}
    return [f"-{one}" for one in sorted(map(str, found - inner))]


def _word(value: object) -> str:
    """One word of a unit: `%` is doubled, `$` as well, quoted where that is needed."""
    text = str(value)
    if any(ord(c) < 32 for c in text):
        raise UsageError(f"{text!r} cannot stand in a unit of systemd")
    text = text.replace("%", "%%")
    if any(c in text for c in " \"'\\;"):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text
