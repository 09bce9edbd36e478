"""`python -m safetake.cli.attempt CONFIG JOB NUMBER OF FD`: what `safetake run JOB` watches.

Not a command for people: it takes no locks on sources and has no time limit.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from safetake.cli import app, crash
from safetake.cli.common import Settings


def main(words: list[str]) -> int:
    """Do one attempt; the result goes to the open file with the number FD."""
    from safetake.operate.attempt import Lifeline, Result, attempt

    config, job, number, of, descriptor = words
    crash.install(Settings())
    app.catch_signals()
    lifeline = Lifeline(os.dup(0))
    result = os.fdopen(int(descriptor), "wb")  # open to the very end, for the hook
    reported = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        Result(1, f"internal error: {kind.__name__}; please report it").write(result)
        reported(kind, error, trace)

    sys.excepthook = hook
    return attempt(Path(config), job, int(number), int(of), lifeline, result)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
