"""Captures of folders into a repository in memory, with something happening at each step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetake.config import FilesConfig
from safetake.model import CaptureContext, Captured, Node, Parent
from safetake.sources.files import FilesSource, questions
from safetake.sources.files.session import FilesSession
from tests.support.memory_writer import MemoryRepository, entry_of, find, materialise, read_file


def nothing() -> None:
    """What happens by default."""


class Taken:
    """A finished capture and how many files it read."""

    def __init__(self, repository: MemoryRepository, captured: Captured, files_read: int) -> None:
        self.repository = repository
        self.captured = captured
        self.files_read = files_read
        self.facts = captured.facts
        self.unread = captured.unread
        self.notes = captured.notes

    @property
    def parent(self) -> Parent:
        return Parent(entry_of(self.captured), self.captured.node, self.repository)

    def node(self, path: str) -> Node:
        return find(self.repository, self.captured.node, *path.split("/"))

    def read(self, path: str) -> bytes:
        return read_file(self.repository, self.node(path))

    def names(self, path: str = "") -> list[str]:
        node = self.node(path) if path else self.captured.node
        assert node.subtree is not None
        return [entry.name for entry in self.repository.tree(node.subtree)]

    def paths(self) -> dict[str, Node]:
        """Every entry by its path."""
        found: dict[str, Node] = {}

        def walk(node: Node, prefix: str) -> None:
            assert node.subtree is not None
            for entry in self.repository.tree(node.subtree):
                found[prefix + entry.name] = entry
                if entry.type == "dir":
                    walk(entry, f"{prefix}{entry.name}/")

        walk(self.captured.node, "")
        return found

    def with_content(self, files: Mapping[str, bytes]) -> Taken:
        """The same with other bytes in files of its root, and nothing else changed."""
        assert self.captured.node.subtree is not None
        nodes = [
            replace(node, content=self.repository.store(files[node.name]).result())
            if node.name in files
            else node
            for node in self.repository.tree(self.captured.node.subtree)
        ]
        root = replace(self.captured.node, subtree=self.repository.save_tree(nodes))
        return Taken(self.repository, replace(self.captured, node=root), self.files_read)

    def prove(self) -> dict[str, Any]:
        """Restore to scratch, put the questions, return what failed."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            materialise(self.repository, self.captured.node, copy)
            checks = questions(copy, entry_of(self.captured))
            return {check.name: (check.expected, check.found) for check in checks if not check.ok}


def take(
    root: Path,
    repository: MemoryRepository,
    parent: Taken | None = None,
    *,
    before: Callable[[], None] = nothing,
    held: Callable[[], None] = nothing,
    after: Callable[[], None] = nothing,
    reading: Callable[[], None] = nothing,
    **options: Any,
) -> Taken:
    """One capture of `root`; `before` the hold, inside it, and `after` it something may happen.

    `reading` is called in the middle of files: after each buffer that was read.
    """
    source = FilesSource("scripts", FilesConfig(type="files", path=root, **options))
    with tempfile.TemporaryDirectory() as scratch:
        context = CaptureContext(
            repository,
            None if parent is None else parent.parent,
            Path(scratch),
            progress=lambda what, done, total: reading(),
            reader=repository,
        )
        session: FilesSession = source.session(context)
        try:
            session.prepare()
            before()
            session.hold(2.0)
            held()
            session.release()
            after()
            captured = session.capture()
        finally:
            session.close()
    assert repository.buffers_out == 0
    return Taken(repository, captured, session.files_read)


def describe(root: Path) -> dict[str, Any]:
    """Everything about a folder that a snapshot has to bring back, read the plain way."""
    found: dict[str, Any] = {}
    for folder, names, files in os.walk(os.fsencode(root)):
        for name in [*names, *files]:
            path = os.path.join(folder, name)  # noqa: PTH118 - bytes
            status = os.lstat(path)
            content: Any = None
            if os.path.islink(path):  # noqa: PTH114 - bytes
                content = os.readlink(path)  # noqa: PTH115 - bytes
            elif os.path.isfile(path):  # noqa: PTH113 - bytes
                with open(path, "rb") as file:  # noqa: PTH123 - bytes
                    content = file.read()
            key = os.path.relpath(path, os.fsencode(root))
            found[os.fsdecode(key)] = (
                status.st_mode,
                status.st_mtime_ns if not os.path.isdir(path) else 0,  # noqa: PTH112 - bytes
                content,
            )
    return found
