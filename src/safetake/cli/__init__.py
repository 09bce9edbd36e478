"""The command line: parses, calls one use case, prints its result for people or as JSON.

One module per command, imported when it is called; nothing here decides anything about stores,
snapshots or repositories.
"""

from __future__ import annotations

import gc
import os
from typing import NoReturn


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    # numpy takes arrays apart here, it multiplies none: without this its BLAS starts a thread for
    # each core, which spin and hold buffers
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from safetake.cli.app import run

    # 12,000 entries of trees are no garbage: looked through 100 times less often, an increment
    # spends 0.2 s less on it
    gc.set_threshold(70_000, 10, 10)
    raise SystemExit(run())
