"""Before the cut: look at everything, and read what differs from the snapshot before.

What cannot be read here is not told here: the look after the cut meets it again.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from safetake.errors import SourceError
from safetake.model import CaptureContext, Node
from safetake.sources.files import walk
from safetake.sources.files.base import Base
from safetake.sources.files.content import Contents
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.known import Folder, Known
from safetake.sources.files.metadata import beside, kind_of, node_of, same, xattrs_of

if TYPE_CHECKING:
    from safetake.config import FilesConfig

SECOND_LOOK_NS = 200_000_000
"""A pass longer than this is followed by another: the less time before the cut, the better."""


class Survey:
    """Fills `known`. Also holds what both walks need: how to enter folders and read entries."""

    def __init__(
        self, name: str, config: FilesConfig, context: CaptureContext, base: Base | None
    ) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._base = base
        self._done = 0
        self._waiting: deque[tuple[int, str, bytes, Folder]] = deque()
        self._root_device = 0
        self.exclusions = Exclusions(config.exclude)
        self.contents = Contents(context.writer, self._advance)
        self.known = Known(context.scratch, None if base is None else base.tree)
        self.looked_ns = 0
        """When the last pass began: what is known is at most that old."""

    def _advance(self, count: int) -> None:
        self._done += count
        self._context.progress(self._name, self._done, 0)

    def run(self) -> None:
        """Read everything that differs from the parent."""
        for _ in range(2):
            started = time.monotonic_ns()
            self.looked_ns = time.time_ns()
            self.contents.new_pass()
            root = self.open_root()
            try:
                self._root_device = os.fstat(root).st_dev
                self._survey(root, "", 0)
            finally:
                os.close(root)
            self.contents.settle()
            self._spool()
            if time.monotonic_ns() - started < SECOND_LOOK_NS:
                break

    def open_root(self) -> int:
        """A descriptor of the folder. Raises SourceError."""
        path = self._config.path
        try:
            return walk.open_root(os.fspath(path))
        except FileNotFoundError as error:
            raise SourceError(
                f"source {self._name}: the folder {path} does not exist",
                hint="correct its path in the configuration, or mount the volume",
            ) from error
        except NotADirectoryError as error:
            raise SourceError(
                f"source {self._name}: {path} is not a folder",
                hint="name the folder that holds the files",
            ) from error
        except OSError as error:
            raise SourceError(
                f"source {self._name}: cannot open the folder {path}: {error.strerror}",
                hint="let the user that runs safetake read it",
            ) from error

    def _survey(self, folder: int, path: str, depth: int) -> None:
        """Look at a folder and all below it, and read what is not known yet."""
        try:
            listing = walk.look(folder, path, self.exclusions)
        except OSError:
            return  # told by `capture`, which meets it again
        if self._base is not None and listing.flat in self._base.flats:
            self.known.as_in_parent(path, listing.flat)
        elif listing.flat != self.known.flat(path):
            self._read_folder(folder, path, listing)
        for name, status in listing.entries:
            if kind_of(status.st_mode) == "dir" and self.enters(status, depth):
                with suppress(OSError), walk.opened_folder(folder, name) as inner:
                    self._survey(inner, walk.join(path, name), depth + 1)

    def enters(self, status: os.stat_result, depth: int) -> bool:
        """Whether a folder at `depth` is walked into."""
        if depth >= walk.MAX_DEPTH:
            return False
        return not self._config.one_file_system or status.st_dev == self._root_device

    def _read_folder(self, folder: int, path: str, listing: walk.Listing) -> None:
        known = self.known.before(path)
        fresh = Folder({})
        nodes: dict[str, Node] = {}
        reused = self._reusable(known)
        taken: set[str] = set()
        for name, status in listing.entries:
            old = known.nodes.get(name)
            if (
                old is not None
                and same(status, old)
                and name not in known.unsettled
                and name not in known.torn
                and (old.content is None or reused is None or name in reused)
            ):
                nodes[name] = old
                if name in known.taken:
                    taken.add(name)
                continue
            with suppress(OSError):  # told by `capture`, which meets it again
                nodes[name] = self.read_entry(folder, name, status, fresh)
        fresh.nodes, fresh.taken = nodes, taken
        self._waiting.append((self.contents.mark, path, listing.flat, fresh))
        self._spool()

    def _reusable(self, known: Folder) -> set[str] | None:
        """Names whose content is in the repository still; None for all of them."""
        if self._base is not None and self._base.whole:
            return None  # seen to be there as a whole
        writer = self._context.writer
        if writer.has(i for node in known.nodes.values() for i in node.content or ()):
            return None
        return {name for name, node in known.nodes.items() if writer.has(node.content or ())}

    def read_entry(self, folder: int, name: str, status: os.stat_result, into: Folder) -> Node:
        """A node with everything but a subtree. Raises OSError."""
        kind = kind_of(status.st_mode)
        if kind != "file":
            node = node_of(name, status)
            if kind == "symlink":
                node.linktarget = os.readlink(name, dir_fd=folder)
            node.xattrs = xattrs_of(beside(folder, name))
            return node
        descriptor = walk.open_file(folder, name)
        try:
            node, settled, torn = self.contents.read(descriptor, name, status)
        finally:
            os.close(descriptor)
        if not settled:
            into.unsettled.add(name)
        if torn:
            into.torn.add(name)
        return node

    def _spool(self) -> None:
        """Put folders away whose contents have all been worked out."""
        while self._waiting and self._waiting[0][0] <= self.contents.resolved:
            _, path, flat, folder = self._waiting.popleft()
            self.known.put(path, flat, folder)
