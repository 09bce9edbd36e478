"""What changed between two snapshots of real stores."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.backup import take_snapshot
from safetake.config import BarrierConfig, RedisConfig
from safetake.differences import KEPT_PATHS, SourceDifference, difference
from safetake.errors import DamagedError
from safetake.model import Source
from safetake.repository import Repository
from safetake.snapshots import find_snapshot
from safetake.sources import build
from tests.support.redis_server import VERSIONS, running
from tests.support.repositories import (
    database,
    files_source,
    new_repository,
    plain_snapshot,
    sqlite_source,
)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repository") as opened:
        yield opened


def taken(repository: Repository, *sources: Source) -> str:
    return take_snapshot(repository, list(sources), barrier=BarrierConfig()).id


def between(repository: Repository, first: str, second: str) -> dict[str, SourceDifference]:
    found = difference(
        repository.reader(), find_snapshot(repository, first), find_snapshot(repository, second)
    )
    return {one.name: one for one in found}


def test_rows_keys_and_sources_that_came(tmp_path: Path, repository: Repository) -> None:
    path = tmp_path / "a.db"
    database(path, rows=20)
    rows = sqlite_source("projects", path)
    with running(VERSIONS[0], tmp_path / "redis") as server, server.client() as client:
        client.mset({f"job:{number}": "x" for number in range(5)})
        queue = build("queue", RedisConfig(type="redis", url=server.url))
        first = taken(repository, rows, queue)
        client.set("job:9", "x", ex=600)
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE drafts (id)")
            db.execute("UPDATE episodes SET script = 'new' WHERE id = 3")
        db.close()
        (tmp_path / "scripts").mkdir()
        (tmp_path / "scripts" / "a").write_text("x")
        scripts = files_source("scripts", tmp_path / "scripts")
        second = taken(repository, rows, queue, scripts)
    found = between(repository, first, second)
    assert {name: one.state for name, one in found.items()} == {
        "projects": "changed",
        "queue": "changed",
        "scripts": "added",
    }
    parts = {part.name: part for one in found.values() for part in one.parts}
    episodes, drafts = parts["rows of episodes"], parts["rows of drafts"]
    assert (episodes.before, episodes.after, episodes.changed) == (20, 20, True)
    assert (drafts.before, drafts.after, drafts.changed) == (None, 0, None)
    assert (parts["keys of database 0"].before, parts["keys of database 0"].after) == (5, 6)
    assert parts["expiring keys of database 0"].after == 1
    assert (parts["files"].before, parts["files"].after) == (None, 1)
    back = between(repository, second, first)
    assert back["scripts"].state == "removed"
    assert all(one.state == "same" for one in between(repository, second, second).values())


def test_files_of_folders(tmp_path: Path, repository: Repository) -> None:
    folder = tmp_path / "scripts"
    for name in ("same/a", "p/keep", "p/change", "p/gone", "old/b/c", "swap/x", "plain"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name * 10)
    scripts = files_source("scripts", folder)
    first = taken(repository, scripts)
    (folder / "p" / "change").write_text("changed")
    (folder / "p" / "gone").unlink()
    (folder / "p" / "keep").chmod(0o600)
    (folder / "p" / "new").write_text("new")
    shutil.rmtree(folder / "old")
    shutil.rmtree(folder / "swap")
    (folder / "swap").write_text("a file now")
    (folder / "plain").unlink()
    (folder / "plain").symlink_to("p/new")
    found = between(repository, first, taken(repository, scripts))["scripts"]
    assert {kind: paths.paths for kind, paths in found.files.items()} == {
        "added": ["p/new", "plain", "swap"],
        "removed": ["p/gone", "plain", "swap/x", "old/b/c"],
        "modified": ["p/change"],
        "touched": ["p/keep"],
    }
    assert found.files["added"].bytes == len("new") + len("a file now")
    assert found.as_dict()["files"]["modified"] == {"count": 1, "bytes": 7, "paths": ["p/change"]}


def test_all_are_counted_and_some_are_named(tmp_path: Path, repository: Repository) -> None:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "first").write_text("x")
    scripts = files_source("scripts", folder)
    first = taken(repository, scripts)
    for number in range(KEPT_PATHS + 5):
        (folder / f"{number}").write_text("x")
    added = between(repository, first, taken(repository, scripts))["scripts"].files["added"]
    assert (added.count, added.bytes, len(added.paths)) == (KEPT_PATHS + 5, KEPT_PATHS + 5, 1000)


def test_what_restic_made_has_no_facts(tmp_path: Path, repository: Repository) -> None:
    with repository.writer() as writer:
        root = writer.save_tree([])
        writer.flush()
    other = plain_snapshot(repository, root)
    with pytest.raises(DamagedError, match="not made by safetake"):
        between(repository, other, other)
