"""Making what a restore writes durable, most of it while the rest is still being written.

One sync at the end would leave the disk idle for as long as blobs are decoded, and the processors
idle after that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from safetake.restore.write import failure

SYNC_EVERY_BYTES = 256 << 20


@contextlib.contextmanager
def kept_durable(path: Path) -> Iterator[Callable[[int], None]]:
    """Sync the file system of `path` on the side, each time SYNC_EVERY_BYTES more were written.

    Yields what has to be told how many bytes were written, from any thread. When the block has
    ended well, everything is durable. Raises RestoreError.
    """
    wake = threading.Event()
    failed: list[OSError] = []
    ended = False
    waiting = 0

    def wrote(count: int) -> None:
        nonlocal waiting
        waiting += count  # what two threads lose here is made up for by the next
        if waiting >= SYNC_EVERY_BYTES:
            waiting = 0
            wake.set()

    def sync() -> None:
        try:
            _syncfs(fd)
        except OSError as error:
            failed.append(error)

    def run() -> None:
        while not ended and not failed:
            wake.wait()
            wake.clear()
            if not ended:
                sync()

    try:
        # One for all: the system tells each descriptor once what failed since it was opened.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise failure(str(path), error) from error
    try:
        thread = threading.Thread(target=run, name="sync", daemon=True)
        thread.start()
        try:
            yield wrote
        finally:
            ended = True
            wake.set()
            thread.join()
        if not failed:
            sync()
        if failed:
            raise failure(str(path), failed[0]) from failed[0]
    finally:
        os.close(fd)


def _syncfs(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
