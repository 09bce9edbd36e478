"""The ids in the paths of files: of a live folder, a restored copy or a snapshot's trees.

Patterns are those of `exclude`, relative to the folder, with `{id}` in a name or `{id*}` over
several. As in a shell, wildcards and ids do not begin with a dot, so that a file which is being
written under a hidden name is none yet. A pattern that ends in a slash means folders.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Set
from contextlib import contextmanager

from safetake.config import FilesConfig
from safetake.errors import ConfigError, SourceError
from safetake.ids import Template
from safetake.model import Node, Reader
from safetake.sources.files import walk
from safetake.sources.files.exclude import Exclusions, component

_WILD = ("*", "?", "[", "{id")
_ANY_FOLDERS = r"(?:(?!\.)[^/]+/)*"
_ID = r"(?P<id>[^/]+)"
_WIDE_ID = r"(?P<id>(?!\.)[^/]+(?:/(?!\.)[^/]+)*)"


class PathPattern:
    """A pattern of paths with `{id}` in it. Raises ConfigError when it cannot be used."""

    def __init__(self, pattern: str) -> None:
        Template.parse(pattern)
        self.folders = pattern.endswith("/")
        parts = pattern.strip("/").split("/")
        expression = ""
        self._prefixes: list[re.Pattern[str]] = []
        """For folders one, two, … names deep, as far as the pattern says how they look."""
        self._deeper = False
        """The pattern goes on to any depth below."""
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            if part == "**":
                if last:
                    raise ConfigError(
                        f"pattern {pattern!r} ends in '**'", hint="write `{id*}` for any path"
                    )
                expression, self._deeper = expression + _ANY_FOLDERS, True
                continue
            expression += _named(part, pattern)
            self._deeper |= "{id*}" in part
            if not self._deeper:
                self._prefixes.append(re.compile(expression, re.DOTALL))
            expression += "" if last else "/"
        self._regex = re.compile(expression, re.DOTALL)

    def id_in(self, path: str) -> str | None:
        """The id in a path that is relative to the folder; None when it is another's."""
        found = self._regex.fullmatch(path)
        return None if found is None else found["id"]

    def enters(self, path: str, depth: int) -> bool:
        """Whether a folder so deep (1: in the root) may hold paths that match."""
        if depth <= len(self._prefixes):
            return self._prefixes[depth - 1].fullmatch(path) is not None
        return self._deeper


def _named(part: str, pattern: str) -> str:
    before, found, after = part.partition("{id")
    hidden = r"(?!\.)" if part.startswith(_WILD) else ""
    if not found:
        return hidden + component(part, pattern)
    wide, _, after = after.partition("}")
    inside = _WIDE_ID if wide else _ID
    return hidden + component(before, pattern) + inside + component(after, pattern)


class _Paths:
    """`safetake.ids.IdReader` over the paths that `_walk` gives."""

    def __init__(self, pattern: str) -> None:
        self._pattern = PathPattern(pattern)

    def ids(self) -> Iterator[str]:
        for path, folder in self._walk():
            if folder == self._pattern.folders:
                one = self._pattern.id_in(path)
                if one is not None:
                    yield one

    def among(self, wanted: Set[str]) -> set[str]:
        return {one for one in self.ids() if one in wanted}

    def _walk(self) -> Iterator[tuple[str, bool]]:
        """(path, whether it is a folder) of all that may match."""
        raise NotImplementedError


class FolderPaths(_Paths):
    """A folder on disk, live or restored. What the source excludes is not there.

    Raises SourceError where a folder cannot be listed: what is in it is not known.
    """

    def __init__(self, config: FilesConfig, pattern: str) -> None:
        super().__init__(pattern)
        self._root = os.fspath(config.path)
        self._exclusions = Exclusions(config.exclude)

    def _walk(self) -> Iterator[tuple[str, bool]]:
        with _listed(self._root):
            root = walk.open_root(self._root)
        try:
            yield from self._below(root, "", 1)
        finally:
            os.close(root)

    def _below(self, folder: int, path: str, depth: int) -> Iterator[tuple[str, bool]]:
        where = walk.join(self._root, path)
        with _listed(where):
            listing = walk.look(folder, path, self._exclusions)
        for name, why in listing.problems:
            raise _unknown(walk.join(self._root, name), why)
        for name, status in listing.entries:
            inner, is_folder = walk.join(path, name), stat.S_ISDIR(status.st_mode)
            yield inner, is_folder
            if not is_folder or depth > walk.MAX_DEPTH or not self._pattern.enters(inner, depth):
                continue
            try:
                with walk.opened_folder(folder, name) as descriptor:
                    yield from self._below(descriptor, inner, depth + 1)
            except FileNotFoundError:
                continue  # gone since it was listed
            except OSError as error:
                raise _unknown(walk.join(self._root, inner), error.strerror or "") from error


class StoredPaths(_Paths):
    """The trees of a snapshot's source. Raises DamagedError."""

    def __init__(self, reader: Reader, node: Node, pattern: str) -> None:
        super().__init__(pattern)
        self._reader = reader
        self._node = node

    def _walk(self) -> Iterator[tuple[str, bool]]:
        yield from self._below(self._node, "", 1)

    def _below(self, folder: Node, path: str, depth: int) -> Iterator[tuple[str, bool]]:
        for node in self._reader.tree(folder.subtree) if folder.subtree is not None else ():
            inner = walk.join(path, node.name)
            yield inner, node.subtree is not None
            if node.subtree is not None and self._pattern.enters(inner, depth):
                yield from self._below(node, inner, depth + 1)


@contextmanager
def _listed(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unknown(where, error.strerror or str(error)) from error


def _unknown(where: str, why: str) -> SourceError:
    return SourceError(
        f"{where} cannot be looked at: {why}",
        hint="let the user that runs safetake read it, and check that it is mounted",
    )
