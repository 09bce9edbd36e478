"""A service whose setting names another file than the one that is backed up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from safetake import configfile
from safetake.config import Config
from safetake.services.elsewhere import elsewhere


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return written(tmp_path, f'env_file = "{tmp_path / "app.env"}"')


def written(folder: Path, how: str, value: str = "sqlite:///{path}?mode=rw") -> Config:
    (folder / "old.db").touch()
    (folder / "new.db").touch()
    (folder / "safetake.toml").write_text(
        f"""
[repository]
location = "{folder / "repository"}"
[sources.projects]
type = "sqlite"
path = "{folder / "old.db"}"
[sources.cache]
type = "redis"
url = "redis://127.0.0.1:1"
[services.app]
stop = ["true"]
start = ["true"]
[services.app.switch.projects]
setting = "DATABASE_URL"
value = "{value}"
{how}
"""
    )
    return configfile.load(folder / "safetake.toml")


def setting(folder: Path, value: str) -> None:
    (folder / "app.env").write_text(f'DATABASE_URL="{value}"\n')


def test_another_file_is_named_with_what_to_do(config: Config, tmp_path: Path) -> None:
    setting(tmp_path, f"sqlite:///{tmp_path}/new.db?mode=rw")
    (found,) = elsewhere(config, ["projects", "cache"])
    assert str(found) == (f"app uses {tmp_path}/new.db, and source 'projects' is {tmp_path}/old.db")
    assert found.hint == f'set `path = "{tmp_path}/new.db"` in [sources.projects]'
    assert elsewhere(config, ["projects"], ask=False) == [found]
    assert elsewhere(config, ["cache"]) == []


@pytest.mark.parametrize(
    "value",
    [
        "sqlite:///{folder}/old.db?mode=rw",
        "sqlite:///{folder}/link.db?mode=rw",  # the same file by another name
        "sqlite:///new.db?mode=rw",  # of a folder that nobody knows
        "sqlite:///{folder}/gone.db?mode=rw",  # of a container, perhaps
        "postgresql://app:secret@db/app",
        "sqlite:///",
    ],
)
def test_what_is_the_same_or_is_not_known_is_no_alarm(
    config: Config, tmp_path: Path, value: str
) -> None:
    (tmp_path / "link.db").symlink_to("old.db")
    setting(tmp_path, value.format(folder=tmp_path))
    assert elsewhere(config, ["projects"]) == []


def test_a_setting_that_can_not_be_read_is_no_alarm(config: Config) -> None:
    assert elsewhere(config, ["projects"]) == []


def test_a_command_is_only_run_when_asking_is_allowed(tmp_path: Path) -> None:
    program = f"open({str(tmp_path / 'asked')!r}, 'w'); print('sqlite:///{tmp_path}/new.db')"
    words = [sys.executable, "-c", program]
    config = written(tmp_path, f'command = ["true"]\nread_command = {words!r}', "sqlite:///{path}")
    assert elsewhere(config, ["projects"], ask=False) == []
    assert not (tmp_path / "asked").exists()
    (found,) = elsewhere(config, ["projects"])
    assert found.used == tmp_path / "new.db"
