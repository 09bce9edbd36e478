"""A repository that is only read, with a folder for what would be changed.

For drills: they run the real commands on the real snapshots, and the repository of production
stays as it is, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from safetake.errors import StorageError
from safetake.storage.base import Kind, Storage, Upload
from safetake.storage.local import LocalStorage

_GONE = "gone"


class OverlayStorage:
    """`base` as it is; what is written, and which names were removed, lies in the folder `top`."""

    def __init__(self, base: Storage, top: Path) -> None:
        self.location = f"{base.location} (only read; changes in {top})"
        self._base = base
        self._top = LocalStorage(top)
        self._gone = top / _GONE

    def _hidden(self, kind: Kind, name: str) -> bool:
        return (self._gone / f"{kind}-{name}").exists()

    def create(self) -> None:
        """Make the empty layout of both. Raises StorageError when either holds files already."""
        self._base.create()
        self._top.create()

    def exists(self) -> bool:
        """Whether there is a config."""
        return self._top.exists() or self._base.exists()

    def list(self, kind: Kind) -> Iterator[tuple[str, int]]:
        """Both, without what was removed."""
        written: set[str] = set()
        if (self._top.root / kind).is_dir():
            for name, size in self._top.list(kind):
                written.add(name)
                yield name, size
        for name, size in self._base.list(kind):
            if name not in written and not self._hidden(kind, name):
                yield name, size

    def _place(self, kind: Kind, name: str) -> Storage:
        if self._top.path(kind, name).exists():
            return self._top
        if self._hidden(kind, name):
            raise FileNotFoundError(f"{kind}/{name}")
        return self._base

    def get(self, kind: Kind, name: str) -> bytes:
        """A whole file."""
        return self._place(kind, name).get(kind, name)

    def get_range(self, kind: Kind, name: str, offset: int, length: int) -> bytes:
        """A part of a file."""
        return self._place(kind, name).get_range(kind, name, offset, length)

    def size(self, kind: Kind, name: str) -> int:
        """Bytes of a file."""
        return self._place(kind, name).size(kind, name)

    def put(self, kind: Kind, name: str, data: bytes) -> None:
        """A small file, durably, in the folder."""
        self._top.put(kind, name, data)

    def upload(self) -> Upload:
        """Begin a large file, in the folder."""
        return self._top.upload()

    def remove(self, kind: Kind, name: str) -> None:
        """Remove it from the folder, and hide it in the repository."""
        if self._top.path(kind, name).exists():
            self._top.remove(kind, name)
        if any(name == found for found, _ in self._base.list(kind)):
            try:
                self._gone.mkdir(mode=0o700, parents=True, exist_ok=True)
                (self._gone / f"{kind}-{name}").touch(mode=0o600)
            except OSError as error:
                raise StorageError(f"cannot write {self._gone}: {error.strerror}") from error

    def remove_all(self, kind: Kind, names: Iterable[str]) -> None:
        """Remove many."""
        for name in names:
            self.remove(kind, name)

    def assure_removal(self, kind: Kind, names: Iterable[str]) -> None:
        """Nothing is removed from the repository: hiding a name always works."""

    def sweep(self) -> int:
        """Remove what interrupted uploads left in the folder."""
        return self._top.sweep()
