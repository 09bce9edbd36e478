"""What SQL may do on a snapshot or a restored copy: read that one database, and nothing else.

The authorizer lets SELECT, functions and harmless PRAGMAs through. It refuses ATTACH, extensions,
schema changes and PRAGMAs that set something; INSERT, UPDATE and DELETE pass it, because R*Tree
prepares its own when a table is opened, and fail on the read-only database when they run.
"""

from __future__ import annotations

import apsw

_ALLOWED = {
    apsw.SQLITE_SELECT,
    apsw.SQLITE_READ,
    apsw.SQLITE_RECURSIVE,
    apsw.SQLITE_INSERT,
    apsw.SQLITE_UPDATE,
    apsw.SQLITE_DELETE,
}
# PRAGMAs that only tell, with the ones that take an argument which is no setting.
_TELLING = {
    "application_id",
    "auto_vacuum",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "encoding",
    "freelist_count",
    "function_list",
    "journal_mode",
    "module_list",
    "page_count",
    "page_size",
    "pragma_list",
    "schema_version",
    "user_version",
}
_ASKING = {
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
}


def restrict(connection: apsw.Connection) -> None:
    """Make `connection` read its main database only, with temporary tables in memory."""
    connection.execute("PRAGMA temp_store = memory").fetchall()
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
    connection.limit(apsw.SQLITE_LIMIT_WORKER_THREADS, 0)
    connection.authorizer = _authorize
    # Gives Python a moment now and then, so that Ctrl-C ends a long query.
    connection.set_progress_handler(lambda: False, 100_000)


def _authorize(
    action: int, first: str | None, second: str | None, database: str | None, inner: str | None
) -> int:
    if action in _ALLOWED:
        return apsw.SQLITE_OK
    if action == apsw.SQLITE_FUNCTION:
        return apsw.SQLITE_DENY if second == "load_extension" else apsw.SQLITE_OK
    if action == apsw.SQLITE_PRAGMA and first is not None:
        name = first.lower()
        if name in _ASKING or (name in _TELLING and second is None):
            return apsw.SQLITE_OK
    return apsw.SQLITE_DENY
