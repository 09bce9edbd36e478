"""What a snapshot of a database promises about itself: counts, schema and content hashes.

The same questions are asked of the cut when it is captured and of a restored copy when it is
proven, by the same code, so that equal answers mean equal databases. Virtual tables are not asked:
their content lies in shadow tables, which are ordinary tables and are.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Any

import apsw

ROW_HASHES_UP_TO = 64 << 20
"""Databases up to this many bytes also get a content hash of each table (Python reads each row:
about a second for 64 MiB) and a count of foreign key violations."""


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def tables(connection: apsw.Connection) -> list[str]:
    """Ordinary and shadow tables, SQLite's own included, sorted by name."""
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name"
    )
    return [row[0] for row in rows]


def virtual_tables(connection: apsw.Connection) -> list[str]:
    """Names of the virtual tables, sorted."""
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND coalesce(rootpage, 0) = 0"
        " ORDER BY name"
    )
    return [row[0] for row in rows]


def describe(connection: apsw.Connection, with_rows: bool) -> dict[str, Any]:
    """Facts that SQL can answer, in one read transaction of the caller.

    `with_rows` adds the hashes of each table's rows and the count of foreign key violations. Raises
    apsw.Error or UnicodeDecodeError.
    """
    names = tables(connection)
    return {
        "user_version": connection.pragma("user_version"),
        "application_id": connection.pragma("application_id"),
        "encoding": connection.pragma("encoding"),
        "schema_sha256": schema_hash(connection),
        "rows": {name: count_rows(connection, name) for name in names},
        "virtual_tables": virtual_tables(connection),
        "row_hashes": {name: hash_rows(connection, name) for name in names} if with_rows else None,
        "foreign_key_violations": foreign_key_violations(connection) if with_rows else None,
    }


def schema_hash(connection: apsw.Connection, *, without: str | None = None) -> str:
    """SHA-256 over every object of the schema, sorted, wherever its root page lies.

    `without` names an object that does not count.
    """
    digest = hashlib.sha256()
    for row in connection.execute(
        "SELECT CAST(type AS BLOB), CAST(name AS BLOB), CAST(tbl_name AS BLOB), CAST(sql AS BLOB)"
        " FROM sqlite_schema WHERE name IS NOT ? ORDER BY 1, 2, 3, 4",
        (without,),
    ):
        _feed(digest, row)
    return digest.hexdigest()


def count_rows(connection: apsw.Connection, table: str) -> int | None:
    """Rows of one table; None when SQL cannot ask (see `hash_rows`)."""
    try:
        count: int = connection.execute(f"SELECT count(*) FROM {quoted(table)}").get
    except apsw.SQLError:
        return None
    return count


def hash_rows(connection: apsw.Connection, table: str) -> str | None:
    """SHA-256 over the rows in the table's own order, with their types; None when SQL cannot ask.

    SQL cannot ask tables that need a function or collation which only the application has.
    """
    try:
        return _hash_rows(connection, table)
    except apsw.SQLError:
        return None


def _hash_rows(connection: apsw.Connection, table: str) -> str:
    digest = hashlib.sha256()
    try:
        for row in connection.execute(f"SELECT * FROM {quoted(table)} NOT INDEXED"):
            _feed(digest, row)
    except UnicodeDecodeError:
        # TEXT that is no UTF-8: take every text as its bytes, marked by its type.
        digest = hashlib.sha256()
        columns = [row[1] for row in connection.execute(f"PRAGMA table_xinfo({quoted(table)})")]
        shown = ", ".join(
            f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB)"
            f" ELSE {name} END"
            for name in map(quoted, columns)
        )
        for row in connection.execute(f"SELECT {shown} FROM {quoted(table)} NOT INDEXED"):
            _feed(digest, row[1::2], row[::2])
    return digest.hexdigest()


def foreign_key_violations(connection: apsw.Connection) -> int | None:
    """How many rows refer to a row that is not there; None when a key itself is misdeclared.

    Reads row by row and keeps none.
    """
    try:
        return sum(1 for _ in connection.execute("PRAGMA foreign_key_check"))
    except apsw.SQLError:
        return None


def _feed(digest: Any, row: Iterable[object], types: Iterable[str] | None = None) -> None:
    parts: list[bytes] = []
    kinds = list(types) if types is not None else None
    for index, value in enumerate(row):
        if value is None:
            parts.append(b"n")
        elif isinstance(value, int):
            parts.append(b"i%d;" % value)
        elif isinstance(value, float):
            parts.append(b"f" + struct.pack(">d", value))
        elif isinstance(value, str):
            data = value.encode()
            parts += (b"t%d;" % len(data), data)
        elif isinstance(value, bytes):
            as_text = kinds is not None and kinds[index] == "text"
            parts += ((b"t%d;" if as_text else b"b%d;") % len(value), value)
    parts.append(b"\n")
    digest.update(b"".join(parts))
