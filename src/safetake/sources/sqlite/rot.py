"""Bytes that changed although nobody wrote: the live database against its newest snapshot.

SQLite keeps no checksums, so a flipped bit in a text is no damage to it. But where the file, its
times, its change counter and its log are those of the snapshot, its content must be the snapshot's,
byte by byte. A database that was written to since can not be judged, and that is said. No lock is
taken: what moves while it is read is one that was written to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetake.errors import SourceError
from safetake.findings import Asking, Finding, not_asked
from safetake.sources.sqlite import live, rawfile
from safetake.sources.sqlite.chunks import Look, batches, overlay
from safetake.sources.sqlite.fingerprint import fingerprint, settled
from safetake.sources.sqlite.header import parse_header
from safetake.sources.sqlite.wal import (
    FRAME_HEADER_BYTES,
    WAL_HEADER_BYTES,
    frame_offset,
    parse_wal_header,
    read_index,
)

CHECK = "same bytes as in the snapshot"
WRITTEN = "it was written to since the newest snapshot, or in the two seconds before"
# Not the change time: a failing disk moves none of them, and to change bytes and put the other
# times back is what silent damage by a program looks like.
SAME = ("inode", "size", "mtime_ns", "change_counter", "page_count", "page_size", "mode")
HINT = "the disk or the memory may be failing; the snapshot still holds the good bytes"


def unchanged(path: Path, asking: Asking) -> list[Finding]:
    """One finding. Raises SourceError and OSError when the file cannot be read."""
    entry = asking.entry
    if entry is None:
        return [not_asked(asking.name, CHECK, asking.no_entry)]
    known, facts = entry.get("fingerprint"), entry.get("facts")
    if not isinstance(known, dict) or not isinstance(facts, dict) or "content" not in facts:
        return [not_asked(asking.name, CHECK, "the newest snapshot does not say its bytes")]
    with rawfile.opened(path) as raw:
        if not same(raw, path, known):
            return [not_asked(asking.name, CHECK, WRITTEN)]
        found = _content(raw, path, known, facts, asking.scratch)
        if found == facts["content"]:
            return [Finding(asking.name, CHECK, True)]
        if not same(raw, path, known):
            return [not_asked(asking.name, CHECK, WRITTEN)]
    text = f"{path} is not what was stored, though neither its size nor its times moved"
    return [Finding(asking.name, CHECK, False, "error", text, [], HINT)]


def same(raw: rawfile.RawFile, path: Path, known: Mapping[str, Any]) -> bool:
    """Whether the database must be that of the fingerprint. Raises SourceError, OSError."""
    state = path.stat()
    try:
        header = parse_header(rawfile.read(raw, 4096, 0), str(path), state.st_size)
    except SourceError:
        return False  # told by whoever opens it
    now = fingerprint(state, header, None)
    if not settled(known) or any(known.get(name) != now[name] for name in SAME):
        return False
    return _same_log(live.wal_path(path), header.page_size, known.get("wal"))


def _same_log(path: Path, page_size: int, known: Any) -> bool:
    """Whether the log ends with the frame of the fingerprint (`None`: there is nothing in it)."""
    try:
        if not path.stat().st_size:
            return known is None
        with rawfile.opened(path) as log:
            salts = parse_wal_header(rawfile.read(log, WAL_HEADER_BYTES, 0), str(path)).salts
            if known is None or salts != known[0]:
                return False
            after = frame_offset(known[1] + 1, page_size) - FRAME_HEADER_BYTES
            return rawfile.read(log, 16, after)[8:].hex() != salts
    except FileNotFoundError:
        return known is None
    except SourceError:
        return False


def _content(
    raw: rawfile.RawFile,
    path: Path,
    known: Mapping[str, Any],
    facts: Mapping[str, Any],
    scratch: Path,
) -> str:
    """The `content` of the database as it lies, its log laid over the file."""
    if known.get("wal") is None:
        return _digest(raw, facts, None)
    with rawfile.opened(live.wal_path(path)) as log:
        header = parse_wal_header(rawfile.read(log, WAL_HEADER_BYTES, 0), str(log.path))
        table = read_index(log, header, known["wal"][1], facts["page_count"], scratch)
        try:
            return _digest(raw, facts, overlay(log, table, facts["page_size"]))
        finally:
            table.close()


def _digest(raw: rawfile.RawFile, facts: Mapping[str, Any], look: Look | None) -> str:
    whole = hashlib.sha256()
    total, chunk = facts["page_size"] * facts["page_count"], facts["chunk"]
    for offset, length in batches(total, chunk):
        with memoryview(bytearray(length)) as view:
            rawfile.read_into(raw, view, offset)  # past the end of the file: zeros
            if look is not None:
                look(view, offset)
            for start in range(0, length, chunk):
                whole.update(hashlib.sha256(view[start : start + chunk]).digest())
    return whole.hexdigest()
