"""Guards against silent loss, on real stores and real snapshots."""

from __future__ import annotations

import gzip
import itertools
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.backup import take_snapshot
from safetake.config import BarrierConfig, Config
from safetake.errors import SafetakeError
from safetake.findings import Finding
from safetake.integrity.accepted import accept, accepted
from safetake.integrity.base import spread
from safetake.integrity.drift import SHRUNK, TURNED, VANISHED, check_drift
from safetake.repository import Repository
from safetake.snapshots import list_snapshots
from safetake.sources import build
from tests.support.repositories import new_repository

HOUR = 3600 * 10**9
TEXT = "INT. NEWSROOM - NIGHT\n  MINA\n한 컷 더, 만약을 위해서. {}\n"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repository") as opened:
        yield opened


def config(folder: Path, stores: dict[str, Any], **drift: Any) -> Config:
    return Config.model_validate(
        {
            "repository": {"location": str(folder / "repository")},
            "restore": {"state": folder / "state"},
            "sources": stores,
            "drift": drift,
        }
    )


def backup(config: Config, repository: Repository) -> str:
    sources = [build(name, source) for name, source in config.sources.items()]
    return take_snapshot(repository, sources, barrier=BarrierConfig()).id


def asked(
    config: Config, repository: Repository | None, after_hours: float = 0
) -> dict[str, Finding]:
    """By question, of the one source."""
    now = None
    if repository is not None:
        now = list_snapshots(repository, proofs=False)[-1].time_ns + int(after_hours * HOUR)
    found = check_drift(config, None, repository, now_ns=now)
    assert [one.check for one in found] == [VANISHED, SHRUNK, TURNED]
    return {one.check: one for one in found}


def bad(found: dict[str, Finding]) -> list[str]:
    return [check for check, one in found.items() if not one.ok]


# ------------------------------------------------------------------------------------- rows


def execute(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as db:
        for statement in statements:
            db.execute(statement)
    db.close()


def rows_of(path: Path, table: str, count: int) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY, script TEXT)")
        db.executemany(
            f"INSERT INTO {table} (script) VALUES (?)",
            [(TEXT.format(number) * 30,) for number in range(count)],
        )
    db.close()


def database(folder: Path, **drift: Any) -> Config:
    path = folder / "a.db"
    rows_of(path, "episodes", 800)
    rows_of(path, "projects", 40)
    return config(folder, {"projects": {"type": "sqlite", "path": path}}, **drift)


def test_a_loss_is_an_alarm_also_after_the_next_snapshots_until_it_is_accepted(
    tmp_path: Path, repository: Repository
) -> None:
    settings = database(tmp_path)
    backup(settings, repository)
    assert bad(asked(settings, repository)) == []
    execute(tmp_path / "a.db", "DELETE FROM episodes WHERE id > 300")
    first = asked(settings, repository)
    assert bad(first) == [SHRUNK]
    assert first[SHRUNK].ids == ["840 rows became 340", "episodes: 800 rows became 300"]
    assert "--accept projects" in first[SHRUNK].hint
    backup(settings, repository)
    backup(settings, repository)
    assert bad(asked(settings, repository, 24)) == [SHRUNK], "the next backup made it silent"
    assert bad(asked(settings, repository, 24 * 8)) == [], "it lasts as long as the window"

    accept(settings, repository, "projects")
    assert bad(asked(settings, repository, 24)) == []
    execute(tmp_path / "a.db", "DELETE FROM episodes WHERE id > 100")
    found = asked(settings, repository, 24)
    assert bad(found) == [SHRUNK], "an acceptance is of what there was then, and of no more"
    assert found[SHRUNK].ids[1] == "episodes: 300 rows became 100"


def test_a_table_that_vanished(tmp_path: Path, repository: Repository) -> None:
    settings = database(tmp_path)
    execute(tmp_path / "a.db", "CREATE TABLE draft (id)")
    backup(settings, repository)
    execute(tmp_path / "a.db", "DROP TABLE draft")
    found = asked(settings, repository)
    assert (found[VANISHED].ok, found[VANISHED].level) == (False, "warning")
    assert found[VANISHED].ids == ["draft: gone, with 0 rows"]
    execute(tmp_path / "a.db", "DROP TABLE projects")
    found = asked(settings, repository)
    assert (found[VANISHED].ok, found[VANISHED].level) == (False, "error")
    assert "projects: gone, with 40 rows" in found[VANISHED].ids


def test_limits_by_source_and_switched_off(tmp_path: Path, repository: Repository) -> None:
    settings = database(tmp_path, sources={"projects": {"shrink": 0.9}})
    backup(settings, repository)
    execute(tmp_path / "a.db", "DELETE FROM episodes WHERE id > 300")
    assert bad(asked(settings, repository)) == []
    off = config(tmp_path, {"projects": {"type": "sqlite", "path": tmp_path / "a.db"}}, shrink=0)
    found = asked(off, repository)
    assert not found[SHRUNK].asked
    assert "switched off" in found[SHRUNK].detail
    store = {"type": "sqlite", "path": tmp_path / "a.db", "may_be_empty": True}
    assert bad(asked(config(tmp_path, {"projects": store}), repository)) == []
    strict = {"projects": {"shrink": 0.5}}
    assert bad(asked(config(tmp_path, {"projects": store}, sources=strict), repository)) == [SHRUNK]


def test_what_cannot_be_asked_is_said(tmp_path: Path, repository: Repository) -> None:
    settings = database(tmp_path)
    assert not any(one.asked for one in asked(settings, None).values())
    found = check_drift(settings, None, repository)
    assert not any(one.asked for one in found), "there is no snapshot yet"
    backup(settings, repository)
    (tmp_path / "a.db").unlink()
    found = check_drift(settings, None, repository)
    assert [one.ok for one in found if one.asked] == [False, False]
    assert "does not exist" in found[1].detail


@given(st.integers(0, 300), st.integers(2, 30))
def test_a_few_of_many_snapshots_are_read_evenly(there: int, most: int) -> None:
    chosen = spread(range(there), most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(there, most)
    if there > 1:
        assert (chosen[0], chosen[-1]) == (0, there - 1)
        steps = [after - before for before, after in itertools.pairwise(chosen)]
        assert max(steps) - min(steps) <= 1


def test_an_acceptance_outlives_the_process_and_damage_is_told(
    tmp_path: Path, repository: Repository
) -> None:
    settings = database(tmp_path)
    assert accepted(settings, repository) == {}
    one = accept(settings, repository, "projects", now_ns=7)
    assert accepted(settings, repository) == {"projects": one}
    (file,) = (tmp_path / "state" / "drift").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text('{"sources": {"projects": {}}}')
    with pytest.raises(SafetakeError, match="damaged"):
        accepted(settings, repository)


# ---------------------------------------------------------------------------------- content


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def folder_of(folder: Path, **drift: Any) -> Config:
    for number in range(120):
        path = folder / "scripts" / f"p{number % 7}" / f"e{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEXT.format(number) * 40)
    return config(folder, {"scripts": {"type": "files", "path": folder / "scripts"}}, **drift)


def scripts(folder: Path) -> list[Path]:
    return sorted((folder / "scripts").rglob("*.txt"))


def test_files_that_were_encrypted_in_place(tmp_path: Path, repository: Repository) -> None:
    settings = folder_of(tmp_path)
    backup(settings, repository)
    for path in scripts(tmp_path)[:40]:
        path.write_text(path.read_text().upper())
    assert bad(asked(settings, repository)) == [], "ordinary work"
    for path in scripts(tmp_path)[:60]:
        path.write_bytes(noise(path.stat().st_size))
    found = asked(settings, repository)
    assert bad(found) == [TURNED]
    assert "60 of 60 files" in found[TURNED].detail
    backup(settings, repository)
    assert bad(asked(settings, repository, 24)) == [TURNED], "the next backup made it silent"
    accept(settings, repository, "scripts")
    assert not asked(settings, repository, 24)[TURNED].asked
    backup(settings, repository)
    assert bad(asked(settings, repository, 24)) == []


def test_files_that_were_encrypted_and_renamed(tmp_path: Path, repository: Repository) -> None:
    settings = folder_of(tmp_path)
    backup(settings, repository)
    for path in scripts(tmp_path)[:60]:
        path.with_suffix(".txt.locked").write_bytes(noise(path.stat().st_size))
        path.unlink()
    found = asked(settings, repository)
    assert bad(found) == [TURNED], "as many files as before: nothing shrank"
    assert all(name.endswith(".locked") for name in found[TURNED].ids)


def test_only_the_beginnings_were_encrypted(tmp_path: Path, repository: Repository) -> None:
    settings = folder_of(tmp_path)
    for path in scripts(tmp_path):
        path.write_text(TEXT.format(path) * 3000)
    backup(settings, repository)
    for path in scripts(tmp_path)[:60]:
        with path.open("r+b") as file:
            file.write(noise(20_000))
    assert bad(asked(settings, repository)) == [TURNED]


def test_uploads_and_archives_are_no_alarm(tmp_path: Path, repository: Repository) -> None:
    settings = folder_of(tmp_path)
    backup(settings, repository)
    for number in range(80):  # dense, but beside what there was
        (tmp_path / "scripts" / f"film{number}.bin").write_bytes(noise(5000, number))
    assert bad(asked(settings, repository)) == []
    for path in (tmp_path / "scripts").glob("film*"):
        path.unlink()
    for path in scripts(tmp_path)[:60]:  # dense in the place of what there was, and it says why
        path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert bad(asked(settings, repository)) == []


def test_folders_that_went_or_came_are_walked(tmp_path: Path, repository: Repository) -> None:
    settings = folder_of(tmp_path)
    backup(settings, repository)
    (tmp_path / "scripts" / "p0").rename(tmp_path / "scripts" / "moved")
    found = asked(settings, repository)
    assert bad(found) == []
    assert found[TURNED].detail.startswith("18 files replaced")


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_rows_that_were_encrypted(mode: str, tmp_path: Path, repository: Repository) -> None:
    path = tmp_path / "a.db"
    execute(path, f"PRAGMA journal_mode = {mode}")
    settings = database(tmp_path)
    backup(settings, repository)
    execute(path, "UPDATE episodes SET script = upper(script) || '.' WHERE id % 2")
    assert bad(asked(settings, repository)) == [], "ordinary work"
    with sqlite3.connect(path) as db:
        for one, script in db.execute("SELECT id, script FROM episodes").fetchall():
            secret = noise(len(script.encode()), one)
            db.execute("UPDATE episodes SET script = ? WHERE id = ?", (secret, one))
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    found = asked(settings, repository)
    assert bad(found) == [TURNED], found[TURNED]
    assert found[TURNED].ids[0].startswith("a.db: byte ")


def test_images_take_the_place_of_texts_where_both_are_kept(
    tmp_path: Path, repository: Repository
) -> None:
    """Freed pages are filled again with whatever comes next."""
    path = tmp_path / "a.db"
    settings = database(tmp_path)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, image BLOB)")
        db.executemany(
            "INSERT INTO images (image) VALUES (?)", [(noise(9000, n),) for n in range(600)]
        )
    db.close()
    backup(settings, repository)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM episodes WHERE id > 500")
        db.executemany(
            "INSERT INTO images (image) VALUES (?)", [(noise(9000, -n),) for n in range(60)]
        )
    db.close()
    found = asked(settings, repository)[TURNED]
    assert found.ok, found


# ------------------------------------------------------------------------- the other stores


def test_collections_of_a_folder_and_of_a_server(tmp_path: Path, repository: Repository) -> None:
    import chromadb

    from tests.support.chroma_live import server

    store = tmp_path / "chroma"
    client = chromadb.PersistentClient(str(store))
    made = client.create_collection("scripts", embedding_function=None)
    ids = [f"e{number}" for number in range(40)]
    vectors: Any = [[number, 1.0] for number in range(40)]
    made.add(ids=ids, embeddings=vectors)
    client.create_collection("drafts", embedding_function=None)
    by_path = config(tmp_path, {"vectors": {"type": "chroma", "path": store}})
    backup(by_path, repository)
    assert bad(asked(by_path, repository)) == []
    made.delete(ids=ids[:30])
    client.delete_collection("drafts")
    found = asked(by_path, repository)
    assert bad(found) == [VANISHED, SHRUNK]
    assert "default_database/scripts: 40 records became 10" in found[SHRUNK].ids
    with server(store) as address:
        by_url = config(tmp_path, {"vectors": {"type": "chroma", "url": f"http://{address}"}})
        found = asked(by_url, repository)
        assert bad(found) == [VANISHED, SHRUNK]
        assert not found[TURNED].asked


def test_keys_that_do_not_expire(tmp_path: Path, repository: Repository) -> None:
    from tests.support.redis_server import VERSIONS, running

    version = "redis-7.0" if "redis-7.0" in VERSIONS else VERSIONS[0]
    with running(version, tmp_path / "redis") as server, server.client() as client:
        client.mset({f"job:{number}": "x" for number in range(50)})
        for number in range(100):
            client.set(f"cache:{number}", "x", ex=3600)
        settings = config(tmp_path, {"queue": {"type": "redis", "url": server.url}})
        backup(settings, repository)
        client.delete(*(f"cache:{number}" for number in range(100)))
        assert bad(asked(settings, repository)) == [], "a cache may be emptied"
        client.flushall()
        found = asked(settings, repository)
        assert bad(found) == [SHRUNK]
        assert found[SHRUNK].ids == ["50 keys became 0", "database 0: 50 keys became 0"]
