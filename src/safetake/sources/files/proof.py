"""Questions to a restored folder: what is in it, counted and hashed again.

Everything is read; nothing outside the folder is. A digest that differs says that something
differs, not which file: the restore itself names the file whose blob is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetake.model import Check, Node
from safetake.sources.files import walk
from safetake.sources.files.content import CHUNKER, blob_ids
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.facts import Totals
from safetake.sources.files.metadata import kind_of, node_of


def questions(staged: Path, entry: Mapping[str, Any]) -> list[Check]:
    """Count and hash the files in `staged` and compare with the manifest's facts."""
    facts = entry.get("facts") or {}
    totals = Totals()
    unreadable: list[str] = []
    try:
        root = walk.open_root(os.fspath(staged))
    except OSError as error:
        return [Check("folder opens", False, "a folder", None, error.strerror or str(error))]
    try:
        _take(root, "", 0, totals, unreadable)
    finally:
        os.close(root)
    found = totals.facts()
    checks = [
        Check(
            "every entry is readable", not unreadable, 0, len(unreadable), "; ".join(unreadable[:3])
        )
    ]
    for name in ("files", "dirs", "symlinks", "others", "bytes"):
        checks.append(Check(name, found[name] == facts.get(name), facts.get(name), found[name]))
    if facts.get("chunker") == CHUNKER:
        same = found["digest"] == facts.get("digest")
        checks.append(Check("contents", same, facts.get("digest"), found["digest"]))
    else:
        reason = "hashed by another version"
        checks.append(Check(f"contents (not asked: {reason})", True, None, "not asked"))
    return checks


def _take(folder: int, path: str, depth: int, totals: Totals, unreadable: list[str]) -> None:
    """Add a folder and all below it to `totals`."""
    try:
        listing = walk.look(folder, path, Exclusions([]))
    except OSError as error:
        unreadable.append(f"{path}: {error.strerror}")
        return
    unreadable += [f"{problem}: {why}" for problem, why in listing.problems]
    nodes = []
    for name, status in listing.entries:
        where = walk.join(path, name)
        try:
            nodes.append(_node(folder, name, status))
            if kind_of(status.st_mode) == "dir":
                if depth > walk.MAX_DEPTH:
                    unreadable.append(f"{where}: too deep")
                    continue
                with walk.opened_folder(folder, name) as inner:
                    _take(inner, where, depth + 1, totals, unreadable)
        except OSError as error:
            unreadable.append(f"{where}: {error.strerror}")
    totals.add(path, nodes)


def _node(folder: int, name: str, status: os.stat_result) -> Node:
    node = node_of(name, status)
    if node.type == "symlink":
        node.linktarget = os.readlink(name, dir_fd=folder)
    elif node.type == "file":
        descriptor = walk.open_file(folder, name)
        try:
            node.content = list(blob_ids(descriptor, status.st_size))
        finally:
            os.close(descriptor)
    return node
