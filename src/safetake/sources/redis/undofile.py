"""What a restore of keys replaces, durable before it is replaced; and how it is taken back.

JSON lines in a private file: first what the restore was, then one line for each key: what was there
(nothing, or DUMP's payload and the expiry) and what it was given. A torn last line was not acted
upon. Taking back gives a key its old value only while it holds what the restore gave it; what an
application wrote since stays.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from safetake.errors import RestoreError
from safetake.sources.redis.live import LiveKey, read_keys, same_expiry, server_ms
from safetake.sources.redis.server import Server
from safetake.sources.redis.values import FOOTER, payload_digest, payload_expired
from safetake.sources.redis.wire import Connection
from safetake.swap import sync_folder

SUFFIX = ".keys.undo"
FORMAT = 1
_TRIES = 20

_Entry = tuple[bytes, bytes, int | None, LiveKey | None]
"""key, payload and expiry that it is given, what is there"""


def identity(payload: bytes) -> list[str]:
    """Of DUMP's payload: of its bytes, and of its content where that is known."""
    body = payload[:-FOOTER]
    found = [hashlib.blake2b(body, digest_size=16).hexdigest()]
    content = payload_digest(payload)
    return found if content is None else [*found, content.hex()]


class UndoFile:
    """Written while keys are restored, made when the first is. A context manager."""

    def __init__(self, path: Path, begin: Mapping[str, Any]) -> None:
        self.path = path
        self._begin = {"format": FORMAT, **begin}
        self._file: IO[bytes] | None = None

    @property
    def made(self) -> bool:
        """Whether anything is in it."""
        return self._file is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def keep(self, db: int, entries: Sequence[_Entry]) -> None:
        """Durable when it returns. Raises RestoreError."""
        try:
            self._write(
                [
                    {
                        "db": db,
                        "key": _text(key),
                        "old": None if was is None else _text(was.payload),
                        "old_expire": None if was is None else was.expire_ms,
                        "new": identity(payload),
                        "new_expire": expire,
                    }
                    for key, payload, expire, was in entries
                ]
            )
        except OSError as error:
            raise _failed(self.path, error) from error

    def became(self, db: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Keys and their payloads as the server dumps them now, perhaps in another encoding. Not
        durable at once: without it such a key is taken for one that was written since."""
        if self._file is None or not entries:
            return
        try:
            self._file.writelines(
                json.dumps({"db": db, "key": _text(key), "is": identity(payload)}).encode() + b"\n"
                for key, payload in entries
            )
        except OSError as error:
            raise _failed(self.path, error) from error

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if self._file is None:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(fd, "wb")
            self._file.write(json.dumps(self._begin).encode() + b"\n")
            sync_folder(self.path.parent)
        self._file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
        self._file.flush()
        os.fsync(self._file.fileno())


@dataclass(slots=True)
class TakenBack:
    """What an undo did."""

    put_back: int = 0
    removed: int = 0
    already: int = 0
    """As before already (or never changed)."""
    kept: list[str] = field(default_factory=list)
    """Written since, and left alone."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: getattr(self, name) for name in self.__slots__}


def read_begin(path: Path) -> dict[str, Any]:
    """What the restore was. Raises RestoreError."""
    try:
        with path.open("rb") as file:
            begin = json.loads(file.readline())
    except (OSError, ValueError) as error:
        raise RestoreError(f"{path} is no undo file of keys: {error}") from error
    if not isinstance(begin, dict) or begin.get("format") != FORMAT:
        raise RestoreError(f"{path} is no undo file of keys", hint="use a newer safetake?")
    return begin


def server_of(connection: Connection) -> dict[str, Any]:
    """What tells a server from others, for an undo file: its address, without credentials, and the
    ids of its process and of its data, which a replica that takes over goes on with."""
    info = Server.ask(connection).info
    replids = {info.get(name, "") for name in ("master_replid", "master_replid2")}
    return {
        "address": str(connection.address),
        "run_id": info.get("run_id", ""),
        "replids": sorted(one for one in replids if one.strip("0")),
    }


def stranger(begin: Mapping[str, Any], connection: Connection) -> str:
    """The address of the server that the restore was made in, when nothing says that this is the
    same one, or one that went on with its data; else nothing.

    One address is enough: the ids of a server that is started again may all be new. A file that
    does not tell the server (of an older safetake) is believed.
    """
    was = begin.get("server")
    if was is None:
        return ""
    now = server_of(connection)
    known = (
        was["address"] == now["address"]
        or (was["run_id"] and was["run_id"] == now["run_id"])
        or not set(was["replids"]).isdisjoint(now["replids"])
    )
    return "" if known else str(was["address"])


def take_back(path: Path, connection: Connection) -> TakenBack:
    """Undo what is in the file, in a running server. Can be repeated. Raises RestoreError,
    SourceError."""
    read_begin(path)
    server = Server.ask(connection)
    result = TakenBack()
    places: dict[tuple[int, bytes], int] = {}
    became: dict[tuple[int, bytes], list[str]] = {}
    try:
        with path.open("rb") as file:  # a key that was tried more than once: its last line counts
            at = len(file.readline())
            for line in file:
                if (one := _line(line)) is not None:
                    if "is" in one:
                        became[one["db"], _bytes(one["key"])] = one["is"]
                    else:
                        places[one["db"], _bytes(one["key"])] = at
                at += len(line)
            for (db, key), at in places.items():
                file.seek(at)
                one = _line(file.readline())
                assert one is not None
                given = {*one["new"], *became.get((db, key), [])}
                _one(connection, server, db, key, one, given, result)
    except OSError as error:
        raise _failed(path, error) from error
    return result


def _one(
    connection: Connection,
    server: Server,
    db: int,
    key: bytes,
    told: Mapping[str, Any],
    given: set[str],
    result: TakenBack,
) -> None:
    connection.call("SELECT", db)
    old = None if told["old"] is None else _bytes(told["old"])
    for _ in range(_TRIES):
        connection.call("WATCH", key)
        live = next(iter(read_keys(connection, server, [key])), None)
        if (
            live is None
            or given.isdisjoint(identity(live.payload))
            or not same_expiry(live.expire_ms, told["new_expire"])
        ):
            connection.call("UNWATCH")
            if live is None or old is None:
                was = live is None and old is None
            else:
                was = live.payload == old and same_expiry(live.expire_ms, told["old_expire"])
            if was:
                result.already += 1
            else:
                result.kept.append(key.decode("utf-8", "backslashreplace"))
            return
        command: tuple[str | bytes | int, ...] = ("DEL", key)
        expire = told["old_expire"]
        now = server_ms(connection)
        there = old is not None and (expire is None or expire > now)
        if old is not None and there and not payload_expired(old, now):
            command = ("RESTORE", key, expire or 0, old, "REPLACE", "ABSTTL")
        *_, done = connection.pipeline([("MULTI",), command, ("EXEC",)])
        if isinstance(done, Exception):
            raise done
        if done is None:
            continue
        if isinstance(done[0], Exception):
            raise done[0]
        if old is None:
            result.removed += 1
        else:
            result.put_back += 1
        return
    result.kept.append(key.decode("utf-8", "backslashreplace"))


def _line(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise RestoreError(f"an undo file of keys is damaged: {error}") from error
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _failed(path: Path, error: OSError) -> RestoreError:
    return RestoreError(
        f"cannot use {path}: {error.strerror or error}",
        hint="nothing is replaced that is not kept there first; free space, or set `state` in the"
        " [restore] section to another folder",
    )
