"""The bytes under a repository: one small contract, one module per place."""

from safetake.storage.base import KINDS, Kind, Storage, Upload
from safetake.storage.local import LocalStorage
from safetake.storage.overlay import OverlayStorage

__all__ = ["KINDS", "Kind", "LocalStorage", "OverlayStorage", "Storage", "Upload"]
