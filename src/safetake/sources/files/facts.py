"""The facts of a folder: counts, bytes and one digest over every path and content.

The digest is a sum (modulo 2^256) of one SHA-256 per entry, so that a changed folder is taken out
and put in again without reading the others, and its size does not depend on the number of files.
An entry's part covers its path, type, link target and the ids of its blobs; because those depend
on nothing but the bytes (`content.CHUNKER`), the digest is found again from restored files alone.
It proves against damage and mistakes; against an attacker stands the repository's own
authentication. Sockets have no part in it: they are never restored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from safetake.model import Node
from safetake.sources.files.content import CHUNKER
from safetake.sources.files.walk import join

_MODULUS = 1 << 256


def _part(path: str, node: Node) -> int:
    raw = os.fsencode(path)
    hashed = hashlib.sha256(b"%s\0%d\0%s" % (node.type.encode(), len(raw), raw))
    if node.type == "symlink":
        hashed.update(os.fsencode(node.linktarget))
    for blob_id in node.content or ():
        hashed.update(blob_id)
    return int.from_bytes(hashed.digest())


def counts_alike(first: Node, second: Node) -> bool:
    """Whether two entries of one path add the same to the totals."""
    return (
        first.type == second.type
        and first.size == second.size
        and first.content == second.content
        and first.linktarget == second.linktarget
    )


@dataclass(slots=True)
class Totals:
    """Sums over entries; folders can be added and taken away in any order."""

    files: int = 0
    dirs: int = 0
    symlinks: int = 0
    others: int = 0
    bytes: int = 0
    digest: int = 0
    sockets: int = 0

    def add(self, path: str, nodes: Iterable[Node], sign: int = 1) -> None:
        """Count the entries of the folder at `path`; with sign -1 take them away."""
        for node in nodes:
            if node.type == "socket":
                self.sockets += sign
                continue
            if node.type == "file":
                self.files += sign
                self.bytes += sign * node.size
            elif node.type == "dir":
                self.dirs += sign
            elif node.type == "symlink":
                self.symlinks += sign
            else:
                self.others += sign
            self.digest = (self.digest + sign * _part(join(path, node.name), node)) % _MODULUS

    def facts(self) -> dict[str, Any]:
        """As they stand in the manifest."""
        return {
            "files": self.files,
            "dirs": self.dirs,
            "symlinks": self.symlinks,
            "others": self.others,
            "bytes": self.bytes,
            "digest": f"{self.digest:064x}",
            "sockets": self.sockets,
            "chunker": CHUNKER,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Totals | None:
        """Out of a manifest; None when it says something else."""
        if facts.get("chunker") != CHUNKER:
            return None
        try:
            return cls(
                int(facts["files"]),
                int(facts["dirs"]),
                int(facts["symlinks"]),
                int(facts["others"]),
                int(facts["bytes"]),
                int(facts["digest"], 16),
                int(facts["sockets"]),
            )
        except (KeyError, TypeError, ValueError):
            return None
