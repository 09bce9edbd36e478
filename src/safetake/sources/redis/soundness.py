"""Is a live Redis or Valkey sound? What the server says of itself, and whether that is well.

The server is asked INFO, PING and, where it is allowed, CONFIG GET: nothing that takes it longer
than a moment, and nothing of its keys. Values are in memory only and nobody can tell whether they
are right; what can be told is whether they are kept, replicated, thrown away or refused. Where the
server's own folder is configured, its dump is read as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from safetake.errors import DamagedError, SafetakeError
from safetake.findings import Asked, Asking, Finding, Level, not_asked
from safetake.sources.redis.rdb import RdbFile, UnsupportedRdbError
from safetake.sources.redis.server import parse_info, parse_keyspace
from safetake.sources.redis.settings import live_config
from safetake.sources.redis.wire import Address, Connection, ServerRefusal
from safetake.wording import duration
from safetake.wording import size as sized

if TYPE_CHECKING:
    from pathlib import Path

    from safetake.config import RedisConfig

_PINGS = 5
_SLOW_MS = 1000.0
_NEARLY_FULL = 0.9
_OVERDUE_FACTOR, _OVERDUE_SECONDS = 2, 300
"""The server looks every 100 ms whether a save is due; a save itself takes its time."""
_LONG_CHILD_SECONDS = 3600
_LAST_TOO_OLD_SECONDS = 30
_LOG = "see the server's log (disk full, fork failed), then `redis-cli BGSAVE`"

Info = dict[str, str]


def ask(config: RedisConfig, asking: Asking) -> Asked:
    """Every question to the server. Never raises for what it finds."""
    found = Asked()
    name = asking.name
    try:
        with Connection(Address.of(config)) as connection:
            info = parse_info(connection.call("INFO"))
            found.findings.append(_is_ready(info, name, connection))
            if not found.findings[0].ok:
                return found
            found.findings.append(_latency(connection, name, found))
            settings = _Settings(connection)
            found.findings += _keys(info, config, name, found)
            found.findings += _persistence(info, settings, name)
            found.findings += _memory(info, settings, name, found)
            found.findings += _replication(info, name, found)
            found.findings += _cluster(connection, info, name)
            if settings.refused:
                why = f"CONFIG GET is not allowed to us: {', '.join(settings.refused)} not known"
                hint = "ACL SETUSER safetake +config|get lets it be asked"
                found.findings.append(not_asked(name, "settings", why, hint))
    except SafetakeError as error:
        found.findings.append(Finding(name, "answers", False, "error", str(error), [], error.hint))
    if config.data is not None:
        found.findings += _dump(config.data / "dump.rdb", name)
    return found


class _Settings:
    """Settings of the server, and the names of those that we may not ask for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.refused: list[str] = []

    def get(self, name: str) -> str | None:
        """None when the server does not know it, or does not tell."""
        try:
            return live_config(self._connection, name)
        except ServerRefusal:
            self.refused.append(name)
            return None


def _number(info: Info, name: str) -> int:
    text = info.get(name, "0")
    return int(text) if text.lstrip("-").isdigit() else 0


def _is_ready(info: Info, name: str, connection: Connection) -> Finding:
    problem = hint = ""
    if info.get("redis_mode") == "sentinel" or "redis_version" not in info:
        problem = f"{connection.address} is no data server (a Sentinel or a proxy?)"
        hint = "give the address of the Redis node itself"
    elif info.get("loading") == "1":
        problem, hint = "the server is still loading its data", "ask again when it is ready"
        if eta := info.get("loading_eta_seconds"):
            problem += f" (for another {duration(float(eta))}, it thinks)"
    return Finding(name, "answers", not problem, "error", problem, [], hint)


def _latency(connection: Connection, name: str, found: Asked) -> Finding:
    times = []
    for _ in range(_PINGS):
        begun = time.perf_counter()
        with suppress(ServerRefusal):  # not allowed, which takes as long
            connection.call("PING")
        times.append((time.perf_counter() - begun) * 1000)
    middle = statistics.median(times)
    found.facts["latency_ms"] = round(middle, 3)
    slow = middle > _SLOW_MS
    detail = f"{middle:.0f} ms for a PING" if slow else ""
    hint = "look for long commands (SLOWLOG GET), swapping, or a network that is far"
    return Finding(name, "answers at once", not slow, "warning", detail, [], hint)


def _keys(info: Info, config: RedisConfig, name: str, found: Asked) -> Iterator[Finding]:
    keyspace = parse_keyspace(info)
    keys = sum(entry["keys"] for entry in keyspace.values())
    found.facts |= {
        "keys": keys,
        "expiring": sum(entry["expires"] for entry in keyspace.values()),
        "databases": {number: entry["keys"] for number, entry in keyspace.items()},
        "version": info.get("valkey_version") or info.get("redis_version", ""),
        "role": info.get("role", ""),
        "uptime_seconds": _number(info, "uptime_in_seconds"),
    }
    empty = not keys and not config.may_be_empty
    detail = "the server holds no key" if empty else f"{keys} keys"
    yield Finding(
        name, "has keys", not empty, "error", detail, [], "may_be_empty = true accepts it"
    )


# ------------------------------------------------------------------------------ persistence


def _persistence(info: Info, settings: _Settings, name: str) -> Iterator[Finding]:
    saves = settings.get("save")
    aof = info.get("aof_enabled") == "1"
    stops = settings.get("stop-writes-on-bgsave-error") != "no"
    failed = info.get("rdb_last_bgsave_status", "ok") != "ok"
    detail = ""
    if failed:
        detail = "the last BGSAVE failed"
        if stops and saves:
            detail += ": the server refuses every write until one succeeds"
    yield Finding(name, "last save succeeded", not failed, "error", detail, [], _LOG)
    if aof:
        wrote = info.get("aof_last_write_status", "ok") == "ok"
        detail = "" if wrote else "the last write failed: the server refuses writes"
        yield Finding(name, "append-only file is written", wrote, "error", detail, [], _LOG)
        rewrote = info.get("aof_last_bgrewrite_status", "ok") == "ok"
        detail = "" if rewrote else "its last rewrite failed: it grows until one succeeds"
        yield Finding(name, "append-only file is rewritten", rewrote, "error", detail, [], _LOG)
        late = _number(info, "aof_delayed_fsync")
        if late:
            yield Finding(
                name,
                "append-only file is synced in time",
                True,
                "warning",
                f"{late} syncs took longer than two seconds since the start",
            )
    yield from _children(info, name)
    yield _overdue(info, saves, name)
    if saves is not None:
        kept = bool(saves) or aof
        detail = "" if kept else "nothing is kept on disk: a restart loses every key"
        hint = "set `save` or `appendonly yes`, unless every key may be lost"
        yield Finding(name, "keeps its data on disk", kept, "warning", detail, [], hint)


def _children(info: Info, name: str) -> Iterator[Finding]:
    for check, running, took in (
        ("save ends", "rdb_bgsave_in_progress", "rdb_current_bgsave_time_sec"),
        ("rewrite ends", "aof_rewrite_in_progress", "aof_current_rewrite_time_sec"),
    ):
        seconds = _number(info, took) if info.get(running) == "1" else 0
        long = seconds > _LONG_CHILD_SECONDS
        detail = f"it runs since {duration(seconds)}" if long else ""
        yield Finding(name, check, not long, "warning", detail, [], _LOG)


def _overdue(info: Info, saves: str | None, name: str) -> Finding:
    """Whether a save that the server's own rules ask for did not come."""
    check = "no save is overdue"
    if saves is None:
        return not_asked(name, check, "the save points are not known")
    changes = _number(info, "rdb_changes_since_last_save")
    now = _number(info, "server_time_usec") // 1_000_000 or int(time.time())
    age = now - _number(info, "rdb_last_save_time")
    numbers = [int(word) for word in saves.split() if word.isdigit()]
    rules = list(zip(numbers[::2], numbers[1::2], strict=False))
    broken = [
        seconds
        for seconds, least in rules
        if changes >= least and age > seconds * _OVERDUE_FACTOR + _OVERDUE_SECONDS
    ]
    bad = bool(broken) and info.get("rdb_bgsave_in_progress") != "1"
    said = f"{changes} changes since the last save, {duration(max(0, age))} ago"
    if bad:
        said += f"; it was due after {duration(min(broken))}"
    return Finding(name, check, not bad, "error", said, [], _LOG)


def _dump(path: Path, name: str) -> Iterator[Finding]:
    """The file that a restart would load: every key parses, and its CRC64 is right."""
    check = "dump.rdb on the server's disk"
    if not path.is_file():
        yield not_asked(name, check, f"there is no {path}")
        return
    hint = "`redis-cli BGSAVE` writes a new one from memory: at once, before a restart"
    try:
        with RdbFile(path) as file:
            keys = sum(1 for _ in file.records())
            good = file.check_crc()
        detail = f"{keys} keys" if good else "its checksum (CRC64) is wrong"
        yield Finding(name, check, good, "error", detail, [], hint)
    except UnsupportedRdbError as error:
        yield not_asked(name, check, str(error))
    except DamagedError as error:
        yield Finding(name, check, False, "error", str(error), [], hint)
    except OSError as error:
        detail = f"{path} cannot be read: {error.strerror}"
        yield Finding(name, check, False, "error", detail, [], "let the user that runs it read it")


# ----------------------------------------------------------------------------------- memory


def _memory(info: Info, settings: _Settings, name: str, found: Asked) -> Iterator[Finding]:
    used, most = _number(info, "used_memory"), _number(info, "maxmemory")
    policy = info.get("maxmemory_policy") or settings.get("maxmemory-policy") or ""
    evicted = _number(info, "evicted_keys")
    found.facts |= {
        "used_memory": used,
        "maxmemory": most,
        "maxmemory_policy": policy,
        "evicted_keys": evicted,
    }
    throws = policy.startswith("allkeys")
    full = bool(most) and used >= most and policy == "noeviction"
    near = bool(most) and used >= most * _NEARLY_FULL and not throws
    detail = f"{sized(used)} of {sized(most)} used" if most else f"{sized(used)} used, no limit"
    if full:
        detail += ": every write is refused"
    hint = "raise `maxmemory`, or remove keys"
    level: Level = "error" if full else "warning"
    yield Finding(name, "memory is left", not near, level, detail, [], hint)
    bad = bool(most) and throws
    detail = f"{policy}: any key may be thrown away ({evicted} so far)" if bad else ""
    hint = "for a queue: `maxmemory-policy noeviction`, and a limit that it never reaches"
    yield Finding(name, "keeps what it was given", not bad, "warning", detail, [], hint)
    system, resident = _number(info, "total_system_memory"), _number(info, "used_memory_rss")
    if not most and system:
        bad = resident >= system * _NEARLY_FULL
        detail = f"{sized(resident)} of the machine's {sized(system)}" if bad else ""
        hint = "set `maxmemory`: the kernel ends the server when memory is gone"
        yield Finding(name, "fits into the machine", not bad, "warning", detail, [], hint)


# ------------------------------------------------------------------------------ replication


def _replication(info: Info, name: str, found: Asked) -> Iterator[Finding]:
    if info.get("role") == "slave":
        up = info.get("master_link_status") == "up"
        down = _number(info, "master_link_down_since_seconds")
        detail = "" if up else f"the link to the master is down since {duration(max(0, down))}"
        if not up and info.get("master_sync_in_progress") == "1":
            detail = "the first synchronisation with the master is not complete"
        yield Finding(
            name, "link to the master", up, "error", detail, [], "see the log of both servers"
        )
        return
    replicas = dict(_replicas(info))
    found.facts["replicas"] = len(replicas)
    bad = [
        f"{place}: {state['state']}" + (f", {state['lag']} s behind" if state.get("lag") else "")
        for place, state in replicas.items()
        if state.get("state") not in ("online", "wait_bgsave", "send_bulk")
        or _seconds(state.get("lag")) > _LAST_TOO_OLD_SECONDS
    ]
    yield Finding(
        name,
        "replicas follow",
        not bad,
        "warning",
        f"{len(bad)} of {len(replicas)} do not" if bad else f"{len(replicas)} replicas",
        bad,
        "see the log of the replica, and the network between",
    )


def _replicas(info: Info) -> Iterator[tuple[str, dict[str, str]]]:
    for key, value in info.items():
        if key.startswith("slave") and key[5:].isdigit():
            fields = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
            if fields.get("port") != "0":  # a backup's, for a moment: it announces no port
                yield f"{fields.get('ip')}:{fields.get('port')}", fields


def _seconds(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def _cluster(connection: Connection, info: Info, name: str) -> Iterator[Finding]:
    if info.get("cluster_enabled") != "1":
        return
    check = "cluster is complete"
    try:
        state = parse_info(connection.call("CLUSTER", "INFO"))
    except ServerRefusal as error:
        yield not_asked(name, check, str(error))
        return
    good = state.get("cluster_state") == "ok"
    detail = "" if good else f"{state.get('cluster_slots_assigned', '?')} of 16384 slots are served"
    yield Finding(name, check, good, "error", detail, [], "redis-cli --cluster check HOST:PORT")
