"""One capture of one Redis server: join, hold, cut, let go, and make the cut one file.

prepare takes the RDB and follows the commands; hold pauses writes and reads the offset (one round
trip); capture takes the stream up to exactly that offset and folds both. Where the server forbids
replication, every key is read by SCAN and DUMP instead, and the result says so.

The pause has a time of its own on the server: if we are killed inside the barrier, writers go on
after PAUSE_SECONDS by themselves. A hold that lasted longer than that is an error, never a cut.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetake.errors import BarrierTimeoutError, DamagedError, SafetakeError, SourceError
from safetake.model import CaptureContext, Captured, Cut, Node
from safetake.sources.redis.cutfile import Dump, finish_dump, fold_tail, store_append_only
from safetake.sources.redis.rdb import RdbFile
from safetake.sources.redis.replication import Replica
from safetake.sources.redis.scan import scan
from safetake.sources.redis.server import Server, parse_info, parse_keyspace
from safetake.sources.redis.store import (
    digest,
    file_node,
    folder_node,
    materialise,
    store_file,
)
from safetake.sources.redis.stream import Tail, extract
from safetake.sources.redis.wire import (
    Address,
    Connection,
    ServerGoneError,
    ServerRefusal,
    ServerSilentError,
    encode,
)

if TYPE_CHECKING:
    from safetake.config import RedisConfig

PAUSE_SECONDS = 3.0
"""The server lets its writers go after this time whatever becomes of us."""
PAUSE = ("CLIENT", "PAUSE", int(PAUSE_SECONDS * 1000), "WRITE")
UNPAUSE = ("CLIENT", "UNPAUSE")
OLDEST = (6, 2)
"""The first version whose CLIENT PAUSE stops writes only."""


@dataclass(slots=True)
class _Moment:
    """What was read inside the hold."""

    offset: int
    keyspace: dict[str, dict[str, int]]
    wall_ns: int


class RedisSession:
    """See `safetake.model.Session`."""

    def __init__(self, name: str, config: RedisConfig, context: CaptureContext) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._folder = context.scratch / "redis"
        self._address: Address | None = None
        self._control: Connection | None = None
        self._server: Server | None = None
        self._replica: Replica | None = None
        self._continued: Node | None = None
        """The parent's dump.rdb, when the server continued from its offset."""
        self._moment: _Moment | None = None
        self._paused_at: float | None = None
        self._overrun = 0.0
        self._notes: list[str] = []
        self._scanned = False

    # -- the protocol ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Bulk copy with no locks held. Raises SourceError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._address = Address.of(self._config)
        self._control = Connection(self._address)
        self._server = server = Server.ask(self._control)
        if server.is_cluster:
            self._notes.append("one node of a cluster: only the slots that it serves are included")
        if self._config.method == "scan":
            self._scan()
            return
        try:
            if server.version < OLDEST:
                raise SourceError(
                    f"{self._address} is version {server.version_text}; a cut needs 6.2 or newer",
                    hint='upgrade the server, or set method = "scan"',
                )
            self._join(self._address, server)
        except ServerGoneError:
            raise
        except SourceError as error:
            refused = isinstance(error, ServerRefusal) or server.version < OLDEST
            if self._config.method == "replication" or not refused:
                raise
            if isinstance(error, ServerRefusal) and error.code in ("LOADING", "NOMASTERLINK"):
                raise
            self._close_replica()
            self._notes.append(f"replication was refused, so keys were scanned: {error}")
            self._scan()

    def hold(self, timeout: float) -> Cut:
        """Pause writes and read the offset. Raises BarrierTimeoutError, SourceError."""
        if self._address is None or self._server is None:
            raise SourceError(f"{self._name}: hold before prepare")
        if self._replica is None:
            now = time.monotonic_ns()
            self._moment = _Moment(0, {}, time.time_ns())
            return Cut(now, now)
        self._replica.check()
        pause = [] if self._server.is_replica else [PAUSE]
        started = time.monotonic()
        self._paused_at = started if pause else None
        try:
            answers = self._ask_held(
                [*pause, ("INFO", "replication"), ("INFO", "keyspace")], timeout
            )
            if pause and isinstance(answers[0], ServerRefusal):
                self._paused_at = None  # nothing was paused
            for answer in answers:
                if isinstance(answer, ServerRefusal):
                    if answer.code == "BUSY":
                        raise BarrierTimeoutError(str(answer), hint=answer.hint)
                    raise answer
            info = parse_info(answers[-2])
            if info.get("master_replid") != self._replica.replid:
                raise SourceError(
                    f"{self._address} failed over or was restarted during the backup",
                    hint="run again",
                )
        except SafetakeError:
            self.release()
            raise
        now = time.monotonic_ns()
        keyspace = parse_keyspace(parse_info(answers[-1])) if pause else {}
        self._moment = _Moment(int(info["master_repl_offset"]), keyspace, time.time_ns())
        return Cut(now, now)

    def release(self) -> None:
        """Let the writers go. Never raises, idempotent."""
        started, self._paused_at = self._paused_at, None
        if started is None:
            return
        try:
            if self._control is None:
                self._control = self._connect()
            self._control.set_timeout(PAUSE_SECONDS)
            self._control.call(*UNPAUSE)
        except SafetakeError:
            # The server lets go by itself: the pause has its own end.
            self._notes.append(f"CLIENT UNPAUSE failed: writers waited {PAUSE_SECONDS:.0f} s")
            self._drop_control()
        held = time.monotonic() - started
        self._overrun = held if held > PAUSE_SECONDS else 0.0

    def move_cut(self, info: Mapping[str, str]) -> bool:
        """The cut becomes the moment at which `info` (INFO replication and keyspace) was read.

        For a caller who holds the writers from that moment on, between `release` and `capture`.
        False when the capture cannot follow: it is a scan, or of another history.
        """
        replica = self._replica
        if replica is None or self._moment is None:
            return False
        if info.get("master_replid") != replica.replid or info.get("role") != "master":
            return False
        offset = int(info["master_repl_offset"])
        self._moment = _Moment(offset, parse_keyspace(dict(info)), time.time_ns())
        self._overrun = 0.0
        return True

    def capture(self) -> Captured:
        """Take the stream up to the cut, fold, store. Raises SourceError, DamagedError."""
        if self._server is None or self._moment is None:
            raise SourceError(f"{self._name}: capture before hold")
        if self._overrun:
            raise BarrierTimeoutError(
                f"{self._name}: writes were held for {self._overrun:.1f} s, and the server lets"
                f" them go after {PAUSE_SECONDS:.0f} s: this is no cut",
                hint="another source took too long inside the barrier; run again",
            )
        try:
            if self._replica is None:
                return self._capture_scan(self._server, self._moment)
            return self._capture_stream(self._server, self._moment, self._replica)
        except OSError as error:
            raise SourceError(
                f"{self._name}: cannot work in {self._folder}: {error.strerror or error}",
                hint="set TMPDIR to a folder with more room",
            ) from error

    def close(self) -> None:
        """Drop connections and temporary files. Idempotent."""
        self.release()
        self._close_replica()
        self._drop_control()
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- connections -------------------------------------------------------------------------

    def _connect(self) -> Connection:
        if self._address is None:
            raise SourceError(f"{self._name}: not prepared")
        return Connection(self._address)

    def _drop_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _close_replica(self) -> None:
        if self._replica is not None:
            self._replica.close()
            self._replica = None

    def _ask_held(self, commands: list[tuple[str | bytes | int, ...]], timeout: float) -> list[Any]:
        """The one round trip of the hold; reconnects once if an idle connection was closed."""
        for attempt in (1, 2):
            try:
                if self._control is None:
                    self._control = self._connect()
                self._control.set_timeout(timeout)
                return self._control.pipeline(commands)
            except ServerSilentError as error:
                # The pause may still be executed when the server gets to it: the UNPAUSE goes the
                # same way, behind it.
                self._abandon()
                raise BarrierTimeoutError(str(error), hint=error.hint) from error
            except ServerGoneError:
                self._drop_control()
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def _abandon(self) -> None:
        if self._control is None:
            return
        try:
            self._control.send(encode(*UNPAUSE))
        except ServerGoneError:
            self._notes.append("the connection broke inside the hold")
        self._drop_control()
        self._paused_at = None

    # -- prepare -----------------------------------------------------------------------------

    def _join(self, address: Address, server: Server) -> None:
        assert self._control is not None
        if not server.is_replica:
            self._control.call("CLIENT", "PAUSE", 0, "WRITE")  # allowed? better known now
        resume, node = self._resume_point()
        self._replica = Replica(address, server, self._folder, self._context.progress)
        if not self._replica.join(resume):
            return
        parent = self._context.parent
        assert node is not None
        assert parent is not None
        try:
            materialise(node, parent.reader, self._replica.base)
        except DamagedError as error:
            self._notes.append(f"the snapshot before cannot be built upon: {error}")
        else:
            self._continued = node
            return
        self._close_replica()
        self._replica = Replica(address, server, self._folder, self._context.progress)
        self._replica.join(None)

    def _resume_point(self) -> tuple[tuple[str, int] | None, Node | None]:
        """Where the parent's cut was, if its dump can be the base of this one."""
        parent = self._context.parent
        if parent is None or parent.node.subtree is None:
            return None, None
        if self._server is not None and _sends_relative_expiries(self._server):
            return None, None  # when the commands since then were executed cannot be known
        mark = parent.entry.get("fingerprint") or {}
        if not mark.get("replid"):
            return None, None
        try:
            nodes = parent.reader.tree(parent.node.subtree)
        except DamagedError:
            return None, None
        for node in nodes:
            if node.name == "dump.rdb" and self._context.writer.has(node.content or []):
                return (str(mark["replid"]), int(mark["offset"])), node
        return None, None

    def _scan(self) -> None:
        assert self._control is not None
        assert self._server is not None
        self._scanned = True
        self._notes += scan(
            self._control, self._server, self._folder / "base.rdb", self._context.progress
        )

    # -- capture -----------------------------------------------------------------------------

    def _capture_scan(self, server: Server, moment: _Moment) -> Captured:
        dump = finish_dump(self._folder / "base.rdb", self._folder, self._notes, duplicates=True)
        dump.facts["form"] = "rdb"
        node = store_file(
            dump.path, "dump.rdb", self._context.writer, self._context.progress, moment.wall_ns
        )
        return self._captured(server, moment, dump, [node], method="scan", one_moment=False)

    def _capture_stream(self, server: Server, moment: _Moment, replica: Replica) -> Captured:
        length = replica.wait_for(moment.offset)
        replica.close()
        tail_path = self._folder / "tail.aof"
        tail = extract(
            replica.stream,
            length,
            tail_path,
            self._start_database(),
            replica.receipts if _sends_relative_expiries(server) else None,
        )
        if self._continued is not None and not tail.commands:
            return self._unchanged(server, moment, self._continued, tail)
        nodes: list[Node] = []
        folded = None
        if tail.commands:
            folded = fold_tail(server, replica.base, tail_path, tail, self._folder, self._notes)
        if folded is not None or not tail.commands:
            dump = finish_dump(folded or replica.base, self._folder, self._notes)
            dump.facts["form"] = "rdb"
        else:
            dump = finish_dump(replica.base, self._folder, self._notes)
            nodes += store_append_only(
                server, dump, tail_path, tail, self._folder, self._context, moment.wall_ns
            )
        writer, progress = self._context.writer, self._context.progress
        nodes.append(store_file(dump.path, "dump.rdb", writer, progress, moment.wall_ns))
        captured = self._captured(
            server, moment, dump, nodes, method="replication", one_moment=not server.is_replica
        )
        if dump.facts["form"] == "rdb" and not captured.unread:
            captured.fingerprint = {
                "replid": replica.replid,
                "offset": moment.offset,
                "database": tail.database,
            }
        return captured

    def _start_database(self) -> int:
        """The database that the stream starts in when it does not say so itself."""
        parent = self._context.parent
        if self._continued is not None and parent is not None:
            return int((parent.entry.get("fingerprint") or {}).get("database", 0))
        return 0  # after a full synchronisation the server sends SELECT first

    def _captured(
        self,
        server: Server,
        moment: _Moment,
        dump: Dump,
        nodes: list[Node],
        *,
        method: str,
        one_moment: bool,
    ) -> Captured:
        facts = dump.facts
        with RdbFile(dump.path) as file:
            facts.update(magic=file.magic, rdb_version=file.version)
        size = dump.path.stat().st_size
        with dump.path.open("rb") as raw:
            raw.seek(-8, os.SEEK_END)
            facts["crc64"] = raw.read()[::-1].hex()
        content = next(node.content for node in nodes if node.name == "dump.rdb")
        facts.update(bytes=size, digest=digest(content or []))
        facts.update(self._server_facts(server, moment))
        unread = self._check_counts(facts)
        if server.is_replica:
            self._notes.append(
                "the node is a replica: the cut is a consistent moment of it, but writers at its"
                " master were not held"
            )
        node = folder_node(self._name, nodes, self._context.writer, moment.wall_ns)
        return Captured(node, size, facts, {}, one_moment, method, unread=unread, notes=self._notes)

    def _server_facts(self, server: Server, moment: _Moment) -> dict[str, Any]:
        replica = self._replica
        return {
            "server": f"{server.family} {server.version_text}",
            "family": server.family,
            "version": server.version_text,
            "role": "replica" if server.is_replica else "master",
            "run_id": server.info.get("run_id", ""),
            "replid": replica.replid if replica is not None else None,
            "offset": moment.offset if replica is not None else None,
            "keyspace": moment.keyspace if replica is not None and not server.is_replica else None,
        }

    def _check_counts(self, facts: dict[str, Any]) -> list[str]:
        """Our counts against what the server itself said inside the hold."""
        total = facts["keys"]
        if facts["keyspace"] is not None and (facts["form"] == "aof" or total is None):
            total = sum(entry["keys"] for entry in facts["keyspace"].values())
        if total == 0 and not self._config.may_be_empty:
            raise SourceError(
                f"{self._address} holds no key at all",
                hint="is it the right server? may_be_empty = true accepts an empty one",
            )
        comparable = facts["form"] == "rdb" and None not in (facts["keyspace"], facts["databases"])
        if comparable and facts["keyspace"] != facts["databases"]:
            return [
                f"the server counted {facts['keyspace']} at the cut, the dump holds"
                f" {facts['databases']}"
            ]
        return []

    def _unchanged(self, server: Server, moment: _Moment, node: Node, tail: Tail) -> Captured:
        """No command since the parent's cut: its content is this one's."""
        parent = self._context.parent
        assert parent is not None
        facts = {**parent.entry["facts"], **self._server_facts(server, moment)}
        unread = self._check_counts(facts)
        replid = self._replica.replid if self._replica is not None else ""
        fingerprint = {"replid": replid, "offset": moment.offset, "database": tail.database}
        again = file_node("dump.rdb", node.content or [], node.size, node.mtime_ns, 0o600)
        folder = folder_node(self._name, [again], self._context.writer, parent.node.mtime_ns)
        return Captured(
            folder,
            node.size,
            facts,
            {} if unread else fingerprint,
            not server.is_replica,
            "replication, unchanged",
            unread=unread,
            notes=self._notes,
        )


def _sends_relative_expiries(server: Server) -> bool:
    return server.family == "redis" and server.version < (7,)
