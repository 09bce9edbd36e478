"""The private server: where its socket's path would not fit into an address, and when we die."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from safetake.sources.redis.scratch import ScratchServer, _while_parent, find_binaries


@pytest.mark.parametrize("length", [1, 150])
def test_a_scratch_folder_may_have_a_long_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    place, data = tmp_path / ("x" * length), tmp_path / "data"
    place.mkdir()
    data.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    for binary in find_binaries():
        with ScratchServer(binary, data, appendonly=False, databases=16) as server:
            server.call("CONFIG", "SET", "replica-read-only", "no")
            assert server.keyspace() == {}
            assert str(place) in str(next(place.iterdir()))
        assert not list(place.iterdir())


def test_a_server_does_not_start_for_a_parent_that_died() -> None:
    """Killed between the fork and the moment from which the kernel would tell."""
    for parent, code in ((os.getpid(), 0), (1, 1)):
        words = [*_while_parent(parent), "/bin/echo", "a b", "$HOME"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (code, "" if code else "a b $HOME\n")
