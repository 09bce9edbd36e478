"""`safetake rows`: exactly the missing rows come back, and nothing written since is lost."""

from __future__ import annotations

import errno
import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from safetake.errors import RefusedError, SafetakeError, SourceError, UsageError
from safetake.sources.sqlite.rows import apply, undo
from safetake.sources.sqlite.rows.job import Report
from safetake.sources.sqlite.rows.select import parse_time
from tests.support.repositories import memory_folder
from tests.support.rows import Ground, Row

DRAMA = (
    "CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT NOT NULL, created_at TEXT)",
    "CREATE TABLE episodes (id INTEGER PRIMARY KEY,"
    " project_id INTEGER NOT NULL REFERENCES projects(id) ON DELETE CASCADE, title TEXT)",
)


@pytest.fixture
def ground() -> Iterator[Ground]:
    with memory_folder() as folder:
        yield Ground(folder)


@pytest.fixture(params=["wal", "delete"])
def drama(request: pytest.FixtureRequest, ground: Ground) -> Ground:
    """20 projects with 3 episodes each, captured; in both journal modes."""
    connection = apsw.Connection(str(ground.path))
    connection.execute(f"PRAGMA journal_mode = {request.param}").fetchall()
    connection.close()
    ground.sql(*DRAMA)
    ground.many(
        "INSERT INTO projects VALUES (?, ?, ?)",
        [(n, f"드라마 {n}", f"2026-11-{n:02d} 10:00:00") for n in range(1, 21)],
    )
    ground.many(
        "INSERT INTO episodes VALUES (?, ?, ?)",
        [(n, 1 + n % 20, f"장면 {n}") for n in range(1, 61)],
    )
    ground.capture()
    return ground


# ------------------------------------------------------------------------------ the drill (R8)


def test_given_lost_rows_then_exactly_they_come_back_and_new_ones_stay(drama: Ground) -> None:
    before = drama.table("projects"), drama.table("episodes")
    drama.sql(
        "DELETE FROM projects WHERE id IN (3, 4, 5)",
        "UPDATE projects SET name = 'ours' WHERE id = 7",
        "INSERT INTO projects VALUES (30, 'new', '2026-12-01')",
        "INSERT INTO episodes VALUES (90, 30, 'new'), (91, 7, 'new')",
        foreign_keys=True,
    )
    now = drama.table("projects"), drama.table("episodes")
    report = drama.rows()
    counts = report.tables["projects"]
    assert (counts.missing, counts.changed, counts.extra) == (3, 1, 1)
    counts = report.tables["episodes"]
    assert (counts.missing, counts.changed, counts.extra) == (9, 0, 2)
    assert (drama.table("projects"), drama.table("episodes")) == now

    rehearsed = drama.rows(apply=True, dry_run=True).result
    assert rehearsed is not None
    assert (drama.table("projects"), drama.table("episodes")) == now
    report = drama.rows(apply=True)
    assert report.result is not None
    assert report.result == rehearsed
    assert report.result.inserted == {"projects": 3, "episodes": 9}
    ours = {row for row in now[0] if row[1][1] == "ours"}
    was = {row for row in before[0] if row[0][1] == 7}
    assert set(drama.table("projects")) == (set(before[0]) - was) | set(now[0]) | ours
    assert set(drama.table("episodes")) == set(before[1]) | set(now[1])
    drama.healthy()
    drama.undo()
    assert (drama.table("projects"), drama.table("episodes")) == now


def test_the_naive_ways_lose_rows_or_prove_nothing(drama: Ground, tmp_path: Path) -> None:
    copy = tmp_path / "backup.db"
    drama.sql("PRAGMA user_version")
    source = apsw.Connection(str(drama.path))
    target = apsw.Connection(str(copy))
    with target.backup("main", source, "main") as backup:
        backup.step(-1)
    source.close()
    target.close()
    drama.sql("DELETE FROM projects WHERE id <= 5", "INSERT INTO projects VALUES (50, 'new', '')")
    aside = tmp_path / "aside.db"
    for suffix in ("", "-wal", "-shm"):
        if Path(f"{drama.path}{suffix}").exists():
            shutil.copy(f"{drama.path}{suffix}", f"{aside}{suffix}")

    # the document's way: the backup over everything. The new row is lost.
    for suffix in ("-wal", "-shm"):
        Path(f"{drama.path}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, drama.path)
    assert drama.sql("SELECT count(*) FROM projects WHERE id = 50") == [(0,)]
    # its proof, RECOVERED >= CURRENT, passes with rows that nobody lost
    drama.sql("UPDATE projects SET name = 'wrong'")
    assert drama.sql("SELECT count(*) FROM projects")[0][0] >= 16

    for suffix in ("", "-wal", "-shm"):
        Path(f"{drama.path}{suffix}").unlink(missing_ok=True)
        if Path(f"{aside}{suffix}").exists():
            shutil.copy(f"{aside}{suffix}", f"{drama.path}{suffix}")
    drama.rows(apply=True)
    assert drama.sql("SELECT count(*) FROM projects WHERE id = 50") == [(1,)]
    again = drama.rows().tables["projects"]
    assert (again.missing, again.changed, again.extra) == (0, 0, 1)


def test_changed_rows_go_back_only_when_asked_and_can_be_undone(drama: Ground) -> None:
    drama.sql(
        "UPDATE projects SET name = upper(name) || '!' WHERE id BETWEEN 2 AND 4",
        "DELETE FROM episodes WHERE id = 9",
    )
    now = drama.table("projects"), drama.table("episodes")
    missing_only = drama.rows(apply=True).result
    assert missing_only is not None
    assert missing_only.updated == {}
    report = drama.rows(apply=True, changed=True)
    assert report.result is not None
    assert report.result.updated == {"projects": 3}
    assert drama.rows().wanted == 0
    drama.undo()
    drama.undo()
    assert (drama.table("projects"), drama.table("episodes")) == now


def test_the_facts_of_the_snapshot_only_save_a_count(drama: Ground) -> None:
    drama.sql("DELETE FROM episodes WHERE id < 7", "INSERT INTO episodes VALUES (99, 1, 'x')")
    assert drama.rows().tables == drama.rows(facts=False).tables


# ------------------------------------------------------------------- written while it goes on


def test_given_rows_written_after_the_comparison_then_they_stay(drama: Ground) -> None:
    drama.sql(
        "DELETE FROM episodes WHERE id IN (1, 2, 3)",
        "UPDATE projects SET name = 'spoilt' WHERE id IN (8, 9)",
    )

    def meanwhile(_report: Report) -> bool:
        drama.sql(
            "INSERT INTO episodes VALUES (2, 5, 'written since')",
            "UPDATE projects SET name = 'written since' WHERE id = 9",
            "INSERT INTO projects VALUES (40, 'new', NULL)",
        )
        return True

    report = drama.rows(apply=True, changed=True, confirm=meanwhile)
    assert drama.left_out(report) == {
        "episodes id = 2": "a row with its key was written since the comparison",
        "projects id = 9": "it was written since the comparison",
    }
    assert drama.sql("SELECT title FROM episodes WHERE id < 4 ORDER BY id") == [
        ("장면 1",), ("written since",), ("장면 3",),
    ]  # fmt: skip
    assert drama.sql("SELECT name FROM projects WHERE id IN (8, 9, 40) ORDER BY id") == [
        ("드라마 8",), ("written since",), ("new",),
    ]  # fmt: skip
    # and an undo takes back what was brought back, and nothing else
    assert drama.undo().inserted == {"episodes": 2}
    assert drama.sql("SELECT title FROM episodes WHERE id < 4") == [("written since",)]


def test_given_no_consent_then_nothing_happened(drama: Ground) -> None:
    drama.sql("DELETE FROM episodes WHERE id = 1")
    assert drama.rows(apply=True, confirm=lambda report: False).result is None
    assert list(drama.state.iterdir()) == []
    assert drama.rows().tables["episodes"].missing == 1


def test_given_a_writer_that_stays_then_it_ends_and_nothing_happened(drama: Ground) -> None:
    drama.sql("DELETE FROM episodes WHERE id = 1")
    writer = apsw.Connection(str(drama.path))

    def meanwhile(_report: Report) -> bool:
        writer.execute("BEGIN IMMEDIATE").fetchall()
        return True

    with pytest.raises(SourceError, match="locked"):
        drama.rows(apply=True, confirm=meanwhile)
    writer.close(True)
    assert list(drama.state.iterdir()) == []
    assert drama.rows().tables["episodes"].missing == 1


WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
number = 1000
print("ready", flush=True)
while not sys.stdin.closed and number < 20000:
    db.execute("INSERT INTO episodes VALUES (?, 1, 'acknowledged')", (number,))
    db.execute("UPDATE projects SET name = ? WHERE id = 1", (str(number),))
    print(number, flush=True)
    number += 1
"""


def test_given_an_application_that_writes_then_every_acknowledged_row_stays(drama: Ground) -> None:
    lost = {row for row in drama.table("episodes") if row[0][1] <= 20}
    drama.sql("DELETE FROM episodes WHERE id <= 20")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, drama.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == "ready\n"
    try:
        for _ in range(5):
            writer.stdout.readline()
            assert drama.rows(apply=True).result is not None
            assert lost <= set(drama.table("episodes"))
            drama.undo()
            assert not lost & set(drama.table("episodes"))
        drama.rows(apply=True)
    finally:
        writer.kill()
        rest, _ = writer.communicate()
    acknowledged = int(rest.split("\n")[-2]) if rest.count("\n") else 1000
    there = {row[0] for row in drama.sql("SELECT id FROM episodes")}
    assert there >= set(range(1, 61)) | set(range(1000, acknowledged + 1))
    assert int(drama.sql("SELECT name FROM projects WHERE id = 1")[0][0]) >= acknowledged
    drama.healthy()


# ----------------------------------------------------------------------------- foreign keys


def test_given_a_filter_then_missing_parents_come_along(drama: Ground) -> None:
    drama.sql("DELETE FROM projects WHERE id IN (3, 4)", foreign_keys=True)
    report = drama.rows(apply=True, tables=("episodes",), where="id = 2")
    assert report.tables["projects"].parents == 1
    assert report.result is not None
    assert report.result.inserted == {"projects": 1, "episodes": 1}
    drama.healthy()


def test_given_orphans_in_the_snapshot_then_they_are_named(ground: Ground) -> None:
    ground.sql(*DRAMA, "INSERT INTO episodes VALUES (1, 77, 'orphan')")
    ground.capture()
    ground.sql("DELETE FROM episodes")
    report = ground.rows(apply=True)
    assert ground.left_out(report) == {
        "episodes id = 1": "its parent projects (id = 77) is not there"
    }


def test_given_circles_then_rows_that_refer_to_each_other_come_back(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b(id),"
        " up INTEGER REFERENCES a)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id))",
        "INSERT INTO a VALUES (1, 1, 3), (2, 2, NULL), (3, NULL, 2), (4, NULL, 99)",
        "INSERT INTO b VALUES (1, 1), (2, 3)",
    )
    ground.capture()
    before = ground.table("a"), ground.table("b")
    ground.sql("DELETE FROM a", "DELETE FROM b")
    report = ground.rows(apply=True)
    assert ground.left_out(report) == {"a id = 4": "its parent a (id = 99) is not there"}
    ground.sql("INSERT INTO a VALUES (4, NULL, 99)")
    assert (ground.table("a"), ground.table("b")) == before
    ground.sql("DELETE FROM a WHERE id = 4")
    assert ground.undo().inserted == {"a": 3, "b": 2}
    assert ground.table("a") == ground.table("b") == {}


# ----------------------------------------------------------------------- ids used again


def test_given_an_id_used_again_then_the_new_row_and_its_children_stay(drama: Ground) -> None:
    drama.sql(
        "DELETE FROM projects WHERE id = 20",
        "INSERT INTO projects (name, created_at) VALUES ('another', '2026-12-24')",
        foreign_keys=True,
    )
    assert drama.sql("SELECT max(id) FROM projects") == [(20,)]
    report = drama.rows(apply=True)
    assert report.tables["projects"].recycled == 1
    reasons = drama.left_out(report)
    assert len(reasons) == 3
    assert all("perhaps another row now" in reason for reason in reasons.values())
    report = drama.rows(apply=True, changed=True)
    assert drama.left_out(report)["projects id = 20"].startswith("perhaps another row now")
    assert len(drama.left_out(report)) == 4
    assert drama.sql("SELECT name FROM projects WHERE id = 20") == [("another",)]
    report = drama.rows(apply=True, changed=True, recycled=True)
    assert report.result is not None
    assert (report.result.updated, report.result.inserted) == ({"projects": 1}, {"episodes": 3})
    assert drama.rows().wanted == 0


@pytest.mark.parametrize(
    ("columns", "change", "recycled"),
    [
        ("id INTEGER PRIMARY KEY, a, b", "UPDATE t SET a = 'x' WHERE id = 2", 0),
        ("id INTEGER PRIMARY KEY, a, b", "UPDATE t SET a = 'x' WHERE id = 5", 1),  # the last
        ("id INTEGER PRIMARY KEY, a, b", "UPDATE t SET a = 'x', b = 'y' WHERE id = 2", 1),
        ("id INTEGER PRIMARY KEY, a, created", "UPDATE t SET a = 'x' WHERE id = 5", 0),
        ("id INTEGER PRIMARY KEY, a, created", "UPDATE t SET created = 9 WHERE id = 1", 1),
        ("id INTEGER PRIMARY KEY AUTOINCREMENT, a, b", "UPDATE t SET a = 1, b = 1 WHERE id = 5", 0),
        ("id TEXT PRIMARY KEY, a, b", "UPDATE t SET a = 'x', b = 'y' WHERE id = 5", 0),
    ],
)
def test_which_changes_look_recycled(
    ground: Ground, columns: str, change: str, recycled: int
) -> None:
    ground.sql(f"CREATE TABLE t ({columns})")
    ground.many("INSERT INTO t VALUES (?, ?, ?)", [(n, f"a{n}", f"b{n}") for n in range(1, 6)])
    ground.capture()
    ground.sql(change)
    counts = ground.rows().tables["t"]
    assert (counts.changed, counts.recycled) == (1, recycled)


# ------------------------------------------------------------------------------- triggers

AUDIT = "CREATE TRIGGER audited AFTER INSERT ON notes BEGIN INSERT INTO audit VALUES (new.id); END"
INDEXED = (
    "CREATE VIRTUAL TABLE found USING fts5(body, content=notes, content_rowid=id)",
    "CREATE TRIGGER n_ai AFTER INSERT ON notes BEGIN"
    " INSERT INTO found(rowid, body) VALUES (new.id, new.body); END",
    "CREATE TRIGGER n_ad AFTER DELETE ON notes BEGIN"
    " INSERT INTO found(found, rowid, body) VALUES ('delete', old.id, old.body); END",
    "CREATE TRIGGER n_au AFTER UPDATE ON notes BEGIN"
    " INSERT INTO found(found, rowid, body) VALUES ('delete', old.id, old.body);"
    " INSERT INTO found(rowid, body) VALUES (new.id, new.body); END",
)
NOTES = (
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)",
    "CREATE TABLE audit (note)",
)


def test_given_an_audit_trigger_then_nothing_is_written_twice(ground: Ground) -> None:
    ground.sql(*NOTES, AUDIT, "INSERT INTO notes VALUES (1, 'a'), (2, 'b')")
    ground.capture()
    schema = ground.sql("SELECT * FROM sqlite_schema")
    ground.sql("DELETE FROM notes WHERE id = 1")
    report = ground.rows(apply=True)
    assert report.result is not None
    assert report.result.silent == {"notes": ["audited"]}
    assert ground.sql("SELECT count(*) FROM audit") == [(2,)]
    assert ground.sql("SELECT * FROM sqlite_schema") == schema
    ground.sql("INSERT INTO notes VALUES (9, 'c')")  # for everybody else it still fires
    assert ground.sql("SELECT count(*) FROM audit") == [(3,)]
    ground.undo()
    ground.rows(apply=True, fire_triggers=True)
    assert ground.sql("SELECT count(*) FROM audit") == [(4,)]


def test_given_a_full_text_index_then_its_triggers_keep_it_in_step(ground: Ground) -> None:
    ground.sql(*NOTES, *INDEXED, "INSERT INTO notes VALUES (1, 'lost words'), (2, 'kept words')")
    ground.capture()
    ground.sql("DELETE FROM notes WHERE id = 1", "UPDATE notes SET body = 'spoilt' WHERE id = 2")
    assert ground.sql("SELECT rowid FROM found('lost')") == []
    report = ground.rows(apply=True, changed=True, recycled=True)
    assert "found" in report.not_compared
    assert not [name for name in report.tables if name.startswith("found_")]
    check = "INSERT INTO found(found, rank) VALUES ('integrity-check', 1)"
    assert ground.sql(check, "SELECT rowid FROM found('words') ORDER BY 1") == [(1,), (2,)]
    ground.undo()
    assert ground.sql(check, "SELECT rowid FROM found('spoilt OR lost')") == [(2,)]


def test_given_an_index_and_an_audit_then_it_is_refused(ground: Ground) -> None:
    ground.sql(*NOTES, *INDEXED, AUDIT, "INSERT INTO notes VALUES (1, 'lost')")
    ground.capture()
    ground.sql("DELETE FROM notes")
    with pytest.raises(RefusedError, match="audited"):
        ground.rows(apply=True)
    assert list(ground.state.iterdir()) == []
    ground.rows(apply=True, fire_triggers=True)
    assert ground.sql("SELECT rowid FROM found('lost')") == [(1,)]


# --------------------------------------------------------------------------------- conflicts


def test_given_a_unique_value_in_use_then_the_row_and_its_children_are_named(
    ground: Ground,
) -> None:
    ground.sql(
        "CREATE TABLE users (id INTEGER PRIMARY KEY, mail TEXT UNIQUE ON CONFLICT REPLACE,"
        " age INTEGER CHECK (age > 0))",
        "CREATE TABLE posts (id INTEGER PRIMARY KEY, by INTEGER REFERENCES users(id))",
    )
    ground.many("INSERT INTO users VALUES (?, ?, 1)", [(n, f"m{n}") for n in range(1, 41)])
    ground.many("INSERT INTO posts VALUES (?, ?)", [(n, n) for n in range(1, 41)])
    ground.capture()
    ground.sql(
        "DELETE FROM posts",
        "DELETE FROM users WHERE id <= 20",
        "INSERT INTO users VALUES (90, 'm7', 1)",
    )
    report = ground.rows(apply=True)
    assert ground.left_out(report) == {
        "users id = 7": "UNIQUE constraint failed: users.mail",
        "posts id = 7": "its parent users (id = 7) is not there",
    }
    assert ground.sql("SELECT id FROM users WHERE mail = 'm7'") == [(90,)]
    assert report.result is not None
    assert report.result.inserted == {"users": 19, "posts": 39}
    ground.healthy()
    ground.sql("DELETE FROM users WHERE id = 90", "INSERT INTO users VALUES (7, 'm7', 1)")
    ground.undo()  # the row that was left out, and was written since by itself, stays
    assert ground.sql("SELECT id FROM users WHERE id <= 20") == [(7,)]


def test_given_a_tree_with_a_conflict_then_what_hangs_on_it_is_named(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, up INTEGER REFERENCES t(id), u UNIQUE)",
        "INSERT INTO t VALUES (1, NULL, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, NULL, 'd'),"
        " (5, 4, 'e'), (6, NULL, 'f')",
    )
    ground.capture()
    ground.sql("DELETE FROM t WHERE id < 6", "INSERT INTO t VALUES (9, NULL, 'a')")
    assert ground.left_out(ground.rows(apply=True)) == {
        "t id = 1": "UNIQUE constraint failed: t.u",
        "t id = 2": "its parent t (id = 1) is not there",
        "t id = 3": "its parent t (id = 2) is not there",
    }
    assert ground.sql("SELECT id FROM t ORDER BY id") == [(4,), (5,), (6,), (9,)]
    assert ground.undo().inserted == {"t": 2}


def test_given_a_new_check_then_rows_that_break_it_are_named(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, age)", "INSERT INTO t VALUES (1, -1), (2, 2)"
    )
    ground.capture()
    ground.sql("DROP TABLE t", "CREATE TABLE t (id INTEGER PRIMARY KEY, age CHECK (age > 0))")
    assert ground.left_out(ground.rows(apply=True)) == {
        "t id = 1": "CHECK constraint failed: age > 0"
    }
    assert ground.sql("SELECT * FROM t") == [(2, 2)]


# ------------------------------------------------------------------------ shapes of tables


def test_given_another_schema_then_common_columns_count(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, gone TEXT, twice AS (a || a) STORED)",
        "INSERT INTO t (id, a, gone) VALUES (1, 'x', 'g'), (2, 'y', 'g')",
    )
    ground.capture()
    ground.sql(
        "ALTER TABLE t DROP COLUMN gone",
        "ALTER TABLE t ADD COLUMN more TEXT NOT NULL DEFAULT 'd1'",
        "DELETE FROM t WHERE id = 1",
    )
    report = ground.rows(apply=True)
    assert report.notes["t"] == ["columns since the snapshot: more", "columns that are gone: gone"]
    assert ground.sql("SELECT id, a, twice, more FROM t ORDER BY id") == [
        (1, "x", "xx", "d1"), (2, "y", "yy", "d1"),
    ]  # fmt: skip
    assert ground.undo().inserted == {"t": 1}


def test_given_a_column_that_needs_a_value_then_it_is_refused(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES (1, 1)")
    ground.capture()
    ground.sql("DROP TABLE t", "CREATE TABLE t (id INTEGER PRIMARY KEY, a, must TEXT NOT NULL)")
    assert ground.rows().tables["t"].missing == 1
    with pytest.raises(RefusedError, match="must"):
        ground.rows(apply=True)


def test_given_tables_that_do_not_fit_then_the_reason_is_told(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE dropped (a)", "CREATE TABLE other (a INTEGER PRIMARY KEY, b UNIQUE NOT NULL)",
        "CREATE TABLE fits (a)",
    )  # fmt: skip
    ground.capture()
    ground.sql(
        "DROP TABLE dropped", "DROP TABLE other", "CREATE TABLE other (b TEXT PRIMARY KEY, a)",
        "CREATE TABLE young (a)", "CREATE VIRTUAL TABLE box USING rtree(id, x, y)",
    )  # fmt: skip
    report = ground.rows()
    assert set(report.tables) == {"fits"}
    assert "not in the live database" in report.not_compared["dropped"]
    assert "key is another" in report.not_compared["other"]
    assert "not in the snapshot" in report.not_compared["young"]
    assert "virtual" in report.not_compared["box"]
    assert set(report.unable) == {"dropped", "other"}
    with pytest.raises(UsageError, match="virtual"):
        ground.rows(tables=("box",))
    assert ground.rows(tables=("fits",)).unable == {}


def test_given_no_key_then_equal_rows_are_counted(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (a, b)")
    ground.many("INSERT INTO t VALUES (?, ?)", [("x", 1)] * 5 + [("x", 1.0)] * 2 + [(None, b"")])
    ground.capture()
    before = ground.table("t")
    ground.sql("DELETE FROM t WHERE rowid IN (1, 3, 6, 8)", "INSERT INTO t VALUES ('new', 2)")
    ground.sql("CREATE TABLE copy AS SELECT * FROM t ORDER BY b DESC", "DELETE FROM t",
               "INSERT INTO t SELECT * FROM copy", "DROP TABLE copy")  # fmt: skip
    now = ground.table("t")
    counts = ground.rows(show=("missing", "extra")).tables["t"]
    assert (counts.missing, counts.changed, counts.extra) == (4, 0, 1)
    ground.rows(apply=True)
    assert ground.table("t") == before | now
    ground.undo()
    assert ground.table("t") == now


def test_keys_of_every_kind(ground: Ground) -> None:
    shapes = {
        "text": "(k TEXT PRIMARY KEY COLLATE NOCASE, v)",
        "two": "(k, n, v, PRIMARY KEY (n, k)) WITHOUT ROWID",
        "uniq": "(k TEXT NOT NULL UNIQUE, v)",
        "strict": "(k ANY PRIMARY KEY, v ANY) STRICT",
        "hidden": "(rowid TEXT, _rowid_ TEXT, oid TEXT, k TEXT PRIMARY KEY, v)",
    }
    for name, shape in shapes.items():
        ground.sql(f"CREATE TABLE {name} {shape}")
        columns, marks = ("k, v, n", "?, ?, 7") if name == "two" else ("k, v", "?, ?")
        rows: list[Row] = [(f"k{n}", f"v{n}") for n in range(30)]
        ground.many(f"INSERT INTO {name} ({columns}) VALUES ({marks})", rows)
    ground.capture()
    before = {name: ground.table(name) for name in shapes}
    for name in shapes:
        ground.sql(
            f"DELETE FROM {name} WHERE k LIKE 'k1%'", f"UPDATE {name} SET v = 'c' WHERE k = 'k3'"
        )
    now = {name: ground.table(name) for name in shapes}
    report = ground.rows(apply=True, changed=True)
    for name in shapes:
        counts = report.tables[name]
        assert (counts.missing, counts.changed, counts.extra) == (11, 1, 0), name
        assert ground.table(name) == before[name]
    ground.undo()
    assert {name: ground.table(name) for name in shapes} == now


def test_given_keys_that_are_null_then_whole_rows_count(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (k TEXT PRIMARY KEY, v)")
    ground.many("INSERT INTO t VALUES (?, ?)", [(None, 1), (None, 1), (None, 2), ("a", 3)])
    ground.capture()
    before = ground.table("t")
    ground.sql("DELETE FROM t WHERE v < 3")
    ground.rows(apply=True)
    assert ground.table("t") == before


def test_odd_names_and_wide_tables(ground: Ground) -> None:
    wide = ", ".join(f"c{n} DEFAULT {n}" for n in range(950))
    ground.sql(
        'CREATE TABLE "sel""ect" ("gr oup" INTEGER PRIMARY KEY DESC, "o"" x", "\'" TEXT)',
        f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {wide})",
        'CREATE TABLE "표" ("열" TEXT PRIMARY KEY, k0, kind, recycled, n, r, o0) WITHOUT ROWID',
        "CREATE VIEW seen AS SELECT 1",
        'INSERT INTO "sel""ect" VALUES (5, 1, 2), (6, 3, 4)',
        "INSERT INTO wide (id) VALUES (1), (2)",
        "INSERT INTO \"표\" VALUES ('가', 1, 2, 3, 4, 5, 6), ('나', 1, 2, 3, 4, 5, 6)",
    )
    ground.capture()
    names = ('"sel""ect"', "wide", '"표"')
    before = {name: ground.table(name) for name in names}
    ground.sql(
        *(f"DELETE FROM {name} WHERE rowid IN (1, 5)" for name in names[:2]),
        "UPDATE wide SET c949 = 'x' WHERE id = 2",
        'DELETE FROM "표" WHERE "열" = \'가\'',
    )
    report = ground.rows(apply=True, changed=True, recycled=True, show=("missing", "changed"))
    assert report.not_compared == {}
    assert {name: ground.table(name) for name in names} == before
    ground.undo()
    assert ground.rows().tables["wide"].changed == 1


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_values_come_back_as_they_were(ground: Ground, encoding: str) -> None:
    ground.path.touch()
    connection = apsw.Connection(str(ground.path))
    connection.pragma("encoding", encoding)
    connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v, c TEXT COLLATE NOCASE)"
    ).fetchall()
    connection.close()
    values = [
        1, 1.0, "1", b"1", None, "a\0b", "", b"", -0.5, 2**63 - 1, -(2**63), float("inf"),
        float("-inf"), 1e300, "장면 \U0001f3ac", "x" * 200_000, b"\0" * 100_000,
    ]  # fmt: skip
    ground.many("INSERT INTO t VALUES (?, ?, 'A')", list(enumerate(values)))
    ground.sql("INSERT INTO t VALUES (900, CAST(x'ff41c0' AS TEXT), 'A')")
    ground.capture()
    shown = "id, typeof(v), hex(v), c"
    before = ground.table("t", shown)
    ground.sql("DELETE FROM t")
    report = ground.rows(apply=True, show=("missing",))
    assert len(report.rows["t"]["missing"]) == len(values) + 1
    assert ground.table("t", shown) == before
    ground.sql("UPDATE t SET v = 1.0 WHERE id = 0", "UPDATE t SET v = 1 WHERE id = 2",
               "UPDATE t SET c = 'a' WHERE id = 3")  # fmt: skip
    assert ground.rows().tables["t"].changed == 3
    ground.rows(apply=True, changed=True, recycled=True)
    assert ground.table("t", shown) == before


def test_given_another_encoding_then_it_is_refused(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (a)")
    ground.capture()
    ground.path.unlink()
    for suffix in ("-wal", "-shm"):
        Path(f"{ground.path}{suffix}").unlink(missing_ok=True)
    connection = apsw.Connection(str(ground.path))
    connection.pragma("encoding", "UTF-16le")
    connection.execute("CREATE TABLE t (a)").fetchall()
    connection.close()
    with pytest.raises(RefusedError, match="encoding"):
        ground.rows()


def test_autoincrement_keeps_its_highest_id(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
               "INSERT INTO t VALUES (1, 'a'), (50, 'b')")  # fmt: skip
    ground.capture()
    ground.sql("DELETE FROM t", "INSERT INTO t (a) VALUES ('new')")
    ground.rows(apply=True)
    ground.sql("INSERT INTO t (a) VALUES ('newer')")
    assert ground.sql("SELECT id FROM t ORDER BY id") == [(1,), (50,), (51,), (52,)]


# ----------------------------------------------------------------------------------- choice


def test_filters_choose_by_either_version(drama: Ground) -> None:
    drama.sql(
        "DELETE FROM episodes WHERE id IN (10, 11)",
        "UPDATE episodes SET title = 'moved' WHERE id = 30",
        "INSERT INTO episodes VALUES (70, 1, 'moved'), (71, 1, 'other')",
    )
    for where, expected in {
        "id <= 10": (1, 0, 0),
        "title = 'moved'": (0, 1, 1),
        "title LIKE '장면%'": (2, 1, 0),
        "project_id IN (SELECT id FROM projects WHERE id = 11)": (1, 1, 0),
    }.items():
        counts = drama.rows(tables=("episodes",), where=where).tables["episodes"]
        assert (counts.missing, counts.changed, counts.extra) == expected, where
    for bad in ("nothing = 1", "1; DELETE FROM episodes", "1), (2", "1)", "x'"):
        with pytest.raises(UsageError):
            drama.rows(tables=("episodes",), where=bad)


@pytest.mark.parametrize(
    "shape",
    ["'2026-11-{:02d} 10:00:00'", "'2026-11-{:02d}T10:00:00.250+00:00'", "{}", "{}e3", "{}000000"],
)
def test_times_of_every_kind(ground: Ground, shape: str) -> None:
    ground.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, made_at, a)")
    days = [1, 5, 9]
    for day in days:
        moment = int(parse_time(f"2026-11-{day:02d} 10:00", 0))
        value = shape.format(day if "'" in shape else moment)
        ground.sql(f"INSERT INTO t VALUES ({day}, {value}, 0)")
    ground.capture()
    ground.sql("DELETE FROM t")
    report = ground.rows(
        since=parse_time("2026-11-03", 0),
        until=parse_time("2026-11-09T18:59:59+09:00", 0),
        time_column="made_at",
    )
    assert report.tables["t"].missing == 1
    with pytest.raises(UsageError, match="no column that is known"):
        ground.rows(since=0.0)


def test_times_that_cannot_be_read_are_told(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, created_at)")
    ground.many("INSERT INTO t VALUES (?, ?)", [(n, f"2026-11-{n:02d}") for n in range(1, 5)])
    ground.sql("INSERT INTO t VALUES (9, '22/11/2026')")
    ground.capture()
    ground.sql("DELETE FROM t WHERE id IN (3, 9)")
    report = ground.rows(since=parse_time("2026-11-02", 0))
    assert report.tables["t"].missing == 1
    assert report.notes["t"] == [
        "not every created_at is a time that SQLite reads: such rows are left out"
    ]
    ground.sql("DELETE FROM t", "INSERT INTO t VALUES (10, 'Nov 22')")
    with pytest.raises(UsageError, match="holds no time that SQLite reads"):
        ground.rows(since=0.0)


def test_times_as_people_write_them() -> None:
    assert parse_time("6h", 100_000.0) == 100_000 - 21_600
    assert parse_time("1970-01-02", 0) == 86400
    assert parse_time("1970-01-01 01:00", 0) == 3600
    assert parse_time("1970-01-01T09:00:00+09:00", 0) == 0
    with pytest.raises(UsageError, match="no time"):
        parse_time("yesterday", 0)


# ------------------------------------------------------------------------------------- undo


def test_undo_leaves_what_was_written_since(drama: Ground) -> None:
    drama.sql("DELETE FROM projects WHERE id IN (3, 4, 5)", foreign_keys=True)
    report = drama.rows(apply=True)
    assert report.undo is not None
    drama.sql(
        "UPDATE projects SET name = 'worked on' WHERE id = 3",
        "INSERT INTO episodes VALUES (99, 4, 'new')",
        "DELETE FROM episodes WHERE project_id = 5",
    )
    rehearsed = drama.undo(dry_run=True)
    done = drama.undo()
    assert done == rehearsed
    reasons = {f"{row['table']} {row['key']}": row["reason"] for row in done.reasons}
    assert reasons["projects id = 3"] == "it was written since"
    assert reasons["projects id = 4"] == "rows of episodes refer to it now"
    assert list(reasons.values()).count("it is gone already") == 3
    assert done.inserted == {"episodes": 6, "projects": 1}
    drama.healthy()
    with pytest.raises(RefusedError, match="undone already"):
        drama.undo(report.undo.id)
    with pytest.raises(UsageError, match="no application"):
        drama.undo()


def test_what_an_undo_needs_is_private_and_complete_before_the_commit(drama: Ground) -> None:
    drama.sql("DELETE FROM episodes WHERE id < 4")
    report = drama.rows(apply=True)
    assert report.undo is not None
    folder = drama.state / report.undo.id
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    record = json.loads((folder / "record.json").read_text())
    assert (record["state"], record["inserted"]) == ("applied", {"episodes": 3})
    with pytest.raises(UsageError, match="no application"):
        drama.undo("nothing")


def test_given_an_interrupt_in_the_commit_then_an_undo_is_left(
    drama: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    drama.sql("DELETE FROM projects WHERE id = 3", foreign_keys=True)
    from safetake.sources.sqlite.rows.sql import run

    def interrupted(connection: apsw.Connection, sql: str) -> None:
        run(connection, sql)
        if sql == "COMMIT":
            raise KeyboardInterrupt

    monkeypatch.setattr(apply, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drama.rows(apply=True)
    monkeypatch.undo()
    assert drama.sql("SELECT count(*) FROM projects WHERE id = 3") == [(1,)]
    assert drama.undo().inserted == {"projects": 1, "episodes": 3}


def test_given_a_state_folder_that_fails_after_the_commit_then_that_is_said(
    drama: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    drama.sql("DELETE FROM projects WHERE id = 3", foreign_keys=True)
    from safetake.state import write_json

    def full(path: Path, document: Any) -> None:
        if isinstance(document, dict) and document["state"] != "prepared":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, document)

    monkeypatch.setattr(undo, "write_json", full)
    with pytest.raises(SafetakeError, match="rows were brought back, which could not be noted"):
        drama.rows(apply=True)
    with pytest.raises(SafetakeError, match="rows were taken back, which could not be noted"):
        drama.undo()
    assert drama.sql("SELECT count(*) FROM projects WHERE id = 3") == [(0,)]


def test_a_safety_copy_of_raw_files_has_no_rows_to_compare(drama: Ground) -> None:
    assert drama.node is not None
    (file,) = drama.repository.trees[drama.node.subtree or b""]
    drama.repository.trees[b"raw"] = [file, replace(file, name="live.db-wal")]
    drama.node = replace(drama.node, subtree=b"raw")
    with pytest.raises(RefusedError, match="no database to compare with"):
        drama.rows()


def test_given_another_table_then_an_undo_is_refused(drama: Ground) -> None:
    drama.sql("DELETE FROM episodes WHERE id < 4")
    drama.rows(apply=True)
    drama.sql("ALTER TABLE episodes ADD COLUMN more")
    with pytest.raises(RefusedError, match="other columns"):
        drama.undo()


# ------------------------------------------------------------------------- what it reads


def test_what_the_live_file_still_has_is_not_read_from_the_repository(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    ground.many("INSERT INTO t VALUES (?, randomblob(1000))", [(n,) for n in range(20_000)])
    ground.sql("PRAGMA user_version")
    ground.capture()
    ground.sql("DELETE FROM t WHERE id BETWEEN 5000 AND 5100")
    report = ground.rows(apply=True)
    assert report.tables["t"].missing == 101
    assert report.local_bytes > 0.95 * ground.path.stat().st_size
