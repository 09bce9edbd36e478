"""Running one statement for its effect, or for its one value; text that may be none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw


def run(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> None:
    """Run to the end. Raises apsw.Error."""
    connection.execute(sql, values).fetchall()


def number(connection: apsw.Connection, sql: str, values: Sequence[Any] = ()) -> int:
    """The first column of the first row, a number; 0 when there is none. Raises apsw.Error."""
    return int(connection.execute(sql, values).get or 0)


def decoder(connection: apsw.Connection) -> Callable[[bytes], str]:
    """What `CAST(text AS BLOB)` gives, as text: bytes that are none in its encoding as `\\xff`."""
    encoding = {"UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}.get(
        connection.pragma("encoding"), "utf-8"
    )
    return lambda data: data.decode(encoding, "backslashreplace")
