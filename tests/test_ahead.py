"""Opening ahead: faster, and in everything else as if the configuration had been checked first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from safetake import ahead, configfile
from safetake.config import Config, FilesConfig
from safetake.errors import ConfigError, RepositoryMissingError, WrongPasswordError
from safetake.repository.crypto import MasterKey, Sealer
from safetake.sources import build
from tests.support.repositories import PASSWORD, memory_folder, new_repository

REFERENCE = Path(__file__).parent.parent / "docs" / "reference" / "config.md"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration with its repository, and a cache of its own."""
    with memory_folder() as folder:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "caches"))
        new_repository(folder / "repo")
        (folder / "password").write_text(PASSWORD + "\n")
        (folder / "scripts").mkdir()
        (folder / "scripts" / "one").write_text("x")
        (folder / "safetake.toml").write_text(
            '[repository]\nlocation = "repo"\npassword_file = "password"\n'
            '[sources.scripts]\ntype = "files"\npath = "scripts"\n'
        )
        yield folder


def kept(place: Path) -> list[Path]:
    folder = place / "caches" / "safetake" / "config"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def opened(place: Path) -> tuple[Any, Any]:
    config, opening = ahead.open_ahead(place / "safetake.toml")
    return config, opening()


def test_a_configuration_is_checked_once(place: Path) -> None:
    first, repository = opened(place)
    assert isinstance(first, BaseModel)
    assert [path.stat().st_mode & 0o777 for path in kept(place)] == [0o600]
    second, again = opened(place)
    assert isinstance(second, ahead.Kept)
    assert again.id == repository.id
    assert second.sources["scripts"].path == place / "scripts"
    assert second.barrier.attempts == 5
    assert build("scripts", second.sources["scripts"]).type == "files"


def test_the_second_backup_does_without_pydantic(place: Path) -> None:
    program = (
        "import sys; from safetake.cli.app import run; "
        "code = run(['--config', sys.argv[1], '--quiet', 'backup']); "
        "print(code, 'pydantic' in sys.modules)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", program, str(place / "safetake.toml")],
            capture_output=True, text=True, check=True,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert said == [["0", "True"], ["0", "False"]]


def test_a_changed_file_is_checked_again(place: Path) -> None:
    opened(place)
    file = place / "safetake.toml"
    file.write_text(file.read_text() + "one_file_system = true\n")
    config, _ = opened(place)
    assert isinstance(config, BaseModel)
    file.write_text(file.read_text() + "wrong = 1\n")
    with pytest.raises(ConfigError, match=r"sources\.scripts\.wrong: unknown key"):
        opened(place)


def test_other_code_or_another_home_checks_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(place)
    with monkeypatch.context() as patch:
        patch.setenv("HOME", "/elsewhere")
        assert isinstance(opened(place)[0], BaseModel)
    monkeypatch.setattr(ahead, "__version__", "99")
    assert isinstance(opened(place)[0], BaseModel)


def test_a_mistake_is_told_before_what_is_wrong_with_the_repository(place: Path) -> None:
    (place / "password").write_text("wrong")
    file = place / "safetake.toml"
    file.write_text(file.read_text() + "wrong = 1\n")
    with pytest.raises(ConfigError, match="unknown key"):
        opened(place)


def test_what_is_wrong_with_the_repository_is_told_as_ever(place: Path) -> None:
    opened(place)
    (place / "password").write_text("wrong")
    with pytest.raises(WrongPasswordError):
        opened(place)
    (place / "password").unlink()
    with pytest.raises(ConfigError, match="can not be read"):
        opened(place)
    (place / "password").write_text(PASSWORD)
    (place / "repo").rename(place / "moved")
    with pytest.raises(RepositoryMissingError):
        opened(place)


def test_a_repository_is_opened_with_any_of_its_keys(place: Path) -> None:
    _, repository = opened(place)
    repository.keys.add("another")
    for password in ("another", PASSWORD):
        (place / "password").write_text(password)
        assert opened(place)[1].id == repository.id


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def forge(path: Path) -> None:
    path.write_bytes(bytes(Sealer(MasterKey.generate()).seal(b'{"digest":"","config":{}}')))


@pytest.mark.parametrize("spoil", [flip, pipe, link, forge, lambda path: path.write_bytes(b"")])
def test_given_a_spoiled_cache_then_the_file_is_checked(
    place: Path, spoil: Callable[[Path], None]
) -> None:
    opened(place)
    spoil(kept(place)[0])
    config, repository = opened(place)
    assert isinstance(config, BaseModel)
    assert repository.id


def test_given_another_configuration_in_its_place_then_the_file_is_checked(place: Path) -> None:
    opened(place)
    (old,) = kept(place)
    file = place / "safetake.toml"
    file.write_text(file.read_text() + "one_file_system = true\n")
    opened(place)
    (new,) = (path for path in kept(place) if path != old)
    new.write_bytes(old.read_bytes())  # good, and about the other text
    config, _ = opened(place)
    assert isinstance(config, Config)
    assert config.sources == {
        "scripts": FilesConfig(type="files", path=place / "scripts", one_file_system=True)
    }


def test_few_are_kept(place: Path) -> None:
    file = place / "safetake.toml"
    text = file.read_text()
    for number in range(ahead._MAX_FILES + 5):
        file.write_text(f"{text}# {number}\n")
        opened(place)
    assert len(kept(place)) == ahead._MAX_FILES


def test_a_place_that_can_not_be_written_is_no_reason_to_fail(place: Path) -> None:
    (place / "caches").write_text("a file")
    for _ in range(2):
        assert isinstance(opened(place)[0], BaseModel)


def test_a_command_for_the_password_is_run_once(place: Path) -> None:
    file, log = place / "safetake.toml", place / "log"
    (place / "ask").write_text(f"#!/bin/sh\necho x >> {log}\ncat {place / 'password'}\n")
    (place / "ask").chmod(0o700)
    text = file.read_text().replace(
        'password_file = "password"', f'password_command = "{place / "ask"}"'
    )
    file.write_text(text)
    opened(place)
    assert log.read_text() == "x\n"


def same(kept: Any, checked: Any) -> bool:
    """Whether what is kept says the same as what was checked, key by key."""
    if isinstance(checked, BaseModel):
        names = type(checked).model_fields
        return set(vars(kept)) == set(names) and all(
            same(getattr(kept, name), getattr(checked, name)) for name in names
        )
    if isinstance(checked, dict):
        return list(kept) == list(checked) and all(same(kept[k], checked[k]) for k in checked)
    if isinstance(checked, list):
        return len(kept) == len(checked) and all(map(same, kept, checked))
    return type(kept) is type(checked) and bool(kept == checked)


def test_every_key_of_the_reference_is_kept(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)[:1]
    config = configfile.parse(text, tmp_path / "safetake.toml")
    assert same(ahead._decoded(ahead._encoded(config)), config)


def test_every_module_that_checks_a_configuration_counts_for_what_is_kept() -> None:
    code = "import sys, safetake.configfile, safetake.config\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    mine = {name.removeprefix("safetake.") for name in done.stdout.split() if "safetake." in name}
    assert mine - {"configplace", "errors"} == {
        name.removesuffix(".py") for name in ahead._CHECKERS
    }
