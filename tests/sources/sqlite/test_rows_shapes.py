"""Tables and values that are seldom: they come back as they were, or are refused by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from safetake.sources.sqlite import marker
from safetake.sources.sqlite.rows.listing import Most
from tests.support.repositories import memory_folder
from tests.support.rows import Ground


@pytest.fixture
def ground() -> Iterator[Ground]:
    with memory_folder() as folder:
        yield Ground(folder)


@pytest.mark.parametrize(
    "default",
    ["draft", "kind", '"draft"', '"kind"', "true", "-1", "x'00'", "'it''s'", "(upper('a') || 1)"],
)
def test_a_column_that_was_added_gets_what_its_default_means(ground: Ground, default: str) -> None:
    ground.sql(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    )
    ground.capture()
    ground.sql(
        "DROP TABLE t",
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, v, more DEFAULT {default})",
        "INSERT INTO t (id, v) VALUES (2, 'b')",
    )
    ground.rows(apply=True)
    back, inserted = ground.sql("SELECT more, typeof(more) FROM t ORDER BY id")
    assert back == inserted


def test_a_default_is_worked_out_for_each_row(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
    ground.capture()
    ground.sql(
        "DROP TABLE t",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE DEFAULT (hex(randomblob(8))))",
    )
    assert ground.left_out(ground.rows(apply=True)) == {}
    assert ground.sql("SELECT count(DISTINCT u) FROM t") == [(3,)]


def test_a_table_of_too_many_columns_is_refused_and_holds_up_no_other(ground: Ground) -> None:
    wide = ", ".join(f"c{n}" for n in range(1500))
    ground.sql(
        f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {wide})",
        "CREATE TABLE t (id INTEGER PRIMARY KEY)",
        "INSERT INTO wide (id) VALUES (1)",
        "INSERT INTO t VALUES (1)",
    )
    ground.capture()
    ground.sql("DELETE FROM wide", "DELETE FROM t")
    report = ground.rows(apply=True, changed=True)
    assert report.unable == {"wide": "it has more than 990 columns"}
    assert ground.sql("SELECT count(*) FROM t") == [(1,)]


def test_a_table_of_as_many_columns_as_there_may_be(ground: Ground) -> None:
    wide = ", ".join(f"c{n}" for n in range(988))
    ground.sql(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, {wide}, created_at)",
        "CREATE TABLE child (id INTEGER PRIMARY KEY, t REFERENCES t(id))",
        "INSERT INTO t (id) VALUES (1), (2)",
        "INSERT INTO child VALUES (1, 1)",
    )
    ground.capture()
    before = ground.table("t"), ground.table("child")
    ground.sql("DELETE FROM child", "DELETE FROM t WHERE id = 1", "UPDATE t SET c3 = 9")
    now = ground.table("t"), ground.table("child")
    ground.rows(apply=True, changed=True, recycled=True, show=("missing", "changed", "extra"))
    assert (ground.table("t"), ground.table("child")) == before
    ground.undo()
    assert (ground.table("t"), ground.table("child")) == now


def test_a_key_that_is_no_text_in_its_encoding_is_named(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE t (k TEXT PRIMARY KEY, u UNIQUE, up TEXT REFERENCES t(k))",
        "INSERT INTO t VALUES (CAST(x'ff41' AS TEXT), 1, NULL),"
        " ('child', 2, CAST(x'ff41' AS TEXT))",
    )
    ground.capture()
    ground.sql("DELETE FROM t", "INSERT INTO t VALUES ('new', 1, NULL)")
    assert ground.left_out(ground.rows(apply=True)) == {
        "t k = '\\xffA'": "UNIQUE constraint failed: t.u",
        "t k = 'child'": "its parent t (k = '\\xffA') is not there",
    }


def test_a_key_that_differs_by_type_only_goes_back(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE t (k NOT NULL UNIQUE, v)",
        "CREATE TABLE s (k ANY PRIMARY KEY, v ANY) STRICT",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO s VALUES (1, 'a'), (2, 'b')",
    )
    ground.capture()
    before = ground.table("t"), ground.table("s")
    ground.sql("UPDATE t SET k = 1.0 WHERE k = 1", "UPDATE s SET k = 1.0 WHERE k = 1")
    ground.rows(apply=True, changed=True)
    assert (ground.table("t"), ground.table("s")) == before


def test_a_view_that_a_trigger_reads_is_no_trigger(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)",
        "CREATE VIEW latest AS SELECT * FROM notes",
        "CREATE VIRTUAL TABLE found USING fts5(body)",
        "CREATE TRIGGER added AFTER INSERT ON notes BEGIN"
        " INSERT INTO found (rowid, body) SELECT id, body FROM latest WHERE id = new.id; END",
        "CREATE TRIGGER gone AFTER DELETE ON notes BEGIN"
        " DELETE FROM found WHERE rowid = old.id; END",
        "INSERT INTO notes VALUES (1, 'lost'), (2, 'kept')",
    )
    ground.capture()
    ground.sql("DELETE FROM notes WHERE id = 1")
    ground.rows(apply=True)
    assert ground.sql("SELECT rowid FROM found('lost')") == [(1,)]


@pytest.mark.parametrize("index", ["fts4(content='notes', body)", "rtree(id, low, high)"])
def test_an_index_of_another_module_is_kept_in_step(ground: Ground, index: str) -> None:
    text = index.startswith("fts4")
    row = "docid" if text else "id"
    put = (
        "INSERT INTO found (docid, body) VALUES (new.rowid, new.body)"
        if text
        else "INSERT INTO found VALUES (new.id, length(new.body), length(new.body))"
    )
    drop = f"DELETE FROM found WHERE {row} = old.rowid"
    ground.sql(
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)",
        f"CREATE VIRTUAL TABLE found USING {index}",
        f"CREATE TRIGGER bu BEFORE UPDATE ON notes BEGIN {drop}; END",
        f"CREATE TRIGGER bd BEFORE DELETE ON notes BEGIN {drop}; END",
        f"CREATE TRIGGER au AFTER UPDATE ON notes BEGIN {put}; END",
        f"CREATE TRIGGER ai AFTER INSERT ON notes BEGIN {put}; END",
        "INSERT INTO notes VALUES (1, 'lost'), (2, 'remains')",
    )

    def found(word: str) -> list[tuple[object, ...]]:
        condition = f"found MATCH '{word}'" if text else f"low = {len(word)}"
        return ground.sql(f"SELECT {row} FROM found WHERE {condition} ORDER BY 1")

    ground.capture()
    ground.sql("DELETE FROM notes WHERE id = 1", "UPDATE notes SET body = 'spoilt' WHERE id = 2")
    ground.rows(apply=True, changed=True, recycled=True)
    assert (found("lost"), found("remains"), found("spoilt")) == ([(1,)], [(2,)], [])
    ground.undo()
    assert (found("lost"), found("remains"), found("spoilt")) == ([], [], [(2,)])


def test_an_undo_knows_rows_by_the_key_that_they_had(ground: Ground) -> None:
    ground.sql(
        "CREATE TABLE moved (k TEXT PRIMARY KEY, u TEXT NOT NULL)",
        "CREATE TABLE nulls (k TEXT PRIMARY KEY, u TEXT)",
        "INSERT INTO moved VALUES ('a', 'x'), ('b', 'y')",
        "INSERT INTO nulls VALUES ('a', 'x'), ('b', 'y')",
    )
    ground.capture()
    ground.sql(
        "DROP TABLE moved",
        "CREATE TABLE moved (k TEXT, u TEXT PRIMARY KEY NOT NULL)",
        "INSERT INTO moved VALUES ('a', 'x')",
        "DELETE FROM nulls WHERE k = 'b'",
    )
    now = ground.table("moved"), ground.table("nulls")
    ground.rows(apply=True)  # `moved` has another key than in the snapshot: compared by whole rows
    ground.sql("INSERT INTO nulls VALUES (NULL, 'since')")  # from now on no key by itself
    assert ground.undo().skipped == 0
    ground.sql("DELETE FROM nulls WHERE k IS NULL")
    assert (ground.table("moved"), ground.table("nulls")) == now


def test_the_mark_of_a_restore_is_no_table_of_the_application(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (id INTEGER PRIMARY KEY)", f"CREATE TABLE {marker.TABLE} (id TEXT)")
    ground.capture()
    assert set(ground.rows().tables) == {"t"}
    ground.sql(f"DROP TABLE {marker.TABLE}")
    assert ground.rows().not_compared == {}


def test_what_is_taken_for_a_part_of_an_unknown_module_is_told(ground: Ground) -> None:
    ground.sql(
        "CREATE VIRTUAL TABLE vectors USING fts5(words)",
        "CREATE TABLE vectors_seen (id INTEGER PRIMARY KEY)",
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_schema SET sql = replace(sql, 'fts5', 'vec0') WHERE name = 'vectors'",
    )
    ground.capture()
    report = ground.rows()
    assert "vectors_seen" not in report.tables
    assert report.unable["vectors"].endswith(
        "by their names: vectors_config, vectors_content, vectors_data, vectors_docsize,"
        " vectors_idx, vectors_seen"
    )


@pytest.mark.parametrize("sql", ["docs\nUSING fts5(words)", "docs using\tfts5 (words)"])
def test_no_table_is_overlooked_for_its_name(ground: Ground, sql: str) -> None:
    ground.sql(
        f"CREATE VIRTUAL TABLE {sql}",
        "CREATE TABLE docs_archive (id INTEGER PRIMARY KEY)",
        "INSERT INTO docs_archive VALUES (1)",
    )
    ground.capture()
    ground.sql("DELETE FROM docs_archive")
    ground.rows(apply=True)
    assert ground.sql("SELECT count(*) FROM docs_archive") == [(1,)]


def test_names_differ_in_case_as_sqlite_has_it(ground: Ground) -> None:
    ground.sql(
        'CREATE TABLE "Ä" (id INTEGER PRIMARY KEY, "É", "é")',
        'CREATE TABLE "ä" (id INTEGER PRIMARY KEY, "é", "É")',
        "INSERT INTO \"Ä\" VALUES (1, 'big', 'small')",
        "INSERT INTO \"ä\" VALUES (2, 'small', 'big')",
    )
    ground.capture()
    before = ground.table('"Ä"'), ground.table('"ä"')
    ground.sql('DELETE FROM "Ä"', 'DELETE FROM "ä"')
    ground.rows(apply=True)
    assert (ground.table('"Ä"'), ground.table('"ä"')) == before


def test_large_values_are_listed_by_their_beginning(ground: Ground) -> None:
    ground.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, data BLOB)")
    ground.many("INSERT INTO t VALUES (?, ?, ?)", [(n, "가" * 999, b"x" * 999) for n in (1, 2)])
    ground.capture()
    ground.sql("DELETE FROM t WHERE id = 1", "UPDATE t SET text = text || '!' WHERE id = 2")
    found = ground.rows(show=("missing", "changed"), most=Most(bytes=30)).rows["t"]
    assert found["missing"] == [[1, "가" * 10, b"x" * 30]]
    assert [row["columns"] for row in found["changed"]] == [{"text": ["가" * 10, "가" * 10]}]
    assert ground.rows(show=("missing",)).rows["t"]["missing"] == [[1, "가" * 999, b"x" * 999]]
