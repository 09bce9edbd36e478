"""A bounded place for bytes that must be kept while writers wait: memory first, then scratch.

Made for the inside of a hold, where the repository's buffers are out of bounds because they may
wait for compression. Not a queue: each piece is asked for by the place that `put` gave.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

MEMORY_BYTES = 32 << 20


class Spool:
    """Append-only; safe to use from several threads. `close` removes its scratch file."""

    def __init__(self, scratch: Path, memory_bytes: int = MEMORY_BYTES) -> None:
        self._path = scratch / "hnsw.spool"
        self._memory_bytes = memory_bytes
        self._memory: list[bytes] = []
        self._held = 0
        self._fd = -1
        self._end = 0
        self._lock = threading.Lock()

    def put(self, data: bytes | memoryview) -> int:
        """Keep a copy of `data`; the result is the place to `get` it from."""
        with self._lock:
            if self._held + len(data) <= self._memory_bytes:
                self._memory.append(bytes(data))
                self._held += len(data)
                return -len(self._memory)
            if self._fd < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
            place, self._end = self._end, self._end + len(data)
        view, at = memoryview(data), place
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written
        return place

    def get(self, place: int, size: int) -> bytes:
        """The bytes that were put there."""
        if place < 0:
            return self._memory[-place - 1]
        data = os.pread(self._fd, size, place)
        if len(data) != size:
            raise OSError(f"{self._path}: short read")
        return data

    def close(self) -> None:
        """Forget everything. Idempotent."""
        self._memory.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)
