"""The ladder: what is recorded, what outweighs what, and stores that crash, hang or lie."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetake.config import Config, RepositoryConfig, SqlCheck, SqliteConfig
from safetake.errors import SafetakeError
from safetake.evidence import load_all
from safetake.proof.verify import question, verify
from safetake.repository import Repository
from safetake.snapshots import (
    FAILED,
    OPENED,
    READ_BACK,
    STORED,
    find_snapshot,
    read_manifest,
)
from tests.support.repositories import (
    database,
    files_source,
    memory_folder,
    new_repository,
    open_repository,
    restic,
    snapshot,
    sqlite_source,
)


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Path, str]]:
    with memory_folder() as base:
        (base / "scripts").mkdir()
        (base / "scripts" / "one").write_bytes(b"one" * 100_000)
        database(base / "p.db")
        repository = new_repository(base / "repository")
        report = snapshot(
            repository, files_source("scripts", base / "scripts"), sqlite_source("p", base / "p.db")
        )
        yield base, report.id


@pytest.fixture
def repository(made: tuple[Path, str], tmp_path: Path) -> Repository:
    """A copy to prove and to damage."""
    shutil.copytree(made[0] / "repository", tmp_path / "repository")
    return open_repository(tmp_path / "repository")


def rung(repository: Repository, wanted: str = "latest") -> str:
    return find_snapshot(repository, wanted).rung.name


def damage(repository: Repository) -> str:
    """One wrong bit in the middle of the largest pack; returns its name."""
    place = Path(repository.storage.location)
    packs = [path for path in (place / "data").rglob("*") if path.is_file()]
    pack = max(packs, key=lambda path: path.stat().st_size)
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 1
    pack.write_bytes(content)
    return pack.name


def test_each_level_is_recorded_with_its_rung(repository: Repository) -> None:
    found = find_snapshot(repository, "latest")
    assert found.rung.name == STORED
    assert found.rung.time_ns == found.time_ns
    report = verify(repository, None, found, "read")
    assert report.ok
    assert report.exit_code == 0
    assert report.bytes > 300_000
    assert rung(repository) == READ_BACK
    opened = verify(repository, None, found, "open")
    assert opened.ok, opened.problems
    assert set(opened.checks) == {"scripts", "p"}
    assert all(check.ok for checks in opened.checks.values() for check in checks)
    assert rung(repository) == OPENED
    verify(repository, None, found, "read")  # a lower proof takes nothing away
    assert rung(repository) == OPENED
    again = open_repository(Path(repository.storage.location))
    assert find_snapshot(again, "latest").rung.name == OPENED
    document = again.load_document("proofs", opened.proof)
    assert document["tree"] == found.document["tree"]
    assert document["ok"] is True
    assert ["opened", True] not in document["checks"]["scripts"] or document["checks"]


def test_damage_is_the_answer_and_outweighs_what_was(repository: Repository) -> None:
    found = find_snapshot(repository, "latest")
    assert verify(repository, None, found, "open").ok
    pack = damage(repository)
    again = open_repository(Path(repository.storage.location))
    report = verify(again, None, found, "read")
    assert not report.ok
    assert report.exit_code == 1
    assert report.rung == FAILED
    assert any(pack in problem for problem in report.problems)
    listed = find_snapshot(again, "latest")
    assert listed.rung.name == FAILED
    assert any(pack in problem for problem in listed.rung.problems)
    opened = verify(again, None, found, "open")
    assert not opened.ok
    assert any(pack in problem for problem in opened.problems)


def test_what_came_to_no_question_proves_nothing_and_claims_nothing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that bytes decrypt, which nobody looked at; and not that it is opened."""
    found = find_snapshot(repository, "latest")
    real = read_manifest(repository.reader(), found)
    assert real is not None
    nothing = {**real, "sources": {}}
    monkeypatch.setattr("safetake.proof.verify.read_manifest", lambda *_: nothing)
    report = verify(repository, None, found, "open")
    assert not report.ok
    assert report.rung == FAILED
    (document,) = load_all(repository)
    assert document.verdict == "failed"
    (check,) = document.checks
    assert (check.name, check.ok) == ("opened", False)
    assert "names no source" in str(check.found)


def test_a_failure_is_only_outweighed_by_a_proof_as_deep(repository: Repository) -> None:
    found = find_snapshot(repository, "latest")
    tree = found.document["tree"]

    def proof(level: str, ok: bool, second: int) -> None:
        when = f"2030-01-01T00:00:{second:02d}Z"
        repository.save_document(
            "proofs", {"snapshot": found.id, "tree": tree, "rung": level, "ok": ok, "time": when}
        )

    proof(READ_BACK, True, 1)
    assert rung(repository) == READ_BACK
    proof(OPENED, False, 2)
    assert rung(repository) == FAILED
    proof(READ_BACK, True, 3)
    assert rung(repository) == FAILED
    proof(OPENED, True, 4)
    assert rung(repository) == OPENED
    proof(READ_BACK, False, 5)
    assert rung(repository) == FAILED
    proof(READ_BACK, True, 6)
    assert rung(repository) == READ_BACK
    proof("unknown rung", True, 7)
    proof("unknown rung", False, 8)
    assert rung(repository) == READ_BACK


def test_a_proof_that_cannot_be_read_takes_every_rung_away(repository: Repository) -> None:
    found = find_snapshot(repository, "latest")
    report = verify(repository, None, found, "read")
    path = Path(repository.storage.location) / "proofs" / report.proof
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    shown = find_snapshot(repository, "latest").rung
    assert shown.name == STORED
    assert report.proof in shown.problems[0]
    path.unlink()
    repository.save_document("proofs", {"tree": 5, "time": "never"})
    assert "is damaged: not a proof" in find_snapshot(repository, "latest").rung.problems[0]


def test_rungs_survive_restics_tags(repository: Repository) -> None:
    place = Path(repository.storage.location)
    found = find_snapshot(repository, "latest")
    assert verify(repository, None, found, "read").ok
    restic(place, "tag", "--add", "one", found.id)
    tagged = find_snapshot(open_repository(place), "latest")
    assert tagged.id != found.id
    assert tagged.rung.name == READ_BACK
    assert verify(open_repository(place), None, tagged, "open").ok
    restic(place, "tag", "--add", "two", tagged.id)
    twice = find_snapshot(open_repository(place), "latest")
    assert twice.id not in (found.id, tagged.id)
    assert twice.rung.name == OPENED


def test_the_users_own_checks_are_asked(
    made: tuple[Path, str], repository: Repository, tmp_path: Path
) -> None:
    def config(sql: str) -> Config:
        return Config(
            repository=RepositoryConfig(location=str(tmp_path)),
            sources={
                "p": SqliteConfig(
                    type="sqlite", path=made[0] / "p.db", checks=[SqlCheck(name="mine", sql=sql)]
                )
            },
        )

    found = find_snapshot(repository, "latest")
    good = verify(repository, config("SELECT id FROM episodes WHERE id < 0"), found, "open")
    assert good.ok, good.problems
    assert any("mine" in check.name for check in good.checks["p"])
    bad = verify(repository, config("SELECT id FROM episodes LIMIT 3"), found, "open")
    assert not bad.ok
    assert any("mine" in problem for problem in bad.problems)
    assert rung(repository) == FAILED


# the subprocess


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "p").mkdir(parents=True)
    database(tmp_path / "tree" / "p" / "p.db")
    return tmp_path / "tree" / "p"


def entry(made: tuple[Path, str]) -> dict[str, object]:
    """The manifest entry of the database, as JSON gave it."""
    from safetake.snapshots import read_manifest

    repository = open_repository(made[0] / "repository")
    manifest = read_manifest(repository.reader(), find_snapshot(repository, made[1]))
    assert manifest is not None
    found: dict[str, object] = manifest["sources"]["p"]
    return found


def test_a_store_that_is_no_database_fails_its_checks(
    made: tuple[Path, str], tmp_path: Path, staged: Path
) -> None:
    (staged / "p.db").write_bytes(b"this is no database" * 1000)
    checks = question("sqlite", staged, entry(made), tmp_path, 60)
    assert checks
    assert not all(check.ok for check in checks)


def test_a_store_with_other_rows_fails_its_checks(
    made: tuple[Path, str], tmp_path: Path, staged: Path
) -> None:
    connection = sqlite3.connect(staged / "p.db")
    connection.execute("UPDATE episodes SET script = 'other' WHERE id = 7")
    connection.commit()
    connection.close()
    checks = question("sqlite", staged, entry(made), tmp_path, 60)
    assert not all(check.ok for check in checks)


def test_a_missing_store_and_an_unknown_type_are_failed_checks(
    made: tuple[Path, str], tmp_path: Path, staged: Path
) -> None:
    (staged / "p.db").unlink()
    assert not all(check.ok for check in question("sqlite", staged, entry(made), tmp_path, 60))
    (check,) = question("mystery", staged, {}, tmp_path, 60)
    assert not check.ok
    assert "unknown type" in str(check.found)


def test_a_store_that_hangs_is_a_failed_check(tmp_path: Path, staged: Path) -> None:
    """A pipe where the database should be: whoever opens it waits for ever."""
    begun = time.monotonic()
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nsleep 600 & sleep 600\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(program))
        (check,) = question("sqlite", staged, {}, tmp_path, 1.0)
    assert (check.ok, check.found) == (False, "none in 1 s")
    assert time.monotonic() - begun < 300


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("kill -SEGV $$", "signal SIGSEGV"),
        ("kill -KILL $$", "signal SIGKILL"),
        ("echo the last word; exit 7", "exit code 7"),
        ("exit 0", "none: "),
        ('echo "not json" > "$6"', "none: "),
        ('echo "[5]" > "$6"', "none: "),
        ('echo "[]" > "$6"', "none"),
    ],
)
def test_a_crash_or_no_answer_is_a_failed_check(
    tmp_path: Path, staged: Path, script: str, found: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(program))
        (check,) = question("sqlite", staged, {}, tmp_path, 60)
    assert not check.ok
    assert str(check.found).startswith(found)
    if "last word" in script:
        assert check.detail == "the last word"


def test_a_repository_that_takes_no_proof_says_so(repository: Repository) -> None:
    found = find_snapshot(repository, "latest")
    place = Path(repository.storage.location)
    shutil.rmtree(place / "proofs")
    (place / "proofs").write_text(json.dumps("a file where the folder was"))
    with pytest.raises(SafetakeError, match="proofs") as caught:
        verify(repository, None, found, "read")
    assert caught.value.hint
