"""Proof of a restored database: opened by itself and questioned against the facts of its cut.

Everything is compared with the manifest entry, never with the live database. Memory stays bounded:
rows stream through hashes and counters, complaints are cut to the first few. It does not limit
time; the caller runs it in a subprocess that it can end.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import apsw

from safetake.model import Check
from safetake.sources.sqlite import facts
from safetake.sources.sqlite.readonly import restrict

_COMPLAINTS = 10
_READ_BYTES = 1 << 20
_APPLICATION_ONLY = ("no such collation sequence", "no such function", "unknown function")


def questions(staged: Path, entry: Mapping[str, Any]) -> list[Check]:
    """Question the database in the folder `staged` against its manifest `entry` (`model.Opener`).

    `entry["checks"]`, when there, are the user's own: SQL that must return no row.
    The file's bytes are hashed before it is opened. Never raises for what it finds in the file.
    """
    known: Mapping[str, Any] = entry["facts"]
    path = staged / Path(str(known["file"])).name
    checks: list[Check] = []
    try:
        size = path.stat().st_size
        expected = known["page_size"] * known["page_count"]
        checks.append(Check("not empty", size > 0, "more than 0 bytes", size))
        checks.append(Check("size", size == expected, expected, size))
        found = content_of(path, known["chunk"])
        checks.append(Check("content", found == known["content"], known["content"], found))
    except OSError as error:
        return [Check("not empty", False, "a readable file", None, f"{path.name}: {error}")]
    if size == 0:
        return checks
    try:
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.execute("PRAGMA query_only = 1").fetchall()
            restrict(connection)
            for name, ask in _QUESTIONS.items():
                checks.extend(_answers(ask(connection, known), name))
            for check in entry.get("checks", []):
                checks.extend(_answers(_user_check(connection, check), f"check: {check['name']}"))
        finally:
            connection.close(force=True)
    except apsw.Error as error:
        checks.append(Check("opens", False, "a database", None, str(error)))
    return checks


def content_of(path: Path, chunk: int) -> str:
    """The `content` digest of a file: SHA-256 over the SHA-256 of each chunk. Raises OSError."""
    whole = hashlib.sha256()
    with path.open("rb", buffering=_READ_BYTES) as file:
        while data := file.read(chunk):
            whole.update(hashlib.sha256(data).digest())
    return whole.hexdigest()


def _answers(asked: Iterator[Check], name: str) -> Iterator[Check]:
    """The checks of one question; one that cannot be asked is a failed check, never left out."""
    try:
        yield from asked
    except (apsw.Error, UnicodeDecodeError) as error:
        yield Check(name, False, None, None, f"cannot ask: {error}")


def _integrity(connection: apsw.Connection, known: Mapping[str, Any]) -> Iterator[Check]:
    # The PRAGMA succeeds whatever it finds: only the one row 'ok' is a pass.
    try:
        rows = connection.execute(f"PRAGMA integrity_check({_COMPLAINTS})")
        found = [str(row[0]) for row in islice(rows, _COMPLAINTS)]
    except apsw.SQLError as error:
        if not str(error).startswith(_APPLICATION_ONLY):
            raise
        yield Check(f"integrity_check (not asked: {error})", True, None, "not asked")
        return
    yield Check("integrity_check", found == ["ok"], ["ok"], found)


def _foreign_keys(connection: apsw.Connection, known: Mapping[str, Any]) -> Iterator[Check]:
    expected = known["foreign_key_violations"]
    found = facts.foreign_key_violations(connection)
    if expected is not None:
        yield Check("foreign_key_check", found == expected, expected, found)
    elif found is None:
        yield Check(
            "foreign_key_check (not asked: a foreign key is declared wrongly)",
            True,
            None,
            "not asked",
        )
    else:
        # Not counted when it was captured (too large, see facts): bytes and integrity are proven
        # by the other checks, and a violation here was one in the live database.
        yield Check("foreign_key_check", True, None, found, "told, not compared with the cut")


def _header_values(connection: apsw.Connection, known: Mapping[str, Any]) -> Iterator[Check]:
    for name in ("page_size", "page_count", "user_version", "application_id"):
        found = connection.pragma(name)
        yield Check(name, found == known[name], known[name], found)


def _schema(connection: apsw.Connection, known: Mapping[str, Any]) -> Iterator[Check]:
    found = facts.schema_hash(connection)
    yield Check("schema", found == known["schema_sha256"], known["schema_sha256"], found)


def _rows(connection: apsw.Connection, known: Mapping[str, Any]) -> Iterator[Check]:
    expected = dict(known["rows"])
    found = {name: facts.count_rows(connection, name) for name in facts.tables(connection)}
    yield Check("row counts", found == expected, expected, found)


def _row_hashes(connection: apsw.Connection, known: Mapping[str, Any]) -> Iterator[Check]:
    if known["row_hashes"] is None:
        return  # the cut has none: larger than facts.ROW_HASHES_UP_TO, `content` covers the bytes
    expected = dict(known["row_hashes"])
    found = {name: facts.hash_rows(connection, name) for name in expected}
    yield Check("row hashes", found == expected, expected, found)


_QUESTIONS = {
    "integrity_check": _integrity,
    "foreign_key_check": _foreign_keys,
    "header": _header_values,
    "schema": _schema,
    "row counts": _rows,
    "row hashes": _row_hashes,
}


def _user_check(connection: apsw.Connection, check: Mapping[str, str]) -> Iterator[Check]:
    """A query of the configuration: each row that it returns is an offender."""
    rows = connection.execute(check["sql"])
    offenders = [repr(row)[:200] for row in islice(rows, _COMPLAINTS)]
    yield Check(f"check: {check['name']}", not offenders, [], offenders)
