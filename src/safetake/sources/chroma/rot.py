"""Bytes that changed although nobody wrote: a live store's files against the newest snapshot.

A flipped bit of a vector is a vector still, and no structure says that it is another one. But a
file whose inode, size and time are those of the snapshot must have its bytes. What was written
since can not be judged, and how much that is, is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetake.findings import Asking, Finding, not_asked
from safetake.sources.chroma.database import NAME
from safetake.sources.chroma.pieces import stat_key
from safetake.sources.sqlite.fingerprint import settled
from safetake.sources.sqlite.rot import CHECK, HINT, SAME

_KEY = 3
"""Of (inode, size, mtime, ctime): a failing disk moves none; who puts times back moves the last."""


def unchanged(folder: Path, fresh: Mapping[str, Any], asking: Asking) -> Iterator[Finding]:
    """One finding about all files of the live `folder`.

    `fresh` is the entry of a capture of just now, read in full: what was not written between then
    and this look, nor since the snapshot, was not written.
    """
    if asking.entry is None:
        yield not_asked(asking.name, CHECK, asking.no_entry)
        return
    compared: list[str] = []
    moved: list[str] = []
    bad: list[str] = []
    for file, same, equal in _files(folder, asking.entry, fresh):
        if not same:
            moved.append(file)
        else:
            compared.append(file)
            if not equal:
                bad.append(file)
    if not compared:
        why = "each file was written to since the newest snapshot, or in the two seconds before"
        yield not_asked(asking.name, CHECK, why)
        return
    detail = f"{len(compared)} of {len(compared) + len(moved)} files compared, others were written"
    if bad:
        detail = f"{len(bad)} are not what was stored, though neither size nor time moved"
    yield Finding(asking.name, CHECK, not bad, "error", detail, bad, HINT)


def _files(
    folder: Path, older: Mapping[str, Any], newer: Mapping[str, Any]
) -> Iterator[tuple[str, bool, bool]]:
    """(file, whether nobody wrote it since, whether its bytes are the same)"""
    prints, facts = _part(older, "fingerprint"), _part(older, "facts")
    now, then = newer["fingerprint"]["sqlite"], _part(prints, "sqlite")
    same = bool(then) and settled(then) and all(then.get(k) == now[k] for k in (*SAME, "wal"))
    known, found = _part(facts, "sqlite"), newer["facts"]["sqlite"]
    same = same and known.get("chunk") == found["chunk"]
    yield NAME, same, known.get("content") == found["content"]
    for segment, described in newer["facts"]["segments"].items():
        before = _part(_part(prints, "segments"), segment)
        stored = _part(_part(_part(facts, "segments"), segment), "files")
        for name, fresh in described["files"].items():
            key, old = before.get(name), stored.get(name)
            same = bool(old) and isinstance(key, list) and key[:_KEY] == _key(folder, segment, name)
            yield f"{segment}/{name}", same, old == fresh


def _key(folder: Path, segment: str, name: str) -> list[int]:
    try:
        return list(stat_key((folder / segment / name).stat())[:_KEY])
    except OSError:
        return []  # gone since


def _part(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
