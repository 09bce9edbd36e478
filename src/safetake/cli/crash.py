"""What nobody expected: one line for the user, the traceback in a private file for the report.

Installed as the interpreter's hooks, so that no code has to catch everything.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
import traceback
from types import TracebackType
from typing import TYPE_CHECKING

from safetake.cli.output import print_error

if TYPE_CHECKING:
    from safetake.cli.common import Settings


def install(settings: Settings) -> None:
    """From here on an unexpected exception is reported instead of printed; exit code 1."""

    def main_hook(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        report(kind, error, trace, settings.json)

    def thread_hook(args: threading.ExceptHookArgs) -> None:
        error = args.exc_value or args.exc_type()
        report(args.exc_type, error, args.exc_traceback, False)

    sys.excepthook = main_hook
    threading.excepthook = thread_hook


def report(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None, as_json: bool
) -> None:
    """Save the traceback (mode 0600) and say where it is."""
    text = "".join(traceback.format_exception(kind, error, trace))
    what = f"{kind.__name__}: {error}".split("\n", 1)[0]
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"no space left: {error.filename or error.strerror}"
    elif isinstance(error, OSError) and error.strerror and error.filename:
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif isinstance(error, MemoryError):
        message = "there is not enough memory"
    else:
        message = f"internal error: {what}; please report it"
    print_error(message, _save(text), 1, as_json)


def _save(text: str) -> str:
    from safetake import __version__

    header = f"safetake {__version__}, Python {sys.version}, {sys.platform}\n"
    try:
        descriptor, path = tempfile.mkstemp(prefix="safetake-error-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(header + text)
    except OSError as error:
        return f"the details could not be saved: {error.strerror}"
    return f"the details are in {path}"
