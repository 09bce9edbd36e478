"""Runs one command of the configuration, without a shell, and tells only what may be told.

The command gets our environment without the repository's password. What it prints goes to files,
not pipes: a start command may leave its service behind with our pipes open. It is in a session of
its own, so that Ctrl-C ends us and not the application that it started.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from safetake.errors import ServiceError
from safetake.wording import printable

MAX_OUTPUT = 1 << 20
LAST_WORDS = 400

_URL = re.compile(r"(\b[A-Za-z][\w+.-]*://[^\s/:@]*:)\S*@")
_PAIR = re.compile(r"(?i)((?:password|passwd|secret|token|api[_-]?key)\w*[\"']?\s*[=:]\s*)\S+")


def redact(text: str) -> str:
    """The text without passwords in URLs and after words like `password=`."""
    return _PAIR.sub(r"\1***", _URL.sub(r"\1***@", text))


def excerpt(text: str, length: int = LAST_WORDS) -> str:
    """The end of what a program said, on one line that is safe to print, without passwords."""
    words = printable(redact(" ".join(text.split())))
    return words if len(words) <= length else "…" + words[-length:]


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that came to its end. `code` is negative when a signal ended it."""

    code: int
    output: str
    """Of stdout, at most MAX_OUTPUT bytes."""
    errors: str

    @property
    def words(self) -> str:
        """The last of what it said, for a message."""
        said = excerpt(self.errors if self.errors.strip() else self.output)
        how = f"exit code {self.code}" if self.code >= 0 else f"ended by signal {-self.code}"
        return f"{how}: {said}" if said else how


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs the commands of one service."""

    name: str
    hidden: frozenset[str] = frozenset()
    """Names of environment variables that no command gets."""

    def run(
        self,
        words: Sequence[str],
        timeout: float,
        what: str,
        extra: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run to the end, with `extra` in its environment.

        Raises ServiceError when it can not be run or does not end in `timeout` seconds (its whole
        group is then killed). Its exit code is the caller's to judge.
        """
        environment = {k: v for k, v in os.environ.items() if k not in self.hidden}
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    list(words),
                    env=environment | dict(extra or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "holds a NUL character"
                raise ServiceError(
                    f"{self.name}: {what} can not be run: {words[0]}: {reason}",
                    hint="it is run without a shell and needs a program's path; "
                    'for a shell\'s features: ["sh", "-c", "…"]',
                ) from None
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise ServiceError(
                    f"{self.name}: {what} ({words[0]}) did not end within {timeout:g} s",
                    hint="a start command must end once the service runs; "
                    "a stop command, once it is stopped",
                ) from None
            except BaseException:
                _kill(process)
                raise
            return Ended(code, _read(output, first=True), _read(errors, first=False))

    def done(
        self,
        words: Sequence[str],
        timeout: float,
        what: str,
        extra: Mapping[str, str] | None = None,
    ) -> Ended:
        """As `run`; raises ServiceError for any exit code but 0, too."""
        ended = self.run(words, timeout, what, extra)
        if ended.code != 0:
            raise ServiceError(
                f"{self.name}: {what} ({words[0]}) failed, {ended.words}",
                hint="run it by hand to see why",
            )
        return ended


def hidden_names(more: Iterable[str | None] = ()) -> frozenset[str]:
    """Environment variables that hold passwords of ours."""
    from safetake.password import FALLBACKS

    return frozenset((*FALLBACKS, *(name for name in more if name)))


def _read(file: BinaryIO, *, first: bool) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(0 if first else max(0, size - MAX_OUTPUT))
    return file.read(MAX_OUTPUT).decode("utf-8", "replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
