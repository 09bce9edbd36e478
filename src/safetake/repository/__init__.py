"""restic's repository format v2, native: keys, sealing, packs, index, trees, locks, check."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safetake.repository.repository import Repository

__all__ = ["Repository"]


def __getattr__(name: str) -> object:
    """`Repository`, imported when it is asked for: `kdf` is needed long before."""
    if name == "Repository":
        from safetake.repository.repository import Repository

        return Repository
    raise AttributeError(name)
