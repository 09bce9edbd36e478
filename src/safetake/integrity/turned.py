"""Content that compressed in a snapshot and does not any more: what encryption by an attacker, or
damage by a bad disk, looks like from outside.

Only content that replaced other content is judged: a chunk of a database at its own place, a file
at its own path, or files of which as many went as others came. New films and images beside the old
texts are no finding. Samples are bounded (some megabytes are read), and so is memory.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from safetake.config import FilesConfig
from safetake.errors import DamagedError, SourceError
from safetake.integrity.density import DENSE, LOOSE, density, known_form, stored_density
from safetake.model import BlobId, Node, Reader
from safetake.repository import Repository
from safetake.sources.files import walk
from safetake.sources.files.exclude import Exclusions
from safetake.sources.files.metadata import same
from safetake.sources.sqlite import rawfile

FILES = 300
"""Files that are read of each kind (changed, come), and looked up of those gone."""
CHUNKS = 512
"""Chunks of a database that are compared."""
_PIECE = 16 << 10
_PIECES = 4
_SHOWN = 20

T = TypeVar("T")


@dataclass(slots=True)
class Turned:
    """What was found of content that replaced other content."""

    judged: int = 0
    """Files or chunks that compressed before and have been replaced (estimated from samples)."""
    turned: int = 0
    """Those that do not compress any more."""
    what: str = "files"
    usual: float = 0.0
    """Share of all the old content that did not compress: where texts and images share a database,
    pages that held the one come to hold the other in ordinary work."""
    examples: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of what was judged, beyond what is usual; 1 is all."""
        share = self.turned / self.judged if self.judged else 0.0
        return max(0.0, (share - self.usual) / (1 - self.usual)) if self.usual < 1 else 0.0


class Sample(Generic[T]):
    """Some of many, each with the same chance, and how many there were."""

    def __init__(self, size: int, chance: random.Random) -> None:
        self.items: list[T] = []
        self.count = 0
        self._size = size
        self._chance = chance

    def add(self, item: T) -> None:
        """One more."""
        self.count += 1
        if len(self.items) < self._size:
            self.items.append(item)
        elif (place := self._chance.randrange(self.count)) < self._size:
            self.items[place] = item


# ------------------------------------------------------------------------------------ databases


def turned_pages(
    repository: Repository, path: Path, file: Node, chunk: int, seed: int = 0
) -> Turned:
    """Chunks of a live database against the same chunks of a snapshot. Raises SourceError.

    The file alone is read, without a lock: what is in the log still is as before. A chunk that is
    written while it is read is judged as it was read.
    """
    content = file.content or []
    found = Turned(what=f"chunks of {chunk >> 10} KiB")
    chosen = list(range(len(content)))
    if len(chosen) > CHUNKS:
        chosen = sorted(random.Random(seed).sample(chosen, CHUNKS))
    known = dense = 0
    with rawfile.opened(path) as raw:
        for number in chosen:
            before = stored_density(repository, content[number : number + 1])
            if before is None:
                continue
            known, dense = known + 1, dense + (before >= DENSE)
            if before > LOOSE:
                continue
            live = rawfile.read(raw, chunk, number * chunk)
            now = density(live)
            if now is None or hashlib.sha256(live).digest() == content[number]:
                continue
            found.judged += 1
            if now >= DENSE:
                found.turned += 1
                if len(found.examples) < _SHOWN:
                    found.examples.append(f"{path.name}: byte {number * chunk:,}")
    found.usual = dense / known if known else 0.0
    return found


# ---------------------------------------------------------------------------------------- files


def turned_files(
    repository: Repository, reader: Reader, config: FilesConfig, node: Node, seed: int = 0
) -> Turned:
    """A live folder against a snapshot's. Raises SourceError, DamagedError."""
    work = _Folders(repository, reader, config, seed)
    return work.run(node)


class _Folders:
    def __init__(
        self, repository: Repository, reader: Reader, config: FilesConfig, seed: int
    ) -> None:
        chance = random.Random(seed)
        self._repository = repository
        self._reader = reader
        self._root = os.fspath(config.path)
        self._exclusions = Exclusions(config.exclude)
        self._changed: Sample[tuple[str, list[BlobId]]] = Sample(FILES, chance)
        self._gone: Sample[list[BlobId]] = Sample(FILES, chance)
        self._come: Sample[str] = Sample(FILES, chance)
        self._chance = chance

    def run(self, node: Node) -> Turned:
        try:
            root = walk.open_root(self._root)
            try:
                self._compare(root, "", node.subtree)
            finally:
                os.close(root)
        except OSError as error:
            raise SourceError(
                f"{self._root} cannot be compared: {error.strerror}",
                hint="let the user that runs safetake read it",
            ) from error
        return self._judge()

    def _compare(self, folder: int | None, path: str, subtree: BlobId | None) -> None:
        """One folder of either side, or of both."""
        nodes = {n.name: n for n in self._reader.tree(subtree)} if subtree is not None else {}
        entries: Sequence[tuple[str, os.stat_result]] = ()
        if folder is not None:
            entries = walk.look(folder, path, self._exclusions).entries
        depth = path.count("/") + 2
        for name, status in entries:
            inner, node = walk.join(path, name), nodes.pop(name, None)
            if stat.S_ISREG(status.st_mode):
                if node is None or node.content is None:
                    self._come.add(inner)
                elif not same(status, node):
                    self._changed.add((inner, node.content))
            elif stat.S_ISDIR(status.st_mode) and folder is not None and depth <= walk.MAX_DEPTH:
                try:
                    with walk.opened_folder(folder, name) as descriptor:
                        self._compare(descriptor, inner, None if node is None else node.subtree)
                except FileNotFoundError:
                    continue  # gone since it was listed
        for name, node in nodes.items():
            inner = walk.join(path, name)
            if node.subtree is not None:
                self._compare(None, inner, node.subtree)
            elif node.content is not None:
                self._gone.add(node.content)

    def _judge(self) -> Turned:
        found = Turned()
        loose, dense = 0, list[str]()
        for path, content in self._changed.items:
            if not self._was_loose(content):
                continue
            loose += 1
            if self._is_dense(path):
                dense.append(path)
        found.judged = _of_all(loose, self._changed)
        found.turned = _of_all(len(dense), self._changed)
        # one that went and one that came: renamed on the way, as encrypting programs do
        went = _of_all(sum(map(self._was_loose, self._gone.items)), self._gone)
        came = [path for path in self._come.items if self._is_dense(path)] if went else []
        found.judged += min(went, self._come.count)
        found.turned += min(went, _of_all(len(came), self._come))
        found.examples = sorted(dense + came)[:_SHOWN]
        return found

    def _was_loose(self, content: list[BlobId]) -> bool:
        before = stored_density(self._repository, content)
        return before is not None and before < LOOSE

    def _is_dense(self, path: str) -> bool:
        """Its beginning, or most of some pieces, does not compress, and it does not say why."""
        pieces = self._pieces(path)
        if not pieces or known_form(pieces[0]):
            return False
        measured = [one for one in map(density, pieces) if one is not None]
        dense = sum(one >= DENSE for one in measured)
        return bool(measured) and (measured[0] >= DENSE or 2 * dense > len(measured))

    def _pieces(self, path: str) -> list[bytes]:
        """The beginning of a file and some pieces of the rest; none when it cannot be read."""
        *folders, name = path.split("/")
        try:
            folder = walk.open_root(self._root)
            try:
                for one in folders:
                    with walk.opened_folder(folder, one) as inner:
                        os.close(folder)
                        folder = os.dup(inner)
                descriptor = walk.open_file(folder, name)
            finally:
                os.close(folder)
            try:
                size = os.fstat(descriptor).st_size
                places = [0]
                if size > _PIECE * _PIECES:
                    places += [self._chance.randrange(size - _PIECE) for _ in range(_PIECES - 1)]
                else:
                    places += range(_PIECE, size, _PIECE)
                return [os.pread(descriptor, _PIECE, place) for place in places]
            finally:
                os.close(descriptor)
        except (OSError, DamagedError):
            return []


def _of_all(count: int, sample: Sample[T]) -> int:
    """What a count within a sample means for all."""
    if not sample.items:
        return 0
    return round(count / len(sample.items) * sample.count)
