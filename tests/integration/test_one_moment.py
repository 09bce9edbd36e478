"""All four stores at one moment, under the sample application's own load.

The application writes row → vector → file → queue entry, each durable before the next, and the load
driver remembers what was acknowledged. In no snapshot may a later write stand without the earlier,
anything acknowledged before the cut be missing, or anything requested after it be there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.backup import take_snapshot
from safetake.config import BarrierConfig, ChromaConfig, FilesConfig, RedisConfig, SqliteConfig
from safetake.demo.application import Application, Places, sample_application
from safetake.demo.processes import Processes
from safetake.repository import Repository
from safetake.restore.beside import restore_to
from safetake.snapshots import find_snapshot
from safetake.sources import build
from safetake.storage import LocalStorage
from tests.support.sample_application import until_load


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="safetake-moment-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _campaign(folder: Path, snapshots: int) -> tuple[int, int]:
    """Take snapshots under load, judge each; (items found, torn snapshots)."""
    data, logs = folder / "data", folder / "logs"
    data.mkdir()
    logs.mkdir()
    processes = Processes(logs, {"PYTHONPATH": str(sample_application())})
    found = 0
    problems: list[str] = []
    try:
        application = Application(
            processes,
            Places(data / "projects.db", data / "chroma", data / "redis", data / "scripts"),
        )
        application.start_redis()
        application.create_stores()
        application.start_services()
        application.wait_healthy()
        sources = [
            build("projects", SqliteConfig(type="sqlite", path=data / "projects.db")),
            build("vectors", ChromaConfig(type="chroma", path=data / "chroma")),
            build("queue", RedisConfig(type="redis", url=application.redis_url)),
            build("scripts", FilesConfig(type="files", path=data / "scripts")),
        ]
        storage = LocalStorage(folder / "repository")
        application.start_load(folder / "journal.jsonl", 4)
        until_load(folder / "journal.jsonl")
        with Repository.init(storage, "secret") as repository:
            taken = []
            for _ in range(snapshots):
                report = take_snapshot(repository, sources, barrier=BarrierConfig())
                assert report.exit_code == 0, report.as_dict()
                assert report.barrier.skew_ms == 0.0
                taken.append((report.id, report.time_ns))
                processes.check()
            application.end_load(logs)
            for snapshot, moment in taken:
                target = folder / "restored"
                restore_to(repository, find_snapshot(repository, snapshot), [], target)
                verdict = application.compare(target, folder / "journal.jsonl", (moment, moment))
                problems += [f"{snapshot[:8]}: {problem}" for problem in verdict["problems"]]
                found += sum(store["found"] for store in verdict["stores"].values())
                shutil.rmtree(target)
    finally:
        processes.kill()
    assert problems == []
    return found, snapshots


def test_given_an_application_under_load_no_snapshot_holds_the_later_without_the_earlier(
    folder: Path,
) -> None:
    found, snapshots = _campaign(folder, 4)
    assert found > snapshots * 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_given_an_application_under_load_none_of_100_snapshots_is_torn(folder: Path) -> None:
    found, snapshots = _campaign(folder, 100)
    print(f"\n{snapshots} snapshots, {found} items compared, 0 torn")
    assert found > snapshots * 4
