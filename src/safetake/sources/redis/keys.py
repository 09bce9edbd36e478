"""Single keys out of a snapshot into a live server, while its applications go on.

A batch of keys is watched, read (DUMP and expiry), written to the undo file, and then restored in
one transaction, in which it is read back: so a key that somebody writes meanwhile ends the
transaction and is looked at again, and nothing is replaced that is not in the undo file, durably,
before.

`RESTORE` with an expiry that is over deletes a live key and answers OK. Keys that have expired, or
will within MARGIN_MS by the server's own clock, are therefore left out; the transaction asks for
that clock once more, and should it have run past, what was deleted is put back at once. The same
goes for a hash of which every field has expired: RESTORE leaves an empty one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetake.errors import RestoreError
from safetake.model import Progress
from safetake.sources.redis.live import LiveKey, read_keys, same_expiry, server_ms
from safetake.sources.redis.pattern import compile_pattern
from safetake.sources.redis.rdb import RdbFile, Record
from safetake.sources.redis.rdbformat import TYPE_NAMES
from safetake.sources.redis.server import Server, parse_info
from safetake.sources.redis.settings import live_config
from safetake.sources.redis.undofile import UndoFile
from safetake.sources.redis.values import FOOTER, memory_of, payload_digest, payload_expired
from safetake.sources.redis.wire import Connection, ServerRefusal

MARGIN_MS = 5_000
BATCH_KEYS = 1000
"""Keys of one transaction (a few milliseconds of the server), and of one fsync (tens)."""
BATCH_BYTES = 4 << 20
MAX_BULK = 512 << 20
"""What a server takes as one argument (proto-max-bulk-len) where it is not known."""
_TRIES = 20
_TOGETHER = 2
"""Tries of a batch before it is halved, until the key that is written is alone."""
_SHOWN = 20
_KEY_BYTES = 100
"""What a key takes beside its value, about."""

ACL_HINT = (
    "+select +dump +pexpiretime (Redis 6: +pttl) +time +restore +watch +unwatch +multi +exec +del"
    " and the keys (~PATTERN)"
)


@dataclass(slots=True)
class KeysReport:
    """What was found, and done (or would be: `dry_run`)."""

    missing: int = 0
    """Not there: brought back."""
    changed: int = 0
    """There with another value, type or expiry: put back when that was asked for, else left."""
    same: int = 0
    expired: int = 0
    """Expired since the snapshot, or about to: not brought back."""
    busy: list[str] = field(default_factory=list)
    """Written by somebody again and again, and left alone."""
    refused: list[str] = field(default_factory=list)
    """What the server did not take, with its answer."""
    different: list[str] = field(default_factory=list)
    """Not what was written when it was read back."""
    evicted: int = 0
    """Thrown away by the server meanwhile, to keep to its maxmemory."""
    examples: list[str] = field(default_factory=list)
    """Some of the missing and, when they are put back, of the changed."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def complete(self) -> bool:
        """Whether every key that should be back is."""
        return not (self.busy or self.refused or self.different or self.evicted)


@dataclass(slots=True)
class _Wanted:
    """One key of the snapshot."""

    key: bytes
    expire_ms: int | None
    payload: bytes

    @property
    def name(self) -> str:
        return _name(self.key)

    def is_over(self, at_ms: int) -> bool:
        """Whether nothing is left of it at that time."""
        by_key = self.expire_ms is not None and self.expire_ms <= at_ms
        return by_key or payload_expired(self.payload, at_ms)


class Keys:
    """One restore of keys. `run` with `dry_run` only looks."""

    def __init__(
        self,
        dump: Path,
        connection: Connection,
        patterns: Sequence[str],
        db: int | None,
        *,
        changed: bool,
        progress: Progress,
    ) -> None:
        self._dump = dump
        self._connection = connection
        self._server = Server.ask(connection)
        self._patterns = [compile_pattern(p.encode("utf-8", "surrogateescape")) for p in patterns]
        self._db = db
        self._changed = changed
        self._progress = progress

    def run(self, undo: UndoFile | None) -> KeysReport:
        """Restore, with what is replaced in `undo`; without one only look.

        Raises DamagedError, SourceError, RestoreError.
        """
        report = KeysReport()
        selected = -1
        for db, batch in self._batches(report, self._longest()):
            if db != selected:
                self._select(db)
                selected = db
            self._one_batch(db, batch, report, undo)
        if undo is not None and undo.made:
            before = int(self._server.info.get("evicted_keys") or 0)
            report.evicted = int(self._info("stats").get("evicted_keys") or 0) - before
        return report

    def _select(self, db: int) -> None:
        try:
            self._connection.call("SELECT", db)
        except ServerRefusal as refusal:
            if "out of range" not in str(refusal):
                raise
            raise RestoreError(
                f"the snapshot has keys in database {db}, and {self._connection.address} has no"
                " such database: those below it were looked at, and no more",
                hint=f"set `databases {db + 1}` on the live server and restart it; or choose others"
                " with --db",
            ) from None

    def _info(self, section: str) -> dict[str, str]:
        return parse_info(self._connection.call("INFO", section))

    def _refuse_eviction(self, todo: list[_Wanted]) -> None:
        """Where there is no room the server would throw other keys away. Raises RestoreError."""
        info = self._info("memory")
        limit = int(info.get("maxmemory") or 0)
        if not limit or info.get("maxmemory_policy") == "noeviction":
            return  # then the server itself refuses
        need = sum(memory_of(w.payload) + len(w.key) + _KEY_BYTES for w in todo)
        if int(info["used_memory"]) + need > limit:
            raise RestoreError(
                f"{self._connection.address} would evict other keys to make room for these"
                f" (maxmemory {limit}, {info['maxmemory_policy']})",
                hint="raise maxmemory on the live server",
            )

    # -- the snapshot's keys -----------------------------------------------------------------

    def _longest(self) -> int:
        try:
            return int(live_config(self._connection, "proto-max-bulk-len") or MAX_BULK)
        except ServerRefusal:
            return MAX_BULK

    def _batches(self, report: KeysReport, longest: int) -> Iterator[tuple[int, list[_Wanted]]]:
        most = 1 if self._server.is_cluster else BATCH_KEYS  # keys of a batch share no slot
        batch: list[_Wanted] = []
        now, size, done = -1, 0, 0
        with RdbFile(self._dump) as file:
            for record in file.records():
                if not self._is_wanted(record):
                    continue
                length = record.end - record.start
                if length > longest:
                    why = f"its {length} bytes are more than the server takes at once"
                    report.refused.append(f"{_name(record.key)}: {why} (proto-max-bulk-len)")
                    continue
                if batch and (record.db != now or len(batch) >= most or size > BATCH_BYTES):
                    yield now, batch
                    batch, size = [], 0
                now, size, done = record.db, size + length, done + 1
                batch.append(_Wanted(record.key, record.expire_ms, file.dump_payload(record)))
                self._progress("keys", done, 0)
        if batch:
            yield now, batch

    def _is_wanted(self, record: Record) -> bool:
        if self._db is not None and record.db != self._db:
            return False
        return not self._patterns or any(p.fullmatch(record.key) for p in self._patterns)

    # -- one batch ---------------------------------------------------------------------------

    def _one_batch(
        self, db: int, batch: list[_Wanted], report: KeysReport, undo: UndoFile | None
    ) -> None:
        for left in reversed(range(_TRIES if len(batch) == 1 else _TOGETHER)):
            now = server_ms(self._connection)
            alive = [w for w in batch if not w.is_over(now + MARGIN_MS)]
            if undo is not None and alive:
                self._connection.call("WATCH", *[w.key for w in alive])
            live = {
                found.key: found
                for found in read_keys(self._connection, self._server, [w.key for w in alive])
            }
            missing = [w for w in alive if w.key not in live]
            changed = [w for w in alive if w.key in live and not same(w, live[w.key], now)]
            todo = missing + (changed if self._changed else [])
            if undo is not None and todo:
                self._refuse_eviction(todo)
                undo.keep(db, [(w.key, w.payload, w.expire_ms, live.get(w.key)) for w in todo])
                answers = self._restore(todo, live)
                if answers is None:  # somebody wrote one of them since it was read
                    if left:
                        continue
                    half = len(batch) // 2
                    if half:
                        self._one_batch(db, batch[:half], report, undo)
                        self._one_batch(db, batch[half:], report, undo)
                    else:
                        report.busy.append(batch[0].name)
                    return
                undo.became(db, self._look(todo, live, answers, report))
            elif undo is not None and alive:
                self._connection.call("UNWATCH")
            report.expired += len(batch) - len(alive)
            report.missing += len(missing)
            report.changed += len(changed)
            report.same += len(alive) - len(missing) - len(changed)
            room = max(0, _SHOWN - len(report.examples))
            report.examples += [w.name for w in todo[:room]]
            return

    def _restore(self, todo: list[_Wanted], live: dict[bytes, LiveKey]) -> list[Any] | None:
        """The answers of the transaction; None when it did not take place."""
        commands: list[tuple[str | bytes | int, ...]] = [("MULTI",), ("TIME",)]
        ask = "PEXPIRETIME" if self._modern else "PTTL"
        for one in todo:
            replace = ("REPLACE",) if one.key in live else ()
            ttl = one.expire_ms or 0
            commands += [
                ("RESTORE", one.key, ttl, one.payload, *replace, "ABSTTL"),
                ("DUMP", one.key),
                (ask, one.key),
            ]
        answers = self._connection.pipeline([*commands, ("EXEC",)])
        for answer in answers:
            if isinstance(answer, ServerRefusal):
                first = next(a for a in answers if isinstance(a, ServerRefusal))
                if first.code in ("NOPERM", "OOM", "READONLY", "MISCONF"):
                    raise RestoreError(str(first), hint=_hint(first)) from None
                raise first
        result: list[Any] | None = answers[-1]
        return result

    @property
    def _modern(self) -> bool:
        return self._server.family == "valkey" or self._server.version >= (7,)

    def _look(
        self,
        todo: list[_Wanted],
        live: dict[bytes, LiveKey],
        answers: list[Any],
        report: KeysReport,
    ) -> list[tuple[bytes, bytes]]:
        """What the transaction left: as written, refused, or expired at that very moment. Returns
        the keys whose payload is another than they were given."""
        became = []
        seconds, micros = answers[0]
        now = int(seconds) * 1000 + int(micros) // 1000
        for index, one in enumerate(todo):
            answer, payload, left = answers[1 + 3 * index : 4 + 3 * index]
            if isinstance(answer, ServerRefusal):
                report.refused.append(f"{one.name}: {answer}")
                continue
            if one.is_over(now):
                if (was := live.get(one.key)) is not None:
                    self._put_back(was, empty=payload is not None)
                continue
            if payload is None:
                report.different.append(one.name)
                continue
            expire = None if left < 0 else left if self._modern else left + now
            if not same(one, LiveKey(one.key, payload, expire), now):
                report.different.append(one.name)
            if payload != one.payload:
                became.append((one.key, payload))
        return became

    def _put_back(self, was: LiveKey, *, empty: bool) -> None:
        """A live key that was deleted, or emptied, because the old one's time had come in
        between."""
        more = ("REPLACE",) if empty else ()
        ttl = was.expire_ms or 0
        self._connection.call("RESTORE", was.key, ttl, was.payload, *more, "ABSTTL")


def _name(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def same(wanted: _Wanted, live: LiveKey, now_ms: int) -> bool:
    """Whether a live key holds what the snapshot has: value and expiry."""
    if not same_expiry(wanted.expire_ms, live.expire_ms):
        return False
    one, other = wanted.payload, live.payload
    if one[:-FOOTER] == other[:-FOOTER]:
        return True
    if TYPE_NAMES.get(one[0]) != TYPE_NAMES.get(other[0]):
        return False
    digest = payload_digest(one, now_ms)
    return digest is not None and digest == payload_digest(other, now_ms)


def _hint(refusal: ServerRefusal) -> str:
    return {
        "NOPERM": f"the user needs {ACL_HINT}",
        "OOM": "raise maxmemory on the live server",
        "READONLY": "the server is a replica: name its master",
        "MISCONF": "the server cannot write its disk: see its log",
    }.get(refusal.code, refusal.hint)
