"""`safetake rows --apply`: seconds of the whole command, and how much of the repository it reads.

The small case has 1M rows, of which 1 % were deleted and 1 % changed, scattered all over, and 1 %
came since. The big one has 5 GB, damaged in one of three ways:

- `runs`: whole runs, as an accident damages them (the rows of an hour, of a project), where the
  episodes of a project were written one after the other;
- `apart`: the same runs, but episodes of a project lie all over the table: a run of rows then
  lies scattered in the index of the projects, and each page of it changes a blob;
- `scattered`: every hundredth row. A blob that holds a missing row has to be read whole, and these
  touch a large part of all blobs of a database with rows of 5 KB, whatever reads them.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from bench.command import remove, run, size_mb
from bench.tools import safetake_with

SMALL_ROWS = 1_000_000
SMALL_BYTES = 100
BIG_BYTES = 5_000_000_000
BIG_ROW = 5_000
_SUM = "sum(id * (length(script) + unicode(substr(script, 7, 1))) + number)"


DAMAGES = ("runs", "apart", "scattered")


def measure(work: Path, scale: float, big: bool, damage: str = "runs") -> dict[str, Any]:
    """Make a database, back it up, damage it, bring the rows back. Removes everything it made."""
    folder = work / "rows"
    remove(folder)
    folder.mkdir(parents=True)
    try:
        if big:
            rows, width = int(BIG_BYTES * scale) // BIG_ROW, BIG_ROW
        else:
            rows, width = int(SMALL_ROWS * scale), SMALL_BYTES
        return _measure(folder, rows, width, damage if big else "scattered")
    finally:
        remove(folder)


def _measure(folder: Path, rows: int, width: int, damage: str) -> dict[str, Any]:
    path, repository = folder / "projects.db", folder / "repository"
    _make(path, rows, width, apart=damage == "apart")
    command = safetake_with(folder, f'[sources.projects]\ntype = "sqlite"\npath = "{path}"')
    run([*command, "backup"])
    truth = _damage(path, rows, width, scattered=damage == "scattered")
    look = run([*command, "rows", "latest", "projects"])
    done = run([*command, "rows", "latest", "projects", "--apply", "--yes"])
    said = json.loads(done.stdout)
    right = _right(path, truth)
    undone = run([*command, "rows", "--undo", "latest", "--yes"])
    counts = said["tables"]["episodes"]
    return {
        "rows": rows,
        "database_mb": round(size_mb(path), 1),
        "repository_mb": round(size_mb(repository), 1),
        "damage": damage,
        "missing": counts["missing"],
        "changed": counts["changed"],
        "extra": counts["extra"],
        "brought_back": said["applied"]["inserted"]["episodes"],
        "exactly_the_missing": right,
        "compare_s": round(look.seconds, 2),
        "apply_s": round(done.seconds, 2),
        "undo_s": round(undone.seconds, 2),
        "apply_peak_mb": round(done.peak_mb, 1),
        "read_of_repository_mb": round(said["read"]["repository_bytes"] / 1e6, 3),
        "read_share_of_repository": said["read"]["repository_share"],
        "read_of_live_file_mb": round(said["read"]["local_bytes"] / 1e6, 1),
    }


def _make(path: Path, rows: int, width: int, *, apart: bool) -> None:
    project = "1 + n % 1000" if apart else "1 + (n - 1) * 1000 / :rows"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA synchronous=off")
    connection.executescript(
        "CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
        "CREATE TABLE episodes (id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL"
        " REFERENCES projects(id), number INTEGER, script TEXT, created_at TEXT);"
        "CREATE INDEX by_project ON episodes (project_id);"
        "INSERT INTO projects SELECT value, 'project ' || value FROM"
        " (WITH RECURSIVE c(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c"
        " WHERE value < 1000) SELECT value FROM c);"
    )
    step = max(1000, 200_000_000 // width // 4)
    for first in range(0, rows, step):
        # half of it compresses, as text does
        connection.execute(
            "WITH RECURSIVE c(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM c WHERE n < :last)"
            f" INSERT INTO episodes SELECT n, {project}, n % 40, hex(randomblob(:half)),"
            " datetime(1700000000 + n, 'unixepoch') FROM c WHERE :rows",
            {
                "first": first + 1,
                "last": min(first + step, rows),
                "rows": rows,
                "half": width // 2,
            },
        )
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _damage(path: Path, rows: int, width: int, *, scattered: bool) -> dict[str, int]:
    """1 % deleted, 1 % changed, 1 % new. Returns sums that only the right rows give."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous=off")
    percent = max(1, rows // 100)
    if scattered:
        deleted, changed = "id % 100 = 7", "id % 100 = 42"
    else:
        start = rows // 2
        deleted = f"id BETWEEN {start} AND {start + percent - 1}"
        changed = f"id BETWEEN {start // 2} AND {start // 2 + percent - 1}"
    (missing,) = connection.execute(f"SELECT {_SUM} FROM episodes WHERE {deleted}").fetchone()
    connection.execute(f"DELETE FROM episodes WHERE {deleted}")
    connection.execute(f"UPDATE episodes SET number = number + 1000 WHERE {changed}")
    connection.execute(
        "WITH RECURSIVE c(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM c WHERE n < ?)"
        " INSERT INTO episodes SELECT n, 1, 1, hex(randomblob(?)), 'new' FROM c",
        (rows + 1, rows + percent, width // 2),
    )
    connection.commit()
    (kept, numbers) = connection.execute(f"SELECT {_SUM}, count(*) FROM episodes").fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return {"sum": missing + kept, "rows": numbers + percent}


def _right(path: Path, truth: dict[str, int]) -> bool:
    """Every row that was kept is as it was, and what is there besides are the deleted ones."""
    connection = sqlite3.connect(path)
    found = connection.execute(f"SELECT {_SUM}, count(*) FROM episodes").fetchone()
    connection.close()
    return bool(found == (truth["sum"], truth["rows"]))
