"""The host's name in snapshots can be fixed, since a pod has another one at each start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from safetake import configfile
from safetake.cli.app import run
from safetake.connect import open_repository
from safetake.hostname import host_name
from safetake.repository import keys
from safetake.snapshots import list_snapshots


@pytest.mark.parametrize("value", ["", "  ", None])
def test_without_the_variable_it_is_the_hosts(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAFETAKE_HOST", raising=False)
    if value is not None:
        monkeypatch.setenv("SAFETAKE_HOST", value)
    assert host_name() == socket.gethostname()


def test_snapshots_bear_the_name_and_are_parents_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 2)
    monkeypatch.setattr(keys, "SCRYPT_P", 1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one").write_text("x")
    config = str(tmp_path / "safetake.toml")
    options = ["--repository", str(tmp_path / "repo"), "--files", f"scripts={tmp_path / 'data'}"]
    assert run(["init", "--quiet", "--config", config, *options]) == 0
    for host in ("pods", "pods", "other"):
        monkeypatch.setenv("SAFETAKE_HOST", host)
        assert run(["backup", "--quiet", "--config", config]) == 0
    with open_repository(configfile.load(Path(config))) as repository:
        documents = [each.document for each in list_snapshots(repository, proofs=False)]
        ids = [each.id for each in list_snapshots(repository, proofs=False)]
    assert [each["hostname"] for each in documents] == ["pods", "pods", "other"]
    assert [each.get("parent") for each in documents] == [None, ids[0], None]
