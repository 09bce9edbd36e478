"""The marked fallback: every key by SCAN and DUMP, written as an RDB. Not one moment.

Keys that are written, renamed or deleted while the scan runs may come in either state, twice, or
not at all. It needs no replication, so it also works where PSYNC is forbidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from safetake.errors import SourceError
from safetake.model import Progress
from safetake.sources.redis.rdbformat import EOF, EXPIRE_MS, SELECTDB, encode_length, header
from safetake.sources.redis.server import Server
from safetake.sources.redis.wire import Connection, Reply, ServerRefusal

BATCH = 500
ACL_HINT = (
    "as an administrator: ACL SETUSER safetake on >PASSWORD resetkeys %R~* -@all"
    " +info +select +scan +dump +pexpiretime (Redis 6: ~* and +pttl +time instead)"
)


def scan(connection: Connection, server: Server, target: Path, progress: Progress) -> list[str]:
    """Write all keys to `target`, an RDB (keys may come twice); returns notes for people.

    Raises SourceError.
    """
    notes = [
        "not one moment: keys that changed while they were read may be older, newer or missing"
    ]
    databases = sorted(int(number) for number in server.keyspace)
    total = sum(entry["keys"] for entry in server.keyspace.values())
    done = 0
    version = 0
    try:
        with target.open("wb") as raw:
            out = _Body(raw)
            for database in databases:
                _call(connection, "SELECT", database)
                out.write(bytes((SELECTDB,)) + encode_length(database))
                for key, payload, expiry in _keys(connection, server):
                    # DUMP: type, value, RDB version (2), CRC64 (8)
                    if len(payload) < 11:
                        raise SourceError(f"DUMP of {key[:80]!r} answered {len(payload)} bytes")
                    version = max(version, int.from_bytes(payload[-10:-8], "little"))
                    if expiry is not None:
                        out.write(bytes((EXPIRE_MS,)) + expiry.to_bytes(8, "little", signed=True))
                    out.write(payload[:1] + encode_length(len(key)) + key + payload[1:-10])
                    done += 1
                progress("keys", done, total)
            functions, note = _functions(connection, server)
            notes += note
            out.finish(server.family, version, functions)
    except OSError as error:
        raise SourceError(
            f"cannot write {target}: {error.strerror or error}",
            hint="set TMPDIR to a folder with more room",
        ) from error
    return notes


def _keys(connection: Connection, server: Server) -> Iterator[tuple[bytes, bytes, int | None]]:
    modern = server.version >= (7,)
    ask = "PEXPIRETIME" if modern else "PTTL"
    cursor = b"0"
    while True:
        cursor, keys = _call(connection, "SCAN", cursor, "COUNT", BATCH)
        now = 0
        if keys and not modern:
            seconds, micros = _call(connection, "TIME")
            now = int(seconds) * 1000 + int(micros) // 1000
        commands: list[tuple[str | bytes | int, ...]] = []
        for key in keys:
            commands += [("DUMP", key), (ask, key)]
        answers = connection.pipeline(commands) if commands else []
        for index, key in enumerate(keys):
            payload, expiry = answers[2 * index], answers[2 * index + 1]
            for answer in (payload, expiry):
                if isinstance(answer, ServerRefusal):
                    raise _with_hint(answer)
            if payload is None or expiry == -2:
                continue  # gone since SCAN named it
            yield key, payload, None if expiry < 0 else expiry + now
        if cursor == b"0":
            return


def _functions(connection: Connection, server: Server) -> tuple[bytes, list[str]]:
    if server.version < (7,):
        return b"", []
    try:
        payload: bytes = connection.call("FUNCTION", "DUMP")
    except ServerRefusal as refusal:
        return b"", [f"functions are not included ({refusal.code})"]
    return payload[:-10], []


def _call(connection: Connection, *words: str | bytes | int) -> Reply:
    try:
        return connection.call(*words)
    except ServerRefusal as refusal:
        raise _with_hint(refusal) from None


def _with_hint(refusal: ServerRefusal) -> ServerRefusal:
    if refusal.code == "NOPERM":
        return ServerRefusal(str(refusal), code=refusal.code, hint=ACL_HINT)
    return refusal


class _Body:
    """An RDB whose version is known last: the header is written over at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(header("REDIS", 0))

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def finish(self, family: str, version: int, functions: bytes) -> None:
        """Functions, end, a CRC of zero (not computed: the canonical copy has one), the header."""
        self._file.write(functions + bytes((EOF,)) + bytes(8))
        self._file.seek(0)
        self._file.write(
            header("VALKEY" if family == "valkey" and version >= 80 else "REDIS", version or 9)
        )
