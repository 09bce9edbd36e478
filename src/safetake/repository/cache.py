"""What this machine remembers of a repository: the index as one table, and which trees are whole.

Reading the JSON of 34,000 blobs takes 0.2 s, taking the table back a hundredth of that. What is
kept follows from index files that it names, and a name is the SHA-256 of a content: it can be old,
but not wrong. It is never believed more than the repository. Every index file is still read and
must hash to its name (`Repository.index`); when one is gone, as after a prune, nothing kept is
used. The file is sealed with a key derived from the repository's, so that nothing else that was
ever sealed can stand in for it. Missing, damaged, foreign, too large or not writable: as if there
was none. `check` never looks here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from safetake.errors import DamagedError
from safetake.model import BlobId
from safetake.repository.crypto import OVERHEAD, MasterKey, Sealer
from safetake.repository.index import Index

NAME = "index"
MAX_BYTES = 64 << 20
"""Of the file (1.3 million blobs). A larger index is read from the repository each time."""
MAX_TREES = 1 << 14
"""The newest are kept: 512 KiB. One that is not costs a walk through its folders."""
FEW_FILES = 32
"""So many newer index files (0.3 ms each to read) do not make it worth while to write anew."""

_MAGIC = f"safetake index cache 1 {sys.byteorder:<8}\n".encode()
_LENGTHS = struct.Struct("<6Q")


def cache_folder() -> Path | None:
    """`$XDG_CACHE_HOME/safetake`, by default in `~/.cache`; None when there is no home folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # noqa: PTH117 - an empty or relative one is to be ignored (XDG)
        base = os.path.expanduser("~/.cache")  # noqa: PTH111 - Path.expanduser raises
    return Path(base) / "safetake" if os.path.isabs(base) else None  # noqa: PTH117


class SealedFile:
    """A file in the cache folder of a repository. Nothing here raises for what is wrong with it."""

    def __init__(self, folder: Path, name: str, key: MasterKey) -> None:
        """`folder` is that of the repository; each name has a key of its own."""
        self._folder = folder
        self._name = name
        self.key = key.subkey(f"{name} cache".encode())

    def read(self) -> bytearray | None:
        """What was written, if it is there and whole."""
        try:
            return Sealer(self.key).unseal(self._read(), self._name)
        except (OSError, DamagedError, ValueError):
            return None

    def write(self, content: bytes) -> bool:
        """Keep it instead of what is there; returns whether it was written."""
        if len(content) + OVERHEAD <= MAX_BYTES:
            with contextlib.suppress(OSError):
                self._write(Sealer(self.key).seal(content))
                return True
        return False

    def _read(self) -> bytes:
        # whatever lies there: a link or a pipe must not lead astray or make us wait
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(self._folder / self._name, flags), "rb", buffering=0) as file:  # noqa: PTH123
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_BYTES:
                raise ValueError("not a cache file")
            return file.read(state.st_size)

    def _write(self, sealed: bytearray) -> None:
        """Beside, then renamed. Not synced: half a file does not unseal, and is none."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._folder / f"{self._name}.new"
        fresh.unlink(missing_ok=True)  # of a killed process; one at most is ever left
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(fresh, flags, 0o600), "wb", buffering=0) as file:  # noqa: PTH123
            left = memoryview(sealed)
            while left:
                left = left[file.write(left) :]
        fresh.rename(self._folder / self._name)


class IndexCache:
    """The kept index of one repository. Nothing here raises for what is wrong with the cache."""

    def __init__(self, folder: Path, repository: str, key: MasterKey) -> None:
        """`folder` is that of all caches; the repository's id becomes one in it."""
        self._folder = folder / repository
        self._repository = repository.encode()
        self._repository_key = key
        self._file = self.beside(NAME)
        self._kept: tuple[int, int, frozenset[BlobId]] | None = None
        """(index files, blobs, trees) that are in the file."""

    def beside(self, name: str) -> SealedFile:
        """Another file of the same repository; `name` has at most 9 letters."""
        return SealedFile(self._folder, name, self._repository_key)

    def load(self, names: Collection[str]) -> Index | None:
        """What is kept, if every index file that it was made of is among `names`."""
        self._kept = None
        content = self._file.read()
        if content is None:
            return None
        try:
            index = self._decode(content)
        except (DamagedError, ValueError, struct.error):
            return None
        if not index.files.issubset(names):
            return None
        self._kept = (len(index.files), len(index), frozenset(index.whole))
        return index

    def save(self, index: Index, trees: Iterable[BlobId]) -> bool:
        """Keep an index, all of whose files are durable; returns whether it was written.

        It is not when what is kept will do: it has all of `trees`, and only a few files and blobs
        are newer.
        """
        if self._kept is not None:
            files, blobs, whole = self._kept
            if (
                whole.issuperset(tree for tree in trees if tree in index.whole)
                and len(index.files) - files <= FEW_FILES
                and len(index) - blobs <= FEW_FILES * 128
            ):
                return False
        return self._file.write(self._encode(index))

    def _encode(self, index: Index) -> bytes:
        files = bytes.fromhex("".join(sorted(index.files)))
        whole = b"".join(list(index.whole)[-MAX_TREES:])
        parts = (self._repository, files, whole, *index.dump())
        return b"".join((_MAGIC, _LENGTHS.pack(*map(len, parts)), *parts))

    def _decode(self, content: bytearray) -> Index:
        view = memoryview(content)
        if view[: len(_MAGIC)] != _MAGIC:
            raise ValueError("of another version")
        lengths = _LENGTHS.unpack_from(view, len(_MAGIC))
        at = len(_MAGIC) + _LENGTHS.size
        if at + sum(lengths) != len(view):
            raise ValueError("cut short")
        parts = []
        for length in lengths:
            parts.append(bytes(view[at : at + length]))
            at += length
        repository, files, whole, *table = parts
        if repository != self._repository:
            raise ValueError("of another repository")
        index = Index.restore(*table)
        index.files = {files[at : at + 32].hex() for at in range(0, len(files), 32)}
        index.whole = dict.fromkeys(whole[at : at + 32] for at in range(0, len(whole), 32))
        return index
