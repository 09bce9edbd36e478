"""What a prune removes, keeps, packs anew, and refuses; stock restic is the judge."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetake.errors import DamagedError, RepositoryLockedError, StorageError
from safetake.model import Node
from safetake.repository import Repository, prune
from safetake.repository.cache import IndexCache
from safetake.repository.documents import save_unpacked
from safetake.repository.index import encode_index
from safetake.repository.prune import plan as plan_module
from safetake.repository.prune.table import DATA, TREE, Table
from safetake.repository.writer import RepositoryWriter
from safetake.restore.beside import restore_to
from safetake.snapshots import list_snapshots
from safetake.storage.base import Kind
from safetake.storage.local import LocalStorage
from tests.support.pruning import pruned
from tests.support.repositories import (
    PASSWORD,
    file_node,
    files_source,
    memory_folder,
    new_repository,
    open_repository,
    picture,
    plain_snapshot,
    restic,
    snapshot,
)


@pytest.fixture
def base() -> Iterator[Path]:
    with memory_folder() as folder:
        new_repository(folder / "repository")
        yield folder


def opened(base: Path) -> Repository:
    return open_repository(base / "repository")


def take(repository: Repository, *words: str, trees: int = 0) -> str:
    """A snapshot with a file for each word; its content follows from the word alone."""
    with repository.lock(exclusive=False), RepositoryWriter(repository, workers=1) as writer:
        nodes = []
        for word in words:
            data = content_of(word)
            nodes.append(file_node(word, writer.store(data).result(), len(data)))
        for number in range(trees):
            nodes.append(Node(f"d{number}", "dir", mode=0o40755, subtree=writer.save_tree(
                [file_node(f"{words[0]}-{number}", [], 0)])))  # fmt: skip
        tree = writer.save_tree(nodes)
        writer.flush()
        name = plain_snapshot(repository, tree)
    repository.reload()
    return name


def content_of(word: str) -> bytes:
    return random.Random(word).randbytes(50_000)


def whole(base: Path) -> str:
    """Stock restic finds no error; what it says."""
    said = restic(base / "repository", "check", "--read-data")
    assert "no errors were found" in said
    return said


def words_of(base: Path, name: str) -> set[str]:
    """What a snapshot holds, restored by stock restic."""
    out = base / "out"
    restic(base / "repository", "restore", name, "--target", out)
    found = set()
    for path in out.iterdir():
        assert path.read_bytes() == content_of(path.name)
        found.add(path.name)
    shutil.rmtree(out)
    return found


def blobs(repository: Repository) -> set[bytes]:
    repository.reload()
    return {entry.id for entries in repository.index.packs().values() for entry in entries}


def packs(repository: Repository) -> set[str]:
    return {name for name, _ in repository.storage.list("data")}


def test_what_only_removed_snapshots_used_goes_and_all_else_restores(base: Path) -> None:
    repository = opened(base)
    first = take(repository, "a", "b", "c")
    second = take(repository, "b", "c", "d")
    third = take(repository, "c")
    before = blobs(repository)
    result = pruned(repository, [first, "ff" * 32])
    assert result.removed == [first]
    assert result.kept == 2
    assert result.freed_bytes > 50_000
    assert result.unused_bytes == 0
    assert len(before - blobs(repository)) == 2  # `a` and a tree
    said = whole(base)
    assert "additional" not in said
    assert words_of(base, second) == {"b", "c", "d"}
    assert words_of(base, third) == {"c"}
    assert "to delete:             0 blobs" in restic(base / "repository", "prune", "--dry-run")
    assert result.as_dict()["removed"] == 1


def test_with_nothing_to_do_nothing_is_changed_and_nobody_waits(base: Path) -> None:
    repository = opened(base)
    take(repository, "a")
    files = sorted(path for path in base.rglob("*") if path.is_file())
    with opened(base).lock(exclusive=False):  # a backup at work
        result = prune.run(repository, prune.plan_prune(repository, []), wait=0)
    assert sorted(path for path in base.rglob("*") if path.is_file()) == files
    assert result.as_dict()["packs_removed"] == result.as_dict()["packs_written"] == 0


def test_a_plan_changes_nothing_and_says_what_will_be_done(base: Path) -> None:
    repository = opened(base)
    first = take(repository, "a", "b")
    take(repository, "b")
    files = sorted(path for path in base.rglob("*") if path.is_file())
    plan = prune.plan_prune(repository, [first], max_unused=0.0)
    assert sorted(path for path in base.rglob("*") if path.is_file()) == files
    said = json.loads(json.dumps(plan.as_dict()))
    result = prune.run(repository, plan)
    assert said["repacked_bytes"] == pytest.approx(result.repacked_bytes, abs=200)
    assert said["freed_bytes"] == pytest.approx(result.freed_bytes, abs=200)
    assert said["unused_bytes"] > 50_000
    assert said["unused_bytes_after"] == 0


def test_the_last_snapshot_can_go_and_the_repository_goes_on(base: Path) -> None:
    repository = opened(base)
    result = pruned(repository, [take(repository, "a")])
    assert result.kept == 0
    assert not packs(repository)
    assert not repository.index_names()
    whole(base)
    again = take(repository, "a", "b")
    assert words_of(base, again) == {"a", "b"}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_at_most_the_tolerated_share_stays_unused(base: Path, share: float) -> None:
    repository = opened(base)
    names = [take(repository, *(f"{turn}-{n}" for n in range(turn + 2))) for turn in range(6)]
    kept = take(repository, *(f"{turn}-0" for turn in range(6)))
    plan = prune.plan_prune(repository, names, max_unused=share)
    result = prune.run(repository, plan)
    after = prune.plan_prune(repository, [], max_unused=1.0)
    assert after.unused_bytes == result.unused_bytes == plan.unused_after
    assert after.unused_bytes <= share * (after.unused_bytes + after.used_bytes)
    assert (result.repacked_bytes == 0) == (share >= 0.9)
    whole(base)
    assert words_of(base, kept) == {f"{turn}-0" for turn in range(6)}


def test_the_packs_with_most_to_gain_for_least_writing_come_first(base: Path) -> None:
    repository = opened(base)
    lean = take(repository, *(f"lean{n}" for n in range(10)))
    fat = take(repository, *(f"fat{n}" for n in range(10)))
    kept = take(repository, *(f"lean{n}" for n in range(9)), "fat0")
    plan = prune.plan_prune(repository, [lean, fat], max_unused=0.3)
    rows = plan.repack.nonzero()[0]
    used = plan.table.sum(plan.keep)[rows]
    assert used.sum() < 200_000  # `fat0` and no more
    prune.run(repository, plan)
    whole(base)
    assert len(words_of(base, kept)) == 10


def test_many_small_packs_are_put_together_few_are_left_alone(base: Path) -> None:
    repository = opened(base)
    names = [take(repository, f"{turn}") for turn in range(plan_module.MANY_SMALL - 1)]
    assert pruned(repository).packs_written == 0
    names.append(take(repository, "more"))
    assert len(packs(repository)) == 2 * plan_module.MANY_SMALL
    result = pruned(repository, max_unused=0.5)
    assert result.packs_written == len(packs(repository)) == 2
    assert len(repository.index_names()) == 1
    assert pruned(repository).packs_written == 0
    whole(base)
    for name in (names[0], names[-1]):
        assert len(words_of(base, name)) == 1


def test_many_index_files_become_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MANY_INDEXES", 2)
    repository = opened(base)
    names = [take(repository, f"{turn}") for turn in range(3)]
    before = packs(repository)
    pruned(repository)
    assert len(repository.index_names()) == 1
    assert packs(repository) == before
    whole(base)
    assert [words_of(base, name) for name in names] == [{"0"}, {"1"}, {"2"}]


def test_of_a_blob_that_is_stored_twice_one_place_stays(base: Path) -> None:
    one, two = opened(base), opened(base)
    with one.lock(exclusive=False), two.lock(exclusive=False):  # two backups at once
        stored = []
        for repository, more in ((one, "x"), (two, "y")):
            writer = RepositoryWriter(repository, workers=1)
            nodes = [
                file_node(word, writer.store(content_of(word)).result(), 50_000)
                for word in ("same", more)
            ]
            stored.append((writer, writer.save_tree(nodes)))
        names = []
        for (writer, tree), repository in zip(stored, (one, two), strict=True):
            writer.flush()
            writer.close()
            names.append(plain_snapshot(repository, tree))
    repository = opened(base)
    plan = prune.plan_prune(repository, [], max_unused=0.0)
    assert plan.unused_bytes > 50_000
    prune.run(repository, plan)
    assert prune.plan_prune(repository, [], max_unused=0.0).unused_bytes == 0
    whole(base)
    assert [words_of(base, name) for name in names] == [{"same", "x"}, {"same", "y"}]


def test_before_a_copy_goes_the_one_that_stays_is_proven(base: Path) -> None:
    repository = opened(base)
    name = take(repository, "a")
    (data,) = [p for p, e in repository.index.packs().items() if not e[0].tree]
    path = base / "repository" / "data" / data[:2] / data
    good = path.read_bytes()
    repository.storage.remove("data", data)
    for index in repository.index_names():
        repository.storage.remove("index", index)
    repository.reload()
    assert take(repository, "a", "b") != name
    path.write_bytes(good)  # the first pack again, with an index of its own
    entries = [e for e in repository.index.packs().values() if not e[0].tree and len(e) == 2]
    assert len(entries) == 1
    (blob,) = [e for e in entries[0] if e.id == _only(good, repository)]
    first = encode_index([(data, [type(blob)(blob.id, False, 0, blob.length, 0)])], [])
    save_unpacked(repository.storage, repository.key, "index", first)
    repository.storage.remove("snapshots", name)
    plan = prune.plan_prune(repository, [], max_unused=0.0)
    stays = [p for n, p in enumerate(plan.table.packs) if not (plan.remove | plan.repack)[n]]
    repository.reload()
    # which copy stays is decided by the packs' names; the other is removed or repacked
    goes = [p for n, p in enumerate(plan.table.packs) if (plan.remove | plan.repack)[n]]
    known = repository.index.packs()
    assert len([pack for pack in goes if not known[pack][0].tree]) == 1
    for pack in stays:
        if not repository.index.packs()[pack][0].tree:
            file = base / "repository" / "data" / pack[:2] / pack
            for at in (5000, 55_000):  # in whatever blob it holds
                if at < file.stat().st_size:
                    _flip(file, at)
    before = packs(repository)
    with pytest.raises(DamagedError, match="was to be removed"):
        prune.run(repository, plan)
    assert packs(repository) == before


def _only(pack: bytes, repository: Repository) -> bytes:
    from safetake.repository.crypto import Sealer
    from safetake.repository.pack import decode_header, header_length

    length = header_length(pack[-4:], len(pack), "p")
    header = pack[-4 - length : -4]
    (entry,) = decode_header(header, len(pack), Sealer(repository.key), "p")
    return entry.id


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_packs_of_no_index_and_packs_indexed_twice_are_put_right(base: Path) -> None:
    repository = opened(base)
    name = take(repository, "a")
    with repository.lock(exclusive=False), repository.writer() as writer:
        writer.store(content_of("left over")).result()
        writer.flush_packs()
    repository.reload()
    every = list(repository.index.packs().items())
    save_unpacked(repository.storage, repository.key, "index", encode_index(every[:1], []))
    repository.reload()
    plan = prune.plan_prune(repository, [])
    assert len(plan.unknown) == 1
    assert plan.unused_bytes == 0
    result = prune.run(repository, plan)
    assert result.packs_removed == 1
    assert "1 packs were in no index" in result.problems[0]
    assert "additional" not in whole(base)
    assert words_of(base, name) == {"a"}


def test_a_pack_that_is_missing_and_needed_stops_it(base: Path) -> None:
    repository = opened(base)
    gone = take(repository, "a", "b")
    take(repository, "a")
    (data,) = [p for p, e in repository.index.packs().items() if len(e) == 2]
    repository.storage.remove("data", data)
    with pytest.raises(DamagedError, match=f"{data} is missing") as caught:
        prune.plan_prune(repository, [gone])
    assert "nothing was removed" in caught.value.hint


def test_a_pack_that_is_missing_and_not_needed_is_told_and_leaves_the_index(base: Path) -> None:
    repository = opened(base)
    gone = take(repository, "a")
    kept = take(repository, "b")
    root = bytes.fromhex(repository.load_document("snapshots", gone)["tree"])
    ((lost, _),) = [
        (pack, e) for pack, e in repository.index.packs().items()
        if not e[0].tree and e[0].id in {i for n in repository.reader().tree(root)
                                         for i in n.content or ()}
    ]  # fmt: skip
    repository.storage.remove("data", lost)
    repository.storage.remove("snapshots", gone)
    result = pruned(repository)
    assert lost in result.problems[0]
    whole(base)
    assert words_of(base, kept) == {"b"}


@pytest.mark.parametrize("change", [-1, 1])
def test_a_pack_of_a_wrong_length_stops_it_when_it_is_needed(base: Path, change: int) -> None:
    repository = opened(base)
    gone = take(repository, "a")
    take(repository, "a", "b")
    plan = prune.plan_prune(repository, [])
    pack = next(p for p, e in repository.index.packs().items() if not e[0].tree)
    path = base / "repository" / "data" / pack[:2] / pack
    data = path.read_bytes()
    path.write_bytes(data[:-1] if change < 0 else data + b"x")
    assert plan.unused_bytes == 0
    with pytest.raises(DamagedError, match=f"{pack} is damaged"):
        prune.plan_prune(repository, [gone])


@pytest.mark.parametrize("kind", ["snapshots", "index", "tree"])
def test_what_cannot_be_read_stops_it(base: Path, kind: str) -> None:
    repository = opened(base)
    first, second = take(repository, "a", trees=2), take(repository, "b")
    if kind == "tree":
        (path,) = [
            base / "repository" / "data" / p[:2] / p
            for p, e in repository.index.packs().items() if e[0].tree and len(e) == 3
        ]  # fmt: skip
        _flip(path, 40)
        forget = [second]
    else:
        path = next((base / "repository" / kind).iterdir())
        _flip(path, 40)
        forget = [one for one in (first, second) if one != path.name][:1]
    before = packs(repository)
    with pytest.raises(DamagedError):
        pruned(opened(base), forget)
    assert packs(repository) == before
    assert {name for name, _ in repository.storage.list("snapshots")} == {first, second}


def test_damage_found_while_packing_anew_leaves_everything(base: Path) -> None:
    repository = opened(base)
    gone = take(repository, "a", "b")
    take(repository, "b")
    (pack,) = [p for p, e in repository.index.packs().items() if not e[0].tree and len(e) == 2]
    path = base / "repository" / "data" / pack[:2] / pack
    _flip(path, 30_000)
    _flip(path, 80_000)
    before = sorted(path for path in base.rglob("*") if path.is_file())
    with pytest.raises(DamagedError, match="is damaged"):
        pruned(repository, [gone])
    assert sorted(path for path in base.rglob("*") if path.is_file()) == before


def test_a_tree_and_a_file_of_the_same_bytes_are_told_apart(base: Path) -> None:
    """Then one id is a tree and a data blob; what is below the tree is needed all the same."""
    repository = opened(base)
    with repository.lock(exclusive=False), repository.writer() as writer:
        inner = [file_node("a", writer.store(content_of("a")).result(), 50_000)]
        tree = writer.save_tree(inner)
        writer.flush()
        blob = bytes(repository.reader().tree_blob(tree))
        copy = writer.store(blob).result()
        assert copy == [tree]
        root = writer.save_tree(
            [
                file_node("copy", copy, len(blob)),
                Node("folder", "dir", mode=0o40755, subtree=tree),
            ]
        )
        other = writer.save_tree([file_node("copy", copy, len(blob))])
        writer.flush()
        both, alone = plain_snapshot(repository, root), plain_snapshot(repository, other)
    repository.reload()
    pruned(repository)
    whole(base)
    restic(base / "repository", "restore", both, "--target", base / "out")
    assert (base / "out" / "folder" / "a").read_bytes() == content_of("a")
    pruned(repository, [both])
    whole(base)
    assert len(blobs(repository)) == 2
    restic(base / "repository", "restore", alone, "--target", base / "again")
    assert (base / "again" / "copy").read_bytes() == blob


def test_proofs_and_digests_of_what_is_gone_go(base: Path) -> None:
    (base / "scripts").mkdir()
    repository = opened(base)
    names = []
    for turn in range(3):
        (base / "scripts" / "one").write_bytes(random.Random(turn).randbytes(300_000))
        names.append(snapshot(repository, files_source("scripts", base / "scripts")).id)
        tree = repository.load_document("snapshots", names[-1])["tree"]
        repository.save_document("proofs", {"tree": tree, "time": "2026-01-02T03:04:05Z",
                                            "ok": True, "rung": "opened"})  # fmt: skip
    repository.storage.put("proofs", "ab" * 32, b"damaged")
    repository.reload()
    before = len(repository.digests)
    result = pruned(repository, names[:2])
    assert result.proofs_removed == 2
    assert len(list(repository.storage.list("proofs"))) == 2
    assert 0 < len(repository.digests) < before
    known = blobs(repository)
    table = repository.digests._sorted[0]
    assert all(table[at + 20 : at + 52] in known for at in range(0, len(table), 52))
    repository.storage.remove("proofs", "ab" * 32)
    assert list_snapshots(repository)[0].rung.name == "opened"


def test_what_was_pruned_is_stored_again_by_a_process_that_had_known_it(base: Path) -> None:
    """Index, whole trees and digests from before, in memory and in the cache."""
    (base / "scripts").mkdir()
    (base / "scripts" / "one").write_bytes(content_of("one"))
    repository = opened(base)
    repository.cache = IndexCache(base / "caches", repository.id, repository.key)
    source = files_source("scripts", base / "scripts")
    first = snapshot(repository, source)
    assert repository.index.whole
    assert len(repository.digests)
    state = picture(base / "scripts")
    pruned(opened(base), [first.id])
    assert not packs(repository)
    second = snapshot(repository, source)  # the same object, which was not told
    whole(base)
    restore_to(repository, list_snapshots(repository)[0], [], base / "out", durable=False)
    assert picture(base / "out" / "scripts") == state
    third = opened(base)
    third.cache = IndexCache(base / "caches", repository.id, repository.key)
    pruned(opened(base), [second.id])
    snapshot(third, source)  # the cache names index files that are gone
    whole(base)


class AppendOnly(LocalStorage):
    """Takes new files, gives locks back, and removes nothing else."""

    def remove(self, kind: Kind, name: str) -> None:
        if kind != "locks":
            raise StorageError("refused")
        super().remove(kind, name)

    def remove_all(self, kind: Kind, names: Iterable[str]) -> None:
        for name in names:
            self.remove(kind, name)

    def assure_removal(self, kind: Kind, names: Iterable[str]) -> None:
        for name in names:
            raise StorageError(f"the storage is append-only: {kind}/{name} cannot be removed")


def test_a_storage_that_refuses_removal_fails_before_anything_is_changed(base: Path) -> None:
    gone = take(opened(base), "a", "b")
    take(opened(base), "b")
    repository = Repository.open(AppendOnly(base / "repository"), PASSWORD)
    plan = prune.plan_prune(repository, [gone])
    before = sorted(path for path in base.rglob("*") if path.is_file())
    with pytest.raises(StorageError, match="append-only"):
        prune.run(repository, plan)
    assert sorted(path for path in base.rglob("*") if path.is_file()) == before


def test_a_folder_that_refuses_removal_is_found_out_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = new_repository(tmp_path / "repository")
    gone = take(repository, "a")
    plan = prune.plan_prune(repository, [gone])
    rmdir = os.rmdir

    def refused(path: Any, **more: Any) -> None:
        """As the kernel answers in a folder with the attribute `a`."""
        if "snapshots" in str(path):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        rmdir(path, **more)

    monkeypatch.setattr(os, "rmdir", refused)
    with pytest.raises(StorageError, match=f"refuses to remove snapshots/{gone}") as caught:
        prune.run(repository, plan)
    assert "append-only" in caught.value.hint
    monkeypatch.undo()
    assert prune.run(repository, plan).removed == [gone]


def test_a_folder_that_is_append_only_in_truth(tmp_path: Path) -> None:
    repository = new_repository(tmp_path / "repository")
    gone = take(repository, "a")
    folder = tmp_path / "repository" / "snapshots"
    if os.system(f"chattr +a {folder} 2>/dev/null") != 0:
        pytest.skip("no attributes on this file system, or not root")
    try:
        with pytest.raises(StorageError, match="refuses to remove"):
            pruned(repository, [gone])
    finally:
        os.system(f"chattr -a {folder}")
    assert pruned(repository, [gone]).removed == [gone]


# beside others


def test_it_waits_for_backups_for_a_bounded_time_and_takes_back_what_it_wrote(base: Path) -> None:
    repository = opened(base)
    gone = take(repository, "a", "b")
    kept = take(repository, "b")
    before = sorted(path for path in base.rglob("*") if path.is_file())
    with opened(base).lock(exclusive=False):
        plan = prune.plan_prune(repository, [gone], max_unused=0.0)
        with pytest.raises(RepositoryLockedError, match="nothing was pruned") as caught:
            prune.run(repository, plan, wait=0.2)
        assert caught.value.hint
        left = [path for path in base.rglob("*") if path.is_file()]
        assert sorted(path for path in left if path.parent.name != "locks") == before
    result = prune.run(repository, plan, wait=0.2)
    assert result.removed == [gone]
    whole(base)
    assert words_of(base, kept) == {"b"}


Between = Callable[[], None]


def between(monkeypatch: pytest.MonkeyPatch, repository: Repository, work: Between) -> None:
    """Do something after the long part, before the prune is alone."""
    hold = repository.locks.hold
    done: list[None] = []

    def watched(*, exclusive: bool, wait: float = 0.0) -> Any:
        if exclusive and not done:
            done.append(None)
            work()
        return hold(exclusive=exclusive, wait=wait)

    monkeypatch.setattr(repository.locks, "hold", watched)


@pytest.mark.parametrize("words", [("a",), ("a", "b"), ("b", "new"), ("new",), ("a", "old")])
def test_what_a_snapshot_taken_meanwhile_uses_is_taken_out_of_the_deletion(
    base: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    repository = opened(base)
    gone = take(repository, "a", "b")
    other = take(repository, "old")
    kept = take(repository, "b")
    found: list[str] = []
    between(monkeypatch, repository, lambda: found.append(take(opened(base), *words)))
    plan = prune.plan_prune(repository, [gone, other], max_unused=0.0)
    result = prune.run(repository, plan)
    assert (result.packs_rescued > 0) == bool({"a", "old"}.intersection(words))
    whole(base)
    assert words_of(base, kept) == {"b"}
    assert words_of(base, found[0]) == set(words)
    assert {name for name, _ in repository.storage.list("snapshots")} == {kept, found[0]}
    pruned(repository)
    whole(base)
    assert prune.plan_prune(repository, [], max_unused=0.0).unused_bytes == 0


def test_who_reads_without_a_lock_goes_on_reading_what_is_kept(base: Path) -> None:
    repository = opened(base)
    gone = take(repository, "a", "b", trees=1)
    kept = take(repository, "b", "c", trees=2)
    root = bytes.fromhex(repository.load_document("snapshots", kept)["tree"])
    reader = repository.reader()
    nodes = {node.name: node for node in reader.tree(root)}
    before = packs(repository)
    pruned(opened(base), [gone])
    assert len(before - packs(repository)) >= 2
    assert nodes["b"].content is not None
    assert reader.blob(nodes["b"].content[0]) == content_of("b")
    assert len(reader.tree(root)) == 4
    found: dict[bytes, bytes] = {}
    wanted = [i for node in nodes.values() for i in node.content or ()]
    repository.reader().stream(wanted, lambda name, data: found.update({name: bytes(data)}))
    assert set(found.values()) == {content_of("b"), content_of("c")}
    lost = next(e for e in repository.index.packs().values() if e[0].tree)[0].id
    with pytest.raises(DamagedError):
        reader.blob(lost)


def test_a_snapshot_that_was_to_go_stays_when_it_is_not_confirmed(base: Path) -> None:
    repository = opened(base)
    first, second = take(repository, "a"), take(repository, "b")
    plan = prune.plan_prune(repository, [first, second], max_unused=0.0)
    result = prune.run(repository, plan, confirm=lambda: [first, "ff" * 32])
    assert result.removed == [first]
    whole(base)
    assert words_of(base, second) == {"b"}


def test_a_plan_that_failed_late_can_be_carried_out_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it learned of new snapshots then is learned again."""
    repository = opened(base)
    gone = take(repository, "a", "b")
    kept = take(repository, "b")
    plan = prune.plan_prune(repository, [gone], max_unused=0.0)
    fresh = take(opened(base), "a")
    remove_all = repository.storage.remove_all

    def full(kind: Kind, names: Iterable[str]) -> None:
        if kind == "snapshots":
            raise StorageError("not now")
        remove_all(kind, names)

    monkeypatch.setattr(repository.storage, "remove_all", full)
    before = packs(repository)
    with pytest.raises(StorageError, match="not now"):
        prune.run(repository, plan)
    assert packs(repository) == before
    monkeypatch.undo()
    assert prune.run(repository, plan).packs_rescued == 1
    whole(base)
    assert words_of(base, fresh) == {"a"}
    assert words_of(base, kept) == {"b"}


def test_another_prune_meanwhile_is_noticed_and_the_plan_made_anew(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = opened(base)
    first, second = take(repository, "a", "c"), take(repository, "b", "c")
    kept = take(repository, "c")
    between(monkeypatch, repository, lambda: void(pruned(opened(base), [first])))
    result = pruned(repository, [first, second])
    assert result.removed == [second]
    assert prune.plan_prune(repository, [], max_unused=0.0).unused_bytes == 0
    assert "additional" not in whole(base)
    assert words_of(base, kept) == {"c"}


def test_restics_prune_meanwhile_is_noticed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = opened(base)
    first, kept = take(repository, "a", "c"), take(repository, "c")
    restic(base / "repository", "forget", take(repository, "x", "c"))
    between(monkeypatch, repository, lambda: void(restic(base / "repository", "prune",
                                                         "--max-unused", "0")))  # fmt: skip
    pruned(repository, [first])
    assert "additional" not in whole(base)
    assert words_of(base, kept) == {"c"}


def void(_what: object) -> None:
    """Ignore a result."""


def test_inside_of_an_exclusive_lock_it_needs_no_other(base: Path) -> None:
    repository = opened(base)
    gone, kept = take(repository, "a", "b"), take(repository, "b")
    with repository.lock(exclusive=True):
        assert pruned(repository, [gone]).removed == [gone]
    assert not list(repository.storage.list("locks"))
    whole(base)
    assert words_of(base, kept) == {"b"}


# with stock restic


def test_restic_made_repositories_are_pruned(tmp_path: Path) -> None:
    place, data = tmp_path / "repository", tmp_path / "data"
    new_repository(place)
    (data / "deep" / "er").mkdir(parents=True)
    chance = random.Random(5)
    truth = {}
    for turn in range(5):
        for number in range(4):
            (data / "deep" / f"{number}.bin").write_bytes(chance.randbytes(400_000))
        (data / "deep" / "er" / f"{turn}.txt").write_text(f"text {turn}\n" * 5000)
        said = restic(place, "backup", "--json", ".", cwd=data).splitlines()[-1]
        truth[json.loads(said)["snapshot_id"]] = picture(data)
    names = [name for name, _ in open_repository(place).storage.list("snapshots")]
    short = {name: state for one, state in truth.items() for name in names if name.startswith(one)}
    assert len(short) == 5
    forget = list(short)[:3]
    repository = open_repository(place)
    result = pruned(repository, forget)
    assert result.freed_bytes > 3_000_000
    said = restic(place, "check", "--read-data")
    assert "no errors were found" in said
    assert "to delete:             0 blobs" in restic(
        place, "prune", "--dry-run", "--max-unused", "0"
    )
    for name in list(short)[3:]:
        restic(place, "restore", name, "--target", tmp_path / "out")
        assert picture(tmp_path / "out") == short[name]
        shutil.rmtree(tmp_path / "out")
    restic(place, "backup", ".", cwd=data)
    restic(place, "check", "--read-data")


def test_after_restics_prune_ours_goes_on(base: Path) -> None:
    repository = opened(base)
    gone, kept = take(repository, "a", "b"), take(repository, "b")
    restic(base / "repository", "forget", gone, "--prune", "--max-unused", "0")
    plan = prune.plan_prune(repository, [], max_unused=0.0)
    assert plan.unused_bytes == 0
    assert not plan.unknown
    again = take(repository, "a")
    pruned(repository, [again])
    whole(base)
    assert words_of(base, kept) == {"b"}


def test_mixed_packs_of_old_versions_are_taken_apart(base: Path) -> None:
    repository = opened(base)
    kept = take(repository, "a")
    from safetake.repository.crypto import Sealer
    from safetake.repository.packer import Packer

    sealer = Sealer(repository.key)
    every = repository.index.packs()
    packer = Packer(repository.storage)
    for pack, entries in every.items():
        for entry in entries:
            sealed = repository.storage.get_range("data", pack, entry.offset, entry.length)
            packer.append([(entry.id, entry.plain_length)], [memoryview(sealed)], tree=entry.tree)
    closed = packer.close(sealer)
    assert closed is not None
    closed.upload.commit("data", closed.name)
    for name in repository.index_names():
        repository.storage.remove("index", name)
    for pack in every:
        repository.storage.remove("data", pack)
    content = encode_index([(closed.name, closed.entries)], [])
    save_unpacked(repository.storage, repository.key, "index", content)
    repository.reload()
    assert "mix of tree and data" in whole(base)
    pruned(repository)
    assert "mix of tree and data" not in whole(base)
    assert words_of(base, kept) == {"a"}


# random histories


@settings(max_examples=6)
@given(
    st.lists(
        st.one_of(
            st.sets(st.sampled_from("abcdefghij"), min_size=1),
            st.tuples(st.sets(st.integers(0, 9)), st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        ),
        max_size=12,
    )
)
def test_random_histories_keep_exactly_what_is_used(history: list[Any]) -> None:
    with memory_folder() as base:
        new_repository(base / "repository")
        repository = opened(base)
        truth: dict[str, set[str]] = {}
        for step in history:
            if isinstance(step, set):
                name = take(repository, *sorted(step))
                truth[name] = step
                continue
            chosen, share = step
            names = list(truth)
            forget = [names[at] for at in chosen if at < len(names)]
            before = prune.plan_prune(repository, forget, max_unused=share)
            result = prune.run(repository, before)
            assert sorted(result.removed) == sorted(forget)
            for name in forget:
                del truth[name]
            after = prune.plan_prune(repository, [], max_unused=share)
            assert after.unused_bytes <= share * (after.unused_bytes + after.used_bytes) + 1
            assert after.used_bytes == before.used_bytes
        whole(base)
        for name, words in truth.items():
            assert words_of(base, name) == words


# the table


@settings(max_examples=40)
@given(st.lists(st.tuples(st.binary(min_size=2, max_size=2), st.booleans()), max_size=60))
def test_the_table_finds_what_a_dictionary_finds(stored: list[tuple[bytes, bool]]) -> None:
    """Ids that begin alike, of both kinds, in several packs."""
    from safetake.repository.index import Index
    from safetake.repository.pack import Entry

    def blob_id(short: bytes) -> bytes:
        return bytes(30) + short if short[0] % 2 else b"\1" * 9 + bytes(21) + short

    index = Index()
    for number, (short, tree) in enumerate(stored):
        index.add(f"{number % 3:064x}", [Entry(blob_id(short), tree, number * 100, 90, 0)])
    table = Table(index)
    assert len(table) == len(set(stored)) or len(table) == len(stored)
    for short, tree in [*stored, (b"zz", True)]:
        kind = TREE if tree else DATA
        wanted = [at for at, one in enumerate(stored) if one == (short, tree)]
        assert len(table.rows(blob_id(short), kind)) == len(wanted)
        lost = table.mark(blob_id(short), kind)
        assert lost == ([] if wanted else [blob_id(short)])
    assert table.spread().all()
