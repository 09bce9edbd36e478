"""Redis and Valkey restored in place: online through a replica's handover, or offline by files.

Online, the clients stay connected: from the safety snapshot's cut on their writes wait, then (for
the comparison, milliseconds to seconds) they are refused with READONLY, then they go on. Reads are
answered from the old data, with LOADING while the new data is loaded, from the new data after that;
never a mix. Keys that have expired since are not brought back. `exchange.py` is the order of that;
`offline.py` the files of a server that is stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetake.config import RedisConfig
from safetake.errors import RefusedError, RestoreError, SafetakeError, SourceError
from safetake.model import Check, Node, Reader, RestoreOutline, RestoreWork, Session, Wanted
from safetake.sources.redis import offline, persistence
from safetake.sources.redis.donor import PER_KEY, choose_donor, loaded, refuse_newer
from safetake.sources.redis.exchange import BEFORE, NEW, OLD, Exchange
from safetake.sources.redis.losses import losses
from safetake.sources.redis.proof import questions
from safetake.sources.redis.scratch import ScratchError
from safetake.sources.redis.server import Server
from safetake.sources.redis.session import OLDEST, RedisSession
from safetake.sources.redis.settings import live_config
from safetake.sources.redis.wire import Address, Connection, ServerGoneError, ServerRefusal

ADMIN_HINT = (
    "give the source a user who may do it: +info +client +config|get +config|set +replicaof +psync"
    f" +replconf +time +bgsave +bgrewriteaof; or {PER_KEY}"
)


_NEEDED = (
    ("REPLICAOF", "NO", "ONE"),
    ("CONFIG", "SET", "masterauth", ""),
    ("CLIENT", "PAUSE", "1", "WRITE"),
    ("PSYNC", "?", "-1"),
    ("BGSAVE",),
    ("BGREWRITEAOF",),
)


def restorer(name: str, config: RedisConfig) -> RedisRestorer:
    """The restorer of one configured server; touches nothing."""
    return RedisRestorer(name, config)


class RedisRestorer:
    """See `safetake.model.Restorer`."""

    type = "redis"

    def __init__(self, name: str, config: RedisConfig) -> None:
        self.name = name
        self._config = config
        self._exchange: Exchange | None = None
        self._offline = False

    # -- the plan ----------------------------------------------------------------------------

    def outline(
        self,
        entry: Mapping[str, Any],
        mode: str,
        options: Mapping[str, Any],
        reader: Reader,
        node: Node,
    ) -> RestoreOutline:
        """Look, change nothing. Raises RefusedError."""
        if mode not in ("", "online", "offline"):
            raise RefusedError(
                f"{self.name}: a Redis server cannot be restored {mode!r}",
                hint="leave the mode out: it is restored online",
            )
        raw = bool(entry["facts"].get("raw"))
        address = Address.of(self._config)
        connection: Connection | None = None
        try:
            connection = Connection(address)
        except ServerGoneError as error:
            if mode == "online" or self._config.data is None:
                raise RefusedError(
                    f"{error}",
                    hint="start the server (an empty one will do); or, with `data` (its folder) in"
                    " the source's section, files are put into the folder of a stopped server",
                ) from error
        except SourceError as error:
            raise RefusedError(str(error), hint=error.hint) from error
        try:
            if connection is None or mode == "offline" or raw:
                self._offline = True
                return offline.outline(self.name, self._config, entry, connection)
            self._offline = False
            try:
                return self._outline_online(connection, entry, reader, node)
            except ServerRefusal as error:
                raise RefusedError(str(error), hint=ADMIN_HINT) from error
        finally:
            if connection is not None:
                connection.close()

    def place(self) -> Path | None:
        """The server's folder when it is stopped, else any."""
        return self._config.data if self._offline else None

    def _outline_online(
        self, connection: Connection, entry: Mapping[str, Any], reader: Reader, node: Node
    ) -> RestoreOutline:
        facts = entry["facts"]
        server = Server.ask(connection)
        address = connection.address
        _refuse_role(server, address)
        _refuse_rights(connection, address)
        refuse_newer(facts, server)
        choose_donor(server)
        _refuse_modules(facts)
        _refuse_small(connection, server, facts, address)
        warnings = _watchers(connection, server)
        here, same_host = connection.route()
        encrypted = live_config(connection, "tls-replication") == "yes" or address.tls
        if encrypted and not same_host:
            raise RefusedError(
                f"{address} wants encryption, and the data would travel to it from {here} without",
                hint=f"run the restore on the server's own host; {PER_KEY}",
            )
        if not live_config(connection, "save") and server.info.get("aof_enabled") != "1":
            warnings.append(
                f"{address} keeps nothing on its disk: what is restored lasts until it restarts"
            )
        if facts.get("role") == "replica" or entry.get("one_moment") is False:
            warnings.append("the snapshot is not of one moment (see `safetake show`)")
        empty = not server.keyspace
        lost, more = losses(connection, server, reader, node, facts)
        return RestoreOutline(
            mode="online",
            target=f"{address} ({server.family} {server.version_text})",
            space={},
            losses=lost,
            warnings=warnings + more,
            absent=empty and not _functions(connection, server),
        )

    # -- before the switch -------------------------------------------------------------------

    def wanted(self, options: Mapping[str, Any]) -> Wanted | None:
        """Everything: a part of it is no store."""
        return None

    def check_staged(self, work: RestoreWork) -> list[Check]:
        """Every question that a proof asks, and that the live server has room for it."""
        facts = work.entry["facts"]
        if facts.get("raw"):
            return offline.check_raw(work)
        checks = questions(work.staged, work.entry)
        if work.mode != "online" or not all(check.ok for check in checks):
            return checks
        with Connection(Address.of(self._config)) as connection:
            server = Server.ask(connection)
        try:
            with loaded(choose_donor(server), work.staged, work.work / "try") as trial:
                memory = trial.info("memory")
                need = int(memory["used_memory"]) - int(memory.get("used_memory_startup", 0))
        except (ScratchError, OSError) as error:
            return [
                *checks,
                Check("it loads in the live server's version", False, detail=str(error)),
            ]
        limit = int(server.info.get("maxmemory") or 0)
        for other in ("used_memory_startup", "repl_backlog_size"):  # what the data is not
            need += int(server.info.get(other) or 0)
        name = "it fits into the live server's maxmemory"
        return [*checks, Check(name, not limit or need < limit, limit or "no limit", need)]

    def quiet(self, work: RestoreWork) -> None:
        """No server has the folder's files open, and none answers."""
        offline.quiet(self.name, self._config)

    def raw_files(self) -> list[Path]:
        """The server's folder."""
        return [] if self._config.data is None else [self._config.data]

    def take_over(self, work: RestoreWork, session: Session) -> bool:
        """Writers wait from now on, and the safety snapshot's cut is moved to this moment: so no
        write falls between. Raises RefusedError when the snapshot is a scan."""
        if work.mode == "offline":
            return True
        assert isinstance(session, RedisSession)
        exchange = self._of(work)
        info = exchange.writers.hold(exchange.connection)
        if session.move_cut(info):
            exchange.cut_at(info)
            return True
        exchange.writers.let_go()
        raise RefusedError(
            f"{self.name}: what is there now cannot be saved as one moment (replication is not"
            " allowed, or the server failed over meanwhile)",
            hint=ADMIN_HINT,
        )

    def let_go(self, work: RestoreWork) -> None:
        """Writers go on. Idempotent, never raises."""
        if self._exchange is not None:
            self._exchange.writers.let_go()

    # -- the switch --------------------------------------------------------------------------

    def _of(self, work: RestoreWork) -> Exchange:
        if self._exchange is None:
            self._exchange = Exchange(Address.of(self._config), work)
        return self._exchange

    def switch(self, work: RestoreWork) -> None:
        """The live server holds the staged data, durably. Raises RestoreError, RefusedError."""
        if work.mode == "offline":
            offline.switch(self._config, work)
            return
        exchange = self._of(work)
        with _as_restore_error(exchange):
            stands = exchange.stands()
            if stands == NEW:
                exchange.settings_back()
                exchange.persist()
                return
            if stands in (BEFORE, OLD):
                exchange.save_old(work.work / "old")
            exchange.give(NEW, work.staged)

    def touched(self, work: RestoreWork) -> bool:
        """Whether the live server may hold anything else than before."""
        if work.mode == "offline":
            return offline.touched(work)
        exchange = self._of(work)
        if not exchange.begun:
            return False
        with _as_restore_error(exchange, let_go=False):
            return exchange.stands() != BEFORE

    def switch_back(self, work: RestoreWork) -> None:
        """The data from right before the switch. Raises RestoreError."""
        if work.mode == "offline":
            offline.switch_back(work)
            return
        exchange = self._of(work)
        exchange.writers.let_go(left_behind=True)
        if not exchange.begun:
            return
        with _as_restore_error(exchange):
            stands = exchange.stands()
            if stands == BEFORE:
                return
            if stands == OLD:
                exchange.settings_back()
                exchange.persist()
                return
            exchange.writers.hold(exchange.connection)
            exchange.give(OLD, work.work / "old")

    def confirm(self, work: RestoreWork) -> list[Check]:
        """What was compared while it was a replica; that it is a master and keeps its data."""
        if work.mode == "offline":
            return offline.confirm(self._config, work)
        checks = [Check(**told) for told in work.notes.get("checks") or []]
        exchange = self._of(work)
        with _as_restore_error(exchange):
            info = exchange.info()
        wrong = persistence.healthy(info)
        return [
            *checks,
            Check(
                "the live server is a master", info.get("role") == "master", "master", info["role"]
            ),
            Check("its data is on its disk", not wrong, "ok", wrong or work.notes.get("kept")),
        ]

    def finish(self, work: RestoreWork, *, committed: bool) -> None:
        """Settings as before, writers let go, nothing left running. Idempotent."""
        if work.mode == "offline":
            return
        if work.notes.get("settings"):
            with contextlib.suppress(ServerGoneError):  # a restart forgets what CONFIG SET said
                self._of(work).settings_back()
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None


@contextlib.contextmanager
def _as_restore_error(exchange: Exchange, *, let_go: bool = True) -> Any:
    """A server's refusal or absence is a failure of the restore here; writers are let go."""
    try:
        yield
    except SourceError as error:
        raise RestoreError(str(error), hint=error.hint) from error
    finally:
        if let_go:
            exchange.writers.let_go()


def _refuse_role(server: Server, address: Address) -> None:
    if server.version < OLDEST:
        raise RefusedError(
            f"{address} is version {server.version_text}, whose writers cannot be held",
            hint=f"upgrade it to 6.2 or newer; {PER_KEY}",
        )
    if server.is_replica:
        info = server.info
        raise RefusedError(
            f"{address} is a replica: its master would send its own data again",
            hint=f"restore its master, {info.get('master_host')}:{info.get('master_port')}",
        )
    if server.is_cluster:
        raise RefusedError(
            f"{address} is one of a cluster, where no node can become a replica of another server",
            hint=PER_KEY,
        )


def _refuse_rights(connection: Connection, address: Address) -> None:
    """What can be known of our rights without using them. Raises RefusedError."""
    for command in _NEEDED:
        if connection.call("COMMAND", "INFO", command[0]) in ([None], []):
            raise RefusedError(
                f"{address} has no command {command[0]} (a managed service?)", hint=PER_KEY
            )
    try:
        user = connection.call("ACL", "WHOAMI")
        for command in _NEEDED:
            said = connection.call("ACL", "DRYRUN", user, *command)
            if said != b"OK":
                raise RefusedError(f"{address}: {said.decode('utf-8', 'replace')}", hint=ADMIN_HINT)
    except ServerRefusal:
        return  # older than 7.0, or not allowed to ask: found out before anything is changed


def _refuse_modules(facts: Mapping[str, Any]) -> None:
    if "module" in (facts.get("types") or {}):
        raise RefusedError(
            "the snapshot has keys of a module, which only a server with that module can read",
            hint="restore it with --to, and start a server with the module on it",
        )


def _refuse_small(
    connection: Connection, server: Server, facts: Mapping[str, Any], address: Address
) -> None:
    limit = int(server.info.get("maxmemory") or 0)
    if limit and int(facts.get("bytes") or 0) > limit:
        raise RefusedError(
            f"{address} may use {limit} bytes (maxmemory), and the snapshot has more",
            hint="raise maxmemory on the live server",
        )
    names = {**(facts.get("databases") or {}), **(facts.get("keyspace") or {})}
    highest = max(map(int, names), default=0)
    databases = int(live_config(connection, "databases") or 16)
    if highest >= databases:
        raise RefusedError(
            f"the snapshot has keys in database {highest}, and {address} has {databases} databases"
            " only: it would end when it is given them",
            hint=f"set `databases {highest + 1}` on the live server and restart it",
        )


def _watchers(connection: Connection, server: Server) -> list[str]:
    """Who would notice. Raises RefusedError for a Sentinel, which would undo what we do."""
    warnings = []
    try:
        clients = connection.call("CLIENT", "LIST").decode("utf-8", "replace")
    except ServerRefusal:
        clients = ""
        warnings.append("whether a Sentinel watches the server is not known (no CLIENT LIST)")
    if " name=sentinel-" in clients:
        raise RefusedError(
            f"{connection.address} is watched by a Sentinel, which would fail over when it becomes"
            " a replica for the restore",
            hint="SENTINEL REMOVE its name on every Sentinel first, and MONITOR it again after",
        )
    replicas = int(server.info.get("connected_slaves") or 0)
    if replicas:
        warnings.append(f"its {replicas} replicas will copy everything again")
    return warnings


def _functions(connection: Connection, server: Server) -> bool:
    if server.version < (7,):
        return False
    try:
        return bool(connection.call("FUNCTION", "LIST"))
    except SafetakeError:
        return True  # not known: then it is saved
