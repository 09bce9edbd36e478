"""What must hold after a recovery: the user's own questions to the copies.

SQL is asked by sqlite3 of a database that is opened for reading only; a command runs as everything
else in a drill, confined and without a variable of production.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

from safetake.configscenario import HoldConfig
from safetake.services.process import redact

_LONGEST = 500


def asked(hold: HoldConfig, database: Path | None) -> tuple[bool, Any, Any]:
    """Whether it holds, what was expected, what was found. Never raises for what it finds."""
    if hold.sql is None or database is None:
        return _command(hold)
    expected: Any = "no row" if hold.expected is None else hold.expected
    try:
        place = f"{database.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, uri=True)) as db:
            answer = db.execute(hold.sql)
            if answer.description is None:
                return False, expected, "it asks nothing: no SELECT"
            rows = answer.fetchmany(2)
    except sqlite3.Error as error:
        return False, expected, f"it can not be asked: {error}"
    if hold.expected is None:
        return not rows, expected, f"a row: {repr(rows[0])[:_LONGEST]}" if rows else "no row"
    if len(rows) != 1 or len(rows[0]) != 1:
        return False, expected, f"not one value: {repr(rows)[:_LONGEST]}"
    (value,) = rows[0]
    same = value == hold.expected and isinstance(value, str) == isinstance(hold.expected, str)
    return same, expected, value if isinstance(value, str | int | float) else repr(value)


def _command(hold: HoldConfig) -> tuple[bool, Any, Any]:
    try:
        done = subprocess.run(
            hold.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    except OSError as error:
        return False, "exit code 0", f"{hold.command[0]} can not be run: {error.strerror}"
    last = redact((done.stdout.decode("utf-8", "replace").strip().splitlines() or [""])[-1])
    found = f"exit code {done.returncode}" + (f": {last[:_LONGEST]}" if last else "")
    return done.returncode == 0, "exit code 0", found
