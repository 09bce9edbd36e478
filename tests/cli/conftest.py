"""A small real set-up for the command line: a database, a folder, a repository, one snapshot."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from safetake.repository import Repository, keys
from safetake.storage import LocalStorage


@dataclass
class Workplace:
    """A folder with data and a configuration; `run` starts the command in it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    program: list[str] = field(default_factory=lambda: ["-m", "safetake"])

    def command(self, *words: str) -> list[str]:
        return [sys.executable, *self.program, *words]

    def run(self, *words: str, code: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **more,
        )
        if done.returncode != code:  # pytest cuts what it shows of an assertion
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def json(self, *words: str, code: int = 0, **more: Any) -> Any:
        """The one document of a command with --json; nothing else is on stdout."""
        return json.loads(self.run("--json", *words, code=code, **more).stdout)

    def error(self, *words: str, code: int) -> tuple[str, str]:
        """(message, hint) of a failure, the same for people and as JSON."""
        found = self.json(*words, code=code)
        assert list(found) == ["error"]
        error = found["error"]
        assert error["exit_code"] == code
        text = self.run(*words, code=code)
        assert text.stdout == ""
        hint = f"hint: {error['hint']}\n" if error["hint"] else ""
        assert text.stderr == f"error: {error['message']}\n{hint}"
        return error["message"], error["hint"]


def environment(home: Path) -> dict[str, str]:
    """Ours without what would change a command's behaviour."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SAFETAKE", "RESTIC"))
        and name not in ("NO_COLOR", "PYTHONDONTWRITEBYTECODE")
    }
    return {**kept, "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def make_data(folder: Path) -> None:
    """`projects.db` with 100 projects in WAL mode, and `scripts/` with an odd name."""
    with sqlite3.connect(folder / "projects.db") as db:
        db.execute("PRAGMA journal_mode=wal")
        db.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        rows = [(f"프로젝트 {i}",) for i in range(100)]
        db.executemany("INSERT INTO projects (name) VALUES (?)", rows)
    db.close()
    (folder / "scripts").mkdir()
    (folder / "scripts" / "one.txt").write_text("장면 1\n" * 100, encoding="utf-8")
    (folder / "scripts" / "odd\nname").write_text("x")


def in_a_terminal(place: Workplace, *words: str, typed: str = "", **variables: str) -> str:
    """What a person sees, who has typed something: the command on a pseudo-terminal."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        place.command(*words),
        cwd=place.folder,
        env={**place.environment, "TERM": "xterm", "COLUMNS": "80", **variables},
        stdin=other,
        stdout=other,
        stderr=other,
    )
    os.close(other)
    os.write(main, typed.encode())
    seen = b""
    while process.poll() is None or select.select([main], [], [], 0.2)[0]:
        if select.select([main], [], [], 0.2)[0]:
            try:
                seen += os.read(main, 65536)
            except OSError:
                break  # Linux: EIO when the other side is closed
    os.close(main)
    process.wait()
    return seen.decode()


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workplace with one snapshot, made once and copied for each test."""
    folder = tmp_path_factory.mktemp("template") / "workplace"
    folder.mkdir()
    make_data(folder)
    (folder / "safetake.toml").write_text(
        '[repository]\nlocation = "repo"\npassword_file = "safetake.password"\n'
        "lock_wait = 0\n"
        '[sources.projects]\ntype = "sqlite"\npath = "projects.db"\n'
        '[sources.scripts]\ntype = "files"\npath = "scripts"\n'
        '[jobs.nightly]\nkind = "backup"\nsources = ["projects"]\n'
    )
    (folder / "safetake.password").write_text("password\n")
    (folder / "safetake.password").chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        # a key that costs nothing to derive: half of each command would be scrypt
        patch.setattr(keys, "SCRYPT_N", 2)
        patch.setattr(keys, "SCRYPT_P", 1)
        Repository.init(LocalStorage(folder / "repo"), "password")
    Workplace(folder, environment(folder.parent)).run("backup")
    return folder


@pytest.fixture
def workplace(_template: Path, tmp_path: Path) -> Workplace:
    """A set-up with one snapshot of two sources."""
    folder = tmp_path / "workplace"
    shutil.copytree(_template, folder, symlinks=True)
    return Workplace(folder, environment(tmp_path))


@pytest.fixture
def empty(tmp_path: Path) -> Workplace:
    """Data, and nothing of ours yet."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    make_data(folder)
    return Workplace(folder, environment(tmp_path))
