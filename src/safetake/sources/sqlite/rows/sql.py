"""Running one statement for its effect, or for its one value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw


def run(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> None:
    """Run to the end. Raises apsw.Error."""
    connection.execute(sql, values).fetchall()


def number(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> int:
    """The first column of the first row, a number; 0 when there is none. Raises apsw.Error."""
    return int(connection.execute(sql, values).get or 0)
