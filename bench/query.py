"""`safetake query` on a large database in a restic repository: first answer, and how much is read.

The repository is open (unlocked) before the clock starts, as in a daemon, and again as a whole
command with the unlocking in it. The database is backed up by safetake; every indexed lookup asks
for another row, so that nothing is answered from an earlier one.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from bench.command import remove, run, size_mb
from bench.generate import database
from bench.tools import safetake_with

DATABASE_BYTES = 1_000_000_000
LOOKUPS = 9
SQL = "SELECT id, title, length(script) FROM episodes WHERE project_id = {} ORDER BY number LIMIT 1"


def measure(work: Path, scale: float) -> dict[str, Any]:
    """Back one database up, ask it. Removes everything that it made."""
    from safetake.backup import run_backup
    from safetake.config import Config, RepositoryConfig, SqliteConfig
    from safetake.connect import open_repository
    from safetake.snapshots import find_snapshot, root_nodes
    from safetake.sources.sqlite.query import query

    folder = work / "query"
    remove(folder)
    folder.mkdir(parents=True)
    try:
        database(folder / "projects.db", int(DATABASE_BYTES * scale), 3)
        repository = folder / "repository"
        section = f'[sources.projects]\ntype = "sqlite"\npath = "{folder / "projects.db"}"'
        command = safetake_with(folder, section)
        config = Config(
            repository=RepositoryConfig(
                location=str(repository), password_env="SAFETAKE_BENCH_PASSWORD"
            ),
            sources={"projects": SqliteConfig(type="sqlite", path=folder / "projects.db")},
        )
        report = run_backup(config)
        seconds, read = [], []
        for number in range(LOOKUPS):
            opened = open_repository(config)
            with opened:
                started = time.perf_counter()
                reader = opened.reader()
                snapshot = find_snapshot(opened, report.id)
                root = root_nodes(reader, snapshot)["projects"]
                assert root.subtree is not None
                node = next(n for n in reader.tree(root.subtree) if n.name == "projects.db")
                with query(reader, node, SQL.format(1 + 7 * number), limit=None) as answer:
                    rows = list(answer)
                seconds.append(time.perf_counter() - started)
                read.append(reader.fetched_bytes)
                assert len(rows) == 1
        asked = [*command, "query", report.id, "projects", SQL.format(5)]
        whole = [run(asked).seconds for _ in range(3)]
        stored = size_mb(repository)
        return {
            "database_mb": round(size_mb(folder / "projects.db"), 1),
            "repository_mb": round(stored, 1),
            "first_answer_s": {
                "median": round(statistics.median(seconds), 4),
                "max": round(max(seconds), 4),
            },
            "read_mb": round(max(read) / 1e6, 3),
            "read_share_of_repository": round(max(read) / 1e6 / stored, 5),
            "whole_command_s": round(statistics.median(whole), 3),
        }
    finally:
        remove(folder)
