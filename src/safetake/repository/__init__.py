"""restic's repository format v2, native: keys, sealing, packs, index, trees, locks, check."""

from safetake.repository.repository import Repository

__all__ = ["Repository"]
