"""Keys and opening: passwords, bounds of foreign key files, what init leaves."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.errors import (
    DamagedError,
    RepositoryMissingError,
    SafetakeError,
    WrongPasswordError,
)
from safetake.repository import Repository, keys
from safetake.repository.crypto import MasterKey, Sealer
from safetake.storage import LocalStorage
from tests.support.repositories import PASSWORD, memory_folder, new_repository, open_repository


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as base:
        new_repository(base / "repository")
        yield base / "repository"


def plant(folder: Path, content: bytes) -> str:
    """A key file under its right name."""
    name = hashlib.sha256(content).hexdigest()
    (folder / "keys" / name).write_bytes(content)
    return name


def key_file(folder: Path, **change: Any) -> bytes:
    """The repository's own key file with something else in it."""
    (own,) = (folder / "keys").iterdir()
    return json.dumps({**json.loads(own.read_bytes()), **change}).encode()


def test_the_defaults_cost_what_the_documents_say() -> None:
    assert 128 * keys.SCRYPT_N * keys.SCRYPT_R == 32 << 20


def test_any_of_the_passwords_opens_and_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 1 << 10)
    repository = open_repository(folder)
    for password in ("second", "비밀번호", "with space ", "\udcff bytes", "x" * 1000):
        repository.keys.add(password)
        assert open_repository(folder, password).key == repository.key
    assert len(repository.keys.list()) == 6
    for password in ("", "Second", "second ", PASSWORD + "\n"):
        with pytest.raises(WrongPasswordError, match="6 tried"):
            open_repository(folder, password)
    with pytest.raises(SafetakeError, match="empty password"):
        repository.keys.add("")


def test_the_secret_is_in_no_file(folder: Path) -> None:
    key = open_repository(folder).key
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (key.encrypt, key.mac_k, key.mac_r, PASSWORD.encode()):
                assert secret not in content
                assert base64.b64encode(secret) not in content


@pytest.mark.parametrize(
    "change",
    [
        {"N": 1 << 40}, {"N": 1 << 24}, {"N": 3}, {"N": 1}, {"N": 0}, {"N": -8}, {"N": "1024"},
        {"N": 1024.0}, {"N": None}, {"r": 1 << 30}, {"r": 0}, {"p": 0}, {"p": 65}, {"p": 1 << 40},
        {"N": 2, "r": 1 << 22, "p": 64}, {"salt": "!"}, {"salt": 5}, {"data": "!"},
        {"kdf": "argon2"}, {"kdf": 5},
    ],
    ids=str,
)  # fmt: skip
def test_a_key_file_that_asks_for_too_much_is_damage(folder: Path, change: dict[str, Any]) -> None:
    content = key_file(folder, **change)
    shutil.rmtree(folder / "keys")
    (folder / "keys").mkdir()
    name = plant(folder, content)
    with pytest.raises(DamagedError, match=f"keys/{name}"):
        open_repository(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"{}", b"\xff", b"[" * 100_000, b'"x"'], ids=repr
)
def test_what_is_no_key_file_is_named_and_others_still_open(folder: Path, content: bytes) -> None:
    name = plant(folder, content)
    repository = open_repository(folder)
    with pytest.raises(DamagedError, match=f"keys/{name}"):
        repository.keys.list()
    with pytest.raises(DamagedError, match=f"keys/{name}"):
        open_repository(folder, "wrong")  # perhaps the damaged one would have opened


def test_a_key_of_another_master_key_does_not_open_the_config(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "SCRYPT_N", 1 << 10)
    plant(folder, keys.seal_key(MasterKey.generate(), "planted"))
    with pytest.raises(DamagedError, match="config is damaged"):
        open_repository(folder, "planted")


def test_without_any_key_nothing_opens(folder: Path) -> None:
    for path in (folder / "keys").iterdir():
        path.unlink()
    with pytest.raises(DamagedError, match="has no key file") as caught:
        open_repository(folder)
    assert "bring a file of keys/ back" in caught.value.hint


def test_init_refuses_a_repository_and_a_folder_in_use(folder: Path) -> None:
    with pytest.raises(SafetakeError, match="already") as caught:
        Repository.init(LocalStorage(folder), "x")
    assert caught.value.hint
    used = folder.parent / "used"
    used.mkdir()
    (used / "file").write_text("mine")
    with pytest.raises(SafetakeError, match="not empty"):
        Repository.init(LocalStorage(used), "x")
    assert [path.name for path in used.iterdir()] == ["file"]
    with pytest.raises(RepositoryMissingError) as missing:
        open_repository(used)
    assert missing.value.exit_code == 10


@pytest.mark.parametrize(
    "config", ["5", "[]", "{}", '{"version":2}', '{"version":"2","id":"x"}', "[" * 100_000,
               '{"version":2,"id":5}'],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_what_is_no_config_is_damage(folder: Path, config: str) -> None:
    repository = open_repository(folder)
    (folder / "config").write_bytes(bytes(Sealer(repository.key).seal(config.encode())))
    with pytest.raises(DamagedError, match="config is damaged"):
        open_repository(folder)


def test_a_version_of_the_future_is_said(folder: Path) -> None:
    repository = open_repository(folder)
    sealed = Sealer(repository.key).seal(b'{"version":3,"id":"x"}')
    (folder / "config").write_bytes(bytes(sealed))
    with pytest.raises(SafetakeError, match="version 3") as caught:
        open_repository(folder)
    assert caught.value.hint == "use a newer safetake"
