"""What the rows of chroma.sqlite3 must agree on among themselves, asked of a consistent copy.

Chroma opens a store whose collection has no segment, whose documents are not in the full-text index
or whose queue holds vectors of another length without a word; queries then lack records. Every
question works on the schemas of Chroma 0.4 to 1.5: a table that is not there is not asked about.
Its declared foreign keys say nothing: one of them names a table that never was.
"""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from safetake.findings import Finding, not_asked, offenders

_RESTORE = "restore the collection from the last proven snapshot"
_DOCUMENT = "chroma:document"

# (check, tables that it needs, query of offenders, hint)
_QUESTIONS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    (
        "every segment has its collection",
        ("segments", "collections"),
        "SELECT s.collection || ' (' || lower(s.scope) || ' segment ' || s.id || ')'"
        " FROM segments s WHERE s.collection NOT IN (SELECT id FROM collections) ORDER BY 1",
        "restore the store: a collection's row is gone, its records are still there",
    ),
    (
        "every collection has its segments",
        ("segments", "collections"),
        "SELECT c.name || ': no ' || lower(w.scope) || ' segment' FROM collections c,"
        " (SELECT 'VECTOR' AS scope UNION ALL SELECT 'METADATA') w WHERE NOT EXISTS"
        " (SELECT 1 FROM segments s WHERE s.collection = c.id AND s.scope = w.scope) ORDER BY 1",
        _RESTORE,
    ),
    (
        "every record has its segment",
        ("embeddings", "segments"),
        "SELECT embedding_id || ' of segment ' || segment_id FROM embeddings"
        " WHERE segment_id NOT IN (SELECT id FROM segments)",
        "restore the store: records are there that no collection has",
    ),
    (
        "all metadata has its record",
        ("embedding_metadata", "embeddings"),
        "SELECT 'record number ' || id || ': ' || key FROM embedding_metadata"
        " WHERE id NOT IN (SELECT id FROM embeddings)",
        _RESTORE,
    ),
    (
        "every document is in the full-text index",
        ("embedding_metadata", "embedding_fulltext_search_content", "embeddings"),
        "SELECT e.embedding_id FROM embedding_metadata m JOIN embeddings e ON e.id = m.id"
        " LEFT JOIN embedding_fulltext_search_content f ON f.id = m.id"
        f" WHERE m.key = '{_DOCUMENT}' AND (f.id IS NULL OR f.c0 IS NOT m.string_value)",
        "write the records again (upsert): searches in their text do not find them",
    ),
    (
        "the full-text index has no others",
        ("embedding_metadata", "embedding_fulltext_search_content"),
        "SELECT 'record number ' || f.id FROM embedding_fulltext_search_content f LEFT JOIN"
        f" embedding_metadata m ON m.id = f.id AND m.key = '{_DOCUMENT}' WHERE m.id IS NULL",
        "`chroma vacuum`, or restore the store: searches find records that are gone",
    ),
    (
        "vectors in the queue have the collection's length",
        ("embeddings_queue", "collections"),
        "SELECT q.id || ' of ' || c.name || ': ' || length(q.vector) || ' bytes for '"
        " || c.dimension || ' numbers' FROM collections c JOIN embeddings_queue q"
        " ON q.topic LIKE '%/' || c.id WHERE c.dimension IS NOT NULL AND q.vector IS NOT NULL"
        " AND q.encoding = 'FLOAT32' AND length(q.vector) <> 4 * c.dimension",
        "these records cannot be replayed at Chroma's next start: delete and add them again",
    ),
)


def row_checks(connection: apsw.Connection, name: str) -> Iterator[Finding]:
    """A finding for each question. Raises nothing that SQLite does."""
    try:
        there = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    except (apsw.Error, UnicodeDecodeError) as error:
        yield Finding(name, "tables", False, "error", f"cannot be asked: {error}", [], _RESTORE)
        return
    for check, needs, sql, hint in _QUESTIONS:
        if missing := [table for table in needs if table not in there]:
            yield not_asked(name, check, f"this version of Chroma has no table {missing[0]}")
            continue
        try:
            count, ids = offenders(str(row[0]) for row in connection.execute(sql))
        except (apsw.Error, UnicodeDecodeError) as error:
            yield Finding(name, check, False, "error", f"cannot be asked: {error}", [], _RESTORE)
            continue
        detail = f"{count} offender{'s' * (count != 1)}" if count else ""
        yield Finding(name, check, not count, "error", detail, ids, hint)
