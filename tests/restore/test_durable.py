"""A restore is durable when it ends well, and a disk that fails meanwhile is told."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from safetake.errors import RestoreError
from safetake.restore import durable


def test_what_was_written_is_synced_on_the_side_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, synced, told = durable._syncfs, [], threading.Event()

    def syncfs(fd: int) -> None:
        real(fd)
        synced.append(threading.current_thread().name)
        told.set()

    monkeypatch.setattr(durable, "_syncfs", syncfs)
    monkeypatch.setattr(durable, "SYNC_EVERY_BYTES", 100)
    with durable.kept_durable(tmp_path) as wrote:
        wrote(60)
        assert not synced
        wrote(60)
        assert told.wait(30)
    assert synced == ["sync", threading.current_thread().name]


def test_given_a_disk_that_fails_on_the_side_tells_it_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()

    def syncfs(fd: int) -> None:
        told.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable, "_syncfs", syncfs)
    monkeypatch.setattr(durable, "SYNC_EVERY_BYTES", 1)

    def restore() -> None:
        with durable.kept_durable(tmp_path) as wrote:
            wrote(1)
            assert told.wait(30)

    with pytest.raises(RestoreError, match="Input/output"):
        restore()


def test_given_a_failure_inside_raises_that_one(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), durable.kept_durable(tmp_path):
        raise KeyError
    assert threading.active_count() == before


def test_given_no_such_folder_is_a_restore_error(tmp_path: Path) -> None:
    with pytest.raises(RestoreError), durable.kept_durable(tmp_path / "none"):
        pass
