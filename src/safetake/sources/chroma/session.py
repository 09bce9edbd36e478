"""One capture of a live Chroma folder, in one moment, without stopping anything.

The order is the protocol. (a) `prepare` copies chroma.sqlite3 and the segments with no lock held.
(b) `hold` first brings the segment copies up to date, still without a lock, then takes SQLite's
write lock. (c) Under the lock it reads which segments live and how far each one's files are
recorded to reach; `segments.SegmentCopy.serves` says whether the copies go with that. (d) Where
they do not, it lets go and tries again, and when its time is short it copies under the lock, once
no persist is on its way. (e) SQLite is fixed. (f) Release; only then is anything stored.

Not taken: folders of deleted collections, which Chroma leaves behind and never reads again. They
are named in the notes. Files beside chroma.sqlite3 that are not Chroma's come along, but are not
part of the one moment.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetake.errors import BarrierTimeoutError, SourceError
from safetake.model import BlobId, CaptureContext, Captured, Cut, Node
from safetake.sources.chroma import hnsw, nodes
from safetake.sources.chroma.catalogue import PERSISTED, Segment
from safetake.sources.chroma.database import NAME, ChromaDatabase
from safetake.sources.chroma.facts import segment_facts
from safetake.sources.chroma.parent import ParentSegments, fingerprint
from safetake.sources.chroma.pieces import ShortRead, SpoolSink, WriterSink, copy_file
from safetake.sources.chroma.residents import WORK_PREFIX
from safetake.sources.chroma.segments import SegmentCopy, copy_segment, scan
from safetake.sources.chroma.spool import Spool

if TYPE_CHECKING:
    from safetake.config import ChromaConfig

_THREADS = 2
_PREPARE_SECONDS = 1.0
"""How long `prepare` waits for one segment to come to rest; the hold has other means."""
_SMALL_BYTES = 64 << 20
_PATIENCE_SECONDS = 10.0


class _Again(Exception):
    """The copies do not go with the held database: let go, refresh, hold again."""


class ChromaSession:
    """`model.Session` for a folder. Not safe for use by two threads at once."""

    def __init__(self, name: str, folder: Path, config: ChromaConfig, context: CaptureContext):
        self._name = name
        self._folder = folder
        self._config = config
        self._context = context
        self._database = ChromaDatabase(name, folder / NAME, context, self._under_lock)
        self._spool = Spool(context.scratch)
        self._parent = ParentSegments(context)
        self._segments: list[Segment] = []
        self._good: dict[str, SegmentCopy] = {}
        """the newest complete copy of each segment"""
        self._latest: dict[str, SegmentCopy] = {}
        """the newest copy, complete or not: what the next one is compared with"""
        self._may_copy_in_hold = False
        self._bytes_done = 0
        self._bytes_total = 0

    # model.Session

    def prepare(self) -> None:
        self._database.prepare()
        if missing := self._database.missing_tables():
            raise SourceError(
                f"{self._folder / NAME} is not a Chroma store of version 0.4 or newer:"
                f" it has no table {', '.join(missing)}",
                hint="check `path`; folders of Chroma 0.3 and older need `chroma-migrate` first",
            )
        self._segments = self._live(self._database.segments())
        self._bytes_total = sum(
            state.st_size for segment in self._segments for state in self._scan(segment).values()
        )
        for segment in self._segments:
            self._latest[segment.id] = self._parent.copy(segment.id)
            self._first_copy(segment)
        self._refresh(time.monotonic() + _PREPARE_SECONDS)

    def hold(self, timeout: float) -> Cut:
        self.release()
        # Copying under the lock is cheap where there is little to copy. Where there is much, it is
        # worth trying for long to meet a moment between two persists: before the lock nobody waits.
        large = self._bytes_total > _SMALL_BYTES
        refresh_until = time.monotonic() + (_PATIENCE_SECONDS if large else timeout / 2)
        while True:
            self._refresh(refresh_until)
            self._may_copy_in_hold = time.monotonic() >= refresh_until
            try:
                return self._database.hold(timeout)
            except _Again:
                continue

    def release(self) -> None:
        self._database.release()

    def capture(self) -> Captured:
        database = self._database.take()
        file = database.file or self._database.parent_file
        if file is None:
            raise ValueError("a database that is neither new nor the parent's")
        children = [file]
        facts: dict[str, Any] = dict(database.facts)
        chroma = facts.pop("chroma")
        total, unread = database.bytes, list[str]()
        described: dict[str, Any] = {}
        prints: dict[str, Any] = {}
        for segment in self._segments:
            copy = self._good[segment.id]
            if segment.max_seq_id and not copy.persisted:
                unread.append(
                    f"{segment.id}: SQLite records vectors up to {segment.max_seq_id} as written,"
                    f" but there is no {hnsw.PICKLE}: they are lost in the live store"
                )
            if not copy.files and not (self._folder / segment.id).is_dir():
                continue
            node, size, described[segment.id], prints[segment.id] = self._store(
                segment, copy, chroma
            )
            children.append(node)
            total += size
            if copy.doubt:
                unread.append(f"{segment.id}: Chroma did not leave it complete: {copy.doubt}")
            unread += [f"{segment.id}/{name}: not a regular file" for name in copy.others]
        others, notes = self._store_others(unread)
        if not chroma["collections"]:
            notes.append("there is no collection in this store")
        children += others
        total += sum(node.size for node in others)
        state = self._folder.stat()
        return Captured(
            node=nodes.folder_node(self._name, state, self._context.writer.save_tree(children)),
            bytes=total,
            facts=chroma | {"segments": described, "sqlite": facts},
            fingerprint={"sqlite": database.fingerprint, "segments": prints},
            method=f"folder, hot, held by SQLite's write lock ({facts['journal_mode']} mode)",
            unread=unread,
            notes=database.notes + notes,
        )

    def close(self) -> None:
        self._database.close()
        self._spool.close()

    # copies of the segments

    def _live(self, segments: list[Segment]) -> list[Segment]:
        """The segments that have a folder. Raises SourceError for names that are no folder's."""
        persisted = [segment for segment in segments if segment.type in PERSISTED]
        for segment in persisted:
            if Path(segment.id).name != segment.id or segment.id in (".", ".."):
                raise SourceError(
                    f"{self._folder / NAME} names a segment {segment.id!r}: no folder name",
                    hint="check the database with `PRAGMA integrity_check` on a copy",
                )
        return persisted

    def _first_copy(self, segment: Segment) -> None:
        """Store a segment with the writer, at rest or not: later looks take what changed."""
        until = time.monotonic() + _PREPARE_SECONDS
        while not (copy := self._copy(segment, WriterSink)).complete:
            if time.monotonic() >= until:
                break
            time.sleep(copy.wait_ns / 1e9)
        else:
            return
        # never at rest: take the bytes as they are, so that the bulk of them is stored already
        folder, header = self._folder / segment.id, None
        for name in (hnsw.HEADER, *sorted(self._scan(segment))):
            with suppress(FileNotFoundError, ShortRead), self._readable(folder / name):
                if name == hnsw.HEADER:
                    header = hnsw.parse_header((folder / name).read_bytes())
                sink = WriterSink(self._context.writer)
                before = copy.files.get(name)
                copy.files[name] = copy_file(folder / name, sink, before=before, header=header)

    def _refresh(self, until: float) -> None:
        """Without a lock, bring every copy to a state that goes with what is recorded now."""
        while True:
            self._segments = self._live(self._database.segments())
            waits = [self._refreshed(segment) for segment in self._segments]
            if not any(waits) or time.monotonic() >= until:
                return
            time.sleep(max(waits) / 1e9)

    def _refreshed(self, segment: Segment) -> int:
        good = self._good.get(segment.id)
        if good is not None:
            stats = None if good.serves(segment.max_seq_id, None) else self._scan(segment)
            if good.serves(segment.max_seq_id, stats):
                return 0
        return self._copy(segment, SpoolSink).wait_ns

    def _copy(self, segment: Segment, kind: type[WriterSink] | type[SpoolSink]) -> SegmentCopy:
        """One try at a newer copy of a segment."""
        folder = self._folder / segment.id
        before = self._latest.get(segment.id)
        bulk = kind is WriterSink
        with self._readable(folder):
            copy = copy_segment(
                folder,
                segment.max_seq_id,
                lambda: WriterSink(self._context.writer) if bulk else SpoolSink(self._spool),
                before=before,
                threads=1 if bulk else _THREADS,
                tick=self._tick if bulk else lambda count: None,
            )
        self._latest[segment.id] = copy
        if copy.complete:
            self._good[segment.id] = copy
        return copy

    def _scan(self, segment: Segment) -> dict[str, os.stat_result]:
        folder = self._folder / segment.id
        with self._readable(folder):
            return scan(folder)[0]

    def _under_lock(self) -> None:
        """Inside the hold, before SQLite is fixed: decide about the copies. Raises _Again."""
        self._segments = self._live(self._database.segments())
        stale = []
        for segment in self._segments:
            good = self._good.get(segment.id)
            if good is not None and good.serves(segment.max_seq_id, None):
                continue
            if good is None or not good.serves(segment.max_seq_id, self._scan(segment)):
                stale.append(segment)
        if not stale:
            return
        if not self._may_copy_in_hold:
            raise _Again
        deadline = time.monotonic() + self._config.max_hold
        for segment in stale:
            while not (copy := self._copy(segment, SpoolSink)).complete:
                if time.monotonic() >= deadline:
                    raise BarrierTimeoutError(
                        f"{self._folder / segment.id} did not come to rest within"
                        f" {self._config.max_hold:g} s under the lock",
                        hint="Chroma may be writing a very large index: raise `max_hold` of the"
                        " source, or `hnsw:sync_threshold` of the collection",
                    )
                time.sleep(copy.wait_ns / 1e9)

    # after the hold

    def _store(
        self, segment: Segment, copy: SegmentCopy, chroma: dict[str, Any]
    ) -> tuple[Node, int, dict[str, Any], dict[str, Any]]:
        writer, folder = self._context.writer, self._folder / segment.id
        children: list[Node] = []
        stored: dict[str, dict[str, list[BlobId]]] = {}
        for name, file in copy.files.items():
            if file.reused is not None:
                children += file.reused
            else:
                node, stored[name] = nodes.copy_nodes(name, file, self._spool, writer)
                children.append(node)
        facts = segment_facts(segment, copy, stored, chroma, self._context, self._parent)
        state = folder.stat() if folder.is_dir() else self._folder.stat()
        node = nodes.folder_node(segment.id, state, writer.save_tree(children))
        size = sum(file.key[1] for file in copy.files.values())
        return node, size, facts, fingerprint(copy)

    def _store_others(self, unread: list[str]) -> tuple[list[Node], list[str]]:
        """Files beside chroma.sqlite3 that are not Chroma's; folders that belong to no segment."""
        found, notes = [], []
        mine = {segment.id for segment in self._segments}
        with self._readable(self._folder):
            stats, others = scan(self._folder)
        for name in stats:
            if name == NAME or name.startswith(NAME + "-"):
                continue
            try:
                with self._readable(self._folder / name):
                    copy = copy_file(self._folder / name, WriterSink(self._context.writer))
                found.append(nodes.copy_nodes(name, copy, self._spool, self._context.writer)[0])
            except (FileNotFoundError, ShortRead):
                unread.append(f"{name}: vanished or shrank while it was read")
        for name in others:
            if name in mine or name.startswith(WORK_PREFIX):
                continue
            if (self._folder / name).is_dir():
                notes.append(f"{name}: left out, no live collection has this folder")
            else:
                unread.append(f"{name}: neither file nor folder")
        return found, notes

    def _tick(self, count: int) -> None:
        self._bytes_done += count
        self._context.progress(
            "vectors", min(self._bytes_done, self._bytes_total), self._bytes_total
        )

    def _readable(self, path: Path) -> _Readable:
        return _Readable(path)


class _Readable:
    """Turns an OSError into a SourceError that names the file; lets FileNotFoundError through."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise SourceError(
                f"{error.filename or self._path} cannot be read: {error.strerror}",
                hint="run the backup as a user who may read the whole folder, with room in TMPDIR",
            ) from error
