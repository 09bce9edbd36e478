"""Copies into a second repository with other keys; stock restic is the judge of the target."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safetake.errors import DamagedError, SafetakeError, SnapshotNotFoundError
from safetake.repository import Repository, prune
from safetake.repository import copy as copy_module
from safetake.repository.copy import copy
from safetake.restore.beside import restore_to
from safetake.snapshots import list_snapshots
from safetake.storage import Kind
from tests.support.pruning import pruned
from tests.support.repositories import (
    database,
    files_source,
    memory_folder,
    new_repository,
    open_repository,
    picture,
    restic,
    snapshot,
    sqlite_source,
)

OTHER = "another password"


class World:
    """A repository with some snapshots, and an empty second one."""

    def __init__(self, base: Path) -> None:
        self.base = base
        new_repository(base / "one")
        new_repository(base / "two", OTHER)
        self.data = base / "scripts"
        self.data.mkdir()
        database(base / "p.db")
        self.truth: dict[str, dict[bytes, Any]] = {}
        for turn in range(3):
            self.take(turn)

    def take(self, turn: int) -> str:
        """One more snapshot in the first."""
        (self.data / f"{turn}.bin").write_bytes(random.Random(turn).randbytes(300_000))
        (self.data / "always").write_text(f"{turn} times\n" * 1000)
        report = snapshot(
            self.one,
            files_source("scripts", self.data),
            sqlite_source("projects", self.base / "p.db"),
        )
        self.truth[report.id] = picture(self.data)
        return report.id

    @property
    def one(self) -> Repository:
        return open_repository(self.base / "one")

    @property
    def two(self) -> Repository:
        return open_repository(self.base / "two", OTHER)

    def judge(self, copies: dict[str, str]) -> None:
        """Stock restic reads every byte of the target, and restores each copy exactly."""
        said = restic(self.base / "two", "check", "--read-data", password=OTHER)
        assert "no errors were found" in said
        assert "additional" not in said
        out = self.base / "out"
        for name, there in copies.items():
            restic(self.base / "two", "restore", there, "--target", out, password=OTHER)
            assert picture(out / "scripts") == self.truth[name]
            shutil.rmtree(out)


@pytest.fixture
def world() -> Iterator[World]:
    with memory_folder() as base:
        yield World(base)


def test_all_snapshots_arrive_once_and_restore_with_the_other_password(world: World) -> None:
    result = copy(world.one, world.two)
    assert set(result.copied) == set(world.truth)
    assert result.blobs > 0
    world.judge(result.copied)
    before = sorted(path for path in (world.base / "two").rglob("*") if path.is_file())
    again = copy(world.one, world.two)
    assert (again.copied, again.bytes, again.blobs) == ({}, 0, 0)
    assert set(again.skipped) == set(world.truth)
    assert sorted(path for path in (world.base / "two").rglob("*") if path.is_file()) == before
    repository = world.two
    for there, name in zip(list_snapshots(repository), world.truth, strict=True):
        assert there.document["original"] == name
        assert "parent" not in there.document
        restore_to(repository, there, [], world.base / "ours", durable=False)
        assert picture(world.base / "ours" / "scripts") == world.truth[name]
        shutil.rmtree(world.base / "ours")
    assert json.loads(json.dumps(again.as_dict()))["copied"] == {}
    assert result.facts("elsewhere")["copied"] == 3


def test_only_what_the_target_lacks_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    copy(world.one, world.two)
    fresh = world.take(7)
    source = world.one
    result = copy(source, world.two)
    assert list(result.copied) == [fresh]
    assert 300_000 <= result.bytes < 400_000
    world.judge(result.copied)


def test_given_ids_alone_are_copied_and_a_wrong_one_is_an_error(world: World) -> None:
    name = list(world.truth)[1]
    result = copy(world.one, world.two, [name])
    assert list(result.copied) == [name]
    world.judge(result.copied)
    with pytest.raises(SnapshotNotFoundError, match="ffff"):
        copy(world.one, world.two, ["ff" * 32])
    rest = copy(world.one, world.two)
    assert set(rest.copied) == set(world.truth) - {name}
    world.judge(rest.copied)


def test_proofs_go_with_their_snapshots(world: World) -> None:
    repository = world.one
    for name in world.truth:
        tree = repository.load_document("snapshots", name)["tree"]
        proof = {"tree": tree, "time": "2026-01-02T03:04:05Z", "ok": True, "rung": "opened"}
        repository.save_document("proofs", proof)
    first = next(iter(world.truth))
    assert copy(world.one, world.two, [first]).proofs == 1
    assert copy(world.one, world.two).proofs == 2
    assert copy(world.one, world.two).proofs == 0
    assert {one.rung.name for one in list_snapshots(world.two)} == {"opened"}


def test_what_stock_restic_copied_is_not_copied_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse 말", encoding="utf-8")
    words = ["copy", "--from-repo", str(world.base / "one"), "--from-password-file", str(secret)]
    restic(world.base / "two", *words, password=OTHER)
    assert copy(world.one, world.two).copied == {}
    fresh = world.take(9)
    result = copy(world.one, world.two)
    assert list(result.copied) == [fresh]
    said = restic(world.base / "two", *words, password=OTHER)
    assert "saved" not in said
    world.judge(result.copied)


def test_a_copy_of_a_copy_keeps_the_first_id(world: World) -> None:
    copy(world.one, world.two)
    new_repository(world.base / "three", OTHER)
    third = open_repository(world.base / "three", OTHER)
    copy(world.two, third)
    assert {one.document["original"] for one in list_snapshots(third)} == set(world.truth)
    assert copy(world.one, third).copied == {}
    assert copy(third, world.one).copied == {}  # and back


def test_a_copy_that_was_cut_off_is_finished_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_module, "_GROUP_BYTES", 1)
    target = world.two
    put = target.storage.put
    done: list[str] = []

    def failing(kind: Kind, name: str, data: bytes) -> None:
        if kind == "snapshots":
            done.append(name)
            if len(done) == 2:
                raise KeyboardInterrupt
        put(kind, name, data)

    monkeypatch.setattr(target.storage, "put", failing)
    with pytest.raises(KeyboardInterrupt):
        copy(world.one, target)
    assert len(list_snapshots(world.two)) == 1
    assert "no errors" in restic(world.base / "two", "check", "--read-data", password=OTHER)
    result = copy(world.one, world.two)
    assert len(result.copied) == 2
    world.judge(result.copied)


def test_damage_in_the_source_is_found_and_nothing_of_it_arrives(world: World) -> None:
    repository = world.one
    packs = [p for p, e in repository.index.packs().items() if not e[0].tree]
    for pack in packs:
        path = world.base / "one" / "data" / pack[:2] / pack
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
    with pytest.raises(DamagedError):
        copy(world.one, world.two)
    assert not list_snapshots(world.two)
    assert "no errors" in restic(world.base / "two", "check", "--read-data", password=OTHER)


def test_a_repository_is_not_copied_into_itself(world: World) -> None:
    with pytest.raises(SafetakeError, match="into itself"):
        copy(world.one, world.one)


def test_both_can_be_pruned_and_copied_again(world: World) -> None:
    copy(world.one, world.two)
    first, second, third = world.truth
    pruned(world.one, [first, second])
    there = {one.document["original"]: one.id for one in list_snapshots(world.two)}
    pruned(world.two, [there[third]])
    result = copy(world.one, world.two)
    assert list(result.copied) == [third]
    world.judge({**{name: there[name] for name in (first, second)}, **result.copied})
    assert prune.plan_prune(world.two, [], max_unused=0.0).unused_bytes == 0
