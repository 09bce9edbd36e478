"""Where the repository's password comes from: a file, the environment, or a command.

The password is returned to the caller and kept nowhere; no error here repeats a byte of it.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from safetake.errors import ConfigError

if TYPE_CHECKING:
    from safetake.configbase import PasswordPlace

FALLBACKS = ("SAFETAKE_PASSWORD", "RESTIC_PASSWORD")
COMMAND_TIMEOUT = 120.0
"""Seconds: a person may have to touch a key; a forgotten prompt must not hang a job for ever."""


def read_password(repository: PasswordPlace) -> str:
    """The password. White space around it is dropped for files and commands, as restic does.

    Raises ConfigError that says which way failed and why.
    """
    if repository.password_file is not None:
        return read_file(repository.password_file)
    if repository.password_env is not None:
        return _from_environment(repository.password_env)
    if repository.password_command is not None:
        return _from_command(repository.password_command)
    for name in FALLBACKS:
        if os.environ.get(name):
            return os.environ[name]
    raise ConfigError(
        "the repository's password is nowhere to be found",
        hint="set password_file, password_env or password_command in [repository], "
        f"or ${FALLBACKS[0]}",
    )


def describe(repository: PasswordPlace) -> str:
    """Where the password is, in a few words; never the password."""
    if repository.password_file is not None:
        return f"the file {repository.password_file}"
    if repository.password_env is not None:
        return f"the environment variable {repository.password_env}"
    if repository.password_command is not None:
        return "what password_command prints"
    return f"the environment variable {FALLBACKS[0]} or {FALLBACKS[1]}"


BRING_BACK = (
    "bring the password back from where a copy is kept; every other password of the repository "
    "opens it, too. For a new repository `safetake init` makes one"
)


def read_file(path: Path, hint: str = BRING_BACK) -> str:
    """The password in a file, a byte order mark and white space around it dropped.

    Raises ConfigError, with the hint, when it can not be read, is no UTF-8, or is empty.
    """
    try:
        password = path.read_bytes().decode("utf-8-sig").strip()
    except OSError as error:
        raise ConfigError(
            f"the password file {path} can not be read: {error.strerror}", hint=hint
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"the password file {path} is not UTF-8 text", hint=hint) from None
    if not password:
        raise ConfigError(f"the password file {path} is empty", hint=hint)
    return password


def file_problem(path: Path) -> str | None:
    """What is wrong with the permissions of a password file, or None.

    A file of somebody else's that we may read as one of its group was given to us that way: so
    are the Secrets of Kubernetes, which belong to root and to the pod's group.
    """
    try:
        found = path.stat()
    except OSError:
        return None  # read_file says it better
    mode = stat.S_IMODE(found.st_mode)
    ours = found.st_gid in (os.getegid(), *os.getgroups())
    lent = stat.S_IRGRP if found.st_uid != os.geteuid() and ours else 0
    if mode & 0o077 & ~lent:
        return f"the password file {path} can be read by others (mode {mode:04o})"
    return None


def create_file(path: Path) -> None:
    """Write a new random password (256 bits) to a new file of mode 0600, durably.

    Raises ConfigError when the file exists or can not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(
            f"the password file {path} can not be written: {error.strerror}",
            hint="name another place with --password-file",
        ) from error


def _from_environment(name: str) -> str:
    password = os.environ.get(name, "")
    if not password:
        raise ConfigError(
            f"the environment variable {name} (repository.password_env) is not set or empty",
            hint=f"set {name} to the repository's password, as whoever runs the jobs does",
        )
    return password


def _from_command(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"repository.password_command: {error}") from None
    if not words:
        raise ConfigError("repository.password_command is empty")
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, timeout=COMMAND_TIMEOUT, check=False)
    except OSError as error:
        raise ConfigError(
            f"repository.password_command: {words[0]} can not be run: {error.strerror}",
            hint="it is run without a shell; for a shell's features: sh -c '…'",
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"repository.password_command: {words[0]} did not end in {COMMAND_TIMEOUT:.0f} s"
        ) from None
    if done.returncode != 0:
        raise ConfigError(
            f"repository.password_command: {words[0]} failed (exit code {done.returncode})",
            hint="run it by hand to see why",
        )
    try:
        password = done.stdout.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ConfigError(
            f"repository.password_command: {words[0]} printed no UTF-8 text"
        ) from None
    if not password:
        raise ConfigError(f"repository.password_command: {words[0]} printed nothing")
    return password
