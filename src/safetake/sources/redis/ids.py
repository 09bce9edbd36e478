"""The ids in the names of keys: of a live server by SCAN, or of a dump.

SCAN gives every key that is there all the time; a key with an expiry is there until it expires. A
node of a cluster knows only its own keys, so it is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from safetake.config import RedisConfig
from safetake.errors import SourceError
from safetake.ids import Template
from safetake.sources.redis.pattern import compile_pattern
from safetake.sources.redis.rdb import RdbFile
from safetake.sources.redis.server import Server
from safetake.sources.redis.wire import Address, Connection, Reply, ServerRefusal

_BATCH = 1000
_SPECIAL = re.compile(r"[*?\[\\]")
ACL_HINT = (
    "as an administrator: ACL SETUSER safetake on >PASSWORD +info +select +scan +exists"
    " and the keys (~PATTERN)"
)


class KeyPattern:
    """A pattern of keys with `{id}` in it, over bytes."""

    def __init__(self, pattern: str) -> None:
        self.template = Template.parse(pattern)
        before, after = (_raw(part) for part in (self.template.before, self.template.after))
        self.glob = before + b"*" + after
        """What SCAN is asked for; the rest is sorted out here."""
        inside = b"(.+)" if self.template.wide else b"([^:]+)"
        expression = compile_pattern(before).pattern + inside + compile_pattern(after).pattern
        self._regex = re.compile(expression, re.DOTALL)
        self.plain = not _SPECIAL.search(self.template.before + self.template.after)
        """Whether an id has exactly one key."""

    def id_in(self, key: bytes) -> str | None:
        """The id in a key's name; None when it is another's."""
        found = self._regex.fullmatch(key)
        return None if found is None else found[1].decode("utf-8", "surrogateescape")

    def key_of(self, one: str) -> bytes | None:
        """The key of an id, where there is exactly one; None for an id that no key can have."""
        try:
            key = _raw(self.template.before + one + self.template.after)
        except UnicodeEncodeError:  # half of a surrogate pair, out of JSON
            return None
        return key if self.id_in(key) == one else None


class LiveKeys:
    """`safetake.ids.IdReader` over a server's keys, of one database or of all."""

    def __init__(self, config: RedisConfig, pattern: str, db: int | None = None) -> None:
        self._config = config
        self._pattern = KeyPattern(pattern)
        self._db = db
        self._may_ask = self._pattern.plain

    def ids(self) -> Iterator[str]:
        with Connection(Address.of(self._config)) as connection:
            for _ in self._databases(connection):
                yield from self._scan(connection)

    def among(self, wanted: Set[str]) -> set[str]:
        if self._may_ask:
            try:
                return self._ask(wanted)
            except ServerRefusal as refusal:
                if refusal.code != "NOPERM":
                    raise
                self._may_ask = False  # SCAN was allowed
        return {one for one in self.ids() if one in wanted}

    def _databases(self, connection: Connection) -> Iterator[int]:
        """Selects one database after the other."""
        server = Server.ask(connection)
        if server.is_cluster:
            raise SourceError(
                f"{connection.address} is one node of a cluster: it knows only its own keys",
                hint="references over a cluster cannot be checked by this version",
            )
        for database in [self._db] if self._db is not None else sorted(map(int, server.keyspace)):
            _call(connection, "SELECT", database)
            yield database

    def _scan(self, connection: Connection) -> Iterator[str]:
        cursor = b"0"
        while True:
            words = ("SCAN", cursor, "MATCH", self._pattern.glob, "COUNT", _BATCH)
            cursor, keys = _call(connection, *words)
            for key in keys:
                one = self._pattern.id_in(key)
                if one is not None:
                    yield one
            if cursor == b"0":
                return

    def _ask(self, wanted: Set[str]) -> set[str]:
        keys = [(one, key) for one in wanted if (key := self._pattern.key_of(one)) is not None]
        found: set[str] = set()
        with Connection(Address.of(self._config)) as connection:
            for _ in self._databases(connection):
                for some in _slices(keys):
                    answers = connection.pipeline([("EXISTS", key) for _, key in some])
                    for (one, _), answer in zip(some, answers, strict=True):
                        if isinstance(answer, ServerRefusal):
                            raise answer
                        if answer:
                            found.add(one)
        return found


class DumpKeys:
    """`safetake.ids.IdReader` over the keys of a dump.rdb, as they were at `at_ms`.

    Raises DamagedError.
    """

    def __init__(
        self, path: Path, pattern: str, db: int | None = None, at_ms: int | None = None
    ) -> None:
        self._path = path
        self._pattern = KeyPattern(pattern)
        self._db = db
        self._at_ms = at_ms

    def ids(self) -> Iterator[str]:
        with RdbFile(self._path) as file:
            for record in file.records():
                if self._db not in (None, record.db) or self._expired(record.expire_ms):
                    continue
                one = self._pattern.id_in(record.key)
                if one is not None:
                    yield one

    def among(self, wanted: Set[str]) -> set[str]:
        return {one for one in self.ids() if one in wanted}

    def _expired(self, expire_ms: int | None) -> bool:
        return expire_ms is not None and self._at_ms is not None and expire_ms <= self._at_ms


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _slices(keys: Sequence[tuple[str, bytes]]) -> Iterator[Sequence[tuple[str, bytes]]]:
    for at in range(0, len(keys), _BATCH):
        yield keys[at : at + _BATCH]


def _call(connection: Connection, *words: str | bytes | int) -> Reply:
    try:
        return connection.call(*words)
    except ServerRefusal as refusal:
        if refusal.code != "NOPERM":
            raise
        raise ServerRefusal(str(refusal), code=refusal.code, hint=ACL_HINT) from None
