"""Every failure that safetake names, with its exit code.

An error says what failed, where and why in its message, and the next step in its hint. The command
line prints both and nothing else: no traceback reaches a user. Exit codes are restic's.
"""

from __future__ import annotations


class SafetakeError(Exception):
    """Base of all expected failures: exit code 1.

    `hint` is the next step for the reader, in the imperative, without a full stop needed.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(SafetakeError):
    """A wrong command line or configuration."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration file is missing, unreadable or wrong."""


class IncompleteError(SafetakeError):
    """Done in part: something was not read."""

    exit_code = 3


class RepositoryMissingError(SafetakeError):
    """There is no repository at the location."""

    exit_code = 10


class RepositoryLockedError(SafetakeError):
    """Another process holds a lock that excludes this work."""

    exit_code = 11


class WrongPasswordError(SafetakeError):
    """No key of the repository opens with the password."""

    exit_code = 12


class DamagedError(SafetakeError):
    """Stored bytes are not what they claim to be; the message names the file."""


class SourceError(SafetakeError):
    """A source is missing, empty, unreadable, locked or not what it should be."""


class BarrierTimeoutError(SourceError):
    """A store could not be held within the time allowed; nothing is held any more."""


class SnapshotNotFoundError(SafetakeError):
    """No snapshot matches."""


class StorageError(SafetakeError):
    """The storage below the repository failed (full, read-only, gone)."""


class RefusedError(SafetakeError):
    """A restore that would do harm, or could not be undone: nothing was changed."""


class RestoreError(SafetakeError):
    """A restore could not write its target."""


class ServiceError(SafetakeError):
    """An application process could not be stopped, started, switched or reached."""
