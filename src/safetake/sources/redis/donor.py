"""A private server that holds the data of a restore, and that the live server replicates from.

It listens on one port, behind a password, for the seconds of the transfer. The live server must be
able to read what it writes: so its program has the live server's family and format, and the
snapshot must not be newer than that. Redis and Valkey went apart after Redis 7.2: what is newer
than RDB version 11 is not read by the other family.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetake.errors import RefusedError
from safetake.sources.redis import aof
from safetake.sources.redis.scratch import (
    LEAST_DATABASES,
    Binary,
    Listen,
    ScratchError,
    ScratchServer,
    find_binaries,
    link_or_copy,
)
from safetake.sources.redis.server import Server, Version, parse_version
from safetake.sources.redis.wire import Connection, encode

COMMON_RDB = 11
"""The last RDB version that Redis and Valkey both read."""
PER_KEY = "keys can be brought back without one: `safetake restore ID SOURCE --in-place --keys '*'`"
_PORT_TRIES = 3
_SETTLE_SECONDS = 60.0


def written_by(family: str, version: Version) -> tuple[str, int] | None:
    """(magic, RDB version) that a server writes, where it is known."""
    if family == "valkey":
        return ("VALKEY", 80) if version >= (9,) else ("REDIS", COMMON_RDB)
    known = {(6, 2): 9, (7, 0): 10, (7, 2): 11, (7, 4): 12, (8, 0): 12, (8, 2): 12}
    number = known.get((version[0], version[1] if len(version) > 1 else 0))
    return None if number is None else ("REDIS", number)


def choose_donor(server: Server) -> Binary:
    """The program for a live server: what it writes, the live server reads, and the reverse.

    Raises RefusedError when none is installed.
    """
    same = [b for b in find_binaries() if b.family == server.family]
    minor = [b for b in same if b.version[:2] == server.version[:2]]
    wanted = written_by(server.family, server.version)
    alike = [
        b
        for b in same
        if wanted is not None
        and b.version >= server.version
        and written_by(b.family, b.version) == wanted
    ]
    for binary in [*sorted(minor, key=lambda b: b.version, reverse=True), *alike]:
        return binary
    number = ".".join(map(str, server.version[:2]))
    there = ", ".join(b.name for b in find_binaries()) or "none"
    raise RefusedError(
        f"the live server is {server.family} {server.version_text}, and no program of that version"
        f" is installed here to hand it the data (there is: {there})",
        hint=f"install {server.family}-server {number} here; {PER_KEY}",
    )


def refuse_newer(facts: Mapping[str, Any], server: Server) -> None:
    """Raises RefusedError for a snapshot that the live server cannot read."""
    family, version = str(facts.get("family", "")), parse_version(str(facts.get("version", "0")))
    of, into = f"{family} {facts.get('version')}", f"{server.family} {server.version_text}"
    if family == server.family:
        if version[:2] <= server.version[:2]:
            return
        raise RefusedError(
            f"the snapshot is of {of}, and the live server is {into}: an older server does not"
            " read a newer one's data",
            hint="upgrade the live server first",
        )
    common = facts.get("magic") == "REDIS" and int(facts.get("rdb_version") or 99) <= COMMON_RDB
    if family == "redis" and server.family == "valkey" and common:
        return
    raise RefusedError(
        f"the snapshot is of {of}, and the live server is {into}: they do not read each other's"
        " data",
        hint=f"restore into a server of the family {family}",
    )


class Donor:
    """A running server on a copy (hard links) of `data`, which is not written to.

    A context manager. `data` is a restored folder: dump.rdb, or its append-only form. Raises
    ScratchError when the data does not load.
    """

    def __init__(
        self,
        binary: Binary,
        data: Path,
        folder: Path,
        *,
        host: str,
        username: str,
        password: str,
        databases: int = 0,
    ) -> None:
        self._folder = folder
        appendonly = copy_data(data, folder, binary)
        databases = max(databases, LEAST_DATABASES)
        for left in reversed(range(_PORT_TRIES)):
            self.listen = Listen(host, _free_port(host), username, password)
            try:
                self._server = ScratchServer(
                    binary,
                    folder,
                    appendonly=appendonly,
                    databases=databases,
                    listen=self.listen,
                )
            except ScratchError as error:
                if left and "listen" in str(error).lower():
                    continue  # somebody took the port meanwhile
                raise
            break
        # It must not know the ids under which the data was replicated before: the live server
        # would be told to go on from where it is, and keep what it has.
        self._server.call("REPLICAOF", "127.0.0.1", self._server.closed_port)
        self._server.call("REPLICAOF", "NO", "ONE")
        try:
            self.replid = self._settle()
            self._syncs_before = int(self._server.info("stats")["sync_full"])
        except BaseException:
            self.close()
            raise

    def _settle(self) -> str:
        """The replication id that it will keep: a server changes it once, when the first replica
        comes, so somebody comes and goes."""
        with Connection(self._server.address) as first:
            first.call("REPLCONF", "capa", "eof", "capa", "psync2")
            first.send(encode("PSYNC", "?", -1))
            while not (line := first.line()):
                continue
        deadline = time.monotonic() + _SETTLE_SECONDS
        while self._server.info("persistence")["rdb_bgsave_in_progress"] != "0":
            if time.monotonic() > deadline:
                raise ScratchError("the private server does not settle")
            time.sleep(0.01)
        replid = self._server.info("replication")["master_replid"]
        if line.split()[1:2] != [replid.encode()]:
            raise ScratchError(f"the private server answered {line[:80]!r} to PSYNC")
        return replid

    def __enter__(self) -> Donor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process. Idempotent."""
        self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._server.alive

    @property
    def offset(self) -> int:
        """Its replication offset."""
        return int(self._server.info("replication")["master_repl_offset"])

    @property
    def full_syncs(self) -> int:
        """How many replicas it began to send everything to: 0 means that nothing left it."""
        return int(self._server.info("stats")["sync_full"]) - self._syncs_before

    @property
    def memory(self) -> int:
        """Bytes that the data takes in memory, about."""
        found = self._server.info("memory")
        return int(found["used_memory"]) - int(found.get("used_memory_startup", 0))

    def keyspace(self) -> dict[str, dict[str, int]]:
        """Keys and expiring keys of each database."""
        return self._server.keyspace()


def copy_data(data: Path, folder: Path, binary: Binary) -> bool:
    """Second names of restored files in a new `folder`; whether they are in append-only form.

    Raises OSError.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    single, several = data / aof.SINGLE, data / aof.DIRECTORY
    if not single.is_file() and not several.is_dir():
        link_or_copy(data / "dump.rdb", folder / "dump.rdb")
        return False
    multipart = aof.is_multipart(binary.family, binary.version)
    if several.is_dir() and multipart:
        shutil.copytree(several, folder / aof.DIRECTORY)
    elif single.is_file():  # newer servers take the old form over
        shutil.copyfile(single, folder / aof.SINGLE)
    else:
        raise ScratchError(f"{binary.name} does not read an append-only file in parts")
    return True


@contextlib.contextmanager
def loaded(binary: Binary, data: Path, folder: Path) -> Iterator[ScratchServer]:
    """The data in a server that nobody can reach, to look at it. Raises ScratchError."""
    appendonly = copy_data(data, folder, binary)
    try:
        with ScratchServer(
            binary, folder, appendonly=appendonly, databases=LEAST_DATABASES
        ) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise ScratchError(f"cannot listen on {host}: {error.strerror}") from error
        return int(probe.getsockname()[1])
