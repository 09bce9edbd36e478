"""The command line: parses, calls one use case, prints its result for people or as JSON.

One module per command, imported when it is called; nothing here decides anything about stores,
snapshots or repositories.
"""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    from safetake.cli.app import run

    raise SystemExit(run())
