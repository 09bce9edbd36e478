"""`kill -9` at random moments of a backup: nothing stored is lost, nothing is in the way."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.restore.beside import restore_to
from safetake.snapshots import list_snapshots
from tests.support.repositories import (
    PASSWORD,
    files_source,
    memory_folder,
    new_repository,
    open_repository,
    picture,
    restic,
    snapshot,
    sqlite_source,
)

MOMENTS = ("time", "time", "time", "tmp", "data", "index", "snapshots")
"""Kill after a part of the usual duration, or when the first new file of a kind appears."""


class World:
    """Two stores that change, their repository, and what each snapshot has to restore to."""

    def __init__(self, base: Path, seed: int) -> None:
        self.base = base
        self.chance = random.Random(seed)
        self.repository = base / "repository"
        self.scripts = base / "scripts"
        self.scripts.mkdir()
        self.truth: dict[str, tuple[dict[bytes, Any], list[tuple[int, bytes]]]] = {}
        self.kills: dict[str, int] = {}
        self.round = 0
        new_repository(self.repository)
        (base / "safetake.toml").write_text(
            '[repository]\nlocation = "repository"\npassword_file = "password"\n'
            '[sources.scripts]\ntype = "files"\npath = "scripts"\n'
            '[sources.projects]\ntype = "sqlite"\npath = "p.db"\n'
        )
        (base / "password").write_text(PASSWORD)
        (base / "password").chmod(0o600)
        database = sqlite3.connect(base / "p.db")
        database.execute("PRAGMA journal_mode=wal")
        database.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, noise BLOB)")
        database.commit()
        database.close()
        self.change()
        self.seconds = self.backup()

    def change(self) -> None:
        """New data for every store, so that each backup has packs to write."""
        self.round += 1
        for part in range(3):
            name = f"{self.round % 4}-{part}.bin"
            (self.scripts / name).write_bytes(self.chance.randbytes(700_000))
        database = sqlite3.connect(self.base / "p.db")
        rows = [(self.chance.randbytes(2000),) for _ in range(300)]
        database.executemany("INSERT INTO rows (noise) VALUES (?)", rows)
        database.execute("DELETE FROM rows WHERE n < ?", (300 * self.round - 900,))
        database.commit()
        database.close()

    def state(self) -> tuple[dict[bytes, Any], list[tuple[int, bytes]]]:
        """What a snapshot taken now has to hold."""
        return picture(self.scripts), rows_of(self.base / "p.db")

    def names(self, kind: str) -> set[str]:
        """Files of one kind (or of `tmp`)."""
        return {path.name for path in (self.repository / kind).rglob("*") if path.is_file()}

    def backup(self) -> float:
        """One that ends; returns its seconds. It needs no unlock and leaves nothing behind."""
        begun = time.monotonic()
        report = snapshot(
            open_repository(self.repository),
            files_source("scripts", self.scripts),
            sqlite_source("projects", self.base / "p.db"),
        )
        assert report.exit_code == 0
        assert not self.names("tmp")
        assert not self.names("locks")
        self.learn()
        return time.monotonic() - begun

    def learn(self) -> set[str]:
        """Snapshots that appeared since hold the state of now."""
        new = self.names("snapshots") - set(self.truth)
        state = self.state() if new else None
        for name in new:
            assert state is not None
            self.truth[name] = state
        return new

    def kill_one(self) -> bool:
        """Start a backup and kill it; whether the kill hit a running backup."""
        moment = self.chance.choice(MOMENTS)
        before = {kind: self.names(kind) for kind in ("tmp", "data", "index", "snapshots", "locks")}
        wait = self.chance.random() * self.seconds
        process = subprocess.Popen(
            [sys.executable, "-m", "safetake", "backup", "--quiet"],
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        began = None
        while process.poll() is None:
            if began is None:
                if not self.names("locks") - before["locks"]:
                    time.sleep(0.001)
                    continue
                began = time.monotonic()
            if moment == "time":
                if time.monotonic() - began >= wait:
                    break
            elif self.names(moment) - before[moment]:
                break
            time.sleep(0.0005)
        process.kill()
        _, said = process.communicate()
        hit = process.returncode == -9 and began is not None
        assert hit or process.returncode in (0, -9), said.decode()
        if hit:
            self.kills[moment] = self.kills.get(moment, 0) + 1
        return hit

    def prove(self, chosen: set[str]) -> None:
        """The repository is whole for stock restic, and the chosen snapshots restore exactly."""
        said = restic(self.repository, "check", "--read-data", "--no-lock")
        assert "no errors were found" in said
        repository = open_repository(self.repository)
        listed = {found.id: found for found in list_snapshots(repository)}
        assert set(listed) == set(self.truth)
        for name in chosen:
            target = self.base / "out"
            restore_to(repository, listed[name], [], target, durable=False)
            files, rows = self.truth[name]
            assert picture(target / "scripts") == files
            assert rows_of(target / "projects" / "p.db") == rows
            shutil.rmtree(target)


def rows_of(path: Path) -> list[tuple[int, bytes]]:
    """Every row, after SQLite's own check."""
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = database.execute("SELECT n, noise FROM rows ORDER BY n").fetchall()
    database.close()
    return rows


@pytest.fixture
def world() -> Iterator[World]:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    with memory_folder() as base:
        yield World(base, seed)


def campaign(world: World, kills: int) -> None:
    """Kill that many running backups; prove the repository after each, and back up again."""
    for _ in range(kills * 5):
        world.change()
        hit = world.kill_one()
        new = world.learn()
        if hit:
            some = set(world.chance.sample(sorted(world.truth), min(1, len(world.truth))))
            world.prove(new | some)
        world.change()
        world.backup()
        if sum(world.kills.values()) >= kills:
            break
    assert sum(world.kills.values()) >= kills
    world.prove(set(world.truth))
    print(f"{world.kills} kills hit a running backup; {len(world.truth)} snapshots, all exact")


def test_a_killed_backup_harms_nothing(world: World) -> None:
    campaign(world, 8)


@pytest.mark.slow
def test_sixty_killed_backups_harm_nothing(world: World) -> None:
    campaign(world, 60)
