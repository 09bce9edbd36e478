"""Snapshots as they are listed and found: ours, restic's, damaged ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.errors import DamagedError, SnapshotNotFoundError
from safetake.repository import Repository
from safetake.snapshots import STORED, find_snapshot, list_snapshots, read_manifest
from tests.support.repositories import (
    files_source,
    memory_folder,
    new_repository,
    plain_snapshot,
    snapshot,
)


@pytest.fixture
def base() -> Iterator[Path]:
    with memory_folder() as folder:
        (folder / "scripts").mkdir()
        (folder / "scripts" / "file").write_text("x")
        yield folder


@pytest.fixture
def repository(base: Path) -> Repository:
    return new_repository(base / "repository")


TREE = bytes(range(32))


def test_an_empty_repository_has_none(repository: Repository) -> None:
    assert list_snapshots(repository) == []
    with pytest.raises(SnapshotNotFoundError, match="no snapshot") as caught:
        find_snapshot(repository, "latest")
    assert "safetake backup" in caught.value.hint


def test_the_newest_is_last_and_latest(repository: Repository) -> None:
    second = plain_snapshot(repository, TREE, "2026-01-02T00:00:00Z")
    third = plain_snapshot(repository, TREE, "2026-01-02T10:00:00+09:00")
    first = plain_snapshot(repository, TREE, "2026-01-01T23:00:00-00:30")
    assert [found.id for found in list_snapshots(repository)] == [first, second, third]
    assert find_snapshot(repository, "latest").id == third
    found = find_snapshot(repository, first[:12])
    assert found.id == first
    assert not found.ours
    assert found.job == ""
    assert found.as_dict()["rung"] == STORED


@pytest.mark.parametrize("wanted", ["", "zz", "LATEST", "../x"])
def test_what_matches_none_is_not_found(repository: Repository, wanted: str) -> None:
    plain_snapshot(repository, TREE)
    with pytest.raises(SnapshotNotFoundError) as caught:
        find_snapshot(repository, wanted)
    assert caught.value.hint


def test_what_matches_two_is_not_found(repository: Repository) -> None:
    ids = [plain_snapshot(repository, TREE) for _ in range(17)]
    digits = [name[0] for name in ids]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(SnapshotNotFoundError, match="more than one"):
        find_snapshot(repository, twice)


def test_ours_tells_its_sources_job_and_facts(base: Path, repository: Repository) -> None:
    report = snapshot(repository, files_source("scripts", base / "scripts"))
    found = find_snapshot(repository, report.id)
    assert found.ours
    assert found.sources == ["scripts"]
    repository.reload()
    manifest = read_manifest(repository.reader(), found)
    assert manifest is not None
    shown = found.as_dict(manifest)
    assert shown["sources"]["scripts"]["type"] == "files"
    assert shown["sources"]["scripts"]["bytes"] == 1
    assert shown["barrier_ms"] == report.barrier.ms


GOOD: dict[str, Any] = {"time": "2026-01-02T03:04:05Z", "tree": TREE.hex(), "paths": ["/x"]}


@pytest.mark.parametrize(
    "change",
    [{"time": "never"}, {"time": 5}, {"time": None}, {"tree": "ab"}, {"tree": "zz" * 32},
     {"tree": None}, {"tree": 5}, {"paths": [5]}, {"paths": 5}, {"tags": [None]}, {"tags": 7}],
    ids=str,
)  # fmt: skip
def test_what_is_no_snapshot_is_damage(repository: Repository, change: dict[str, Any]) -> None:
    name = repository.save_document("snapshots", {**GOOD, **change})
    with pytest.raises(DamagedError, match=f"snapshots/{name} is damaged"):
        list_snapshots(repository)
    with pytest.raises(DamagedError, match=f"snapshots/{name} is damaged"):
        find_snapshot(repository, name)


def test_one_without_paths_or_tags_is_fine(repository: Repository) -> None:
    name = repository.save_document("snapshots", {**GOOD, "paths": None, "tags": None})
    assert find_snapshot(repository, name).document["tags"] == []


def test_latest_is_the_newest_that_has_the_sources(repository: Repository) -> None:
    def stored(time: str, paths: list[str], *tags: str) -> str:
        document = {**GOOD, "time": time, "paths": paths, "tags": ["safetake", *tags]}
        return repository.save_document("snapshots", document)

    both = stored("2026-01-01T00:00:00Z", ["/projects", "/vectors"], "backup")
    one = stored("2026-01-02T00:00:00Z", ["/projects"], "backup")
    assert find_snapshot(repository, "latest").id == one
    assert find_snapshot(repository, "latest", ["vectors"]).id == both
    assert find_snapshot(repository, "latest", ["nowhere"]).id == one


def test_latest_is_never_what_a_restore_replaced(repository: Repository) -> None:
    good = repository.save_document("snapshots", {**GOOD, "tags": ["safetake", "backup"]})
    late = {**GOOD, "time": "2099-01-01T00:00:00Z", "tags": ["safetake", "safety", "restore=1"]}
    safety = repository.save_document("snapshots", late)
    assert find_snapshot(repository, "latest").id == good
    assert find_snapshot(repository, safety).safety
