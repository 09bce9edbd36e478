"""A look at a live Chroma folder for status and doctor; changes nothing and holds nothing."""

from __future__ import annotations

from pathlib import Path

import apsw

from safetake.model import SourceState
from safetake.sources.chroma import catalogue, hnsw
from safetake.sources.chroma.database import BUSY_SECONDS, NAME
from safetake.sources.chroma.segments import scan
from safetake.sources.sqlite import live, rawfile
from safetake.sources.sqlite.header import read_header

_LARGE_ROLLBACK_BYTES = 512 << 20


def inspect_folder(folder: Path) -> SourceState:
    """Sizes, counts and what speaks against a good backup. Raises SourceError."""
    path = folder / NAME
    header = read_header(path)
    raw = rawfile.acquire(path)
    connection: apsw.Connection | None = None
    try:
        connection = live.connect(path, header, BUSY_SECONDS)
        with live.explained(path):
            missing = catalogue.missing_tables(connection)
            if missing:
                text = f"{path} has no table {', '.join(missing)}"
                return SourceState(False, text, problems=[(text, "check `path`")])
            found = catalogue.describe(connection)
    finally:
        if connection is not None:
            connection.close()
        rawfile.release(raw)
    segments = {
        entry["vector_segment"]: scan(folder / entry["vector_segment"])[0]
        for entry in found["collections"].values()
        if entry["vector_segment"]
    }
    vectors = sum(state.st_size for stats in segments.values() for state in stats.values())
    size = path.stat().st_size
    records = sum(entry["records"] for entry in found["collections"].values())
    problems = []
    if not header.wal and size >= _LARGE_ROLLBACK_BYTES:
        problems.append(
            (
                f"{path} is {size >> 20} MB in rollback-journal mode: each backup holds Chroma's"
                " writers while it is compared with its copy",
                f"`sqlite3 {path} 'PRAGMA journal_mode=wal'` while Chroma is stopped makes the"
                " hold independent of the size (Chroma keeps the mode)",
            )
        )
    for entry in found["collections"].values():
        recorded, segment = entry["vector_max_seq_id"], entry["vector_segment"]
        if recorded and hnsw.PICKLE not in segments.get(segment, {}):
            problems.append(
                (
                    f"collection {entry['name']}: the vectors up to {recorded} are recorded as"
                    f" written, but {segment}/{hnsw.PICKLE} is missing: they are lost",
                    "restore the collection from the last proven snapshot",
                )
            )
    orphans = sorted(
        name
        for name in scan(folder)[1]
        if name not in segments and (folder / name / hnsw.HEADER).exists()
    )
    count = len(found["collections"])
    return SourceState(
        ok=not any("lost" in text for text, _ in problems),
        summary=f"{count} collection{'s' * (count != 1)}, {records} records",
        bytes=size + vectors,
        details={
            "journal_mode": "wal" if header.wal else "rollback",
            "collections": {
                entry["name"]: entry["records"] for entry in found["collections"].values()
            },
            "queue": found["queue"],
            "orphaned_folders": orphans,
        },
        problems=problems,
    )
