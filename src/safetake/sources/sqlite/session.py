"""One capture of one live SQLite database, by the raw snapshot.

The order is the protocol. The raw descriptor is opened before every connection and closed after
them (`rawfile`). In the hold, connection W takes `BEGIN IMMEDIATE`, which keeps every writer out in
both journal modes. In WAL mode a reader R then opens the snapshot that is read after the hold, by
`WalCut`; with a rollback journal the hold itself fixes the bytes, by `RollbackCopy`. No temporary
copy of the database is made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from safetake.errors import SafetakeError, SourceError
from safetake.model import BlobId, CaptureContext, Captured, Cut, Node
from safetake.sources.sqlite import facts, live, rawfile
from safetake.sources.sqlite.chunks import chunk_bytes, content_digest, store_file
from safetake.sources.sqlite.fingerprint import fingerprint, settled, unchanged
from safetake.sources.sqlite.header import Header, parse_header, read_header, status
from safetake.sources.sqlite.nodes import database_node, source_node
from safetake.sources.sqlite.rollback import RollbackCopy
from safetake.sources.sqlite.stored import LiveFirst
from safetake.sources.sqlite.vfs import open_snapshot
from safetake.sources.sqlite.walcut import WalCut, wal_position

if TYPE_CHECKING:
    from safetake.config import SqliteConfig


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session needs of a `SqliteConfig`, for a database that has no section of its own."""

    path: Path
    busy_timeout: float = 5.0
    may_be_empty: bool = False


@dataclass(slots=True)
class Taken:
    """A database at the cut."""

    file: Node | None
    """None when it is the parent's, unchanged"""
    state: os.stat_result
    bytes: int
    facts: dict[str, Any]
    fingerprint: dict[str, Any]
    method: str
    notes: list[str]


class SqliteSession:
    """`model.Session` for a database. Not safe for use by two threads at once."""

    part = False
    """whether the file stands in a directory that somebody else makes (Chroma)"""

    def __init__(self, name: str, config: SqliteConfig | Settings, context: CaptureContext) -> None:
        self._name = name
        self._config = config
        self._path = config.path
        self._context = context
        self._raw: rawfile.RawFile | None = None
        self._writer_lock: apsw.Connection | None = None
        self._wal: WalCut | None = None
        self._rollback: RollbackCopy | None = None
        self._parent_serves = False
        self.parent_file: Node | None = None
        """the parent's file, where it may be needed"""
        self._before: dict[str, Any] = {}
        self._print: dict[str, Any] = {}
        self._state: os.stat_result | None = None
        self._same_as_parent = False
        self._evidence: tuple[int | bytes, ...] = ()
        self._chunk = 0
        self._total = 0

    # for sources that have a database in them (Chroma)

    def in_hold(self) -> None:
        """Called inside the hold before the database is fixed; what it raises lets go."""

    def describe(self, connection: apsw.Connection) -> dict[str, Any]:
        """The facts of the cut, asked of a connection to it after the hold."""
        return facts.describe(connection, self._with_rows())

    # model.Session

    def prepare(self) -> None:
        header = read_header(self._path)
        self._raw = rawfile.acquire(self._path)
        timeout = self._config.busy_timeout
        self._writer_lock = live.connect(self._path, header, timeout)
        with live.explained(self._path):
            # A first read recovers what a crashed writer left, and reads the schema.
            self._require_tables(self._writer_lock)
            pages = self._writer_lock.pragma("page_count")
        header = self._header()
        self._total = pages * header.page_size
        self._chunk = chunk_bytes(self._total, header.page_size, self._parent_chunk())
        self._parent_serves = self._has_parent(with_file=self.part or not header.wal)
        if header.wal:
            self._wal = WalCut(
                self._path, self._raw, header, timeout, self._context.scratch, self._chunk
            )
            if self._context.eager:  # after the cut these chunks are hashed, and known
                writer, total, chunk = self._context.writer, self._total, self._chunk
                store_file(writer, self._raw, total, chunk, self._progress)
            return
        self._rollback = RollbackCopy(
            self._raw, self._chunk, self._context.writer, self._context.scratch
        )
        self._before = fingerprint(os.fstat(self._raw.fd), header, None)
        if self.parent_file is not None and unchanged(self._parent_print(), self._before):
            self._rollback.assume(self.parent_file.content or [], self._total)
        else:
            self._rollback.copy(self._total, self._progress)

    def hold(self, timeout: float) -> Cut:
        self.release()
        writer_lock, raw = self._prepared()
        if not raw.writers_held:
            live.begin_immediate(writer_lock, self._path, raw, time.monotonic() + timeout)
        held = time.monotonic_ns()
        try:
            self.in_hold()
            self._fix(writer_lock, raw)
        except BaseException:
            self.release()
            raise
        return Cut(held, time.monotonic_ns())

    def release(self) -> None:
        if self._writer_lock is not None and self._writer_lock.in_transaction:
            try:
                self._writer_lock.execute("ROLLBACK").fetchall()
            except apsw.Error:  # closing drops the lock whatever state the connection is in
                self._writer_lock.close(force=True)
                self._writer_lock = None

    def capture(self) -> Captured:
        taken = self.take()
        if taken.file is not None:
            subtree = self._context.writer.save_tree([taken.file])
        else:
            subtree = self._parent_tree()
        return Captured(
            node=source_node(self._name, taken.state, subtree),
            bytes=taken.bytes,
            facts=taken.facts,
            fingerprint=taken.fingerprint,
            method=taken.method,
            notes=taken.notes,
        )

    def take(self) -> Taken:
        """`capture` without a directory around the file."""
        raw = self._raw
        if raw is None or self._state is None:
            raise ValueError("capture() comes after hold()")
        content: list[BlobId] | None = None
        if self._same_as_parent:
            found = dict(self._parent_entry()["facts"])
            method = "unchanged since the parent snapshot, not read"
        elif self._wal is not None:
            content = self._wal.store(self._context.writer, self._progress)
            with live.explained(self._path):
                found = self.describe(self._wal.reader)
            self._wal.end()
            method = "raw snapshot under a read transaction (WAL)"
        else:
            content = self._copy().store()
            found = self._facts_of_stored(content, raw)
            method = "raw snapshot, copied before and compared in the hold (rollback journal)"
        found |= {
            "file": self._path.name,
            "sqlite_version": apsw.sqlite_lib_version(),
            "page_size": self._print["page_size"],
            "page_count": self._total // self._print["page_size"],
            "journal_mode": self._print["mode"],
            "chunk": self._chunk,
        }
        file = None
        if content is not None:
            found["content"] = content_digest(content)
            file = database_node(self._path.name, self._state, self._total, content)
        return Taken(file, self._state, self._total, found, self._print, method, _notes(found))

    def close(self) -> None:
        self.release()
        if self._wal is not None:
            self._wal.close()
        if self._writer_lock is not None:
            self._writer_lock.close()
        if self._rollback is not None:
            self._rollback.close()
        if self._raw is not None:
            rawfile.release(self._raw)
        self._wal = self._writer_lock = self._rollback = self._raw = None

    def moved_on(self) -> bool:
        """Whether anything was committed since the cut. Certain while the caller of this has
        writers locked out, for all others it is old news. Raises SourceError.
        """
        return self._committed() != self._evidence

    # inside the hold

    def _committed(self) -> tuple[int | bytes, ...]:
        """What no commit leaves as it is.

        In WAL mode SQLite compares the whole header of the log's index for `data_version`; with a
        rollback journal each commit counts up bytes 24 to 27 of the file.
        """
        writer_lock, raw = self._prepared()
        if self._wal is not None:
            with live.explained(self._path):
                return (int(writer_lock.pragma("data_version")),)
        state = os.fstat(raw.fd)
        return rawfile.read(raw, 100, 0), state.st_size, state.st_mtime_ns

    def _fix(self, writer_lock: apsw.Connection, raw: rawfile.RawFile) -> None:
        """Fix the cut: everything here costs the application's writers."""
        state = os.fstat(raw.fd)
        here = status(self._path)
        if (here.st_dev, here.st_ino) != (state.st_dev, state.st_ino):
            raise SourceError(
                f"{self._path} was replaced by another file during the backup",
                hint="run the backup again",
            )
        header = self._header()
        if header.wal != (self._wal is not None):
            raise SourceError(
                f"{self._path} changed its journal mode during the backup",
                hint="run the backup again",
            )
        self._state = state
        position = wal_position(self._path, self._wal.probe) if self._wal is not None else None
        self._print = fingerprint(state, header, position)
        self._same_as_parent = self._parent_serves and unchanged(self._parent_print(), self._print)
        pages = header.page_count
        if self._wal is not None or not raw.writers_held:  # else the lock keeps readers out, too
            with live.explained(self._path):
                pages = writer_lock.pragma("page_count")
        self._total = pages * header.page_size
        self._evidence = self._committed()
        if self._same_as_parent:
            return
        if self._wal is not None:
            self._wal.begin(pages, position)
        elif unchanged(self._before, self._print):
            self._copy().keep()
        else:
            self._copy().settle(self._total)

    # pieces

    def _prepared(self) -> tuple[apsw.Connection, rawfile.RawFile]:
        if self._writer_lock is None or self._raw is None:
            raise ValueError("prepare() comes first")
        return self._writer_lock, self._raw

    def _copy(self) -> RollbackCopy:
        if self._rollback is None:
            raise ValueError("prepare() comes first")
        return self._rollback

    def _header(self) -> Header:
        if self._raw is None:
            raise ValueError("prepare() comes first")
        size = os.fstat(self._raw.fd).st_size
        return parse_header(rawfile.read(self._raw, 4096, 0), str(self._path), size)

    def _require_tables(self, connection: apsw.Connection) -> None:
        if not facts.tables(connection) and not self._config.may_be_empty:
            raise SourceError(
                f"{self._path} has no table: an empty database is not what is to be protected",
                hint="check `path`; set `may_be_empty = true` when this is meant",
            )

    def _with_rows(self) -> bool:
        return self._total <= facts.ROW_HASHES_UP_TO

    def _facts_of_stored(self, content: list[BlobId], raw: rawfile.RawFile) -> dict[str, Any]:
        # After the release the file moves on: ask the stored bytes.
        reader = LiveFirst(
            self._context.reader, raw, content, self._chunk, self._total, self._copy().same
        )
        node = Node(self._path.name, "file", size=self._total, content=content)
        with _closing(open_snapshot(reader, node)) as connection, live.explained(self._path):
            return self.describe(connection)

    def _progress(self, done: int) -> None:
        self._context.progress(self._path.name, done, self._total)

    # the parent snapshot

    def _parent_entry(self) -> dict[str, Any]:
        parent = self._context.parent
        return dict(parent.entry) if parent is not None else {}

    def _parent_print(self) -> dict[str, Any]:
        return dict(self._parent_entry().get("fingerprint", {}))

    def _parent_chunk(self) -> int | None:
        chunk = self._parent_entry().get("facts", {}).get("chunk")
        return chunk if isinstance(chunk, int) else None

    def _has_parent(self, *, with_file: bool) -> bool:
        """Whether the parent's file can stand in for an unchanged database; keeps it if asked."""
        parent = self._context.parent
        if parent is None or parent.node.subtree is None or not settled(self._parent_print()):
            return False
        found = self._parent_entry()["facts"]
        if self._parent_chunk() != self._chunk or found.get("file") != self._path.name:
            return False
        try:
            if not self._context.writer.whole(parent.node.subtree) or "content" not in found:
                return False
            for node in parent.reader.tree(parent.node.subtree) if with_file else ():
                if node.name == self._path.name and node.content:
                    self.parent_file = node
        except SafetakeError:
            return False  # a damaged parent is no reason to fail: this run stores everything anew
        return self.parent_file is not None or not with_file

    def _parent_tree(self) -> BlobId:
        parent = self._context.parent
        if parent is None or parent.node.subtree is None:
            raise ValueError("there is no parent")
        return parent.node.subtree


@contextmanager
def _closing(connection: apsw.Connection) -> Iterator[apsw.Connection]:
    try:
        yield connection
    finally:
        connection.close()


def _notes(found: dict[str, Any]) -> list[str]:
    """What the facts could not say, for people."""
    notes = [
        f"table {name}: not counted, it needs a function or collation of the application"
        for name, count in found["rows"].items()
        if count is None
    ]
    if found["foreign_key_violations"]:
        notes.append(f"{found['foreign_key_violations']} rows refer to a row that is not there")
    return notes
