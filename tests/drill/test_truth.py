"""What a drill judges by: every item, named when it is another."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.configscenario import LossConfig
from safetake.drill.items import Item, files, items, keys, rows
from safetake.drill.lose import add_newer, lose
from safetake.drill.newer import following
from safetake.drill.truth import Difference, Truth
from safetake.errors import SafetakeError
from safetake.tomltext import toml
from tests.support.redis_server import running

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalar = text | st.integers(-(2**40), 2**40) | st.booleans() | st.lists(text, max_size=3)
documents = st.recursive(
    st.dictionaries(text, scalar, max_size=3),
    lambda inner: st.dictionaries(
        text, inner | st.lists(st.dictionaries(text, scalar, max_size=2), min_size=1, max_size=2)
    ),
    max_leaves=5,
)


def plain(value: Any) -> Any:
    """Without what TOML can not tell from nothing: empty tables."""
    if isinstance(value, dict):
        kept = {name: plain(inner) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner not in ({}, [{}])}
    return value


@given(documents)
def test_given_any_document_its_toml_says_the_same(document: dict[str, Any]) -> None:
    assert plain(tomllib.loads(toml(document))) == plain(document)


def database(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    db.executescript(
        "CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT UNIQUE);"
        "CREATE TABLE episodes (id INTEGER PRIMARY KEY, project INTEGER, text BLOB);"
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
        "CREATE TABLE log (line TEXT);"
        "CREATE TRIGGER t AFTER DELETE ON episodes BEGIN DELETE FROM log; END;"
    )
    db.executemany("INSERT INTO projects VALUES (?, ?)", [(i, f"p{i}") for i in range(20)])
    db.executemany(
        "INSERT INTO episodes VALUES (?, ?, ?)", [(i, i % 20, os.urandom(9)) for i in range(99)]
    )
    db.execute("INSERT INTO settings VALUES ('a', 1.5)")
    db.executemany("INSERT INTO log VALUES (?)", [("x",), ("x",)])
    db.commit()
    return db


def test_rows_that_are_missing_changed_and_extra_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    db = database(path)
    before = Truth(tmp_path / "before.db")
    assert before.take("a", rows(path)) == 20 + 99 + 1 + 2
    now = Truth(tmp_path / "now.db")
    now.take("a", rows(path))
    assert not before.compare(now, "a")
    db.execute("DELETE FROM projects WHERE id = 7")
    db.execute("UPDATE episodes SET text = x'00' WHERE id = 3")
    db.execute("INSERT INTO settings VALUES ('b', NULL)")
    db.commit()
    now.take("a", rows(path))
    found = before.compare(now, "a")
    assert (found.missing, found.changed, found.extra) == (1, 1, 1)
    assert set(found.examples) == {
        "projects 7 is missing", "episodes 3 is another", "settings b was not there",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("made", "damage", "told"),
    [
        pytest.param(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'a')",
            "UPDATE t SET v = x'61'", (0, 1, 0), id="text became a blob"),
        pytest.param(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 1)",
            "UPDATE t SET v = 1.0", (0, 1, 0), id="a whole number became a real one"),
        pytest.param(
            "CREATE TABLE t (a, b, v, PRIMARY KEY (a, b));"
            "INSERT INTO t VALUES ('x, y', 'z', 1), ('x', 'y, z', 2)",
            "DELETE FROM t WHERE v = 2", (1, 0, 0), id="keys that read alike"),
        pytest.param(
            "CREATE TABLE t (id PRIMARY KEY, v); INSERT INTO t VALUES (1, 1), ('1', 2), (x'31', 3)",
            "DELETE FROM t WHERE v > 1", (2, 0, 0), id="keys of different types"),
        pytest.param(
            "CREATE TABLE t (id TEXT PRIMARY KEY); INSERT INTO t VALUES (NULL), (NULL), ('None')",
            "DELETE FROM t WHERE rowid = 2", (1, 0, 0), id="keys that are NULL"),
        pytest.param(
            "CREATE TABLE t (rowid); INSERT INTO t VALUES ('a'), ('a'), ('b')",
            "DELETE FROM t WHERE _rowid_ = 2", (1, 0, 0), id="a column called rowid"),
        pytest.param(
            "CREATE TABLE t (rowid, oid, _rowid_); INSERT INTO t VALUES (1, 1, 1), (1, 1, 1)",
            "DELETE FROM t", (2, 0, 0), id="no name for row numbers"),
        pytest.param(
            "CREATE TABLE t (v TEXT); INSERT INTO t VALUES (CAST(x'ff' AS TEXT))",
            "UPDATE t SET v = CAST(x'fe' AS TEXT)", (0, 1, 0), id="text that is no UTF-8"),
        pytest.param(
            "CREATE TABLE t (a); CREATE TABLE empty (a)", "DROP TABLE empty", (1, 0, 0),
            id="a table without rows"),
        pytest.param(
            "CREATE TABLE t (a); CREATE INDEX i ON t (a); CREATE TRIGGER g AFTER DELETE ON t "
            "BEGIN SELECT 1; END; CREATE VIEW w AS SELECT 1",
            "DROP INDEX i; DROP TRIGGER g; DROP VIEW w", (3, 0, 0), id="index, trigger, view"),
        pytest.param(
            "CREATE TABLE sqlitex (a); INSERT INTO sqlitex VALUES (1)", "DELETE FROM sqlitex",
            (1, 0, 0), id="a name that begins like SQLite's own"),
    ],
)  # fmt: skip
def test_no_difference_of_rows_is_too_small(
    made: str, damage: str, told: tuple[int, int, int], tmp_path: Path
) -> None:
    path = tmp_path / "a.db"
    db = sqlite3.connect(path)
    db.executescript(made)
    assert not difference(path, tmp_path, lambda: None)
    found = difference(path, tmp_path, lambda: db.executescript(damage))
    assert (found.missing, found.changed, found.extra) == told, found.words()
    db.close()


def difference(path: Path, folder: Path, damage: Callable[[], object]) -> Difference:
    before, now = Truth(folder / "b.db"), Truth(folder / "n.db")
    before.take("a", rows(path))
    damage()
    now.take("a", rows(path))
    return before.compare(now, "a")


def test_two_things_with_one_name_are_no_truth(tmp_path: Path) -> None:
    truth = Truth(tmp_path / "t.db")
    assert truth.take("a", [Item("p", "n", b"1"), Item("p", "n", b"1")]) == 1
    with pytest.raises(SafetakeError, match="two things are called p n"):
        truth.take("a", [Item("p", "n", b"1"), Item("p", "n", b"2")])


def test_a_collection_without_records_and_its_metadata(tmp_path: Path) -> None:
    script = (
        "import chromadb, sys; c = chromadb.PersistentClient(sys.argv[1]);"
        "make = lambda n, **k: c.create_collection(n, embedding_function=None, **k);"
        "make('full').add(ids=['1', '2'], embeddings=[[1.0, 2.0], [3.0, 4.0]]);"
        "make('empty'); make('told', metadata={'v': 1});"
        "make('near', configuration={'hnsw': {'space': 'l2'}})"
    )
    change = (
        "import chromadb, sys; c = chromadb.PersistentClient(sys.argv[1]);"
        "c.delete_collection('empty');"
        "c.get_collection('told', embedding_function=None).modify(metadata={'v': 2});"
        "c.delete_collection('near'); c.create_collection('near', embedding_function=None,"
        "configuration={'hnsw': {'space': 'cosine'}});"
        "full = c.get_collection('full', embedding_function=None); full.delete(ids=['1']);"
        "full.add(ids=['1'], embeddings=[[1.0, 2.0]], uris=['s3://x'])"
    )
    folder, scratch = tmp_path / "c", tmp_path / "s"
    scratch.mkdir()
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)
    before, now = Truth(tmp_path / "b.db"), Truth(tmp_path / "n.db")
    assert before.take("v", items("chroma", folder, 0, scratch)) == 2
    assert before.parts("v") == {"full": 2}
    subprocess.run([sys.executable, "-c", change, str(folder)], check=True)
    now.take("v", items("chroma", folder, 0, scratch))
    found = before.compare(now, "v")
    assert (found.missing, found.changed, found.extra) == (1, 3, 0)
    assert set(found.examples) == {
        "collection empty is missing", "collection told is another",
        "collection near is another", "full 1 is another",
    }  # fmt: skip
    assert list(scratch.iterdir()) == []


def test_what_is_newer_is_never_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database(path).close()
    before, newer, after = (Truth(tmp_path / f"{name}-truth.db") for name in "bna")
    before.take("a", rows(path))
    old, without = add_newer("sqlite", path, 0)
    newer.take("a", rows(path))
    added = before.compare(newer, "a")
    assert (added.missing, added.changed, added.extra) == (0, 0, 4)
    assert without == ""
    lose(LossConfig(source="a", share=0.1), "sqlite", path, 0, old)
    after.take("a", rows(path))
    lost = newer.compare(after, "a")
    assert (lost.missing, lost.changed, lost.extra) == (2 + 10 + 1 + 1, 0, 0)
    assert before.compare(after, "a").extra == 4, "what was newer is gone"


def test_a_newer_row_fits_its_table(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    db = sqlite3.connect(path)
    db.executescript(
        "CREATE TABLE tagged (project REFERENCES projects, tag REFERENCES tags,"
        " PRIMARY KEY (project, tag)) WITHOUT ROWID;"
        "CREATE TABLE projects (id TEXT PRIMARY KEY, made REAL UNIQUE, seal BLOB UNIQUE) STRICT;"
        "CREATE TABLE tags (id INTEGER PRIMARY KEY, name TEXT);"
        "CREATE TABLE mails (mail TEXT, upper AS (upper(mail)) UNIQUE);"
        "CREATE UNIQUE INDEX lowered ON mails (lower(mail));"
        "CREATE TABLE pairs (a INTEGER, b INTEGER, PRIMARY KEY (a, b));"
        "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1));"
        "CREATE TABLE quiet (a);"
        "CREATE VIRTUAL TABLE words USING fts5(word);"
        "INSERT INTO projects VALUES ('4a-ff', 1.5, x'00ff'), ('4A-09', 2.5, x'');"
        "INSERT INTO tags VALUES (1, 'x'), (2, 'y');"
        "INSERT INTO tagged SELECT projects.id, tags.id FROM projects, tags;"
        "INSERT INTO mails VALUES ('A@b.de');"
        "INSERT INTO pairs VALUES (1, 9);"
        "INSERT INTO state VALUES (1);"
        "INSERT INTO words VALUES ('one');"
    )
    db.commit()
    _, without = add_newer("sqlite", path, 0)
    refused = "state (CHECK constraint failed: id = 1), quiet (it is empty)"
    assert sorted(without.split(", ")) == sorted(refused.split(", "))
    newest = "SELECT * FROM {} ORDER BY rowid DESC LIMIT 1"
    assert db.execute(newest.format("projects")).fetchone() == ("4A-10", 3.5, b"\x01")
    assert db.execute(newest.format("mails")).fetchone() == ("A@b.df", "A@B.DF")
    assert db.execute(newest.format("pairs")).fetchone() == (1, 10)
    assert db.execute("SELECT count(*), max(tag) FROM tagged").fetchone() == (5, 3)
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("SELECT count(*) FROM words").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize(
    ("text", "next_text"),
    [
        ("p19", "p20"), ("Ep. 9z", "Eq. 0a"), ("4f-ff", "5a-aa"), ("0F", "1A"),
        ("서울", "서울 safetake-drill-newer"), ("99", "99 safetake-drill-newer"),
    ],
)  # fmt: skip
def test_the_next_text_has_the_same_form(text: str, next_text: str) -> None:
    assert following(text) == next_text


def test_files_links_and_modes(tmp_path: Path) -> None:
    root = tmp_path / "files"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "a").write_text("a")
    (root / "b").symlink_to("inner/a")
    before, now = Truth(tmp_path / "b.db"), Truth(tmp_path / "n.db")
    assert before.take("f", files(root)) == 3
    now.take("f", files(root))
    assert not before.compare(now, "f")
    (root / "inner" / "a").chmod(0o600)
    (root / "b").unlink()
    (root / "b").symlink_to("inner/c")
    now.take("f", files(root))
    assert before.compare(now, "f").changed == 2


def test_keys_of_every_kind_and_when_they_expire(tmp_path: Path) -> None:
    with running("redis-7.0", tmp_path / "r") as server, server.client() as client:
        client.set("s", "1", ex=1000)
        client.rpush("l", "a", "b")
        client.sadd("set", *range(600))
        client.zadd("z", {"a": 1.5, "b": 2})
        client.hset("h", mapping={str(i): i for i in range(600)})
        client.xadd("x", {"a": 1})
        server.client(3).set("other", b"\xff\x00")
        client.set(b"\xff", "bytes")
        client.set("\\xff", "text")
        client.set("big", b"x" * (6 << 20))
        before, now = Truth(tmp_path / "b.db"), Truth(tmp_path / "n.db")
        assert before.take("q", keys(server.port)) == 10
        assert before.parts("q") == {"0": 9, "3": 1}
        now.take("q", keys(server.port))
        assert not before.compare(now, "q")
        client.expire("s", 10)
        client.hset("h", "5", "x")
        client.delete("l", b"\xff")
        client.setrange("big", 5 << 20, "y")
        client.xgroup_create("x", "group")
        now.take("q", keys(server.port))
        found = before.compare(now, "q")
        assert (found.missing, found.changed, found.extra) == (2, 4, 0)


@pytest.mark.parametrize(
    "ways", [{}, {"everything": True, "share": 0.1}, {"share": 0.0}, {"share": 1.5}]
)
def test_a_loss_is_one_thing(ways: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        LossConfig(source="a", **ways)
