"""Reading a stored database: the file's own bytes, few blobs, bounded memory, nothing written."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.errors import DamagedError, UsageError
from safetake.model import Node
from safetake.sources.sqlite import open_snapshot, query
from safetake.sources.sqlite.vfs import BlobFile
from tests.sources.sqlite.support import capture, database
from tests.support.memory_writer import MemoryRepository, find


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=20),
    st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 300)), max_size=20),
    st.integers(1, 200),
)
def test_reads_equal_the_file(
    blobs: list[bytes], reads: list[tuple[int, int]], cache_bytes: int
) -> None:
    with MemoryRepository(threads=1) as repository:
        content = [repository.store(blob).result()[0] for blob in blobs]
        whole = b"".join(blobs)
        file = BlobFile(repository, content, len(whole), cache_bytes)
        assert file.size == len(whole)
        for offset, amount in reads:
            assert file.read(amount, offset) == whole[offset : offset + amount]


@given(
    st.integers(100, 300),
    st.integers(1, 64),
    st.lists(st.tuples(st.integers(0, 299), st.integers(1, 64)), max_size=2),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 300)), max_size=20),
)
def test_reads_of_many_chunks_equal_the_file(
    count: int, last: int, odd: list[tuple[int, int]], reads: list[tuple[int, int]]
) -> None:
    lengths = [64] * (count - 1) + [last]
    for index, length in odd:  # sometimes not all equal after all
        lengths[index % count] = length
    with MemoryRepository(threads=1) as repository:
        blobs = [bytes([n % 251]) * length for n, length in enumerate(lengths)]
        content = [repository.store(blob).result()[0] for blob in blobs]
        whole = b"".join(blobs)
        file = BlobFile(repository, content, len(whole))
        assert file.size == len(whole)
        for offset, amount in reads:
            assert file.read(amount, offset) == whole[offset : offset + amount]


def test_the_cache_is_bounded_and_used() -> None:
    with MemoryRepository() as repository:
        content = [repository.store(bytes([n]) * 1000).result()[0] for n in range(20)]
        file = BlobFile(repository, content, 20_000, cache_bytes=5000)
        for _ in range(3):
            file.read(5000, 0)
        assert file.fetched == 5
        file.read(15_000, 5000)
        assert file.fetched == 20
        assert len(file._cache) == 5
        file.read(1, 0)
        assert (file.fetched, file.fetched_bytes) == (21, 21_000)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_an_indexed_lookup_fetches_little(tmp_path: Path, mode: str) -> None:
    path = database(tmp_path / "projects.db", mode, rows=20_000)
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        repository.fetched.clear()
        with query(
            repository, captured.node, "SELECT script FROM episodes WHERE project_id = ?", (4711,)
        ) as answer:
            assert answer.columns == ("script",)
            rows = list(answer)
            assert len(rows) == 1
            assert answer.source.fetched == len(repository.fetched) <= 10
            assert answer.source.fetched_bytes == repository.fetched_bytes


def test_the_whole_database_can_be_checked_in_place(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db")
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        with query(repository, captured.node, "PRAGMA integrity_check") as answer:
            assert list(answer) == [("ok",)]


def test_a_file_node_of_a_larger_folder_can_be_asked(tmp_path: Path) -> None:
    path = database(tmp_path / "projects.db")
    with MemoryRepository() as repository:
        captured = capture(path, repository)
        node = find(repository, captured.node, "projects.db")
        two = repository.save_tree([node, Node("other", "file", content=[])])
        folder = Node("vectors", "dir", subtree=two)
        with query(repository, node, "SELECT count(*) FROM projects") as answer:
            assert list(answer) == [(500,)]
        with pytest.raises(ValueError, match="2 files"):
            open_snapshot(repository, folder)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[MemoryRepository, Node]:
    repository = MemoryRepository()
    captured = capture(database(tmp_path / "projects.db"), repository)
    repository.close()
    return repository, captured.node


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM projects",
        "INSERT INTO projects(title) VALUES ('x')",
        "CREATE TABLE t(a)",
        "CREATE TEMP TABLE t(a)",
        "CREATE VIRTUAL TABLE temp.t USING fts5(a)",
        "DROP TABLE projects",
        "ATTACH '/etc/passwd' AS other",
        "ATTACH ':memory:' AS other",
        "VACUUM INTO '/tmp/sqlite-source-vacuumed'",
        "VACUUM",
        "ANALYZE",
        "REINDEX",
        "BEGIN",
        "PRAGMA journal_mode = wal",
        "PRAGMA writable_schema = 1",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA user_version = 3",
        "PRAGMA query_only = 0",
        "SELECT load_extension('x')",
        "SELECT * FROM fsdir('/')",
        "SELECT writefile('/tmp/sqlite-source-written', 'x')",
    ],
)
def test_nothing_but_reading(stored: tuple[MemoryRepository, Node], sql: str) -> None:
    repository, node = stored
    with pytest.raises(UsageError) as caught:
        with query(repository, node, sql) as answer:
            list(answer)
    assert caught.value.hint
    assert not Path("/tmp/sqlite-source-vacuumed").exists()


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nope", "no such table"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ("", "is empty"),
        (" -- nothing", "is empty"),
        ("SELECT 1; DELETE FROM projects", "more than one statement"),
        ("SELECT ?", "bindings"),
        ("SELECT abs(-9223372036854775808)", "overflow"),
        ("SELECT CAST(x'ff' AS TEXT)", "no UTF-8"),
    ],
)
def test_mistakes_are_usage_errors_with_a_hint(
    stored: tuple[MemoryRepository, Node], sql: str, words: str
) -> None:
    repository, node = stored
    with pytest.raises(UsageError, match=words) as caught:
        with query(repository, node, sql) as answer:
            list(answer)
    assert caught.value.hint


def test_the_hint_lists_the_tables(stored: tuple[MemoryRepository, Node]) -> None:
    with pytest.raises(UsageError) as caught:
        query(*stored, "SELECT * FROM projekts")
    assert caught.value.hint == "tables of the snapshot: episodes, projects"


def test_columns_rows_parameters_and_limit(stored: tuple[MemoryRepository, Node]) -> None:
    with query(*stored, "SELECT 1 AS one, 'b' AS two WHERE 0 -- nothing; here") as answer:
        assert answer.columns == ("one", "two")
        assert list(answer) == []
        assert not answer.truncated
    with query(*stored, "SELECT id FROM projects WHERE id <= :n; ", {"n": 10}, limit=3) as answer:
        assert list(answer) == [(1,), (2,), (3,)]
        assert answer.truncated
    with query(*stored, "SELECT id FROM projects WHERE id <= 3", limit=3) as answer:
        assert len(list(answer)) == 3
        assert not answer.truncated
    with query(*stored, "PRAGMA table_info(projects)") as answer:
        assert [row[1] for row in answer] == ["id", "title"]
    with query(*stored, "SELECT title FROM projects ORDER BY random()") as answer:
        assert len(list(answer)) == 500  # sorts in memory, no temporary file


def test_full_text_and_boxes_can_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "projects.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        "CREATE VIRTUAL TABLE search USING fts5(text); INSERT INTO search VALUES ('one take');"
        "CREATE VIRTUAL TABLE boxes USING rtree(id, a, b); INSERT INTO boxes VALUES (1, 2, 3)"
    ).fetchall()
    connection.close()
    with MemoryRepository() as repository:
        node = capture(path, repository).node
        with query(repository, node, "SELECT * FROM search WHERE search MATCH 'take'") as answer:
            assert list(answer) == [("one take",)]
        with query(repository, node, "SELECT id FROM boxes WHERE a >= 2") as answer:
            assert list(answer) == [(1,)]


def test_a_damaged_blob_is_named(stored: tuple[MemoryRepository, Node]) -> None:
    repository, node = stored
    content = find(repository, node, "projects.db").content
    assert content is not None
    chooser = random.Random(3)
    for blob_id in chooser.sample(content, 5):
        good = repository.blobs.pop(blob_id)
        for damaged in (None, good[:-1] + bytes([good[-1] ^ 1])):
            if damaged is not None:
                repository.blobs[blob_id] = damaged
            with pytest.raises(DamagedError, match=blob_id.hex()):
                with query(repository, node, "PRAGMA integrity_check") as answer:
                    list(answer)
        repository.blobs[blob_id] = good


def test_a_stored_file_that_is_no_intact_database_is_damage(
    stored: tuple[MemoryRepository, Node],
) -> None:
    repository, _ = stored
    for data in (b"x" * 5000, b"SQLite format 3\x00" + b"\xff" * 5000):
        node = Node("a.db", "file", content=repository.store(data).result())
        with pytest.raises(DamagedError):
            with query(repository, node, "SELECT * FROM projects") as answer:
                list(answer)


def test_several_snapshots_are_open_at_once(tmp_path: Path) -> None:
    with MemoryRepository() as repository:
        path = database(tmp_path / "projects.db")
        first = capture(path, repository).node
        connection = apsw.Connection(str(path))
        connection.execute("DELETE FROM episodes").fetchall()
        connection.close()
        second = capture(path, repository).node
        with (
            query(repository, first, "SELECT count(*) FROM episodes") as old,
            query(repository, second, "SELECT count(*) FROM episodes") as new,
        ):
            assert (list(old), list(new)) == ([(500,)], [(0,)])
