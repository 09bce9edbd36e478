"""What is known of each folder from before the cut: from this run's own looks, else from the
parent.

What this run read is spooled to a private file folder by folder, so memory grows with the number
of folders (about 250 bytes each) and not of files: a million files in 10,000 folders take 2.5 MB
here and about 250 MB of scratch space, and only when they are all new.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from safetake.model import BlobId, Node, Reader

_FIELDS = tuple(entry.name for entry in fields(Node))
_values: Callable[[Node], tuple[Any, ...]] = attrgetter(*_FIELDS)


@dataclass(slots=True)
class Folder:
    """The known entries of one folder, by name. Folder nodes among them have no subtree."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    """Read in the very tick of their last change: to be read again."""
    torn: set[str] = field(default_factory=set)
    """Never stood still while they were read."""


class ParentTree:
    """The folders of the snapshot before, loaded one at a time and only when asked for."""

    def __init__(self, reader: Reader, root: BlobId) -> None:
        self._reader = reader
        self.root = root
        self.folder = lru_cache(maxsize=64)(self._load)

    def tree(self, path: str) -> BlobId | None:
        """The tree of the folder at `path`; None when there was none. Raises DamagedError."""
        if not path:
            return self.root
        above, _, name = path.rpartition("/")
        node = self.folder(above).get(name)
        return None if node is None else node.subtree

    def _load(self, path: str) -> dict[str, Node]:
        tree = self.tree(path)
        return {} if tree is None else {node.name: node for node in self._reader.tree(tree)}


class Known:
    """What was seen last of each folder, by path."""

    def __init__(self, scratch: Path, parent: ParentTree | None) -> None:
        self._parent = parent
        self._file = (scratch / "files.spool").open("w+b")
        self._seen: dict[str, tuple[bytes, int, int]] = {}

    def flat(self, path: str) -> bytes:
        """Hash of the listing when it was last looked at; empty when its files are not all
        settled."""
        seen = self._seen.get(path)
        return b"" if seen is None else seen[0]

    def as_in_parent(self, path: str, flat: bytes) -> None:
        """The folder is listed as in the parent: nothing has to be kept."""
        self._seen[path] = (flat, 0, 0)

    def put(self, path: str, flat: bytes, folder: Folder) -> None:
        """Keep what was read in this run."""
        rows = [_values(node) for node in folder.nodes.values()]
        data = marshal.dumps((rows, folder.unsettled, folder.torn))
        offset = self._file.seek(0, 2)
        self._file.write(data)
        self._seen[path] = (b"" if folder.unsettled or folder.torn else flat, offset, len(data))

    def before(self, path: str) -> Folder:
        """What a first look is compared with: seen in this run, else in the parent."""
        if path in self._seen or self._parent is None:
            return self.folder(path)
        return Folder(self._parent.folder(path))

    def folder(self, path: str) -> Folder:
        """The entries as seen in this run; none for a folder that was not. Raises DamagedError."""
        if path not in self._seen:
            return Folder()
        _, offset, length = self._seen[path]
        if length:
            self._file.seek(offset)
            rows, unsettled, torn = marshal.loads(self._file.read(length))
            nodes = [Node(*row) for row in rows]
            return Folder({node.name: node for node in nodes}, unsettled, torn)
        return Folder(self._parent.folder(path) if self._parent is not None else {})

    def close(self) -> None:
        """Drop the spool."""
        self._file.close()
