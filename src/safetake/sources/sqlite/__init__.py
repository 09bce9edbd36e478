"""SQLite databases: captured live without a temporary copy, questioned, proven.

`SqliteSource` captures, `questions` proves a restored copy, `query` and `open_snapshot` read a
stored database without restoring it.
"""

from safetake.sources.sqlite.proof import questions
from safetake.sources.sqlite.query import Answer, query
from safetake.sources.sqlite.source import SqliteSource
from safetake.sources.sqlite.vfs import open_snapshot

__all__ = ["Answer", "SqliteSource", "open_snapshot", "query", "questions"]
