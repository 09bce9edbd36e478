"""What a repository asks of the place where it lives.

A storage keeps whole, immutable files by kind and name. It promises that a name is visible only
with all of its bytes, and that a file whose `commit` or `put` has returned survives power loss. It
does not know what is inside, and never overwrites: names are content hashes (but for `config`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

Kind = Literal[
    "config",
    "keys",
    "data",
    "index",
    "snapshots",
    "locks",
    "proofs",
    "digests",
    "history",
    "evidence",
    "leader",
]

KINDS: tuple[Kind, ...] = (
    "keys",
    "data",
    "index",
    "snapshots",
    "locks",
    "proofs",
    "digests",
    "history",
    "evidence",
    "leader",
)
"""The kinds that hold many files; `config` is a single one whose name is "config"."""


class Upload(Protocol):
    """A file that is being written under no name yet. Use by one thread at a time."""

    def write(self, parts: list[bytes | bytearray | memoryview]) -> None:
        """Append all parts. Raises StorageError."""

    def commit(self, kind: Kind, name: str) -> None:
        """Make it durable under its name.

        fsync, rename, fsync of the folder. Raises StorageError.
        """

    def abort(self) -> None:
        """Forget it. Idempotent, never raises."""


class Storage(Protocol):
    """A place for a repository. Safe to use from several threads."""

    location: str
    """For people; holds no secret."""

    def create(self) -> None:
        """Make the empty layout. Raises StorageError when it holds files already."""

    def exists(self) -> bool:
        """Whether there is a repository's `config`."""

    def list(self, kind: Kind) -> Iterator[tuple[str, int]]:
        """(name, bytes) of every file of the kind, in no order; foreign names are left out."""

    def get(self, kind: Kind, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError, StorageError; DamagedError when it is there and
        cannot be read."""

    def get_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        """`length` bytes; fewer only when the file ends. Raises as `get`."""

    def size(self, kind: Kind, name: str) -> int:
        """Bytes of a file. Raises FileNotFoundError or StorageError."""

    def put(self, kind: Kind, name: str, data: bytes) -> None:
        """Store a small file durably; storing the same name again is no error."""

    def upload(self) -> Upload:
        """Begin a large file."""

    def remove(self, kind: Kind, name: str) -> None:
        """Remove durably; a missing file is no error."""

    def remove_all(self, kind: Kind, names: Iterable[str]) -> None:
        """Remove many, durably once this returns; missing files are no error."""

    def assure_removal(self, kind: Kind, names: Iterable[str]) -> None:
        """Find out whether files can be removed, without changing anything.

        Raises StorageError when the storage refuses it for any of them (append-only, read-only).
        """

    def sweep(self) -> int:
        """Remove what interrupted uploads left behind; returns how many files."""
