"""Sound stores under load give no alarm, ever: an alarm that cries wolf is switched off.

Each round asks while real writers commit without a pause; with a rollback journal, which makes
readers and writers wait for each other, the writers must get on as well.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from safetake.config import ChromaConfig, FilesConfig, RedisConfig, SqliteConfig
from safetake.model import Parent
from tests.integration import sqlite_writer
from tests.integration.sqlite_live import running_writer
from tests.integrity.support import ask, by_check, wrong
from tests.sources.files.support import take
from tests.sources.sqlite.support import capture
from tests.support.chroma_live import Load, server, writers
from tests.support.chroma_live import take as take_chroma
from tests.support.memory_writer import MemoryRepository, entry_of
from tests.support.redis_server import BINARIES, VERSIONS, running

ROUNDS = int(os.environ.get("SAFETAKE_ROUNDS", "4"))
"""Of each; a campaign of 60 found nothing."""
CHECK = {"name": "money", "sql": "SELECT 1 WHERE (SELECT sum(balance) FROM account) <> 200000"}
VERSION = "redis-7.0" if BINARIES["redis-7.0"] else VERSIONS[0]


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate", "persist"])
def test_a_database_under_a_saturating_writer(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "projects.db"
    sqlite_writer.create(str(path), mode, 4096, 2)
    config = SqliteConfig.model_validate({"type": "sqlite", "path": path, "checks": [CHECK]})
    with MemoryRepository() as repository:
        entry = entry_of(capture(path, repository))
    with running_writer(path, mode, 3) as writer:
        for number in range(ROUNDS):
            before = writer.acknowledged
            asked = ask(config, tmp_path / f"scratch{number}", entry=entry)
            assert wrong(asked) == {}
            assert by_check(asked)["integrity_check"].asked
            writer.wait_for_more(1)
            assert writer.acknowledged > before


def test_a_database_that_is_opened_and_closed_all_the_while(tmp_path: Path) -> None:
    """The log comes and goes with each application that is alone."""
    path = tmp_path / "projects.db"
    sqlite_writer.create(str(path), "wal", 4096, 0)
    config = SqliteConfig.model_validate({"type": "sqlite", "path": path, "checks": [CHECK]})
    for seed in range(ROUNDS):
        with running_writer(path, "wal", seed) as writer:
            assert wrong(ask(config, tmp_path / f"a{seed}")) == {}
            if seed % 3 == 0:
                writer.kill()
        asked = ask(config, tmp_path / f"b{seed}")
        assert wrong(asked) == {}, "closed, or killed: its log is read"


@pytest.mark.slow
def test_a_chroma_server_under_load(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "chroma"
    folder.mkdir(parents=True)
    loads = [
        Load("aaa", threshold=60, preload=300),
        Load("bbb", threshold=1000, space="cosine"),
        Load("ccc", threshold=40, space="ip", dim=8),
    ]
    with server(folder) as where, writers(where, loads, 3600, tmp_path):
        entry = entry_of(take_chroma(folder, tmp_path / "first").captured)
        config = ChromaConfig.model_validate(
            {"type": "chroma", "path": folder, "server": f"http://{where}"}
        )
        for number in range(ROUNDS):
            asked = ask(config, tmp_path / f"scratch{number}", entry=entry)
            assert wrong(asked) == {}
            assert by_check(asked)["collection aaa: a vector finds itself"].asked


def test_an_embedded_chroma_that_writes(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "chroma"
    folder.mkdir(parents=True)
    loads = [Load("aaa", threshold=50)]
    with writers(str(folder), loads, 3600, tmp_path):
        config = ChromaConfig.model_validate({"type": "chroma", "path": folder})
        for number in range(2):
            assert wrong(ask(config, tmp_path / f"scratch{number}")) == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_redis_under_load(version: str, tmp_path: Path) -> None:
    options = ("--save", "1 1", "--appendonly", "yes")
    with running(version, tmp_path / "redis", *options) as found:
        config = RedisConfig.model_validate(
            {"type": "redis", "url": found.url, "data": found.folder}
        )
        stop = threading.Event()

        def write() -> None:
            with found.client() as client:
                number = 0
                while not stop.is_set():
                    pipe = client.pipeline(transaction=False)
                    for _ in range(100):
                        number += 1
                        pipe.set(f"key:{number % 5000}", os.urandom(50), ex=number % 7 + 1)
                    pipe.execute()
                    if number % 2000 == 0:
                        with suppress(redis.ResponseError):  # one is on its way
                            client.bgrewriteaof()

        thread = threading.Thread(target=write)
        thread.start()
        try:
            with found.client() as client:
                client.set("stays", 1)
            for number in range(ROUNDS):
                asked = ask(config, tmp_path / f"scratch{number}")
                assert wrong(asked) == {}
                time.sleep(0.1)
        finally:
            stop.set()
            thread.join()


@contextmanager
def _somebody_writes(root: Path) -> Iterator[None]:
    stop = threading.Event()
    chooser = random.Random(5)

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            path = root / f"{chooser.randrange(60)}.md"
            kind = chooser.randrange(5)
            if kind == 0:
                path.unlink(missing_ok=True)
            elif kind == 1:
                (root / "new").write_bytes(os.urandom(3000))
                (root / "new").rename(path)
            elif kind == 2 and path.exists():
                with path.open("r+b") as file:  # in place, of the same size
                    file.write(os.urandom(100))
            elif kind == 3:
                with path.open("ab") as file:
                    file.write(b"more")
            else:
                folder = root / f"folder{chooser.randrange(4)}"
                folder.mkdir(exist_ok=True)
                (folder / "x").write_bytes(b"x" * number)
                if chooser.random() < 0.5:
                    (folder / "x").unlink()
                    folder.rmdir()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_files_that_come_and_go(tmp_path: Path) -> None:
    root = tmp_path / "scripts"
    root.mkdir()
    for number in range(60):
        (root / f"{number}.md").write_bytes(os.urandom(3000))
    for number in range(10):  # nobody writes to these, however fast the others change
        (root / f"old-{number}.md").write_bytes(os.urandom(3000))
    config = FilesConfig.model_validate({"type": "files", "path": root})
    compared = 0
    with _somebody_writes(root):
        for number in range(ROUNDS):
            with MemoryRepository() as repository:
                taken = take(root, repository)
                parent = Parent(entry_of(taken.captured), taken.captured.node, repository)
                for again in range(4):
                    asked = ask(config, tmp_path / f"scratch{number}-{again}", parent=parent)
                    assert wrong(asked) == {}
                    compared += asked.facts["compared_files"]
    assert compared >= ROUNDS * 4 * 10
