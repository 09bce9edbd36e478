"""What is known of each folder from before the cut: from this run's own looks, else from the
parent.

What this run read is spooled to a private file folder by folder, so memory grows with the number
of folders (about 250 bytes each) and not of files: a million files in 10,000 folders take 2.5 MB
here and about 250 MB of scratch space, and only when they are all new. What is as in the parent is
spooled by its name.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from safetake.model import BlobId, Node, Reader

_FIELDS = tuple(entry.name for entry in fields(Node))
_values: Callable[[Node], tuple[Any, ...]] = attrgetter(*_FIELDS)


KEPT_NODES = 1 << 14
"""Entries of parent folders in memory: about 10 MB."""


@dataclass(slots=True)
class Folder:
    """The known entries of one folder, by name. Folder nodes among them have no subtree."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    """Read in the very tick of their last change: to be read again."""
    torn: set[str] = field(default_factory=set)
    """Never stood still while they were read."""
    taken: Collection[str] = ()
    """Names whose node is the one of the parent."""


class ParentTree:
    """The folders of the snapshot before, loaded one at a time and only when asked for.

    The last ones are kept, KEPT_NODES entries at most: both walks of an increment ask for those in
    which something changed.
    """

    def __init__(self, reader: Reader, root: BlobId) -> None:
        self._reader = reader
        self.root = root
        self._loaded: OrderedDict[str, dict[str, Node]] = OrderedDict()
        self._kept = 0

    def tree(self, path: str) -> BlobId | None:
        """The tree of the folder at `path`; None when there was none. Raises DamagedError."""
        if not path:
            return self.root
        above, _, name = path.rpartition("/")
        node = self.folder(above).get(name)
        return None if node is None else node.subtree

    def folder(self, path: str) -> dict[str, Node]:
        """Its entries by name, not to be changed; none when there was none. Raises DamagedError."""
        found = self._loaded.get(path)
        if found is not None:
            self._loaded.move_to_end(path)
            return found
        tree = self.tree(path)
        found = {} if tree is None else {node.name: node for node in self._reader.tree(tree)}
        self._loaded[path] = found
        self._kept += len(found)
        while self._kept > KEPT_NODES and len(self._loaded) > 1:
            self._kept -= len(self._loaded.popitem(last=False)[1])
        return found


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
        """Keep what was read in this run, and the names of what is as in the parent."""
        taken = folder.taken
        rows = [_values(node) for name, node in folder.nodes.items() if name not in taken]
        data = marshal.dumps((rows, list(taken), folder.unsettled, folder.torn))
        offset = self._file.seek(0, 2)
        self._file.write(data)
        self._seen[path] = (b"" if folder.unsettled or folder.torn else flat, offset, len(data))

    def before(self, path: str) -> Folder:
        """What a first look is compared with: seen in this run, else in the parent."""
        if path in self._seen or self._parent is None:
            return self.folder(path)
        return self._of_parent(path)

    def folder(self, path: str) -> Folder:
        """The entries as seen in this run; none for a folder that was not. Raises DamagedError."""
        if path not in self._seen:
            return Folder()
        _, offset, length = self._seen[path]
        if not length:
            return self._of_parent(path)
        self._file.seek(offset)
        rows, taken, unsettled, torn = marshal.loads(self._file.read(length))
        nodes: dict[str, Node] = {}
        if taken and self._parent is not None:
            parents = self._parent.folder(path)
            nodes = {name: parents[name] for name in taken}
        for row in rows:
            nodes[row[0]] = Node(*row)
        return Folder(nodes, unsettled, torn, set(taken))

    def _of_parent(self, path: str) -> Folder:
        nodes = self._parent.folder(path) if self._parent is not None else {}
        return Folder(nodes, taken=nodes.keys())

    def close(self) -> None:
        """Drop the spool."""
        self._file.close()
