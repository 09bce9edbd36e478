"""Every kind of damage of the table in facts/sqlite.md, made on a database that is in use."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw

PAGE = 4096


def database(path: Path, mode: str) -> Path:
    """Two tables with a foreign key, an index, a CHECK, a free page; the log folded in."""
    connection = sqlite3.connect(path)
    connection.executescript(
        f"""
        PRAGMA page_size = {PAGE};
        PRAGMA journal_mode = {mode};
        CREATE TABLE projects (id INTEGER PRIMARY KEY, title TEXT, share REAL CHECK (share <= 1));
        CREATE TABLE episodes (
            id INTEGER PRIMARY KEY, project_id INTEGER REFERENCES projects (id), script TEXT);
        CREATE INDEX by_project ON episodes (project_id);
        CREATE TABLE gone (filler BLOB);
        CREATE VIRTUAL TABLE words USING fts5 (script);
        """
    )
    for n in range(1, 301):
        connection.execute("INSERT INTO projects VALUES (?, ?, 0.5)", (n, f"작품 {n}"))
        script = f"장면 {n} " * 30
        connection.execute("INSERT INTO episodes VALUES (?, ?, ?)", (n, n, script))
    connection.execute("INSERT INTO words (script) SELECT script FROM episodes WHERE id < 50")
    connection.executemany("INSERT INTO gone VALUES (?)", [(b"x" * 3000,)] * 12)
    connection.execute("DELETE FROM gone")
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


def page_of(path: Path, name: str) -> int:
    """The number of a leaf page of a table or an index: the last child of its root."""
    connection = apsw.Connection(str(path))
    root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).get
    connection.close()
    data = path.read_bytes()
    at = (root - 1) * PAGE
    assert data[at] in (2, 5), "an interior page"
    return int.from_bytes(data[at + 8 : at + 12], "big")


def overwrite(path: Path, page: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(data)


def missing_from_index(path: Path) -> None:
    """A row that the index lacks."""
    _other_index(path, "(project_id) WHERE id <> 7")


def other_in_index(path: Path) -> None:
    """An entry of the index with another value than its row."""
    _other_index(path, "(CASE id WHEN 7 THEN 250 ELSE project_id END)")


def _other_index(path: Path, columns: str) -> None:
    """Behind SQLite's back the index is built by another rule than the one it is used by."""
    for rule in (columns, "(project_id)"):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(
                "UPDATE sqlite_schema SET sql = 'CREATE INDEX by_project ON episodes ' || ?"
                " WHERE name = 'by_project'",
                (rule,),
            )
            connection.commit()
        if rule == columns:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("REINDEX by_project")
                connection.commit()


def zeroed_page(path: Path) -> None:
    overwrite(path, page_of(path, "episodes"), bytes(PAGE))


def garbage_page(path: Path) -> None:
    overwrite(path, page_of(path, "episodes"), bytes(range(256)) * (PAGE // 256))


def misdirected_page(path: Path) -> None:
    """A write that went to another page."""
    page = page_of(path, "projects")
    data = path.read_bytes()[(page - 1) * PAGE : page * PAGE]
    overwrite(path, page_of(path, "episodes"), data)


def truncated(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 9 * PAGE)


def freelist(path: Path) -> None:
    """The list of free pages leads to a page in use."""
    trunk = int.from_bytes(path.read_bytes()[32:36], "big")
    assert trunk, "there are free pages"
    with path.open("r+b") as file:
        file.seek((trunk - 1) * PAGE + 8)
        file.write((2).to_bytes(4, "big"))


def check_violation(path: Path) -> None:
    _sql(path, "PRAGMA ignore_check_constraints = ON", "UPDATE projects SET share = 7 WHERE id = 9")


def other_words(path: Path) -> None:
    """A text that its full-text index does not have."""
    _sql(path, "UPDATE words_content SET c0 = 'other words' WHERE id = 7")


def orphan(path: Path) -> None:
    _sql(path, "UPDATE episodes SET project_id = 99999 WHERE id IN (3, 5)")


def flipped_text(path: Path) -> None:
    """One bit of a text that no index has."""
    data = bytearray(path.read_bytes())
    data[data.index("장면 42 ".encode()) + 3] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"no database any more")


def gone(path: Path) -> None:
    for name in ("", "-wal", "-shm"):
        Path(f"{path}{name}").unlink(missing_ok=True)


def _sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


Damage = Callable[[Path], None]

SEEN: dict[str, tuple[Damage, str]] = {
    "row missing from an index": (missing_from_index, "integrity_check"),
    "other value in an index": (other_in_index, "integrity_check"),
    "zeroed page": (zeroed_page, "integrity_check"),
    "garbage page": (garbage_page, "integrity_check"),
    "misdirected page": (misdirected_page, "integrity_check"),
    "truncation": (truncated, "integrity_check"),
    "freelist": (freelist, "integrity_check"),
    "CHECK violation": (check_violation, "integrity_check"),
    "text unlike its full-text index": (other_words, "integrity_check"),
    "orphan row": (orphan, "foreign_key_check"),
    "a 0-byte file": (emptied, "opens"),
    "no database any more": (overwritten, "opens"),
    "the file is gone": (gone, "opens"),
}
"""Damage to the check that names it, whatever was there before."""

UNSEEN: dict[str, Damage] = {"bit flip in unindexed text": flipped_text}
"""What SQLite calls ok, and is seen only where a snapshot is younger than the last write."""
