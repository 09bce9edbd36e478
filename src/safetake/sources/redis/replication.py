"""Joins a server as a replica: takes its RDB to scratch, then follows its commands to a file.

Nothing of the data is held in memory. We acknowledge offset 0 for ever, which keeps the link alive
and yet never lets WAIT or FAILOVER take us for a replica that has the data. The position is exact:
byte n of the stream file is offset `start + n` of the server.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from safetake.errors import SourceError
from safetake.model import Progress
from safetake.sources.redis.expiry import Receipts
from safetake.sources.redis.rdbformat import crc64
from safetake.sources.redis.server import Server
from safetake.sources.redis.wire import Address, Connection, ServerGoneError, encode, refusal

ACK = encode("REPLCONF", "ACK", 0)
ACK_SECONDS = 1.0
STALLED_SECONDS = 30.0
_TICK = 0.05
_SPARE = 64 << 20

_Write = Callable[[memoryview], int | None]


class Replica:
    """One replication link. `join` first; `close` ends the thread and the link."""

    def __init__(self, address: Address, server: Server, folder: Path, progress: Progress) -> None:
        self.base = folder / "base.rdb"
        self.stream = folder / "stream"
        self.replid = ""
        self.start = 0
        """Offset of the server that the base (or the parent, when continued) stands for."""
        self.received = 0
        """Bytes of the stream that are in the file."""
        self.receipts = Receipts()
        self._progress = progress
        self._server = server
        self._connection = Connection(address)
        self._moved = threading.Condition()
        self._stop = False
        self._error: SourceError | None = None
        self._thread: threading.Thread | None = None

    def join(self, resume: tuple[str, int] | None) -> bool:
        """Start replicating; True when the server continued from `resume` (replid, offset).

        Otherwise the RDB is in `base` when this returns. Raises SourceError (ServerRefusal when
        the server forbids it).
        """
        call = self._connection.call
        call("REPLCONF", "capa", "eof", "capa", "psync2")
        if self._server.family == "valkey":
            # Without it Valkey 9 refuses to send hash field expiries, or writes an older format.
            call("REPLCONF", "version", self._server.version_text)
        if resume is not None:
            self._connection.send(encode("PSYNC", resume[0], resume[1] + 1))
        else:
            self._connection.send(encode("PSYNC", "?", -1))
        words = self._psync_reply()
        if words[0] == "CONTINUE":
            if resume is None:
                raise SourceError("the server continued a replication that was not asked for")
            self.replid, self.start = (words[1] if len(words) > 1 else resume[0]), resume[1]
        else:
            self.replid, self.start = words[1], int(words[2])
            self._receive_rdb()
        try:
            self.stream.touch()  # there for its readers before the first byte comes
        except OSError as error:
            raise _no_room(self.stream, error) from error
        self._thread = threading.Thread(target=self._follow, name="redis-stream", daemon=True)
        self._thread.start()
        return words[0] == "CONTINUE"

    def check(self) -> None:
        """Raises SourceError when the link is lost."""
        if self._error is not None:
            raise self._error

    def wait_for(self, offset: int) -> int:
        """Wait until the stream reaches `offset`; returns how many bytes of it that are."""
        want = offset - self.start
        if want < 0:
            raise SourceError("the server's replication offset went backwards: it was restarted")
        with self._moved:
            while self.received < want:
                self.check()
                before = self.received
                if not self._moved.wait(STALLED_SECONDS) and self.received == before:
                    raise SourceError(
                        f"the replication stream stopped {want - before} bytes before the cut",
                        hint="see the server's log for the replica link",
                    )
        return want

    def close(self) -> None:
        """End the link; idempotent, never raises."""
        self._stop = True
        self._connection.abort()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._connection.close()

    # -- joining -----------------------------------------------------------------------------

    def _psync_reply(self) -> list[str]:
        while not (line := self._connection.line()):
            continue  # bare newlines keep the link alive while the server prepares
        if line.startswith(b"-"):
            raise refusal(line[1:].decode("utf-8", "replace"), self._connection.address)
        words = line[1:].decode("ascii", "replace").split()
        if line[:1] != b"+" or not words or words[0] not in ("FULLRESYNC", "CONTINUE"):
            raise SourceError(f"unexpected answer to PSYNC: {line[:80]!r}")
        if words[0] == "FULLRESYNC" and (len(words) < 3 or not words[2].isdigit()):
            raise SourceError(f"unexpected answer to PSYNC: {line[:80]!r}")
        return words

    def _receive_rdb(self) -> None:
        while not (line := self._connection.line()):
            continue
        try:
            with self.base.open("wb", buffering=0) as file:
                if line.startswith(b"$EOF:") and len(line) == 45:
                    end = self._receive_until(file.write, line[5:])
                    file.truncate(end)
                elif line.startswith(b"$") and line[1:].isdigit():
                    self._receive_exactly(file.write, int(line[1:]))
                else:
                    raise SourceError(
                        f"the server did not send an RDB: {line[:80]!r}",
                        hint="see the server's log: its BGSAVE may have failed",
                    )
        except OSError as error:
            raise _no_room(self.base, error) from error

    def _receive_exactly(self, write: _Write, size: int) -> None:
        free = shutil.disk_usage(self.base.parent).free
        if size + _SPARE > free:
            raise SourceError(
                f"the RDB has {size} bytes, and {self.base.parent} has {free} free",
                hint="set TMPDIR to a folder with more room",
            )
        view = memoryview(bytearray(1 << 18))
        left = size
        while left:
            n = self._some(view[: min(len(view), left)])
            _write_all(write, view[:n])
            left -= n
            self._progress("rdb", size - left, size)

    def _receive_until(self, write: _Write, mark: bytes) -> int:
        """Up to the end mark. The server sends nothing behind it before our ACK, so it can only be
        at the end of what has arrived; a value that holds the mark is told apart by the CRC."""
        view = memoryview(bytearray(1 << 18))
        total, crc, tail = 0, 0, b""
        while True:
            n = self._some(view)
            _write_all(write, view[:n])
            total += n
            self._progress("rdb", total, 0)
            joined = tail + bytes(view[:n])
            keep = min(len(joined), 48)  # CRC and mark stay out of the running CRC
            crc = crc64(joined[: len(joined) - keep], crc)
            tail = joined[len(joined) - keep :]
            if tail[8:] == mark and int.from_bytes(tail[:8], "little") in (0, crc):
                return total - 40

    def _some(self, view: memoryview) -> int:
        try:
            n = self._connection.receive_into(view)
        except TimeoutError:
            raise ServerGoneError(
                f"{self._connection.address} stopped sending its RDB",
                hint="see the server's log",
            ) from None
        if n == 0:
            raise ServerGoneError(
                f"{self._connection.address} broke the RDB off", hint="see the server's log"
            )
        return n

    # -- following ---------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            with self.stream.open("wb", buffering=0) as file:
                self._drain(file.write)
        except OSError as error:
            self._fail(_no_room(self.stream, error))
        except SourceError as error:
            self._fail(
                SourceError(
                    f"the replication link was lost: {error}",
                    hint="the server's log says why; if it is the output buffer, raise"
                    " client-output-buffer-limit for replicas",
                )
            )

    def _fail(self, error: SourceError) -> None:
        with self._moved:
            if not self._stop:
                self._error = error
            self._moved.notify_all()

    def _drain(self, write: _Write) -> None:
        view = memoryview(bytearray(1 << 16))
        self._connection.set_timeout(_TICK)
        acknowledged, acks = 0.0, 0
        while not self._stop:
            # The stream starts with an ACK that comes after the server has seen its RDB child end.
            if time.monotonic() - acknowledged > (ACK_SECONDS if self.received or acks > 40 else 0):
                self._connection.send(ACK)
                acknowledged, acks = time.monotonic(), acks + 1
            try:
                n = self._connection.receive_into(view)
            except TimeoutError:
                continue
            if n == 0:
                raise ServerGoneError("closed by the server")
            _write_all(write, view[:n])
            with self._moved:
                self.received += n
                self.receipts.add(self.received)
                self._moved.notify_all()


def _write_all(write: _Write, view: memoryview) -> None:
    while view:
        view = view[write(view) or 0 :]


def _no_room(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"cannot write {path}: {error.strerror or error}",
        hint="set TMPDIR to a folder with more room",
    )
