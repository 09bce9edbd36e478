"""A Redis connection of our own: connect, log in, send, read replies. RESP2, blocking, no magic.

It exists because redis-py does not read a replication stream, and because the password must not
reach any message. Errors name the server without its credentials.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

from safetake.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from safetake.config import RedisConfig

CONNECT_SECONDS = 10.0
REPLY_SECONDS = 60.0
MAX_LINE = 1 << 16

Reply = Any
"""None, int, bytes, list of replies, or a ServerRefusal inside a list."""

ACL_HINT = (
    "as an administrator: ACL SETUSER safetake on >PASSWORD resetkeys -@all"
    " +psync +replconf +info +client|pause +client|unpause"
)


class ServerGoneError(SourceError):
    """The connection could not be made, or broke."""


class ServerSilentError(ServerGoneError):
    """The server did not answer in time."""


class ServerRefusal(SourceError):
    """The server answered with an error; `code` is its first word."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how to log in. Its `str` has no credentials."""

    host: str
    port: int
    unix: str
    tls: bool
    username: str | None
    password: str | None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        if self.unix:
            return f"unix://{self.unix}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self})"

    @classmethod
    def of(cls, config: RedisConfig) -> Address:
        """From the configuration. Raises ConfigError; reads the password file or variable."""
        try:
            parts = urlsplit(config.url)
            port = parts.port or 6379
        except ValueError:
            raise ConfigError(
                "the redis url cannot be read", hint="use redis://HOST:PORT or unix:///PATH"
            ) from None
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ConfigError(
                f"redis url with unknown scheme {parts.scheme!r}",
                hint="use redis://, rediss:// or unix://",
            )
        username = config.username or unquote(parts.username or "") or None
        password = unquote(parts.password or "") or None
        if config.password_env is not None:
            password = os.environ.get(config.password_env)
            if not password:
                raise ConfigError(
                    f"the environment variable {config.password_env} is not set",
                    hint="it should hold the Redis password",
                )
        elif config.password_file is not None:
            try:
                password = config.password_file.read_text().rstrip("\r\n")
            except OSError as error:
                raise ConfigError(
                    f"cannot read the Redis password from {config.password_file}: {error.strerror}"
                ) from error
            except UnicodeDecodeError:
                raise ConfigError(
                    f"{config.password_file} is not text in UTF-8",
                    hint="write the Redis password into it, and nothing else",
                ) from None
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port,
            unix=unquote(parts.path) if parts.scheme == "unix" else "",
            tls=parts.scheme == "rediss",
            username=username,
            password=password,
            ca=config.tls_ca,
            cert=config.tls_cert,
            key=config.tls_key,
        )


def encode(*words: str | bytes | int) -> bytes:
    """One command as RESP."""
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        out.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(out)


class Connection:
    """One logged-in connection. Not for several threads at once."""

    def __init__(self, address: Address, *, timeout: float = REPLY_SECONDS) -> None:
        self.address = address
        self._buffer = bytearray()
        self._socket = _open(address)
        self.set_timeout(timeout)
        try:
            if address.password is not None:
                words = [w for w in (address.username, address.password) if w is not None]
                self.call("AUTH", *words)
        except SourceError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close; never raises."""
        try:
            self._socket.close()
        except OSError:
            return

    def route(self) -> tuple[str, bool]:
        """(the address by which the server can reach this host, whether it runs on it too)."""
        if self._socket.family == socket.AF_UNIX:
            return "127.0.0.1", True
        here, there = self._socket.getsockname()[0], self._socket.getpeername()[0]
        return str(here), here == there

    def abort(self) -> None:
        """Wake a thread that reads from this connection: it finds the connection closed."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def set_timeout(self, seconds: float) -> None:
        """How long one send or one read may wait."""
        self._socket.settimeout(seconds)

    def send(self, data: bytes) -> None:
        """Send raw bytes. Raises ServerGoneError."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone(error) from error

    def receive_into(self, view: memoryview) -> int:
        """What is there; 0 at the end. Raises TimeoutError, ServerGoneError."""
        if self._buffer:
            n = min(len(view), len(self._buffer))
            view[:n] = self._buffer[:n]
            del self._buffer[:n]
            return n
        try:
            return self._socket.recv_into(view)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._gone(error) from error

    def call(self, *words: str | bytes | int) -> Reply:
        """Send one command and return its reply. Raises ServerRefusal, ServerGoneError."""
        self.send(encode(*words))
        return self.reply()

    def pipeline(self, commands: list[tuple[str | bytes | int, ...]]) -> list[Reply]:
        """Send all, read all; a refusal is an element of the answer, not raised."""
        self.send(b"".join(encode(*command) for command in commands))
        answers: list[Reply] = []
        for _ in commands:
            try:
                answers.append(self.reply())
            except ServerRefusal as refusal:
                answers.append(refusal)
        return answers

    def reply(self) -> Reply:
        """Read one reply. Raises ServerRefusal for `-…`, ServerGoneError, TimeoutError never."""
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise refusal(rest.decode("utf-8", "replace"), self.address)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._exactly(size + 2)[:-2]
        if kind == b"*":
            return None if int(rest) < 0 else [self._element() for _ in range(int(rest))]
        raise ServerGoneError(
            f"{self.address} does not speak the Redis protocol",
            hint="is the port right, and is TLS on at both ends or at neither?",
        )

    def _element(self) -> Reply:
        """A reply inside a list, where an error is an element (of EXEC)."""
        try:
            return self.reply()
        except ServerRefusal as refused:
            return refused

    def line(self) -> bytes:
        """One line without its end. Raises ServerGoneError."""
        while (at := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > MAX_LINE:
                raise ServerGoneError(f"{self.address} does not speak the Redis protocol")
            self._fill()
        line = bytes(self._buffer[:at])
        del self._buffer[: at + 1]
        return line.rstrip(b"\r")

    def _exactly(self, n: int) -> bytes:
        while len(self._buffer) < n:
            self._fill()
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        return data

    def _fill(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except OSError as error:
            raise self._gone(error) from error
        if not data:
            raise ServerGoneError(
                f"{self.address} closed the connection",
                hint="see the server's log; a TLS port needs rediss://",
            )
        self._buffer += data

    def _gone(self, error: OSError) -> ServerGoneError:
        if isinstance(error, TimeoutError):
            return ServerSilentError(
                f"{self.address} did not answer in time",
                hint="is the server busy with a long command or script?",
            )
        return ServerGoneError(
            f"connection to {self.address} broke: {error.strerror or error}",
            hint="is the server still running?",
        )


def refusal(text: str, address: Address) -> ServerRefusal:
    """A server's error line as our error, with the next step."""
    code = text.split(" ", 1)[0]
    hints = {
        "NOPERM": ACL_HINT,
        "NOAUTH": "give the password with password_file or password_env",
        "WRONGPASS": "check username and password",
        "LOADING": "wait until the server has loaded its data",
        "NOMASTERLINK": "the node is a replica that has lost its master",
        "MASTERDOWN": "the node is a replica that has lost its master",
        "BUSY": "a script is running: wait for it or SCRIPT KILL",
        "MOVED": "another node of the cluster serves this key now: restore into that one",
    }
    hint = hints.get(code, "")
    if "AUTH" in text and "without any password" in text:
        hint = "the server has no password: remove it from the configuration"
    elif "invalid password" in text:
        hint = "check username and password"
    return ServerRefusal(f"{address} answered: {text}", code=code, hint=hint)


def _open(address: Address) -> socket.socket:
    raw: socket.socket | None = None
    try:
        if address.unix:
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            raw.settimeout(CONNECT_SECONDS)
            raw.connect(address.unix)
            return raw
        raw = socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError as error:
        if raw is not None:
            raw.close()
        raise ServerGoneError(
            f"cannot connect to {address}: {error.strerror or error}",
            hint="is the server running, and is the address right?",
        ) from error
    return _secure(raw, address) if address.tls else raw


def _secure(raw: socket.socket, address: Address) -> socket.socket:
    try:
        context = ssl.create_default_context(cafile=address.ca)
        if address.cert is not None:
            context.load_cert_chain(address.cert, address.key)
        return context.wrap_socket(raw, server_hostname=address.host)
    except OSError as error:  # also a port that speaks no TLS, and certificates that are not there
        raw.close()
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ServerGoneError(
            f"TLS with {address} failed: {reason or error}",
            hint="check tls_ca (the server's authority), and tls_cert and tls_key if it wants ours;"
            " a port without TLS needs redis://",
        ) from error
