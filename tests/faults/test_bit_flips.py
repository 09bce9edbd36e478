"""One wrong bit anywhere in a repository: named, or without effect; never a wrong restore."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from safetake.errors import SafetakeError
from safetake.proof.verify import verify
from safetake.repository import Repository, keys
from safetake.repository.check import check
from safetake.restore.beside import restore_to
from safetake.snapshots import find_snapshot, list_snapshots
from tests.support.repositories import (
    database,
    files_source,
    memory_folder,
    new_repository,
    open_repository,
    picture,
    snapshot,
    sqlite_source,
)

KINDS = (
    "data",
    "index",
    "snapshots",
    "keys",
    "config",
    "digests",
    "proofs",
    "evidence",
    "locks",
)

Break = Callable[[Path, bytes | None], "Outcome"]


@dataclass
class Golden:
    """A repository with everything in it, and what each snapshot restores to."""

    folder: Path
    truth: dict[str, dict[bytes, Any]] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)
    """Files of each kind, relative to the folder."""


@dataclass
class Outcome:
    """What everything that reads a repository had to say about it."""

    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Restores that ended well with other bytes; proofs of what does not restore."""


@pytest.fixture(scope="module")
def golden() -> Iterator[Golden]:
    with memory_folder() as base, pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "SCRYPT_N", 1 << 10)
        patch.setattr(keys, "SCRYPT_P", 1)
        made = Golden(base / "repository")
        repository = new_repository(made.folder)
        scripts = base / "scripts"
        (scripts / "deep" / "er").mkdir(parents=True)
        source = random.Random(5)
        (scripts / "noise.bin").write_bytes(source.randbytes(700_000))
        (scripts / "text.md").write_text("장면 " * 60_000, encoding="utf-8")
        (scripts / "deep" / "empty").touch()
        (scripts / "deep" / "er" / "small").write_bytes(b"small")
        (scripts / "link").symlink_to("text.md")
        for number in range(2):
            (scripts / f"new-{number}").write_bytes(source.randbytes(90_000))
            database(base / "p.db", 150)
            stores = files_source("scripts", scripts), sqlite_source("projects", base / "p.db")
            report = snapshot(repository, *stores)
            found = find_snapshot(repository, report.id)
            restore_to(repository, found, [], base / f"truth-{number}")
            made.truth[report.id] = picture(base / f"truth-{number}")
            verify(repository, None, found, "read")
        repository.keys.add("another")
        _lock(repository)
        for path in sorted(made.folder.rglob("*")):
            if path.is_file():
                relative = path.relative_to(made.folder)
                made.files.setdefault(relative.parts[0], []).append(relative)
        assert set(made.files) == set(KINDS)
        yield made


def _lock(repository: Repository) -> None:
    """A lock that is live for as long as this process is."""
    with repository.lock(exclusive=False):
        name, _ = next(iter(repository.storage.list("locks")))
        content = repository.storage.get("locks", name)
    repository.storage.put("locks", name, content)


def observe(golden: Golden, scratch: Path) -> Outcome:
    """Open, check, list, verify and restore; only safetake's own errors are expected."""
    outcome = Outcome()

    def attempt(action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return action(*arguments, **options)
        except SafetakeError as error:
            outcome.errors.append(str(error))
            return None

    repository = attempt(open_repository, golden.folder)
    if repository is None:
        return outcome
    attempt(repository.locks.list)
    report = attempt(check, repository, read_data=True)
    if report is not None:
        outcome.errors += report.errors
    for found in attempt(list_snapshots, repository) or ():
        outcome.errors += found.rung.problems
        outcome.wrong += [f"{found.id} is unknown"] * (found.id not in golden.truth)
    for wanted, truth in golden.truth.items():
        found = attempt(find_snapshot, repository, wanted)
        if found is None:
            continue
        target = scratch / "out"
        restored = attempt(restore_to, repository, found, [], target, durable=False)
        if restored is not None and (restored.problems or picture(target) != truth):
            outcome.wrong.append(f"{wanted} was restored wrongly")
        shutil.rmtree(target, ignore_errors=True)
        proven = attempt(verify, repository, None, found, "read")
        if restored is None and proven is not None and proven.ok:
            outcome.wrong.append(f"{wanted} was proven good and does not restore")
    return outcome


@pytest.fixture
def broken(golden: Golden) -> Break:
    """Replaces a file's content (None removes it), looks, and puts everything back."""
    before = {path for path in golden.folder.rglob("*") if path.is_file()}

    def run(path: Path, content: bytes | None) -> Outcome:
        whole = golden.folder / path
        original, mode = whole.read_bytes(), whole.stat().st_mode
        try:
            if content is None:
                whole.unlink()
            else:
                whole.write_bytes(content)
            return observe(golden, golden.folder.parent)
        finally:
            whole.write_bytes(original)
            whole.chmod(mode)
            for extra in {p for p in golden.folder.rglob("*") if p.is_file()} - before:
                extra.unlink()  # proofs of the verification

    return run


def named(outcome: Outcome, path: Path) -> bool:
    """Whether an error names the file."""
    return any(path.name in error for error in outcome.errors)


def flip_campaign(golden: Golden, broken: Break, count: int, seed: int) -> dict[str, int]:
    """Flip `count` bits, spread over kinds, files and places; every one must be named."""
    chance = random.Random(seed)
    tried: dict[str, int] = {}
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        path = chance.choice(golden.files[kind])
        content = bytearray((golden.folder / path).read_bytes())
        size = len(content)
        # the ends are where headers, lengths and authentication codes are
        near = chance.randrange(min(64, size))
        place = chance.choice([chance.randrange(size), near, size - 1 - near])
        content[place] ^= 1 << chance.randrange(8)
        outcome = broken(path, bytes(content))
        where = f"seed {seed}, flip {number}: {path} byte {place}: {outcome}"
        assert not outcome.wrong, where
        assert named(outcome, path), where
        tried[kind] = tried.get(kind, 0) + 1
    return tried


def test_a_flipped_bit_is_named(golden: Golden, broken: Break) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    assert sum(flip_campaign(golden, broken, 120, seed).values()) == 120


@pytest.mark.slow
def test_eight_hundred_flipped_bits_are_named(golden: Golden, broken: Break) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    tried = flip_campaign(golden, broken, 800, seed)
    print(f"seed {seed}: {tried}, all named")


@pytest.mark.parametrize("damage", ["empty", "halved", "cut", "longer", "zeros", "other"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_named(golden: Golden, broken: Break, kind: str, damage: str) -> None:
    path = golden.files[kind][0]
    content = (golden.folder / path).read_bytes()
    others = [*golden.files[kind][1:], *golden.files["snapshots"], *golden.files["index"]]
    another = next(other for other in others if other != path)
    new = {
        "empty": b"",
        "halved": content[: len(content) // 2],
        "cut": content[:-1],
        "longer": content + b"\0",
        "zeros": bytes(len(content)),
        "other": (golden.folder / another).read_bytes(),
    }[damage]
    outcome = broken(path, new)
    assert not outcome.wrong
    if (kind, damage) == ("locks", "empty"):  # as restic: what an interrupted upload left
        return
    if (kind, damage) == ("digests", "other"):  # another's pairs are as good: they are sealed
        return
    assert named(outcome, path), outcome


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_never_makes_a_wrong_restore(
    golden: Golden, broken: Break, kind: str
) -> None:
    for path in golden.files[kind]:
        outcome = broken(path, None)
        assert not outcome.wrong
        if kind in ("data", "index", "config"):
            assert outcome.errors
        if kind == "data":
            assert named(outcome, path)


def test_two_exchanged_packs_are_both_named(golden: Golden, broken: Break) -> None:
    one, two = golden.files["data"][:2]
    content = (golden.folder / two).read_bytes()
    spare = (golden.folder / one).read_bytes()
    (golden.folder / two).write_bytes(spare)
    try:
        outcome = broken(one, content)
    finally:
        (golden.folder / two).write_bytes(content)
    assert not outcome.wrong
    assert named(outcome, one)
    assert named(outcome, two)


def test_the_undamaged_repository_has_no_errors(golden: Golden, tmp_path: Path) -> None:
    assert observe(golden, tmp_path) == Outcome()
